"""``ringmesh scmi … power`` against a real platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from services.scmi_cli.power_view import POWER
from tests.services.scmi_cli.conftest import scmi
from tests.services.scmi_platform.scmi_rig import HERE

BOARD = HERE / "protocols" / "board_power.toml"


@pytest.fixture(scope="module")
def board() -> Path:
    return BOARD


def test_protocols(ask: Any) -> None:
    rows = {one["name"]: one for one in ask("protocols", "--json")["protocols"]}
    assert rows["power_domain"]["domains"] == 5
    assert rows["power_domain"]["attributes"] == {"statistics": None}
    assert "no statistics" in ask("protocols")


def test_describe(ask: Any) -> None:
    lines = ask("describe", "power").splitlines()
    assert lines[0].split() == ["id", "name", "state", "set_by"]
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["0", "core0", "on"],
        ["1", "cluster", "on"],
        ["2", "gpu", "off"],
    ]
    assert "not by us" in lines[1]
    assert "sync, async" in lines[3]
    assert ask("describe", "power_domain", "3", "--json") == {
        "id": 3, "name": "island-of-the-graphics", "state": 0x4000_0000, "set_by": ["sync", "async"],
    }  # fmt: skip


def test_on_and_off(ask: Any) -> None:
    assert ask("set", "power", "gpu", "state", "on") == "power_domain 2 gpu: state on"
    assert ask("get", "power", "gpu", "state") == "on"
    assert ask("get", "0x11", "3", "state", "--json") == {"id": 3, "name": "island-of-the-graphics", "state": 0}
    assert ask("set", "power", "2", "state", "1", "--poll") == "power_domain 2 gpu: state 0x00000001"
    assert ask("set", "power", "2", "state", "OFF", "--json") == {"id": 2, "name": "gpu", "state": 0x4000_0000}
    assert ask("get", "power", "gpu") == "state   off\nset_by  sync, async"


def test_asynchronously(ask: Any) -> None:
    assert ask("set", "power", "gpu", "state", "on", "async").startswith("power_domain 2 gpu: state ")
    for _ in range(200):
        if ask("get", "power", "gpu", "state") == "on":
            break
    assert ask("set", "power", "gpu", "state", "off") == "power_domain 2 gpu: state off"


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("core0", "state", "off"), 1, "POWER_STATE_SET: NOT_SUPPORTED (-1)"),
        (("gpu", "state", "2"), 1, "POWER_STATE_SET: INVALID_PARAMETERS (-2)"),
        (("9", "state", "on"), 1, "POWER_DOMAIN_ATTRIBUTES: NOT_FOUND (-4)"),
        (("gpu", "state", "up"), 2, "'up': on, off or a power state word is wanted"),
        (("gpu", "state", "0x100000000"), 2, "a power state word is wanted"),
        (("gpu", "state", "on", "soon"), 2, "'soon': nothing or async is wanted"),
        (("gpu", "level", "1"), 2, "no attribute 'level'; there is state"),
    ],
)
def test_what_is_refused(address: str, words: tuple[str, ...], code: int, why: str) -> None:
    said = scmi("set", "power", *words, address=address)
    assert (said.code, why in said.err) == (code, True), said


def test_a_trusted_agent_is_told_what_it_may_not_do(address: str) -> None:
    said = scmi("set", "power", "cluster", "state", "off", "--guest", "PSCI", address=address)
    assert (said.code, "POWER_STATE_SET: DENIED (-3)" in said.err) == (1, True), said


def test_what_notifications_say() -> None:
    changed, requested = POWER.events
    event = type("E", (), {"agent": 2, "domain": 1, "state": 0x4000_0000})()
    assert {name: cell.text for name, cell in changed.show(event, _domain(0)).items()} == {
        "state": "off",
        "agent": "by agent 2",
    }
    assert (changed.number, requested.number) == (0, 1)
    assert not changed.offered(_domain(1 << 28))
    assert requested.offered(_domain(1 << 28))
    with pytest.raises(ConfigError):
        POWER.attribute("set_by", settable=True)


def _domain(attributes: int) -> Any:
    return type("D", (), {"raw": type("A", (), {"attributes": attributes})()})()
