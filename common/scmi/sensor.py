"""Sensor protocol 0x15, versions 0x10000 to 0x30001: layouts (DEN0056E §4.7; of 0x10000, DEN0056B §4.7).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a notification or delayed response. A reading is a signed 64-bit number in units of
``10**exponent`` of the sensor's type; a timestamp counts ``10**timestamp exponent`` seconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, name_of, signed, unpack, unpack_many
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.SENSOR
VERSION: Final = 0x30001


class Command(IntEnum):
    """DEN0056E §4.7.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    SENSOR_DESCRIPTION_GET = 0x3
    SENSOR_TRIP_POINT_NOTIFY = 0x4
    SENSOR_TRIP_POINT_CONFIG = 0x5
    SENSOR_READING_GET = 0x6
    SENSOR_AXIS_DESCRIPTION_GET = 0x7
    SENSOR_LIST_UPDATE_INTERVALS = 0x8
    SENSOR_CONFIG_GET = 0x9
    SENSOR_CONFIG_SET = 0xA
    SENSOR_CONTINUOUS_UPDATE_NOTIFY = 0xB
    SENSOR_NAME_GET = 0xC
    SENSOR_AXIS_NAME_GET = 0xD
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.7, notifications."""

    SENSOR_TRIP_POINT_EVENT = 0x0
    SENSOR_UPDATE = 0x1


# --- requests ---------------------------------------------------------------------------------------------------------

#: SENSOR_CONFIG_GET, SENSOR_NAME_GET: sensor id.
SENSOR_ID: Final = U32
#: SENSOR_DESCRIPTION_GET: index of the first descriptor wanted.
DESCRIPTION_GET: Final = U32
#: SENSOR_TRIP_POINT_NOTIFY, SENSOR_CONTINUOUS_UPDATE_NOTIFY: sensor id, enable (bit 0).
NOTIFY: Final = struct.Struct("<II")
#: SENSOR_TRIP_POINT_CONFIG: sensor id, event control, trip value.
TRIP_POINT_CONFIG: Final = struct.Struct("<IIq")
#: Event control 1:0.
TRIP_DISABLED: Final = 0
TRIP_POSITIVE: Final = 1
TRIP_NEGATIVE: Final = 2
TRIP_BOTH: Final = 3
#: Event control 11:4: trip point id.
TRIP_ID_SHIFT: Final = 4
TRIP_MASK: Final = 0xFF3
#: SENSOR_READING_GET: sensor id, flags.
READING_GET: Final = struct.Struct("<II")
READ_ASYNC: Final = 1 << 0
#: SENSOR_AXIS_DESCRIPTION_GET, SENSOR_AXIS_NAME_GET: sensor id, index of the first axis wanted.
AXIS_GET: Final = struct.Struct("<II")
#: SENSOR_LIST_UPDATE_INTERVALS: sensor id, index of the first interval wanted.
LIST_INTERVALS: Final = struct.Struct("<II")
#: SENSOR_CONFIG_SET: sensor id, config.
CONFIG_SET: Final = struct.Struct("<II")
CONFIG_ENABLE: Final = 1 << 0
CONFIG_TIMESTAMP: Final = 1 << 1
#: Config 10:9: how to round an update interval that the sensor does not have.
CONFIG_ROUND_SHIFT: Final = 9
ROUND_DOWN: Final = 0
ROUND_UP: Final = 1
ROUND_AUTO: Final = 2
#: Config 31:11: update interval, mantissa (31:16) and signed exponent (15:11); zero leaves it as it is.
CONFIG_INTERVAL_SHIFT: Final = 11
CONFIG_MASK: Final = 0xFFFF_FE03

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: sensors (15:0), asynchronous readings that may be pending (23:16), reserved,
#: address (low, high) and length of the shared sensor values, 0 where there are none.
ATTRIBUTES_REPLY: Final = struct.Struct("<HBBQI")
#: A counted list: returned 11:0 (15:12 format flags), remaining 31:16.
SEGMENTED: Final = 1 << 12
#: Sensor descriptor: id, attributes low, attributes high, 16-byte name.
DESCRIPTOR: Final = struct.Struct("<III16s")
#: With ATTR_EXTENDED in a sensor descriptor: power (µW).
DESCRIPTOR_POWER: Final = U32
#: With ATTR_EXTENDED, in an axis descriptor and in the descriptor of a sensor without axes:
#: resolution (exponent 31:27, mantissa 26:0), lowest, highest.
DESCRIPTOR_RANGE: Final = struct.Struct("<Iqq")
#: Attributes low.
ATTR_TRIP_POINTS: Final = 0xFF
ATTR_EXTENDED: Final = 1 << 8
ATTR_TIMESTAMP: Final = 1 << 9
ATTR_TIMESTAMP_SHIFT: Final = 10
ATTR_EXTENDED_NAME: Final = 1 << 29
ATTR_UPDATE_NOTIFY: Final = 1 << 30
ATTR_ASYNC: Final = 1 << 31
#: Attributes low of an axis.
AXIS_ATTR_EXTENDED: Final = 1 << 8
AXIS_ATTR_EXTENDED_NAME: Final = 1 << 9
#: Attributes high: type 7:0, exponent 15:11 (signed); of a sensor also axis support and number of axes 21:16.
ATTR_EXPONENT_SHIFT: Final = 11
ATTR_AXES: Final = 1 << 8
ATTR_AXES_SHIFT: Final = 16
#: Of version 0x10000: mantissa 31:27 and signed exponent 26:22 of the update interval in seconds, 0 for none.
ATTR_INTERVAL_V1_SHIFT: Final = 27
ATTR_INTERVAL_V1_EXPONENT_SHIFT: Final = 22
INTERVAL_V1_MAX: Final = 0x1F
#: One reading: value, timestamp (0 where timestamps are off). One an axis, in the order of the axis descriptors.
READING: Final = struct.Struct("<qQ")
#: The one reading of version 0x10000: value.
READING_V1: Final = struct.Struct("<q")
#: SENSOR_CONFIG_GET: config word as in SENSOR_CONFIG_SET.
CONFIG_REPLY: Final = U32
#: One of SENSOR_AXIS_NAME_GET: axis id, 64-byte name.
AXIS_NAME: Final = struct.Struct("<I64s")

# --- delayed response, notifications --------------------------------------------------------------------------------

#: SENSOR_READING_COMPLETE, after its status word: sensor id, then one READING an axis.
READING_COMPLETE: Final = U32
#: SENSOR_TRIP_POINT_EVENT: agent (0: the platform), sensor id, trip point (id 7:0, direction 16).
TRIP_POINT_EVENT: Final = struct.Struct("<III")
TRIP_RISING: Final = 1 << 16
#: SENSOR_UPDATE: agent, sensor id, then one READING an axis.
UPDATE: Final = struct.Struct("<II")


class Attributes(NamedTuple):
    sensors: int
    max_async: int


class Range(NamedTuple):
    """Extended attributes: ``resolution × 10**resolution_exponent``, lowest and highest reading."""

    resolution: int
    resolution_exponent: int
    lowest: int
    highest: int


class Descriptor(NamedTuple):
    """A sensor, or one of its axes (then ``power`` is 0); ``attributes_*`` are the raw words."""

    id: int
    attributes_low: int
    attributes_high: int
    name: str
    type: int
    exponent: int
    axes: int
    power: int
    range: Range | None


class Reading(NamedTuple):
    value: int
    timestamp: int


class Intervals(NamedTuple):
    """``(mantissa, exponent)`` each, in seconds. Segmented: lowest, highest, step."""

    segmented: bool
    intervals: list[tuple[int, int]]
    remaining: int


class TripEvent(NamedTuple):
    agent: int
    sensor: int
    trip_point: int
    rising: bool


class UpdateEvent(NamedTuple):
    agent: int
    sensor: int
    readings: list[Reading]


def interval(mantissa: int, exponent: int) -> int:
    """An update interval of ``mantissa × 10**exponent`` seconds as its 21 bits (mantissa 20:5, exponent 4:0)."""
    return mantissa << 5 | exponent & 0x1F


def parse_interval(word: int) -> tuple[int, int]:
    """(mantissa, exponent)."""
    return word >> 5 & 0xFFFF, signed(word & 0x1F, 5)


def resolution(mantissa: int, exponent: int) -> int:
    """A resolution as its word."""
    return mantissa | (exponent & 0x1F) << 27


def parse_attributes(payload: bytes) -> Attributes:
    sensors, pending, *_ = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return Attributes(sensors, pending)


def _parse_range(payload: bytes, offset: int, name: str) -> Range:
    word, lowest, highest = unpack(DESCRIPTOR_RANGE, payload, name, offset)
    return Range(word & 0x07FF_FFFF, signed(word >> 27, 5), lowest, highest)


def parse_descriptors(payload: bytes) -> tuple[list[Descriptor], int]:
    """(descriptors, remaining) of one SENSOR_DESCRIPTION_GET reply."""
    command = "SENSOR_DESCRIPTION_GET"
    (flags,) = unpack(U32, payload, command)
    offset, out = 4, []
    for _ in range(flags & 0xFFF):
        sensor, low, high, name = unpack(DESCRIPTOR, payload, command, offset)
        offset += DESCRIPTOR.size
        axes = high >> ATTR_AXES_SHIFT & 0x3F if high & ATTR_AXES else 0
        power, limits = 0, None
        if low & ATTR_EXTENDED:
            (power,) = unpack(DESCRIPTOR_POWER, payload, command, offset)
            offset += DESCRIPTOR_POWER.size
            if not axes:
                limits = _parse_range(payload, offset, command)
                offset += DESCRIPTOR_RANGE.size
        exponent = signed(high >> ATTR_EXPONENT_SHIFT & 0x1F, 5)
        out.append(Descriptor(sensor, low, high, name_of(name), high & 0xFF, exponent, axes, power, limits))
    return out, flags >> 16


def parse_axes(payload: bytes) -> tuple[list[Descriptor], int]:
    """(axes, remaining) of one SENSOR_AXIS_DESCRIPTION_GET reply: returned in 5:0, remaining in 31:26."""
    command = "SENSOR_AXIS_DESCRIPTION_GET"
    (flags,) = unpack(U32, payload, command)
    offset, out = 4, []
    for _ in range(flags & 0x3F):
        axis, low, high, name = unpack(DESCRIPTOR, payload, command, offset)
        offset += DESCRIPTOR.size
        limits = None
        if low & AXIS_ATTR_EXTENDED:
            limits = _parse_range(payload, offset, command)
            offset += DESCRIPTOR_RANGE.size
        exponent = signed(high >> ATTR_EXPONENT_SHIFT & 0x1F, 5)
        out.append(Descriptor(axis, low, high, name_of(name), high & 0xFF, exponent, 0, 0, limits))
    return out, flags >> 26


def parse_axis_names(payload: bytes) -> tuple[dict[int, str], int]:
    """({axis id: name}, remaining) of one SENSOR_AXIS_NAME_GET reply."""
    (flags,) = unpack(U32, payload, "SENSOR_AXIS_NAME_GET")
    names = unpack_many(AXIS_NAME, payload, flags & 0x3F, "SENSOR_AXIS_NAME_GET", 4)
    return {axis: name_of(raw) for axis, raw in names}, flags >> 26


def parse_intervals(payload: bytes) -> Intervals:
    (flags,) = unpack(U32, payload, "SENSOR_LIST_UPDATE_INTERVALS")
    words = unpack_many(U32, payload, flags & 0xFFF, "SENSOR_LIST_UPDATE_INTERVALS", 4)
    return Intervals(bool(flags & SEGMENTED), [parse_interval(word) for (word,) in words], flags >> 16)


def build_readings(readings: Iterable[tuple[int, int]]) -> bytes:
    """One READING each, from (value, timestamp)."""
    return b"".join(READING.pack(value, timestamp) for value, timestamp in readings)


def parse_readings(payload: bytes, offset: int = 0) -> list[Reading]:
    """Every whole reading from ``offset`` on; at least one. Version 0x10000 sends the value alone."""
    if len(payload) - offset == READING_V1.size:
        return [Reading(READING_V1.unpack_from(payload, offset)[0], 0)]
    count = max(1, (len(payload) - offset) // READING.size)
    return [Reading(*one) for one in unpack_many(READING, payload, count, "SENSOR_READING_GET", offset)]


def parse_reading_complete(payload: bytes) -> tuple[int, list[Reading]]:
    """(sensor id, readings) of a delayed response, its status word already taken off."""
    (sensor,) = unpack(READING_COMPLETE, payload, "SENSOR_READING_COMPLETE")
    return sensor, parse_readings(payload, READING_COMPLETE.size)


def parse_trip_event(payload: bytes) -> TripEvent:
    agent, sensor, trip = unpack(TRIP_POINT_EVENT, payload, "SENSOR_TRIP_POINT_EVENT")
    return TripEvent(agent, sensor, trip & 0xFF, bool(trip & TRIP_RISING))


def parse_update(payload: bytes) -> UpdateEvent:
    agent, sensor = unpack(UPDATE, payload, "SENSOR_UPDATE")
    return UpdateEvent(agent, sensor, parse_readings(payload, UPDATE.size))
