"""Sensor protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ScmiError
from common.scmi import sensor

LIMITS = struct.pack("<Iqq", 29 << 27 | 1, -5, 5)


def test_descriptors() -> None:
    scalar = struct.pack("<III16sI", 0, 0x100, 29 << 11 | 2, b"t", 9) + LIMITS
    plain = struct.pack("<III16s", 1, 0, 5, b"v")
    axes = struct.pack("<III16sI", 2, 0x100, 3 << 16 | 1 << 8 | 5, b"a", 4)
    found, remaining = sensor.parse_descriptors(struct.pack("<I", 6 << 16 | 3) + scalar + plain + axes)
    assert remaining == 6
    assert [(one.id, one.name, one.type, one.exponent, one.axes, one.power) for one in found] == [
        (0, "t", 2, -3, 0, 9),
        (1, "v", 5, 0, 0, 0),
        (2, "a", 5, 0, 3, 4),
    ]
    assert [one.range for one in found] == [(1, -3, -5, 5), None, None]


def test_axes() -> None:
    raw = struct.pack("<I", 1 << 26 | 2) + struct.pack("<III16s", 0, 0x100, 5, b"x") + LIMITS
    found, remaining = sensor.parse_axes(raw + struct.pack("<III16s", 1, 0, 5, b"y"))
    assert (remaining, found[0].range, found[1].range) == (1, (1, -3, -5, 5), None)
    names = struct.pack("<II64s", 2 << 26 | 1, 7, b"north")
    assert sensor.parse_axis_names(names) == ({7: "north"}, 2)


def test_others() -> None:
    assert sensor.parse_attributes(struct.pack("<HBBQI", 3, 8, 0, 0, 0)) == (3, 8)
    assert sensor.parse_intervals(struct.pack("<III", 5 << 16 | 2, 1 << 5, 7 << 5 | 31)) == (
        False,
        [(1, 0), (7, -1)],
        5,
    )
    readings = sensor.build_readings([(-1, 5), (2, 6)])
    assert sensor.parse_readings(readings) == [(-1, 5), (2, 6)]
    assert sensor.parse_reading_complete(struct.pack("<I", 3) + readings) == (3, [(-1, 5), (2, 6)])
    assert sensor.parse_update(struct.pack("<II", 0, 3) + readings) == (0, 3, [(-1, 5), (2, 6)])
    assert sensor.parse_trip_event(struct.pack("<III", 0, 3, 1 << 16 | 4)) == (0, 3, 4, True)
    with pytest.raises(ScmiError):
        sensor.parse_readings(b"")


def test_the_one_reading_of_version_one() -> None:
    value = struct.pack("<q", -7)
    assert sensor.parse_readings(value) == [(-7, 0)]
    assert sensor.parse_reading_complete(struct.pack("<I", 3) + value) == (3, [(-7, 0)])
    for cut in (4, 12):
        with pytest.raises(ScmiError):
            sensor.parse_readings(bytes(cut))


@given(st.integers(0, 0xFFFF), st.integers(-16, 15))
def test_interval_there_and_back(mantissa: int, exponent: int) -> None:
    assert sensor.parse_interval(sensor.interval(mantissa, exponent)) == (mantissa, exponent)
