"""Sections ``[[sensors]]``. Values are whole numbers of ``10**exponent`` units."""

from __future__ import annotations

import itertools
from typing import Annotated, Final, Literal

from msgspec import Meta

from common.scmi.sensor_types import SENSOR_TYPES
from services.scmi_platform.boards.section import S64, U32, Exponent, Name, Parts, Refuse, Section, check_names

#: (mantissa, exponent) of an update interval in seconds.
Interval = tuple[Annotated[int, Meta(ge=1, le=0xFFFF)], Exponent]

MAX_AXES: Final = 63


class Signal(Section, frozen=True, kw_only=True):
    """What a sensor would measure: ``base + amplitude × shape((t / period) + phase)``, no noise.

    ``sine`` and ``triangle`` go from −1 to 1, ``ramp`` counts periods without end (energy), ``constant`` is 0.
    """

    shape: Literal["constant", "sine", "triangle", "ramp"] = "constant"
    base: S64
    amplitude: S64 = 0
    period: Annotated[float, Meta(gt=0)] = 60.0
    phase: Annotated[float, Meta(ge=0, lt=1)] = 0.0


class Resolution(Section, frozen=True, kw_only=True):
    """``mantissa × 10**exponent`` of the sensor's type; left out it is one step of the readings."""

    mantissa: Annotated[int, Meta(ge=0, le=0x07FF_FFFF)]
    exponent: Exponent


class AxisSection(Section, frozen=True, kw_only=True):
    name: Name
    type: str
    exponent: Exponent = 0
    resolution: Resolution | None = None
    min: S64
    max: S64
    signal: Signal


class TripPoint(Section, frozen=True, kw_only=True):
    """Initial setting of a trip point; its id is its position."""

    value: S64
    direction: Literal["disabled", "rising", "falling", "both"] = "disabled"


class IntervalRange(Section, frozen=True, kw_only=True):
    min: Interval
    max: Interval
    step: Interval


class SensorSection(Section, frozen=True, kw_only=True):
    """A scalar sensor has ``min``, ``max`` and ``signal``; one with ``axes`` has none of them.

    ``asynchronous`` sensors may be read with a delayed response, ``asynchronous_us`` later. ``power`` is µW.
    """

    name: Name
    type: str
    exponent: Exponent = 0
    resolution: Resolution | None = None
    min: S64 = 0
    max: S64 = 0
    signal: Signal | None = None
    axes: list[AxisSection] = []
    trip_points: list[TripPoint] = []
    update_intervals: list[Interval] | IntervalRange = []
    continuous: bool = True
    asynchronous: bool = False
    asynchronous_us: U32 = 1000
    timestamp_exponent: Exponent | None = None
    enabled: bool = True
    power: U32 = 0


def check_sensor(key: str, sensor: SensorSection, parts: Parts, refuse: Refuse) -> None:
    if bool(sensor.axes) == (sensor.signal is not None):
        refuse(f"{key}.signal", "a sensor has either a signal or axes")
    if len(sensor.axes) > MAX_AXES:
        refuse(f"{key}.axes", f"{len(sensor.axes)} axes, at most {MAX_AXES}")
    if sensor.axes and sensor.trip_points:
        refuse(f"{key}.trip_points", "trip points are for sensors without axes")
    if len(sensor.trip_points) > 0xFF:
        refuse(f"{key}.trip_points", f"{len(sensor.trip_points)} trip points, at most 255")
    check_names(f"{key}.axes", sensor.axes, refuse)
    _check_range(key, sensor, refuse)
    for index, axis in enumerate(sensor.axes):
        _check_range(f"{key}.axes[{index}]", axis, refuse)
    for index, trip in enumerate(sensor.trip_points):
        if not sensor.min <= trip.value <= sensor.max:
            refuse(f"{key}.trip_points[{index}].value", f"{trip.value} is outside {sensor.min} … {sensor.max}")
    intervals = sensor.update_intervals
    if isinstance(intervals, IntervalRange):
        if seconds(intervals.min) > seconds(intervals.max):
            refuse(f"{key}.update_intervals", "min is above max")
    elif any(seconds(low) >= seconds(high) for low, high in itertools.pairwise(intervals)):
        refuse(f"{key}.update_intervals", "must be ascending")


def _check_range(key: str, one: SensorSection | AxisSection, refuse: Refuse) -> None:
    if one.type not in SENSOR_TYPES:
        refuse(f"{key}.type", f"{one.type!r} is not a sensor type")
    if one.min > one.max:
        refuse(f"{key}.min", f"{one.min} is above max {one.max}")
    if one.signal is not None and not one.min <= one.signal.base <= one.max:
        refuse(f"{key}.signal.base", f"{one.signal.base} is outside {one.min} … {one.max}")


def seconds(interval: Interval) -> float:
    """An update interval in seconds."""
    return interval[0] * 10.0 ** interval[1]
