"""Latency histograms that cost next to nothing to observe.

The buckets are fine (the R20 series of ISO 3: twenty steps a decade, each about an eighth wider than the one before),
so that a report's quantiles are good to a few percent. R20 contains 1, 2 and 5, so the coarse 1-2-5 series that
Prometheus is shown is a subset of the same bounds: exporting cumulates and never re-bins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from common.errors import LocalError

_R20: Final = (
    100, 112, 125, 140, 160, 180, 200, 224, 250, 280, 315, 355, 400, 450, 500, 560, 630, 710, 800, 900,
)  # fmt: skip


def _decades(mantissas: Sequence[int], first: int, last: int) -> tuple[float, ...]:
    """``mantissas``/100 times every power of ten from 10^first up to and including 10^last."""
    # float("112e-8") is the double nearest to the decimal: the coarse bounds are bit-equal to fine ones.
    bounds = [float(f"{m}e{e - 2}") for e in range(first, last) for m in mantissas]
    return (*bounds, float(f"1e{last}"))


#: Upper bounds in seconds, 1 µs to 10 s, twenty a decade.
LATENCY_BOUNDS: Final = _decades(_R20, -6, 1)
#: What Prometheus sees of them: 1-2-5 a decade.
LATENCY_EXPORT: Final = _decades((100, 200, 500), -6, 1)


class Histogram:
    """Counts of observations in buckets with upper bounds ``bounds`` (ascending, inclusive) and one above them all.

    ``export`` is the subset of ``bounds`` that :meth:`cumulated` reports, all of them if it is not given. Units are
    the caller's; seconds for latencies. Raises LocalError unless the bounds ascend and contain ``export``.
    """

    __slots__ = ("_export", "bounds", "counts", "max", "sum")

    def __init__(
        self, bounds: Sequence[float] = LATENCY_BOUNDS, export: Sequence[float] | None = LATENCY_EXPORT
    ) -> None:
        self.bounds: Final = tuple(bounds)
        if not self.bounds or any(a >= b for a, b in zip(self.bounds, self.bounds[1:], strict=False)):
            raise LocalError("histogram bounds must be ascending, and at least one")
        if export is None or (bounds is not LATENCY_BOUNDS and export is LATENCY_EXPORT):
            export = self.bounds
        index = {bound: i for i, bound in enumerate(self.bounds)}
        try:
            self._export: Final = tuple(index[bound] for bound in export)
        except KeyError as missing:
            raise LocalError(f"histogram export bound {missing} is not one of its bounds") from None
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0
        self.max = 0.0

    def observe(self, value: float) -> None:
        """Count one observation. Values below the first bound (negative ones too) fall into the first bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        if value > self.max:
            self.max = value

    @property
    def count(self) -> int:
        """How many were observed; summed up when asked for, so that observing need not."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """The value below which a share ``q`` (0 … 1) of the observations lies, interpolated within its bucket.

        0.0 if nothing was observed; never above the largest observation. Raises LocalError if ``q`` is no share.
        """
        if not 0.0 <= q <= 1.0:
            raise LocalError(f"quantile {q} is not between 0 and 1")
        rank = q * self.count
        below = 0
        lower = 0.0
        for bound, n in zip((*self.bounds, self.max), self.counts, strict=True):
            if n and below + n >= rank:
                upper = min(bound, self.max)
                lower = min(lower, upper)
                return lower + (upper - lower) * (rank - below) / n
            below += n
            lower = bound
        return 0.0

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` counted. Raises LocalError unless both have the same bounds."""
        if self.bounds != other.bounds:
            raise LocalError("histograms with different bounds cannot be merged")
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
        self.max = max(self.max, other.max)

    def cumulated(self) -> list[tuple[float, int]]:
        """``(bound, observations at or below it)`` for each exported bound; the total is :attr:`count`."""
        total = 0
        at = 0
        result = []
        for index in self._export:
            total += sum(self.counts[at : index + 1])
            at = index + 1
            result.append((self.bounds[index], total))
        return result
