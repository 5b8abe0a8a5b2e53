"""``ringmesh scmi … powercap`` against a real platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.scmi import powercap
from common.scmi.powercap import CapEvent, DomainAttributes, MeasurementsEvent, Span
from services.scmi_cli.powercap_view import POWERCAP
from services.scmi_cli.view import Domain
from tests.services.scmi_cli.conftest import Said, scmi
from tests.services.scmi_platform.protocols.test_powercap import BOARD


@pytest.fixture(scope="module")
def board() -> Path:
    return BOARD


def test_protocols(ask: Any) -> None:
    (line,) = [line for line in ask("protocols").splitlines() if line.startswith("0x18")]
    assert line.split()[:4] == ["0x18", "powercap", "2.0", "3"]


def test_describe(ask: Any) -> None:
    assert [one["name"] for one in ask("describe", "powercap", "--json")["powercap"]] == [
        "soc", "cluster", "a-zone-that-is-what-it-is",
    ]  # fmt: skip
    said = dict(line.split(maxsplit=1) for line in ask("describe", "powercap", "soc").splitlines())
    assert said["parent"] == "-"
    assert said["unit"] == "µW"
    assert said["cap"] == "off"
    assert said["caps"] == "0.001000 W to 0.005000 W in steps of 0.000100 W"
    assert said["pais"] == "0.001 s to 0.009 s in steps of 0.002 s"
    assert said["sustainable"] == "0.004000 W"
    assert ask("describe", "powercap", "1", "--json") == {
        "id": 1, "name": "cluster", "parent": 0, "unit": "mW", "cap": 15, "caps": {"min": 10, "max": 20, "step": 5},
        "pai": 1_000_000, "pais": {"min": 1_000_000, "max": 1_000_000, "step": 0},
        "measured": {"power": 15, "pai": 1_000_000}, "sustainable": None,
    }  # fmt: skip
    last = ask("describe", "powercap", "2", "--json")
    assert (last["unit"], last["cap"], last["measured"]) == ("abstract", 7, None)
    assert ask("get", "powercap", "2", "cap") == "7"
    assert ask("get", "powercap", "1", "pais") == "1 s"


def test_caps(ask: Any) -> None:
    assert ask("set", "powercap", "cluster", "cap", "20") == "powercap 1 cluster: cap 0.020 W"
    assert ask("get", "powercap", "cluster", "measured") == "0.018 W over 1 s"
    assert ask("set", "powercap", "cluster", "cap", "0.015W", "--json") == {"id": 1, "name": "cluster", "cap": 15}
    assert ask("set", "powercap", "soc", "cap", "1500", "async") == "powercap 0 soc: cap 0.001500 W"
    assert ask("set", "powercap", "soc", "cap", "OFF", "--poll") == "powercap 0 soc: cap off"


def test_intervals(ask: Any) -> None:
    assert ask("set", "powercap", "soc", "pai", "7ms") == "powercap 0 soc: pai 0.007 s"
    assert ask("set", "powercap", "soc", "pai", "3000", "--json")["pai"] == 3000
    assert ask("set", "0x18", "soc", "pai", "5000us", "--json")["pai"] == 5000


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("soc", "cap", "999"), 1, "POWERCAP_CAP_SET: INVALID_PARAMETERS (-2)"),
        (("2", "cap", "7"), 1, "POWERCAP_CAP_SET: NOT_SUPPORTED (-1)"),
        (("9", "cap", "7"), 1, "POWERCAP_DOMAIN_ATTRIBUTES: NOT_FOUND (-4)"),
        (("soc", "cap", "1V"), 2, "'1V' is not a reading"),
        (("soc", "cap", "4295W"), 2, "'4295W' is not a power from 0 to 4294.967295 W"),
        (("2", "cap", "7W"), 2, "'7W' is not a power from 0 to 4294967295"),
        (("soc", "cap", "1000", "soon"), 2, "'soon': nothing or async is wanted"),
        (("soc", "pai", "5m"), 2, "'5m' is not an interval such as 5000 (µs), 5ms or 2s"),
        (("soc", "pai", "0"), 2, "'0' is not an interval"),
        (("soc", "pai", "5000s"), 2, "'5000s' is not an interval"),
        (("soc", "pai", "ms"), 2, "'ms' is not an interval"),
    ],
)
def test_what_is_refused(address: str, words: tuple[str, ...], code: int, why: str) -> None:
    said: Said = scmi("set", "powercap", *words, address=address)
    assert (said.code, why in said.err) == (code, True), said


def test_what_notifications_say() -> None:
    microwatts = powercap.PowerUnit.MICROWATTS << powercap.UNIT_SHIFT
    about = DomainAttributes(powercap.ATTR_CAP_NOTIFY | microwatts, "z", Span(1, 9, 1), Span(1, 9, 1), 0, 0, None)
    zone = Domain(0, "z", about)
    cap, measurements = POWERCAP.events
    assert (cap.number, measurements.number) == (0, 1)
    assert cap.offered(zone)
    assert not measurements.offered(zone)
    shown = cap.show(CapEvent(2, 0, 1000, 5000), zone)
    assert {name: cell.text for name, cell in shown.items()} == {
        "cap": "0.001000 W", "pai": "0.005 s", "agent": "by agent 2",
    }  # fmt: skip
    assert cap.show(CapEvent(2, 0, 0, 5000), zone)["cap"] == (0, "off")
    assert measurements.show(MeasurementsEvent(0, 0, 2500), zone)["power"] == (2500, "0.002500 W")
