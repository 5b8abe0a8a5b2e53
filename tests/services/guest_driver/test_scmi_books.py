"""Where a sensor's trip point is put."""

from __future__ import annotations

from services.guest_driver.scmi_books import Chased


def test_a_trip_point_goes_half_an_interval_ahead() -> None:
    one = Chased(0, 1, (1, 0), period=2.0)
    assert one.ahead(100, 10.0) == 101, "nothing is known yet: the next unit"
    assert one.ahead(140, 20.0) == 144, "4 a second"
    assert one.ahead(100, 20.0) == 101, "no time has passed"
    assert one.ahead(80, 30.0) == 78, "it falls"
    assert one.ahead(80, 40.0) == 81, "it rests"
