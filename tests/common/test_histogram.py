"""common.histogram: buckets, quantiles and export."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError
from common.histogram import LATENCY_BOUNDS, LATENCY_EXPORT, Histogram

latencies = st.floats(min_value=1e-7, max_value=20.0)


def test_latency_bounds_run_from_a_microsecond_to_ten_seconds_and_contain_the_export() -> None:
    assert LATENCY_BOUNDS[0] == 1e-6
    assert LATENCY_BOUNDS[-1] == 10.0
    assert len(LATENCY_BOUNDS) == 7 * 20 + 1
    assert set(LATENCY_EXPORT) <= set(LATENCY_BOUNDS)
    assert LATENCY_EXPORT[:4] == (1e-6, 2e-6, 5e-6, 1e-5)
    assert max(b / a for a, b in itertools.pairwise(LATENCY_BOUNDS)) < 1.15


def test_a_bound_is_inclusive() -> None:
    h = Histogram((1.0, 2.0))
    for value in (-1.0, 1.0, 1.5, 2.0, 2.5):
        h.observe(value)
    assert h.counts == [2, 2, 1]
    assert h.cumulated() == [(1.0, 2), (2.0, 4)]
    assert (h.count, h.sum, h.max) == (5, 6.0, 2.5)


def test_quantiles_interpolate_within_a_bucket() -> None:
    h = Histogram((10.0, 20.0))
    for value in (11.0, 12.0, 18.0, 20.0):
        h.observe(value)
    assert h.quantile(0.0) == 10.0
    assert h.quantile(0.5) == 15.0
    assert h.quantile(1.0) == 20.0


def test_quantile_of_nothing_is_zero_and_above_the_last_bound_ends_at_the_maximum() -> None:
    h = Histogram((1.0,))
    assert h.quantile(0.99) == 0.0
    h.observe(5.0)
    assert h.quantile(1.0) == 5.0
    assert h.quantile(0.5) == 3.0


@given(st.lists(latencies, min_size=1, max_size=200), st.sampled_from((0.5, 0.9, 0.99, 1.0)))
def test_a_quantile_lies_within_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    h = Histogram()
    for value in values:
        h.observe(value)
    true = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    width = 1.15 if true <= 10 else max(values) / 10
    low = 0.0 if true <= 1e-6 else true / width
    assert low * 0.999999 <= h.quantile(q) <= min(max(true * width, 1e-6), max(values)) * 1.000001


@given(st.lists(latencies), st.lists(latencies))
def test_merging_equals_observing_both(a: list[float], b: list[float]) -> None:
    left, right, both = Histogram(), Histogram(), Histogram()
    for value in a:
        left.observe(value)
        both.observe(value)
    for value in b:
        right.observe(value)
        both.observe(value)
    left.merge(right)
    assert left.counts == both.counts
    assert left.max == both.max
    assert math.isclose(left.sum, both.sum)
    assert left.count == len(a) + len(b)


@given(st.lists(latencies))
def test_the_export_cumulates_the_same_counts(values: list[float]) -> None:
    h = Histogram()
    for value in values:
        h.observe(value)
    assert h.cumulated() == [(bound, sum(v <= bound for v in values)) for bound in LATENCY_EXPORT]


def test_median_is_good_to_a_bucket() -> None:
    h = Histogram()
    values = [i * 1e-5 for i in range(1, 1000)]
    for value in values:
        h.observe(value)
    assert h.quantile(0.5) == pytest.approx(statistics.median(values), rel=0.06)


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_must_ascend(bounds: tuple[float, ...]) -> None:
    with pytest.raises(LocalError, match="ascending"):
        Histogram(bounds)


def test_misuse_is_a_local_error() -> None:
    with pytest.raises(LocalError, match="export bound"):
        Histogram((1.0, 2.0), (3.0,))
    with pytest.raises(LocalError, match="different bounds"):
        Histogram((1.0,)).merge(Histogram((2.0,)))
    with pytest.raises(LocalError, match="not between"):
        Histogram().quantile(1.5)
