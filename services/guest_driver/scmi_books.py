"""The books of the SCMI load, and what it knows of the platform that it loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from common.histogram import Histogram
from common.scmi.sensor import Descriptor

#: Smallest and largest reading (DEN0056E §4.7.2.8: 64 bits, signed).
LEAST_READING: Final = -(1 << 63)
MOST_READING: Final = (1 << 63) - 1


@dataclass(slots=True)
class ScmiBooks:
    """What was asked and what came of it. ``rtt`` in seconds."""

    sent: int = 0
    completed: int = 0
    polled: int = 0
    notifications: int = 0
    timed_out: int = 0
    failed: int = 0
    refused_after_reset: int = 0
    corrupted: int = 0
    #: of sent: asynchronous commands
    later: int = 0
    rtt: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Chased:
    """A sensor whose trip points the load moves. ``interval`` is its fastest update interval, (mantissa, exponent) in
    seconds, None where the platform names none; ``period`` the same in seconds, or 1; ``reading`` and ``at`` (seconds)
    are of the move before."""

    number: int
    trip_points: int
    interval: tuple[int, int] | None
    period: float
    reading: int = 0
    at: float = 0.0

    def ahead(self, reading: int, now: float) -> int:
        """Where the sensor will be halfway to the platform's next look, if it goes on as it did since the last move.

        Half an interval, not one unit: by the time the platform sets the trip point, the value has moved on. At most
        to where a reading, an i64, can be.
        """
        elapsed = now - self.at
        moved = (reading - self.reading) * self.period / 2 / elapsed if self.at and elapsed > 0 else 0.0
        self.reading, self.at = reading, now
        step = round(moved)
        return min(max(reading + (step or 1), LEAST_READING), MOST_READING)


@dataclass(slots=True)
class Known:
    """What the agent found out about the platform before the load began."""

    vendor: str
    #: clock → name
    names: dict[int, str]
    #: clock → rates in Hz that the load sets it to, of the clocks that have at least two
    clocks: dict[int, list[int]]
    #: clock → rate in Hz after a reset of the platform
    defaults: dict[int, int]
    sensors: list[Descriptor]
    #: sensor → how its trip points are moved
    chased: dict[int, Chased]
    #: sensors that may be read asynchronously
    slow: list[int]
    #: asynchronous commands that this agent may have under way: rate changes, readings
    async_rates: int
    async_readings: int
