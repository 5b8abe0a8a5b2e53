"""Levels, indices and limits against the obvious definitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.scmi.performance import Limits
from services.scmi_platform.boards.performance import Opp, PerformanceDomainSection
from services.scmi_platform.protocols.performance_state import PerformanceDomain


def domain(levels: list[int]) -> PerformanceDomain:
    opps = [Opp(level=level, frequency=level * 1000) for level in levels]
    return PerformanceDomain(
        0, PerformanceDomainSection(name="p", opps=opps, level=levels[0], sustained_level=levels[0]), {}
    )


@given(st.sets(st.integers(1, 30), min_size=1), st.integers(0, 31), st.integers(0, 31), st.integers(0, 31))
def test_limits(some: set[int], highest: int, lowest: int, level: int) -> None:
    levels = sorted(some)
    one = domain(levels)
    limits = Limits(highest, lowest)
    inside = [each for each in levels if lowest <= each <= highest]
    assert one.possible(limits) == (bool(inside) and lowest >= levels[0] and highest <= levels[-1])
    if one.possible(limits):
        one.limits = limits
        assert one.allows(level) == (level in inside)
        if level in some:
            assert one.nearest(level) == min(inside, key=lambda each: abs(each - level))
        assert one.said_limits(False) == limits
        assert one.said_limits(True) == (levels.index(inside[-1]) + 1, levels.index(inside[0]) + 1)


@given(st.sets(st.integers(1, 30), min_size=1))
def test_indices_count_from_one(some: set[int]) -> None:
    levels = sorted(some)
    one = domain(levels)
    for index, level in enumerate(levels, start=1):
        assert one.said(level, True) == index
        assert one.level_of(index, True) == level
        assert one.said(level, False) == level == one.level_of(level, False)
    assert one.level_of(0, True) is None
    assert one.level_of(len(levels) + 1, True) is None


def test_the_frequency_is_that_of_the_level() -> None:
    one = domain([3, 5, 9])
    assert one.frequency == 3000
    one.level = 9
    assert one.frequency == 9000
