"""Sections ``[[reset_domains]]``: what is refused, and what is there when nothing is said."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board

HEAD = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n'
DOMAIN = '[[reset_domains]]\nname = "r"\n'

REFUSED = [
    (DOMAIN + "states = [0x80000000, 1]\n", "reset_domains[0].states[1]", "bit 31"),
    (DOMAIN + "states = [0x100000000]\n", "reset_domains[0].states[0]", "<= 4294967295"),
    (DOMAIN + "reset_us = -1\n", "reset_domains[0].reset_us", ">= 0"),
    (DOMAIN + "async = true\n", "reset_domains[0]", "unknown field"),
    (DOMAIN * 2, "reset_domains[1].name", "there twice"),
]


@pytest.mark.parametrize(("text", "key", "reason"), REFUSED)
def test_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Board.parse(HEAD + text, "b.toml")
    assert (caught.value.source, caught.value.key) == ("b.toml", key)
    assert reason in caught.value.reason


def test_what_is_there_without_saying() -> None:
    (domain,) = Board.parse(HEAD + DOMAIN + "states = [0x80000003]\n").reset_domains
    assert (domain.reset_us, domain.asynchronous, domain.explicit) == (1000, True, True)
    assert domain.states == [0x8000_0003]
