"""The player of recorded cases, on cases made for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services.gic_its import case_steps
from tests.services.gic_its.case_steps import ANY, EXCEPTIONS, Mismatch, adapter_config, compare, play
from tests.services.gic_its.oracle import Oracle


def case(*steps: dict[str, Any], **expect: object) -> dict[str, Any]:
    return {"name": "made-up", "config": {"cpus": 2}, "steps": list(steps), "kinds": {"b": "cu"}, "expect": expect}


def test_every_step_does_what_its_name_says() -> None:
    got = play(
        case(
            {"op": "fill", "addr": "0x42000000", "len": "0x4", "byte": 255},
            {"op": "mw", "addr": "0x42000001", "hex": "0102", "note": ""},
            {"op": "mr", "addr": "0x42000000", "len": 4, "as": "bytes"},
            {"op": "w", "frame": "its", "off": "0x88", "size": 8, "val": "0x120", "note": ""},
            {"op": "r", "frame": "its", "off": "0x88", "size": 8, "as": "whole"},
            {"op": "r", "frame": "its", "off": "0x88", "size": 8, "mask": "0xff", "as": "part"},
            {"op": "msi", "devid": 1, "data": 2},
            {"op": "drain"},
            {"op": "pend", "cpu": 1, "lpi": 8192, "as": "one"},
            {"op": "pendall", "cpu": 0, "as": "all"},
            {"op": "migrate"},
            {"op": "reset"},
            {"op": "r", "frame": "its", "off": "0x88", "size": 8, "as": "reset"},
        ),
        Oracle(2),
    )
    assert got == {"bytes": "ff0102ff", "whole": "0x120", "part": "0x20", "one": 0, "all": [], "reset": "0x0"}


def test_an_unknown_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="'walk'"):
        play(case({"op": "walk"}), Oracle())


def test_the_configuration_of_a_case() -> None:
    assert adapter_config(case()) == (2, ())
    assert adapter_config({"config": {"cpus": 4, "msi_devids": [16, 24]}}) == (4, (16, 24))


def test_what_differs_is_named_with_its_kind() -> None:
    assert compare(case(a=1, b=2), {"a": 1, "b": 3}, "qemu") == [Mismatch("b", "cu", 2, 3)]
    assert compare(case(a=1), {}, "qemu") == [Mismatch("a", "arch", 1, None)]


def test_exceptions_count_for_kvm_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXCEPTIONS, ("made-up", "a"), (7, "because"))
    monkeypatch.setitem(EXCEPTIONS, ("made-up", "b"), (ANY, "because"))
    assert compare(case(a=1, b=2), {"a": 7, "b": 9}, "kvm") == []
    assert compare(case(a=1), {"a": 1}, "kvm") == [Mismatch("a", "arch", 7, 1)]
    assert compare(case(a=1), {"a": 7}, "qemu") == [Mismatch("a", "arch", 1, 7)]


@pytest.mark.skipif(not case_steps.names(), reason=f"no recorded cases in {case_steps.CASES}")
def test_exceptions_name_recorded_labels_that_are_not_architecture() -> None:
    for (name, label), (value, why) in EXCEPTIONS.items():
        recorded = case_steps.load(name)
        assert label in recorded["expect"]
        assert recorded["kinds"][label] in ("cu", "impdef")
        assert value != recorded["expect"][label]
        assert why
