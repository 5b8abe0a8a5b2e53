"""The clock that is handed to cores: a function of no arguments that returns seconds.

Cores never import ``time``; they take a :data:`Clock`. All durations, deadlines and latencies come from
:data:`monotonic`; :data:`wall` is for records that people read (captures, logs).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]

#: Seconds since an arbitrary point; the same point for every process of one machine (CLOCK_MONOTONIC).
monotonic: Final[Clock] = time.monotonic

#: The same clock in nanoseconds.
nanoseconds: Final[Callable[[], int]] = time.monotonic_ns

#: Seconds since 1970-01-01 UTC.
wall: Final[Clock] = time.time


class ManualClock:
    """A clock that stands until it is told to move, for tests and replays."""

    __slots__ = ("now",)

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
