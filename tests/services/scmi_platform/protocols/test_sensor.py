"""Sensor protocol, byte for byte (DEN0056E §4.7)."""

from __future__ import annotations

import struct

import pytest

from common.errors import LocalError
from common.scmi import sensor
from services.scmi_platform.protocols.sensor import SensorProtocol
from tests.services.scmi_platform.scmi_rig import Rig, words

SENSOR = 0x15
TEMP, LID, PLAIN, NONE = 0, 1, 2, 3
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, BUSY, PROTOCOL_ERROR = -1, -2, -3, -4, -6, -10
MS2 = 0x59  # meters per second squared


def q(*values: int) -> bytes:
    return b"".join(struct.pack("<q", value) for value in values)


def name(text: str, size: int = 16) -> bytes:
    return text.encode()[: size - 1].ljust(size, b"\0")


# id; async (31), update (30), timestamp exponent −6 (14:10), timestamps (9), extended (8), 2 trip points (7:0);
# exponent −3 (15:11), type °C; name; power; resolution 1e−3; lowest, highest
TEMP_DESCRIPTOR = (
    words(TEMP, 0xC000_0302 | 26 << 10, 29 << 11 | 2) + name("temp") + words(9, 29 << 27 | 1) + q(-40000, 125000)
)
# extended name (29), update (30); two axes (21:16), axes (8); only the power follows the name
LID_DESCRIPTOR = words(LID, 0x6000_0100, 2 << 16 | 1 << 8 | MS2) + name("accelerometer-of-the-lid") + words(0)
PLAIN_DESCRIPTOR = words(PLAIN, 0x100, 5) + name("plain") + words(0, 1) + q(0, 10)
X_AXIS = words(0, 0x100, 30 << 11 | MS2) + name("x") + words(30 << 27 | 1) + q(-1000, 1000)
UP_AXIS = words(1, 0x300, 30 << 11 | MS2) + name("the-axis-that-points-up") + words(30 << 27 | 2) + q(-1000, 1000)

SUCCESS = [
    (0x0, b"", words(0, 0x30001)),
    (0x1, b"", words(0, 0x0008_0003, 0, 0, 0)),  # 8 asynchronous, 3 sensors; no shared values
    (0x2, words(0xD), words(0, 0)),
    (0x3, words(0), words(0, 1 << 16 | 2) + TEMP_DESCRIPTOR + LID_DESCRIPTOR),  # 2 returned, 1 remains
    (0x3, words(2), words(0, 1) + PLAIN_DESCRIPTOR),
    (0x4, words(TEMP, 1), words(0)),  # SENSOR_TRIP_POINT_NOTIFY
    (0x5, words(TEMP, 1 << 4 | 3, 80000, 0), words(0)),  # SENSOR_TRIP_POINT_CONFIG: trip point 1, both ways
    (0x6, words(TEMP, 0), words(0) + q(50000, 0)),  # SENSOR_READING_GET at second 0: value, timestamp
    (0x6, words(LID, 0), words(0) + q(-5, 0, 981, 0)),  # one reading an axis, signed
    (0x7, words(LID, 0), words(0, 2) + X_AXIS + UP_AXIS),  # SENSOR_AXIS_DESCRIPTION_GET: 2 returned (5:0)
    (0x7, words(LID, 1), words(0, 1) + UP_AXIS),
    (0x8, words(TEMP, 1), words(0, 2, 2 << 5, 5 << 5)),  # SENSOR_LIST_UPDATE_INTERVALS: 2 s, 5 s
    (0x8, words(LID, 0), words(0, 1 << 12 | 3, 1 << 5 | 29, 1 << 5 | 1, 1 << 5 | 29)),  # segmented (12)
    (0x9, words(TEMP), words(0, 1 << 16 | 3)),  # SENSOR_CONFIG_GET: 1 s (31:16), timestamps, enabled
    (0x9, words(PLAIN), words(0, 0)),
    (0xA, words(TEMP, 1), words(0)),  # SENSOR_CONFIG_SET
    (0xB, words(TEMP, 1), words(0)),  # SENSOR_CONTINUOUS_UPDATE_NOTIFY
    (0xC, words(LID), words(0, 0) + name("accelerometer-of-the-lid", 64)),  # SENSOR_NAME_GET
    (0xD, words(LID, 0), words(0, 1 << 26 | 1, 0) + name("x", 64)),  # SENSOR_AXIS_NAME_GET: 1 remains (31:26)
    (0xD, words(LID, 1), words(0, 1, 1) + name("the-axis-that-points-up", 64)),
    (0x10, words(0x30000), words(0)),
]

