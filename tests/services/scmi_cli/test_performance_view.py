"""``ringmesh scmi … performance`` against a real platform."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from common.errors import ScmiError
from common.scmi import performance
from common.scmi.performance import LevelEvent, LimitsEvent
from services.guest_driver.scmi_session import connect
from services.scmi_cli.performance_view import PERFORMANCE
from services.scmi_cli.view import Domain, find
from tests.services.scmi_cli.conftest import TOKEN, Said, scmi
from tests.services.scmi_platform.protocols.test_performance import BOARD


@pytest.fixture(scope="module")
def board() -> Path:
    return BOARD


def test_protocols(ask: Any) -> None:
    (line,) = [line for line in ask("protocols").splitlines() if line.startswith("0x13")]
    assert line.split() == ["0x13", "performance", "4.0", "3", "power", "in", "mW"]
    (row,) = [one for one in ask("protocols", "--json")["protocols"] if one["id"] == 0x13]
    assert row["attributes"] == {"power_unit": "mW"}


def test_describe(ask: Any) -> None:
    assert [one["name"] for one in ask("describe", "performance", "--json")["performance"]] == [
        "cpu", "by-index", "a-domain-that-nobody-may-set",
    ]  # fmt: skip
    said = dict(line.split(maxsplit=1) for line in ask("describe", "performance", "cpu").splitlines())
    assert said["levels"] == "300 (300 MHz), 600 (600 MHz), 900 (900 MHz)"
    assert said["limits"] == "300 (300 MHz) to 900 (900 MHz)"
    assert said["sustained"] == "600 (600 MHz)"
    assert said["rate_limit"] == "1000 µs"
    assert said["can_set"] == "limits, level"
    assert ask("describe", "performance", "1", "--json") == {
        "id": 1, "name": "by-index", "level": 20, "limits": {"min": 10, "max": 40},
        "levels": [
            {"level": 10, "hertz": 150_000_000, "power": 5, "latency": 0},
            {"level": 20, "hertz": 350_000_000, "power": 6, "latency": 0},
            {"level": 30, "hertz": 500_000_000, "power": 7, "latency": 0},
            {"level": 40, "hertz": 800_000_000, "power": 8, "latency": 0},
        ],
        "sustained": 30, "rate_limit": None, "can_set": ["limits", "level"],
    }  # fmt: skip
    last = ask("describe", "performance", "2", "--json")
    assert (last["can_set"], last["levels"][0]) == ([], {"level": 1, "hertz": 0, "power": 0, "latency": 0})
    assert ask("get", "performance", "2", "level") == "1"


def test_levels(ask: Any) -> None:
    assert ask("set", "performance", "0", "level", "900") == "performance 0 cpu: level 900 (900 MHz)"
    assert ask("set", "performance", "cpu", "level", "300MHz", "--poll", "--json")["level"] == 300
    assert ask("get", "performance", "cpu", "level") == "300 (300 MHz)"
    assert ask("set", "performance", "by-index", "level", "40") == "performance 1 by-index: level 40 (800 MHz)"
    assert ask("set", "0x13", "by-index", "level", "500M", "--json")["level"] == 30


def test_limits(ask: Any) -> None:
    assert ask("set", "performance", "0", "limits", "300", "600MHz", "--json")["limits"] == {"min": 300, "max": 600}
    assert ask("set", "performance", "0", "limits", "0", "900").endswith(": limits 300 (300 MHz) to 900 (900 MHz)")
    assert ask("set", "performance", "1", "limits", "20", "30").endswith(": limits 20 (350 MHz) to 30 (500 MHz)")
    assert ask("set", "performance", "1", "limits", "0", "40").endswith(": limits 20 (350 MHz) to 40 (800 MHz)")
    assert ask("set", "performance", "1", "limits", "10", "40", "--json")["limits"] == {"min": 10, "max": 40}


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("0", "level", "500"), 1, "PERFORMANCE_LEVEL_SET: OUT_OF_RANGE (-5)"),
        (("2", "level", "2"), 1, "PERFORMANCE_LEVEL_SET: DENIED (-3)"),
        (("0", "limits", "900", "300"), 1, "PERFORMANCE_LIMITS_SET: INVALID_PARAMETERS (-2)"),
        (("9", "level", "1"), 1, "PERFORMANCE_DOMAIN_ATTRIBUTES: NOT_FOUND (-4)"),
        (("0", "level", "700MHz"), 2, "'700MHz' is not the frequency of 300 (300 MHz), 600 (600 MHz), 900 (900 MHz)"),
        (("0", "level", "fast"), 2, "'fast' is not a frequency"),
        (("0", "level", "4294967296"), 2, "'4294967296' is not the frequency of"),
        (("0", "level", "300", "600"), 2, "'300 600': one level is wanted"),
        (("0", "limits", "300"), 2, "'300': the lowest and the highest are wanted"),
        (("1", "level", "15"), 2, "15 is not one of 10, 20, 30, 40"),
    ],
)
def test_what_is_refused(address: str, words: tuple[str, ...], code: int, why: str) -> None:
    said: Said = scmi("set", "performance", *words, address=address)
    assert (said.code, why in said.err) == (code, True), said


def test_notifications_by_level_and_by_index(address: str) -> None:
    async def domains() -> tuple[Domain, Domain]:
        async with connect(address, token=TOKEN) as agent:
            return await find(PERFORMANCE, agent, "cpu", False), await find(PERFORMANCE, agent, "by-index", False)

    cpu, index = asyncio.run(domains())
    limits, level = PERFORMANCE.events
    assert (limits.number, level.number) == (0, 1)
    assert limits.offered(cpu)
    assert level.offered(cpu)
    about = cpu.raw._replace(attributes=cpu.raw.attributes._replace(attributes=performance.ATTR_LIMITS_NOTIFY))
    assert limits.offered(cpu._replace(raw=about))
    assert not level.offered(cpu._replace(raw=about))
    shown = level.show(LevelEvent(2, 0, 900), cpu)
    assert (shown["level"], shown["agent"].text) == ((900, "900 (900 MHz)"), "by agent 2")
    assert level.show(LevelEvent(2, 1, 4), index)["level"] == (40, "40 (800 MHz)")
    assert limits.show(LimitsEvent(1, 1, 4, 2), index)["limits"].value == {"min": 20, "max": 40}
    with pytest.raises(ScmiError, match="no level has the index 5"):
        level.show(LevelEvent(2, 1, 5), index)
