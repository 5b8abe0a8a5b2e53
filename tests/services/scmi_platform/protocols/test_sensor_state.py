"""Trip points against the obvious definition; what is saved, and what is not taken back."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from common.scmi import sensor as msg
from services.scmi_platform.boards.sensor import SensorSection, Signal, TripPoint
from services.scmi_platform.protocols.sensor_state import Sensor, SensorState
from tests.services.scmi_platform.scmi_rig import Rig, words

SENSOR = 0x15
TEMP, LID, PLAIN = range(3)


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


def test_what_was_set_is_there_again() -> None:
    rig = Rig()
    assert [rig.platform.protocols[SENSOR].save(number) for number in range(3)] == [None] * 3
    rig.ask(SENSOR, 0xA, words(TEMP, 5 << 16 | 1))  # every 5 s, no timestamps
    rig.ask(SENSOR, 0x5, words(TEMP, 1 << 4 | 2, -7, -1))  # trip point 1: falling, −7
    rig.ask(SENSOR, 0xA, words(LID, msg.interval(5, -1) << 11))  # every 0.5 s, off
    assert {(SENSOR, TEMP), (SENSOR, LID)} <= rig.platform.touched
    other = Rig()
    for number in (TEMP, LID):
        saved = msgspec.json.encode(rig.platform.protocols[SENSOR].save(number))
        other.platform.protocols[SENSOR].load(number, msgspec.json.decode(saved, type=SensorState))
        assert other.platform.protocols[SENSOR].save(number) == rig.platform.protocols[SENSOR].save(number)
        assert other.ask(SENSOR, 0x9, words(number)) == rig.ask(SENSOR, 0x9, words(number))
    assert other.ask(SENSOR, 0x9, words(TEMP)) == words(0, 5 << 16 | 1)
    other.platform.reset_agent(1)
    assert other.ask(SENSOR, 0x9, words(TEMP)) == words(0, 1 << 16 | 3)


GOOD: dict[str, Any] = {"enabled": False, "timestamped": True, "trips": [(1, 3), (2, 0)], "interval": 64, "owner": 1}


@pytest.mark.parametrize(
    ("number", "change", "field"),
    [
        (TEMP, {"trips": [(1, 3)]}, "trips"),
        (TEMP, {"trips": [(1, 3), (2, 4)]}, "trips"),
        (TEMP, {"trips": [(1, 3), (1 << 63, 0)]}, "trips"),
        (TEMP, {"interval": 0}, "interval"),
        (TEMP, {"interval": 3 << 5}, "interval"),  # 3 s
        (TEMP, {"interval": 20 << 5 | 31}, "interval"),  # 2 s, but not as the sensor writes it
        (TEMP, {"interval": 1 << 21 | 64}, "interval"),
        (TEMP, {"owner": 0}, "owner"),
        (LID, {"trips": [], "timestamped": True, "interval": 32}, "timestamped"),
        (PLAIN, {"trips": [], "timestamped": False}, "interval"),  # it has none
    ],
)
def test_what_the_board_does_not_allow_is_refused(number: int, change: dict[str, Any], field: str) -> None:
    sensors = Rig().platform.protocols[SENSOR]
    sensors.load(TEMP, msgspec.convert(GOOD, SensorState))
    before = sensors.save(number)
    with pytest.raises((RemoteError, msgspec.ValidationError), match=field):
        sensors.load(number, msgspec.convert(GOOD | {"owner": 2} | change, SensorState))
    assert sensors.save(number) == before


def test_without_intervals_none_is_set() -> None:
    sensors = Rig().platform.protocols[SENSOR]
    sensors.load(PLAIN, SensorState(True, False, [], 0, 1))
    assert sensors.save(PLAIN) == SensorState(True, False, [], 0, 1)
