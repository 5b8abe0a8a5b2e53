"""``ringmesh scmi … voltage`` against a real platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.services.scmi_cli.conftest import Said, scmi
from tests.services.scmi_platform.protocols.test_voltage import BOARD


@pytest.fixture(scope="module")
def board() -> Path:
    return BOARD


def refused(address: str, *args: str) -> Said:
    said = scmi("set", "voltage", *args, address=address)
    assert said.code != 0
    return said


def test_protocols(ask: Any) -> None:
    assert any(line.split()[:4] == ["0x17", "voltage", "2.0", "4"] for line in ask("protocols").splitlines())


def test_describe(ask: Any) -> None:
    lines = ask("describe", "voltage", "vee").splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["id", "1"], ["name", "vee"], ["mode", "mode 9"], ["level", "-3.3 V"],
        ["levels", "-5 V to 1 mV in steps of 1 mV"], ["asynchronous", "yes"],
    ]  # fmt: skip
    found = ask("describe", "voltage", "fixed", "--json")
    assert (found["mode"], found["level"], found["levels"]) == (7, 3_300_000, [3_300_000])
    assert ask("describe", "voltage", "vdd0", "--json")["levels"] == {"min": 800000, "max": 1100000, "step": 50000}
    assert ask("describe", "voltage", "--json")["voltage"][2]["name"] == "a-regulator-with-a-long-name"


def test_set_level(ask: Any) -> None:
    assert ask("set", "voltage", "vdd0", "level", "950mV") == "voltage 0 vdd0: level 950 mV"
    assert ask("get", "voltage", "vdd0", "level", "--json", "--poll") == {"id": 0, "name": "vdd0", "level": 950_000}
    assert ask("set", "voltage", "vee", "level", "-5V", "async") == "voltage 1 vee: level -5 V"


def test_set_mode(ask: Any) -> None:
    assert ask("set", "voltage", "vdd0", "mode", "on") == "voltage 0 vdd0: mode on"
    assert ask("set", "voltage", "0x0", "mode", "off", "--json") == {"id": 0, "name": "vdd0", "mode": 0}
    assert ask("set", "voltage", "vee", "mode", "0xF") == "voltage 1 vee: mode mode 15"


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (("vdd0", "level", "1"), 1, "VOLTAGE_LEVEL_SET: INVALID_PARAMETERS (-2)"),
        (("vdd0", "level", "1V", "async"), 1, "NOT_SUPPORTED"),
        (("fixed", "mode", "off"), 1, "VOLTAGE_CONFIG_SET: DENIED (-3)"),
        (("vdd0", "level", "1V", "slowly"), 2, "async, or nothing"),
        (("vdd0", "level", "1A"), 2, "not a voltage"),
        (("vdd0", "mode", "16"), 2, "0 to 15"),
        (("vdd0", "mode", "half"), 2, "on|off|MODE"),
        (("4", "mode", "on"), 1, "NOT_FOUND"),
        (("vdd9", "mode", "on"), 2, "there is vdd0, vee"),
    ],
)
def test_refused(address: str, args: tuple[str, ...], code: int, reason: str) -> None:
    said = refused(address, *args)
    assert (said.code, reason in said.err) == (code, True), said
