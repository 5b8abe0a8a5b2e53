"""Rounding of rates against the obvious definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.scmi_platform.board import ClockSection, RateRange
from services.scmi_platform.clock_state import Clock


def check(clock: Clock, rates: list[int], rate: int) -> None:
    below = max((one for one in rates if one <= rate), default=None)
    above = min((one for one in rates if one >= rate), default=None)
    assert clock.round(rate, up=False, auto=False) == below
    assert clock.round(rate, up=True, auto=False) == above
    assert clock.round(rate, up=True, auto=True) == min(rates, key=lambda one: (abs(one - rate), one))


@given(st.sets(st.integers(0, 50), min_size=1), st.integers(0, 60))
def test_list(rates: set[int], rate: int) -> None:
    ordered = sorted(rates)
    check(Clock(0, ClockSection(name="c", rates=ordered, rate=ordered[0]), {}), ordered, rate)


@given(st.integers(0, 20), st.integers(0, 30), st.integers(1, 7), st.integers(0, 60))
def test_range(lowest: int, span: int, step: int, rate: int) -> None:
    section = ClockSection(name="c", rates=RateRange(min=lowest, max=lowest + span, step=step), rate=lowest)
    check(Clock(0, section, {}), list(range(lowest, lowest + span + 1, step)), rate)
