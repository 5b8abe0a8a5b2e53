"""Sensor types: landmarks of the table."""

from __future__ import annotations

from common.scmi.sensor_types import SENSOR_TYPES


def test_landmarks() -> None:
    marks = ("none", "degrees_c", "volts", "joules", "hertz", "percentage", "meters_per_second_squared", "oem")
    assert [SENSOR_TYPES[one] for one in marks] == [0, 2, 5, 8, 20, 65, 89, 255]
