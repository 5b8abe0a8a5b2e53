"""Rounding to steps and leaving thresholds, against the obvious definitions."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.scmi_platform.boards.powercap import PowercapDomainSection, Span
from services.scmi_platform.boards.sensor import Signal
from services.scmi_platform.protocols.powercap_state import Powercap, rounded


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 7), st.integers(0, 60))
def test_rounded(lowest: int, length: int, step: int, value: int) -> None:
    span = Span(min=lowest, max=lowest + length, step=step)
    steps = range(lowest, lowest + length + 1, step or 1)
    below = max((one for one in steps if one <= value), default=None)
    assert rounded(span, value) == (below if value <= span.max else None)


def zone() -> Powercap:
    caps, pais = Span(min=10, max=90, step=1), Span(min=1, max=2_000_000, step=1)
    section = PowercapDomainSection(name="z", caps=caps, pais=pais, pai=1000, signal=Signal(base=50))
    return Powercap(0, section, {})


@given(st.lists(st.integers(0, 9), max_size=8))
def test_thresholds_are_left_once(powers: list[int]) -> None:
    """Thresholds 3 and 6: said once each time that the power comes to a side outside."""
    one = zone()
    one.watch(1, 3, 6)
    sides = [0] + [-1 if power < 3 else 1 if power > 6 else 0 for power in powers]
    told = [bool(after) and after != before for before, after in itertools.pairwise(sides)]
    assert [one.left(1, power) for power in powers] == told


def test_each_agent_has_thresholds_of_its_own() -> None:
    one = zone()
    one.watch(1, 0, 10)
    one.watch(2, 0, 90)
    assert [one.left(agent, 50) for agent in (1, 2, 1)] == [True, False, False]
    one.watch(1, 0, 10)  # the same again: it begins anew
    assert one.left(1, 50)
    assert one.forget(1)
    assert not one.forget(1)
    assert not one.left(1, 50)


def test_power_and_period() -> None:
    one = zone()
    assert one.power(1.0) == 50
    one.cap = 20
    assert one.power(1.0) == 20
    assert one.period == 0.01
    one.pai = 2_000_000
    assert one.period == 2.0
