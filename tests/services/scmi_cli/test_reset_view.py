"""``ringmesh scmi … reset`` against a real platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.scmi_cli.reset_view import RESET
from services.scmi_cli.view import Domain
from tests.services.scmi_cli.conftest import scmi
from tests.services.scmi_platform.scmi_rig import HERE

BOARD = HERE / "protocols" / "board_reset.toml"


@pytest.fixture(scope="module")
def board() -> Path:
    return BOARD


@pytest.fixture
def guest() -> str:
    return "OSPM"


def test_what_there_is(ask: Any) -> None:
    rows = {one["name"]: one for one in ask("protocols", "--json")["protocols"]}
    assert (rows["reset_domain"]["domains"], rows["reset_domain"]["attributes"]) == (3, None)
    assert ask("describe", "reset", "--json")["reset_domain"] == [
        {"id": 0, "name": "mmc", "latency": 3000, "asynchronous": True},
        {"id": 1, "name": "the-reset-of-the-watchdog", "latency": None, "asynchronous": False},
        {"id": 2, "name": "uart", "latency": 1000, "asynchronous": True},
    ]
    assert ask("get", "reset", "mmc") == "latency       3000 µs\nasynchronous  yes"
    assert ask("get", "reset", "1", "latency") == "-"


def test_resets(ask: Any) -> None:
    assert ask("set", "reset", "uart", "signal", "pulse") == "reset_domain 2 uart: signal pulse"
    assert ask("set", "reset", "uart", "signal", "pulse", "--poll") == "reset_domain 2 uart: signal pulse"
    assert ask("set", "reset", "mmc", "signal", "pulse", "async", "0x80000007").endswith("signal pulse")
    assert ask("set", "reset", "mmc", "signal", "assert", "--json") == {"id": 0, "name": "mmc", "signal": "assert"}
    assert ask("set", "reset", "mmc", "signal", "deassert").endswith("signal deassert")


def test_what_another_agent_holds(address: str, ask: Any) -> None:
    ask("set", "reset", "mmc", "signal", "assert")
    said = scmi("set", "reset", "mmc", "signal", "pulse", "--guest", "BOSS", address=address)
    assert (said.code, "RESET: GENERIC_ERROR (-8)" in said.err) == (1, True), said
    ask("set", "reset", "mmc", "signal", "deassert")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("1", "signal", "assert"), 1, "RESET: NOT_SUPPORTED (-1)"),
        (("1", "signal", "pulse", "async"), 1, "RESET: NOT_SUPPORTED (-1)"),
        (("0", "signal", "pulse", "1"), 1, "RESET: INVALID_PARAMETERS (-2)"),
        (("9", "signal", "pulse"), 1, "RESET_DOMAIN_ATTRIBUTES: NOT_FOUND (-4)"),
        (("0", "signal", "kick"), 2, "'kick': pulse|assert|deassert [async] [STATE] is wanted"),
        (("0", "signal", "assert", "async"), 2, "async with pulse"),
        (("0", "signal", "pulse", "cold"), 2, "is wanted"),
        (("0", "signal", "pulse", "0", "1"), 2, "is wanted"),
        (("0", "signal", "pulse", "0x100000000"), 2, "is wanted"),
    ],
)
def test_what_is_refused(address: str, words: tuple[str, ...], code: int, why: str) -> None:
    said = scmi("set", "reset", *words, "--guest", "OSPM", address=address)
    assert (said.code, why in said.err) == (code, True), said


def test_what_the_notification_says() -> None:
    (issued,) = RESET.events
    for state, text in ((0, "cold reset"), (0x8000_0007, "reset 0x80000007")):
        event = type("E", (), {"agent": 1, "domain": 0, "state": state})()
        shown = issued.show(event, Domain(0, "mmc"))
        assert (shown["reset"].value, shown["reset"].text, shown["agent"].text) == (state, text, "by agent 1")
