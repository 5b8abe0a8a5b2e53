"""Distributions of times: each number in [0, 1) gives a length that may be."""

from __future__ import annotations

import math
import random
from statistics import fmean, median
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scmi_platform.faults_time import (
    MAX_LATE_SECONDS,
    Constant,
    Exponential,
    Lognormal,
    Time,
    Uniform,
)

SECONDS = st.floats(0, MAX_LATE_SECONDS)
TIMES = st.one_of(
    st.builds(Constant, seconds=SECONDS),
    st.tuples(SECONDS, SECONDS).map(lambda two: Uniform(low=min(two), high=max(two))),
    st.builds(Exponential, mean=SECONDS),
    st.builds(Lognormal, median=SECONDS, sigma=st.floats(0, 10)),
)


@given(TIMES, st.floats(0, 1, exclude_max=True))
def test_every_draw_can_be_held(time: Time, chance: float) -> None:
    assert 0 <= time.draw(chance) <= MAX_LATE_SECONDS


@given(TIMES, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_greater_chance_is_no_shorter(time: Time, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert time.draw(low) <= time.draw(high) + 1e-9


def test_they_are_what_they_are_called() -> None:
    dice = random.Random(1).random
    assert {Constant(seconds=2.5).draw(dice()) for _ in range(9)} == {2.5}
    uniform = [Uniform(low=1.0, high=3.0).draw(dice()) for _ in range(20_000)]
    assert min(uniform) == pytest.approx(1.0, abs=0.01)
    assert max(uniform) == pytest.approx(3.0, abs=0.01)
    assert fmean(uniform) == pytest.approx(2.0, rel=0.02)
    exponential = [Exponential(mean=2.0).draw(dice()) for _ in range(20_000)]
    assert fmean(exponential) == pytest.approx(2.0, rel=0.05)
    assert median(exponential) == pytest.approx(2.0 * math.log(2), rel=0.05)
    lognormal = [Lognormal(median=2.0, sigma=0.5).draw(dice()) for _ in range(20_000)]
    assert median(lognormal) == pytest.approx(2.0, rel=0.05)
    assert fmean(map(math.log, lognormal)) == pytest.approx(math.log(2.0), abs=0.02)


@pytest.mark.parametrize("time", [Exponential(mean=3000.0), Lognormal(median=3000.0, sigma=2.0)])
def test_long_draws_are_cut(time: Time) -> None:
    assert time.draw(0.999) == MAX_LATE_SECONDS


@pytest.mark.parametrize(
    "text",
    [
        {"distribution": "constant", "seconds": 0.5}, {"distribution": "uniform", "high": 1},
        {"distribution": "exponential", "mean": 1}, {"distribution": "lognormal", "median": 1},
    ],
)  # fmt: skip
def test_as_settings(text: dict[str, Any]) -> None:
    time: Any = msgspec.convert(text, Time)
    assert type(time).__name__.lower() == text["distribution"]


@pytest.mark.parametrize(
    "bad",
    [
        {"distribution": "normal", "mean": 1}, {"distribution": "constant"}, {"seconds": 1},
        {"distribution": "constant", "seconds": -0.1}, {"distribution": "constant", "seconds": 3600.1},
        {"distribution": "uniform", "low": 2, "high": 1}, {"distribution": "exponential", "mean": float("nan")},
        {"distribution": "lognormal", "median": 1, "sigma": 11}, {"distribution": "constant", "seconds": 1, "mean": 1},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, Time)