ERRORS = [
    (0x3, words(3), INVALID),
    (0x4, words(NONE, 1), NOT_FOUND),
    (0x4, words(TEMP, 2), INVALID),
    (0x5, words(NONE, 3, 0, 0), NOT_FOUND),
    (0x5, words(TEMP, 2 << 4, 0, 0), INVALID),  # no such trip point
    (0x5, words(TEMP, 4, 0, 0), INVALID),  # reserved bit
    (0x5, words(LID, 3, 0, 0), INVALID),  # no trip points at all
    (0x6, words(NONE, 0), NOT_FOUND),
    (0x6, words(TEMP, 2), INVALID),  # reserved flag
    (0x6, words(LID, 1), NOT_SUPPORTED),  # not asynchronous
    (0x6, words(PLAIN, 0), PROTOCOL_ERROR),  # disabled
    (0x7, words(NONE, 0), NOT_FOUND),
    (0x7, words(TEMP, 0), NOT_SUPPORTED),  # no axes
    (0x7, words(LID, 2), INVALID),
    (0x8, words(NONE, 0), NOT_FOUND),
    (0x8, words(PLAIN, 0), NOT_SUPPORTED),
    (0x8, words(TEMP, 3), INVALID),
    (0x8, words(LID, 1), INVALID),
    (0x9, words(NONE), NOT_FOUND),
    (0xA, words(NONE, 1), NOT_FOUND),
    (0xA, words(TEMP, 4), INVALID),  # reserved bit
    (0xA, words(TEMP, 3 << 9), INVALID),  # reserved rounding
    (0xA, words(PLAIN, 2), INVALID),  # no timestamps here
    (0xA, words(PLAIN, 1 << 16), INVALID),  # no intervals here
    (0xA, words(TEMP, 9 << 16 | 1 << 9), INVALID),  # nothing longer to round up to
    (0xB, words(NONE, 1), NOT_FOUND),
    (0xB, words(PLAIN, 1), NOT_SUPPORTED),
    (0xB, words(TEMP, 2), INVALID),
    (0xC, words(NONE), NOT_FOUND),
    (0xD, words(NONE, 0), NOT_FOUND),
    (0xD, words(TEMP, 0), NOT_SUPPORTED),
    (0xD, words(LID, 2), INVALID),
    (0x10, words(0x10001), NOT_SUPPORTED),
    (0x6, words(0), PROTOCOL_ERROR),
    (0xE, b"", NOT_SUPPORTED),
]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert Rig().ask(SENSOR, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    assert Rig().ask(SENSOR, message, payload) == words(status)


@pytest.mark.parametrize("message", [0x4, 0x5, 0x6, 0x9, 0xA, 0xB])
def test_denied_sensor(message: int) -> None:
    rig = Rig()
    rig.ask(0x10, 0x9, words(1, 1, 0), agent=2)  # device "core" denied to agent 1
    size = {0x5: 16, 0x9: 4}.get(message, 8)
    assert rig.ask(SENSOR, message, words(TEMP, 0, 0, 0)[:size]) == words(DENIED)


def test_timestamp_counts_microseconds_since_the_start() -> None:
    rig = Rig()
    rig.now += 1.5
    assert rig.ask(SENSOR, 0x6, words(TEMP, 0)) == words(0) + q(50000, 1_500_000)
    rig.ask(SENSOR, 0xA, words(TEMP, 1))  # timestamps off
    assert rig.ask(SENSOR, 0x6, words(TEMP, 0)) == words(0) + q(50000, 0)


@pytest.mark.parametrize(
    ("sensor_id", "interval", "rounding", "given"),
    [
        (TEMP, (2, 0), 0, (2, 0)),
        (TEMP, (20, -1), 0, (2, 0)),  # the same length, written otherwise
        (TEMP, (4, 0), 0, (2, 0)),  # down
        (TEMP, (3, 0), 1, (5, 0)),  # up
        (TEMP, (4, 0), 2, (5, 0)),  # nearest
        (LID, (5, 0), 0, (5, 0)),  # inside the range
        (LID, (99, 0), 0, (1, 1)),
        (LID, (99, 0), 1, None),
        (LID, (1, -6), 1, (1, -3)),
        (LID, (1, -6), 0, None),
        (TEMP, (1, -6), 0, None),
    ],
)
def test_update_interval(
    sensor_id: int, interval: tuple[int, int], rounding: int, given: tuple[int, int] | None
) -> None:
    rig = Rig()
    word = sensor.interval(*interval) << 11 | rounding << 9 | 1
    assert rig.ask(SENSOR, 0xA, words(sensor_id, word)) == words(0 if given else INVALID)
    if given:
        config = int.from_bytes(rig.ask(SENSOR, 0x9, words(sensor_id))[4:], "little")
        assert sensor.parse_interval(config >> 11) == given


def test_reading_async() -> None:
    rig = Rig()
    assert rig.ask(SENSOR, 0x6, words(TEMP, 1)) == words(0)
    token = rig.token
    rig.advance(0.001)
    ((agent, head, payload),) = rig.take()
    assert (agent, head.type, head.protocol, head.message, head.token) == (1, 2, SENSOR, 0x6, token)
    assert payload == words(0, TEMP) + q(50000, 1000)  # status, sensor id, value, timestamp
    assert sensor.parse_reading_complete(payload[4:])[0] == TEMP


def test_reading_async_of_a_sensor_switched_off_meanwhile() -> None:
    rig = Rig()
    rig.ask(SENSOR, 0x6, words(TEMP, 1))
    rig.ask(SENSOR, 0xA, words(TEMP, 0))
    rig.advance(0.001)
    assert [payload for _, _, payload in rig.take()] == [words(PROTOCOL_ERROR)]


def test_too_many_asynchronous_readings_are_busy() -> None:
    rig = Rig()
    assert [rig.ask(SENSOR, 0x6, words(TEMP, 1)) for _ in range(9)] == [words(0)] * 8 + [words(BUSY)]


def overrider(rig: Rig) -> SensorProtocol:
    server = rig.platform.protocols[SENSOR]
    assert isinstance(server, SensorProtocol)
    return server


def test_trip_points() -> None:
    rig = Rig()
    force = overrider(rig).override
    rig.ask(SENSOR, 0x4, words(TEMP, 1))
    seen = []
    for value in (70000, 71000, 70001, 70000, 69999, 95000):  # trip point 0 at 70000 both ways, 1 disabled
        force(TEMP, value)
        rig.advance(1.0)
        seen.append([payload for _, _, payload in rig.take()])
    rise, fall = words(0, TEMP, 1 << 16), words(0, TEMP, 0)  # agent 0, sensor, direction (16) and id (7:0)
    assert seen == [[rise], [], [], [fall], [], [rise]]
    rig.ask(SENSOR, 0x5, words(TEMP, 1 << 4 | 2, 90000, 0))  # trip point 1, falling only
    rig.ask(SENSOR, 0x5, words(TEMP, 0, 0, 0))  # trip point 0 off
    force(TEMP, 50000)
    rig.advance(1.0)
    force(TEMP, 99000)
    rig.advance(1.0)
    assert [payload for _, _, payload in rig.take()] == [words(0, TEMP, 1)]
    rig.ask(SENSOR, 0x4, words(TEMP, 0))
    force(TEMP, 50000)
    rig.advance(1.0)
    assert rig.take() == []


def test_continuous_updates_come_once_an_interval() -> None:
    rig = Rig()
    rig.ask(SENSOR, 0xB, words(TEMP, 1), agent=2)
    assert rig.advance(0.5) == pytest.approx(101.0)
    assert rig.take() == []
    rig.advance(0.5)
    ((agent, head, payload),) = rig.take()
    assert (agent, head.type, head.message) == (2, 3, 1)
    assert payload == words(0, TEMP) + q(50000, 1_000_000)
    rig.advance(7.0)  # a late tick is one update
    assert len(rig.take()) == 1
    rig.ask(SENSOR, 0xA, words(TEMP, 0))  # off
    rig.advance(7.0)
    assert rig.take() == []
    assert sensor.parse_update(payload).readings[0].value == 50000


def test_override_goes_back_to_the_model() -> None:
    rig = Rig()
    force = overrider(rig).override
    force(LID, 7, axis=1)
    assert rig.ask(SENSOR, 0x6, words(LID, 0)) == words(0) + q(-5, 0, 7, 0)
    force(LID, None, axis=1)
    assert rig.ask(SENSOR, 0x6, words(LID, 0)) == words(0) + q(-5, 0, 981, 0)
    with pytest.raises(LocalError):
        force(LID, 0, axis=2)
    with pytest.raises(LocalError):
        force(NONE, 0)


def test_without_p2a() -> None:
    rig = Rig(p2a=False)
    assert rig.ask(SENSOR, 0x1)[4:8] == words(3)  # no asynchronous readings
    low = int.from_bytes(rig.ask(SENSOR, 0x3, words(0))[12:16], "little")
    assert low >> 30 == 0  # neither asynchronous nor updates
    assert rig.ask(SENSOR, 0x6, words(TEMP, 1)) == words(NOT_SUPPORTED)
    for message in (0x4, 0xB):
        assert rig.ask(SENSOR, message, words(TEMP, 1)) == words(NOT_SUPPORTED)
        assert rig.ask(SENSOR, 0x2, words(message)) == words(NOT_FOUND)


def test_axes_that_no_message_can_carry_are_refused() -> None:
    rig = Rig()
    rig.platform.max_payload = 39
    with pytest.raises(LocalError, match="2 axes need messages of 40 bytes, max_payload is 39"):
        SensorProtocol(rig.platform, overrider(rig).table)
