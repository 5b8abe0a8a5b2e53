"""Rounding of rates against the obvious definition; what is saved, and what is not taken back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from services.scmi_platform.boards.clock import ClockSection, RateRange
from services.scmi_platform.protocols.clock_state import Clock, ClockState
from tests.services.scmi_platform.scmi_rig import Rig, words

CLOCK = 0x14
CPU, PIXEL, LONG, MUX = range(4)


def check(clock: Clock, rates: list[int], highest: int, rate: int) -> None:
    if not rates[0] <= rate <= highest:
        assert {clock.round(rate, up, auto) for up in (False, True) for auto in (False, True)} == {None}
        return
    below = max(one for one in rates if one <= rate)
    above = min((one for one in rates if one >= rate), default=None)
    assert clock.round(rate, up=False, auto=False) == below
    assert clock.round(rate, up=True, auto=False) == above
    assert clock.round(rate, up=True, auto=True) == min(rates, key=lambda one: (abs(one - rate), one))


@given(st.sets(st.integers(0, 50), min_size=1), st.integers(0, 60))
def test_list(rates: set[int], rate: int) -> None:
    ordered = sorted(rates)
    check(Clock(0, ClockSection(name="c", rates=ordered, rate=ordered[0]), {}), ordered, ordered[-1], rate)


@given(st.integers(3, 20), st.integers(0, 12), st.integers(1, 7), st.integers(-3, 15))
def test_range(lowest: int, span: int, step: int, offset: int) -> None:
    section = ClockSection(name="c", rates=RateRange(min=lowest, max=lowest + span, step=step), rate=lowest)
    check(Clock(0, section, {}), list(range(lowest, lowest + span + 1, step)), lowest + span, lowest + offset)


def test_what_was_set_is_there_again() -> None:
    rig = Rig()
    assert [rig.platform.protocols[CLOCK].save(number) for number in range(4)] == [None] * 4
    rig.ask(CLOCK, 0x5, words(0, PIXEL, 1200, 0))
    rig.ask(CLOCK, 0x7, words(PIXEL, 1 << 16 | 1, 25), agent=2)
    rig.ask(CLOCK, 0xD, words(MUX, PIXEL))
    assert {(CLOCK, PIXEL), (CLOCK, MUX)} <= rig.platform.touched
    other = Rig()
    for number in (PIXEL, MUX):
        saved = msgspec.json.encode(rig.platform.protocols[CLOCK].save(number))
        other.platform.protocols[CLOCK].load(number, msgspec.json.decode(saved, type=ClockState))
    assert other.ask(CLOCK, 0x6, words(PIXEL)) == words(0, 1200, 0)
    assert other.ask(CLOCK, 0xB, words(PIXEL, 1)) == words(0, 0, 1, 25)
    assert other.ask(CLOCK, 0xE, words(MUX)) == words(0, PIXEL)
    assert other.take() == []
    other.platform.reset_agent(2)  # who set it last is known too
    assert other.ask(CLOCK, 0x6, words(PIXEL)) == words(0, 1500, 0)
    assert other.ask(CLOCK, 0xE, words(MUX)) == words(0, PIXEL)


GOOD: dict[str, Any] = {"rate": 1200, "enabled": True, "extended": {1: 25, 2: 0}, "parent": None, "owner": 1}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rate": 1250}, "rate"),  # between two steps
        ({"rate": 2100}, "rate"),
        ({"parent": 0}, "parent"),
        ({"extended": {1: 25}}, "extended"),
        ({"extended": {1: 101, 2: 0}}, "extended"),
        ({"extended": {1: 0, 2: -1}}, "extended"),
        ({"owner": -1}, "owner"),
        ({"owner": 256}, "owner"),
        ({"rate": -1}, "rate"),
        ({"more": 1}, "more"),
    ],
)
def test_what_the_board_does_not_allow_is_refused(change: dict[str, Any], field: str) -> None:
    clock = Rig().platform.protocols[CLOCK]
    clock.load(PIXEL, msgspec.convert(GOOD, ClockState))
    before = clock.save(PIXEL)
    with pytest.raises((RemoteError, msgspec.ValidationError), match=field):
        clock.load(PIXEL, msgspec.convert(GOOD | {"enabled": False} | change, ClockState))
    assert clock.save(PIXEL) == before


def test_a_parent_that_is_none_of_the_clocks_is_refused() -> None:
    clock = Rig().platform.protocols[CLOCK]
    for parent in (None, LONG, 9):
        with pytest.raises(RemoteError, match="parent"):
            clock.load(MUX, ClockState(10, True, {}, parent, 1))
    clock.load(MUX, ClockState(10, True, {}, PIXEL, 1))
