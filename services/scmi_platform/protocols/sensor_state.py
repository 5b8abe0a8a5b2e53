"""One sensor: what the board says of it, how it is configured, what it measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from common.errors import LocalError, RemoteError
from common.scmi import sensor as msg
from services.scmi_platform.boards.agent import MAX_AGENTS
from services.scmi_platform.boards.section import S64
from services.scmi_platform.boards.sensor import IntervalRange, SensorSection, seconds
from services.scmi_platform.protocols.sensor_signal import reader

_DIRECTIONS: Final = {
    "disabled": msg.TRIP_DISABLED,
    "rising": msg.TRIP_POSITIVE,
    "falling": msg.TRIP_NEGATIVE,
    "both": msg.TRIP_BOTH,
}
#: Seconds between two looks at a sensor that has no update intervals.
DEFAULT_INTERVAL: Final = 1.0


class TripPoint:
    """``direction`` is one of msg.TRIP_*."""

    __slots__ = ("direction", "value")

    def __init__(self, value: int, direction: int) -> None:
        self.value = value
        self.direction = direction


class SensorState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What agents set: trip points as (value, direction), the interval as its 21 bits."""

    enabled: bool
    timestamped: bool
    trips: list[tuple[S64, Annotated[int, Meta(ge=msg.TRIP_DISABLED, le=msg.TRIP_BOTH)]]]
    interval: Annotated[int, Meta(ge=0, lt=1 << 21)]
    owner: Annotated[int, Meta(ge=1, le=MAX_AGENTS)]


class Sensor:
    """``readers`` are functions from seconds since start to a value, one an axis (one for a scalar sensor).

    ``interval`` is the update interval as its 21 bits, 0 where the sensor has none. ``previous`` is the value at the
    last look, None before the first; ``due`` the time of the next look. ``owner`` is the agent that configured the
    sensor last, 0 for nobody. ``always_on`` is for a platform whose version of the protocol cannot turn sensors on.
    """

    __slots__ = (
        "always_on",
        "due",
        "enabled",
        "id",
        "interval",
        "intervals",
        "owner",
        "period",
        "previous",
        "readers",
        "section",
        "ticks_per_second",
        "timestamped",
        "trips",
        "_models",
    )

    def __init__(self, number: int, section: SensorSection, always_on: bool = False) -> None:
        self.id = number
        self.section = section
        self.always_on = always_on
        if section.signal is not None:
            self._models = [reader(section.signal, section.min, section.max)]
        else:
            self._models = [reader(axis.signal, axis.min, axis.max) for axis in section.axes]
        self.readers: list[Callable[[float], int]] = list(self._models)
        found = section.update_intervals
        ends = [found.min, found.max, found.step] if isinstance(found, IntervalRange) else found
        self.intervals = [msg.interval(*one) for one in ends]
        exponent = section.timestamp_exponent
        self.ticks_per_second = 0.0 if exponent is None else 10.0**-exponent
        self.reset()

    def reset(self) -> None:
        """Back to what the board file says; a value forced by :meth:`override` stays."""
        self.enabled = self.section.enabled or self.always_on
        self.timestamped = self.section.timestamp_exponent is not None
        self.trips = [TripPoint(one.value, _DIRECTIONS[one.direction]) for one in self.section.trip_points]
        self.set_interval(self.intervals[0] if self.intervals else 0)
        self.previous: int | None = None
        self.due = 0.0
        self.owner = 0

    def save(self) -> SensorState | None:
        """What agents set; None where nobody did."""
        if not self.owner:
            return None
        trips = [(trip.value, trip.direction) for trip in self.trips]
        return SensorState(self.enabled, self.timestamped, trips, self.interval, self.owner)

    def load(self, state: SensorState) -> None:
        """Raises RemoteError for what the board does not allow; nothing is changed then."""
        if len(state.trips) != len(self.trips):
            raise RemoteError("trips", state.trips, len(self.trips), "not the trip points that the sensor has")
        if state.timestamped and self.section.timestamp_exponent is None:
            raise RemoteError("timestamped", True, None, "the sensor has no timestamps")
        known = self.round_interval(state.interval, msg.ROUND_DOWN) if self.intervals else 0
        if known != state.interval:
            raise RemoteError("interval", state.interval, None, "the sensor has no such update interval")
        self.enabled = state.enabled or self.always_on
        self.timestamped, self.owner = state.timestamped, state.owner
        self.trips = [TripPoint(value, direction) for value, direction in state.trips]
        self.set_interval(state.interval)

    @property
    def config(self) -> int:
        """The word of SENSOR_CONFIG_GET."""
        return (
            self.interval << msg.CONFIG_INTERVAL_SHIFT
            | (msg.CONFIG_TIMESTAMP if self.timestamped else 0)
            | (msg.CONFIG_ENABLE if self.enabled else 0)
        )

    def set_interval(self, word: int) -> None:
        self.interval = word
        self.period = seconds(msg.parse_interval(word)) if word else DEFAULT_INTERVAL

    def round_interval(self, word: int, rounding: int) -> int | None:
        """The interval that a request for ``word`` gives; None where the sensor has none on the wanted side."""
        wanted = seconds(msg.parse_interval(word))
        if isinstance(self.section.update_intervals, IntervalRange):
            return self._round_in_range(self.section.update_intervals, word, wanted, rounding)
        lengths = [(seconds(msg.parse_interval(one)), one) for one in self.intervals]
        for length, one in lengths:
            if length == wanted:
                return one
        below = [pair for pair in lengths if pair[0] < wanted]
        above = [pair for pair in lengths if pair[0] > wanted]
        if rounding == msg.ROUND_DOWN:
            return below[-1][1] if below else None
        if rounding == msg.ROUND_UP:
            return above[0][1] if above else None
        return min(lengths, key=lambda pair: abs(pair[0] - wanted))[1] if lengths else None

    @staticmethod
    def _round_in_range(span: IntervalRange, word: int, wanted: float, rounding: int) -> int | None:
        """Within the range the request is taken as it is: the step is finer than the platform's clock needs."""
        lowest, highest = seconds(span.min), seconds(span.max)
        if wanted < lowest:
            return None if rounding == msg.ROUND_DOWN else msg.interval(*span.min)
        if wanted > highest:
            return None if rounding == msg.ROUND_UP else msg.interval(*span.max)
        return word

    def override(self, value: int | None, axis: int = 0) -> None:
        """Force a value, or with None go back to the model. Raises LocalError for an axis that is not there."""
        if not 0 <= axis < len(self.readers):
            raise LocalError(f"sensor {self.section.name} has no axis {axis}")
        self.readers[axis] = self._models[axis] if value is None else lambda now: value

    def crossings(self, value: int) -> list[tuple[int, bool]]:
        """(trip point id, rising) of each enabled trip point that the way to ``value`` crosses."""
        before, self.previous = self.previous, value
        if before is None:
            return []
        out = []
        for number, trip in enumerate(self.trips):
            if trip.direction & msg.TRIP_POSITIVE and before < trip.value <= value:
                out.append((number, True))
            elif trip.direction & msg.TRIP_NEGATIVE and value <= trip.value < before:
                out.append((number, False))
        return out
