"""Trip points against the obvious definition."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.scmi_platform.board import SensorSection, Signal, TripPoint
from services.scmi_platform.sensor_state import Sensor


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(0, 9))
def test_crossings(values: list[int], trip: int) -> None:
    """Rising: from below to at or above. Falling: from above to at or below. The first look crosses nothing."""
    section = SensorSection(
        name="s",
        type="volts",
        min=0,
        max=9,
        signal=Signal(base=0),
        trip_points=[TripPoint(value=trip, direction="both")],
    )
    sensor = Sensor(0, section)
    assert sensor.crossings(values[0]) == []
    for before, value in itertools.pairwise(values):
        expected = []
        if before < trip <= value:
            expected = [(0, True)]
        elif before > trip >= value:
            expected = [(0, False)]
        assert sensor.crossings(value) == expected
