"""What the sensor protocol tells of sensors and axes (DEN0056E §4.7.2): descriptors, names, update intervals."""

from __future__ import annotations

import struct
from collections.abc import Callable

from common.scmi import sensor as msg
from common.scmi.fields import is_long, long_name, short_name
from common.scmi.sensor_types import SENSOR_TYPES
from services.scmi_platform.boards.section import MAX_EXPONENT
from services.scmi_platform.boards.sensor import AxisSection, SensorSection
from services.scmi_platform.lists import LIST_HEAD
from services.scmi_platform.protocols.sensor_state import Sensor

#: From an axis and its number to its bytes in a list.
PackAxis = Callable[[int, AxisSection], bytes]


def descriptor(number: int, sensor: Sensor, p2a: bool, names: bool) -> bytes:
    """One item of SENSOR_DESCRIPTION_GET for an agent that calls the sensor ``number`` and, if ``names``, has a version
    that knows extended names."""
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
        return head(number, low, high, short_name(section.name)) + power
    return head(number, low, high, short_name(section.name)) + power + _range(section)


def descriptor_v1(number: int, sensor: Sensor, p2a: bool) -> bytes:
    """One item of SENSOR_DESCRIPTION_GET in version 0x10000, which knows scalars only: of a sensor with axes it shows,
    and reads, the first one."""
    section = sensor.section
    low = len(section.trip_points) | (msg.ATTR_ASYNC if p2a and section.asynchronous else 0)
    high = _type_and_exponent(section.axes[0] if section.axes else section)
    mantissa, exponent = interval_v1(*msg.parse_interval(sensor.interval))
    high |= mantissa << msg.ATTR_INTERVAL_V1_SHIFT | (exponent & 0x1F) << msg.ATTR_INTERVAL_V1_EXPONENT_SHIFT
    return msg.DESCRIPTOR.pack(number, low, high, short_name(section.name))


def interval_v1(mantissa: int, exponent: int) -> tuple[int, int]:
    """The shortest update interval with a mantissa of 5 bits that is not below ``mantissa × 10**exponent`` seconds;
    0 where the exponent's 5 bits do not reach so far, which says that there is none."""
    while mantissa > msg.INTERVAL_V1_MAX:
        mantissa, exponent = -(-mantissa // 10), exponent + 1
    return (mantissa, exponent) if exponent <= MAX_EXPONENT else (0, 0)


def axis(number: int, section: AxisSection, names: bool) -> bytes:
    """One item of SENSOR_AXIS_DESCRIPTION_GET."""
    low = msg.AXIS_ATTR_EXTENDED | (msg.AXIS_ATTR_EXTENDED_NAME if names and is_long(section.name) else 0)
    head = msg.DESCRIPTOR.pack(number, low, _type_and_exponent(section), short_name(section.name))
    return head + _range(section)


def axis_name(number: int, section: AxisSection) -> bytes:
    """One item of SENSOR_AXIS_NAME_GET."""
    return msg.AXIS_NAME.pack(number, long_name(section.name))


def intervals(words: list[int], segmented: bool, max_payload: int) -> bytes:
    """Return values of SENSOR_LIST_UPDATE_INTERVALS, from the first wanted interval on."""
    some = words[: (max_payload - LIST_HEAD) // 4]
    flags = len(some) | (msg.SEGMENTED if segmented else 0) | len(words) - len(some) << 16
    return struct.pack(f"<I{len(some)}I", flags, *some)


def _type_and_exponent(section: SensorSection | AxisSection) -> int:
    return SENSOR_TYPES[section.type] | (section.exponent & 0x1F) << msg.ATTR_EXPONENT_SHIFT


def _range(section: SensorSection | AxisSection) -> bytes:
    found = section.resolution
    word = msg.resolution(1, section.exponent) if found is None else msg.resolution(found.mantissa, found.exponent)
    return msg.DESCRIPTOR_RANGE.pack(word, section.min, section.max)
