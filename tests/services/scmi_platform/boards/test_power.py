"""Sections ``[[power_domains]]`` and ``[system_power]``: what is refused, and what is there when nothing is said."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board

HEAD = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n'
DOMAIN = '[[power_domains]]\nname = "{}"\n'

REFUSED = [
    (DOMAIN.format("p") + 'kind = "gpu"\n', "power_domains[0].kind", "Invalid enum value"),
    (DOMAIN.format("p") + 'parent = "q"\n', "power_domains[0].parent", "'q' is not on the board"),
    (DOMAIN.format("p") + 'parent = "p"\n', "power_domains[0].parent", "its own ancestor"),
    (
        DOMAIN.format("p") + 'parent = "q"\n' + DOMAIN.format("q") + 'parent = "p"\n',
        "power_domains[0].parent",
        "its own ancestor",
    ),
    (
        DOMAIN.format("p") + 'parent = "q"\n' + DOMAIN.format("q") + "on = false\n",
        "power_domains[0].on",
        "the parent 'q' is off",
    ),
    (DOMAIN.format("p") + "states = [1, 0x80000000]\n", "power_domains[0].states[1]", "reserved bits"),
    (DOMAIN.format("p") + "states = [0x10000000]\n", "power_domains[0].states[0]", "reserved bits"),
    (DOMAIN.format("p") + "transition_us = -1\n", "power_domains[0].transition_us", ">= 0"),
    (DOMAIN.format("p") * 2, "power_domains[1].name", "there twice"),
    ('[system_power]\nagents = ["a", "b"]\n', "system_power.agents", "'b' is not on the board"),
    ('[system_power]\nstates = ["shutdown"]\n', "system_power.states[0]", "Invalid enum value"),
    ("[system_power]\nvendor_states = [0x7FFFFFFF]\n", "system_power.vendor_states[0]", ">= 2147483648"),
    ("[system_power]\nshutdown_timeout_ms = 0x100000000\n", "system_power.shutdown_timeout_ms", "<= 4294967295"),
]


@pytest.mark.parametrize(("text", "key", "reason"), REFUSED)
def test_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Board.parse(HEAD + text, "b.toml")
    assert (caught.value.source, caught.value.key) == ("b.toml", key)
    assert reason in caught.value.reason


def test_what_is_there_without_saying() -> None:
    board = Board.parse(HEAD + DOMAIN.format("p") + "[system_power]\n")
    (domain,) = board.power_domains
    assert (domain.on, domain.kind, domain.parent, domain.states) == (True, "device", "", [])
    assert board.system_power is not None
    assert board.system_power.agents is None
    assert board.system_power.states == ("warm_reset", "suspend")


def test_an_off_domain_below_an_off_one() -> None:
    text = DOMAIN.format("p") + 'parent = "q"\non = false\n' + DOMAIN.format("q") + "on = false\n"
    assert [one.on for one in Board.parse(HEAD + text).power_domains] == [False, False]
