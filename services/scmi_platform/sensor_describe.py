"""What the sensor protocol tells of sensors and axes (DEN0056E §4.7.2): descriptors, names, update intervals."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from common.scmi import sensor as msg
from common.scmi.fields import U32, is_long, long_name, short_name
from common.scmi.sensor_types import SENSOR_TYPES
from services.scmi_platform.board import AxisSection, SensorSection
from services.scmi_platform.sensor_state import Sensor

#: From an axis and its number to its bytes in a list.
PackAxis = Callable[[int, AxisSection], bytes]

#: Bytes of status and flags word in front of the items of a list.
_LIST_HEAD = 8


def packed_list(items: Iterable[bytes], total: int, max_payload: int, remaining_shift: int) -> bytes:
    """As many items as fit behind the flags word: how many there are, and how many of ``total`` remain."""
    out: list[bytes] = []
    room = max_payload - _LIST_HEAD
    for item in items:
        room -= len(item)
        if room < 0:
            break
        out.append(item)
    return U32.pack(len(out) | total - len(out) << remaining_shift) + b"".join(out)


def descriptor(sensor: Sensor, p2a: bool, names: bool) -> bytes:
    """One item of SENSOR_DESCRIPTION_GET. ``names``: the agent's version knows extended names."""
    section = sensor.section
    low = len(section.trip_points) | msg.ATTR_EXTENDED
    if section.timestamp_exponent is not None:
        low |= msg.ATTR_TIMESTAMP | (section.timestamp_exponent & 0x1F) << msg.ATTR_TIMESTAMP_SHIFT
    if names and is_long(section.name):
        low |= msg.ATTR_EXTENDED_NAME
    if p2a:
        low |= msg.ATTR_UPDATE_NOTIFY if section.continuous else 0
        low |= msg.ATTR_ASYNC if section.asynchronous else 0
    high = _type_and_exponent(section)
    head = msg.DESCRIPTOR.pack
    power = msg.DESCRIPTOR_POWER.pack(section.power)
    if section.axes:
        high |= msg.ATTR_AXES | len(section.axes) << msg.ATTR_AXES_SHIFT
        return head(sensor.id, low, high, short_name(section.name)) + power
    return head(sensor.id, low, high, short_name(section.name)) + power + _range(section)


def axis(number: int, section: AxisSection, names: bool) -> bytes:
    """One item of SENSOR_AXIS_DESCRIPTION_GET."""
    low = msg.AXIS_ATTR_EXTENDED | (msg.AXIS_ATTR_EXTENDED_NAME if names and is_long(section.name) else 0)
    head = msg.DESCRIPTOR.pack(number, low, _type_and_exponent(section), short_name(section.name))
    return head + _range(section)


def axis_name(number: int, section: AxisSection) -> bytes:
    """One item of SENSOR_AXIS_NAME_GET."""
    return msg.AXIS_NAME.pack(number, long_name(section.name))


def name(sensor: Sensor) -> bytes:
    """Return values of SENSOR_NAME_GET."""
    return msg.NAME_REPLY.pack(0, long_name(sensor.section.name))


def intervals(words: list[int], segmented: bool, max_payload: int) -> bytes:
    """Return values of SENSOR_LIST_UPDATE_INTERVALS, from the first wanted interval on."""
    some = words[: (max_payload - _LIST_HEAD) // 4]
    flags = len(some) | (msg.SEGMENTED if segmented else 0) | len(words) - len(some) << 16
    return struct.pack(f"<I{len(some)}I", flags, *some)


def _type_and_exponent(section: SensorSection | AxisSection) -> int:
    return SENSOR_TYPES[section.type] | (section.exponent & 0x1F) << msg.ATTR_EXPONENT_SHIFT


def _range(section: SensorSection | AxisSection) -> bytes:
    found = section.resolution
    word = msg.resolution(1, section.exponent) if found is None else msg.resolution(found.mantissa, found.exponent)
    return msg.DESCRIPTOR_RANGE.pack(word, section.min, section.max)
