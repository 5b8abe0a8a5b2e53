"""Where a sensor's trip point is put."""

from __future__ import annotations

import pytest

from services.guest_driver.scmi_books import Chased


def test_a_trip_point_goes_half_an_interval_ahead() -> None:
    one = Chased(0, 1, (1, 0), period=2.0)
    assert one.ahead(100, 10.0) == 101, "nothing is known yet: the next unit"
    assert one.ahead(140, 20.0) == 144, "4 a second"
    assert one.ahead(100, 20.0) == 101, "no time has passed"
    assert one.ahead(80, 30.0) == 78, "it falls"
    assert one.ahead(80, 40.0) == 81, "it rests"


@pytest.mark.parametrize(("before", "reading"), [(0, (1 << 63) - 1), (0, -(1 << 63)), (-(1 << 63), (1 << 63) - 1)])
def test_a_trip_point_is_a_value_that_a_sensor_can_have(before: int, reading: int) -> None:
    one = Chased(0, 1, (1, 0), period=2.0, reading=before, at=9.0)
    assert one.ahead(reading, 10.0) == reading
    assert one.ahead(reading, 20.0) == min(reading + 1, (1 << 63) - 1)
