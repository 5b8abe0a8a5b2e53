"""Versions 0x10000 and 0x20000 of the sensor protocol, byte for byte (DEN0056B §4.7, DEN0056C §4.7)."""

from __future__ import annotations

import struct

import pytest

from common.scmi import sensor
from services.scmi_platform.protocols.sensor import SensorProtocol
from tests.services.scmi_platform.scmi_rig import Rig, words

SENSOR = 0x15
TEMP, LID, PLAIN, NONE = 0, 1, 2, 3
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, PROTOCOL_ERROR = -1, -2, -3, -4, -10


def q(value: int) -> bytes:
    return struct.pack("<q", value)


def name(text: str) -> bytes:
    return text.encode()[:15].ljust(16, b"\0")


# id; asynchronous (31), 2 trip points (7:0); interval 1 × 10⁰ s (31:27, 26:22), exponent −3 (15:11), type °C; name
TEMP_V1 = words(TEMP, 0x8000_0002, 1 << 27 | 29 << 11 | 2) + name("temp")
# a sensor with axes is its first one: interval 1 × 10⁻³ s, exponent −2, m/s²
LID_V1 = words(LID, 0, 1 << 27 | 29 << 22 | 30 << 11 | 0x59) + name("accelerometer-of-the-lid")
PLAIN_V1 = words(PLAIN, 0, 5) + name("plain")  # no update interval

SUCCESS_V1 = [
    (0x1, b"", words(0, 0x0008_0003, 0, 0, 0)),  # PROTOCOL_ATTRIBUTES: 8 asynchronous, 3 sensors; no shared values
    (0x2, words(0x6), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES
    (0x3, words(0), words(0, 3) + TEMP_V1 + LID_V1 + PLAIN_V1),  # SENSOR_DESCRIPTION_GET: 3 returned, none remain
    (0x3, words(2), words(0, 1) + PLAIN_V1),
    (0x4, words(TEMP, 1), words(0)),  # SENSOR_TRIP_POINT_NOTIFY
    (0x5, words(TEMP, 1 << 4 | 3, 80000, 0), words(0)),  # SENSOR_TRIP_POINT_CONFIG
    (0x6, words(TEMP, 0), words(0) + q(50000)),  # SENSOR_READING_GET: the value, no timestamp
    (0x6, words(LID, 0), words(0) + q(-5)),  # the first axis
]

ERRORS_V1 = [
    (0x2, words(0xB), NOT_FOUND),
    (0x3, words(3), INVALID),
    (0x4, words(NONE, 1), NOT_FOUND),
    (0x4, words(TEMP, 2), INVALID),
    (0x5, words(NONE, 3, 0, 0), NOT_FOUND),
    (0x5, words(TEMP, 2 << 4, 0, 0), INVALID),
    (0x6, words(NONE, 0), NOT_FOUND),
    (0x6, words(TEMP, 2), INVALID),
    (0x6, words(LID, 1), NOT_SUPPORTED),
    (0x6, words(TEMP), PROTOCOL_ERROR),
    *((message, words(TEMP, 0), NOT_SUPPORTED) for message in range(0x7, 0xE)),  # came later
]


@pytest.fixture(params=["profile", "negotiated"])
def v1(request: pytest.FixtureRequest) -> Rig:
    """A platform that is no newer, and one with which it was negotiated."""
    if request.param == "profile":
        return Rig(profile="scmi-2.0")
    rig = Rig()
    assert rig.ask(SENSOR, 0x10, words(0x10000)) == words(0)
    return rig


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS_V1)
def test_version_one(v1: Rig, message: int, payload: bytes, reply: bytes) -> None:
    assert v1.ask(SENSOR, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS_V1)
def test_errors_of_version_one(v1: Rig, message: int, payload: bytes, status: int) -> None:
    assert v1.ask(SENSOR, message, payload) == words(status)


def test_version_one_reads_later(v1: Rig) -> None:
    assert v1.ask(SENSOR, 0x6, words(TEMP, 1)) == words(0)
    v1.advance(1.0)
    ((_, head, payload),) = v1.take()
    assert (head.type, head.message) == (2, 0x6)
    assert payload == words(0, TEMP) + q(50000)  # SENSOR_READING_COMPLETE: status, sensor id, value


def test_version_one_hears_of_trip_points(v1: Rig) -> None:
    v1.ask(SENSOR, 0x5, words(TEMP, 3, 49999, 0))
    v1.ask(SENSOR, 0x4, words(TEMP, 1))
    sensors = v1.platform.protocols[SENSOR]
    assert isinstance(sensors, SensorProtocol)
    sensors.override(TEMP, 49999)
    v1.advance(1.0)
    assert [payload for _, _, payload in v1.take()] == [words(0, TEMP, 0)]  # agent 0, sensor, falling


def test_what_cannot_be_turned_on_is_on() -> None:
    rig = Rig(profile="scmi-2.0")
    assert rig.ask(SENSOR, 0x6, words(PLAIN, 0)) == words(0) + q(3)
    rig.platform.reset_agent(1)
    assert rig.ask(SENSOR, 0x6, words(PLAIN, 0)) == words(0) + q(3)


def test_without_p2a() -> None:
    rig = Rig(p2a=False, profile="scmi-2.0")
    assert rig.ask(SENSOR, 0x1)[4:8] == words(3)
    assert rig.ask(SENSOR, 0x3, words(0))[12:16] == words(2)  # nothing asynchronous
    assert rig.ask(SENSOR, 0x6, words(TEMP, 1)) == words(NOT_SUPPORTED)
    assert rig.ask(SENSOR, 0x4, words(TEMP, 1)) == words(NOT_SUPPORTED)


def test_the_platform_of_scmi_2_negotiates_nothing() -> None:
    rig = Rig(profile="scmi-2.0")
    assert rig.ask(SENSOR, 0x0) == words(0, 0x10000)
    assert rig.ask(SENSOR, 0x10, words(0x10000)) == words(NOT_SUPPORTED)


def test_version_two_has_all_but_names() -> None:
    rig = Rig()
    rig.ask(SENSOR, 0x10, words(0x20000))
    for message in (0xC, 0xD):
        assert rig.ask(SENSOR, message, words(LID, 0)) == words(NOT_SUPPORTED)
        assert rig.ask(SENSOR, 0x2, words(message)) == words(NOT_FOUND)
    descriptors, _ = sensor.parse_descriptors(rig.ask(SENSOR, 0x3, words(1))[4:])
    assert descriptors[0].attributes_low == 0x4000_0100  # update (30), extended (8); no extended name
    axes, _ = sensor.parse_axes(rig.ask(SENSOR, 0x7, words(LID, 1))[4:])
    assert axes[0].attributes_low == 0x100
    assert rig.ask(SENSOR, 0x6, words(LID, 0)) == words(0) + q(-5) + q(0) + q(981) + q(0)  # value, timestamp an axis
    assert rig.ask(SENSOR, 0x9, words(TEMP)) == words(0, 1 << 16 | 3)
    assert rig.ask(SENSOR, 0xB, words(TEMP, 1)) == words(0)
