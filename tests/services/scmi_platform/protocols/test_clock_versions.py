"""Versions 0x10000 and 0x20000 of the clock protocol, byte for byte (DEN0056B §4.6, DEN0056D §4.6)."""

from __future__ import annotations

import pytest

from tests.services.scmi_platform.scmi_rig import Rig, words

CLOCK = 0x14
CPU, PIXEL, LONG, MUX, NONE = 0, 1, 2, 3, 4
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, OUT_OF_RANGE, PROTOCOL_ERROR = -1, -2, -3, -4, -5, -10
LONG_NAME = b"a-clock-with-a-rather-long-name"

SUCCESS_V1 = [
    (0x1, b"", words(0, 0x0008_0004)),  # PROTOCOL_ATTRIBUTES: 8 asynchronous (23:16), 4 clocks (15:0)
    (0x2, words(0x7), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES
    (0x3, words(CPU), words(0, 1) + b"cpu".ljust(16, b"\0")),  # CLOCK_ATTRIBUTES: enabled (0); name; no latency
    (0x3, words(PIXEL), words(0, 0) + b"pixel".ljust(16, b"\0")),
    (0x3, words(LONG), words(0, 1) + LONG_NAME[:15] + b"\0"),  # cut, and nothing says so
    (0x4, words(CPU, 15), words(0, 2, 1600, 0, 1700, 0)),  # CLOCK_DESCRIBE_RATES
    (0x4, words(PIXEL, 0), words(0, 1 << 12 | 3, 1000, 0, 2050, 0, 100, 0)),
    (0x5, words(4, CPU, 401, 0), words(0)),  # CLOCK_RATE_SET, rounding up
    (0x6, words(LONG), words(0, 2, 1)),  # CLOCK_RATE_GET
    (0x7, words(CPU, 0), words(0)),  # CLOCK_CONFIG_SET: disable
    (0x7, words(CPU, 1), words(0)),  # enable
]

ERRORS_V1 = [
    (0x2, words(0x8), NOT_FOUND),  # no names yet
    (0x3, words(NONE), NOT_FOUND),
    (0x4, words(NONE, 0), NOT_FOUND),
    (0x4, words(CPU, 17), OUT_OF_RANGE),
    (0x5, words(0, NONE, 500, 0), NOT_FOUND),
    (0x5, words(0x10, CPU, 500, 0), INVALID),
    (0x5, words(0, LONG, 2, 1), DENIED),
    (0x6, words(NONE), NOT_FOUND),
    (0x7, words(NONE, 1), NOT_FOUND),
    (0x7, words(CPU, 2), INVALID),  # reserved bits (31:1)
    (0x7, words(CPU, 3), INVALID),  # "unchanged" came with version 3
    (0x7, words(LONG, 0), DENIED),
    (0x7, words(CPU, 1, 0), PROTOCOL_ERROR),  # the three words of version 3
    *((message, words(CPU, 0), NOT_SUPPORTED) for message in range(0x8, 0x10)),  # came later
]


@pytest.fixture(params=["profile", "negotiated"])
def v1(request: pytest.FixtureRequest) -> Rig:
    """A platform that is no newer, and one with which it was negotiated."""
    if request.param == "profile":
        return Rig(profile="scmi-2.0")
    rig = Rig()
    assert rig.ask(CLOCK, 0x10, words(0x10000)) == words(0)
    return rig


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS_V1)
def test_version_one(v1: Rig, message: int, payload: bytes, reply: bytes) -> None:
    assert v1.ask(CLOCK, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS_V1)
def test_errors_of_version_one(v1: Rig, message: int, payload: bytes, status: int) -> None:
    assert v1.ask(CLOCK, message, payload) == words(status)


def test_version_one_is_switched_and_set(v1: Rig) -> None:
    v1.ask(CLOCK, 0x7, words(CPU, 0))
    assert v1.ask(CLOCK, 0x3, words(CPU))[4:8] == words(0)
    assert v1.ask(CLOCK, 0x5, words(1, CPU, 500, 0)) == words(0)
    v1.advance(1.0)
    ((_, head, payload),) = v1.take()
    assert (head.type, head.message) == (2, 0x5)
    assert payload == words(0, CPU, 500, 0)  # CLOCK_RATE_SET_COMPLETE: status, clock id, rate


def test_the_platform_of_scmi_2_negotiates_nothing() -> None:
    rig = Rig(profile="scmi-2.0")
    assert rig.ask(CLOCK, 0x0) == words(0, 0x10000)
    assert rig.ask(CLOCK, 0x10, words(0x10000)) == words(NOT_SUPPORTED)
    assert rig.ask(CLOCK, 0x2, words(0x10)) == words(NOT_FOUND)


def test_version_two() -> None:
    rig = Rig()
    assert rig.ask(CLOCK, 0x10, words(0x20000)) == words(0)
    # both notifications (31, 30), extended name (29), enabled (0): neither parents nor restrictions; enable latency
    assert rig.ask(CLOCK, 0x3, words(LONG)) == words(0, 0xE000_0001) + LONG_NAME[:15] + b"\0" + words(0)
    assert rig.ask(CLOCK, 0x3, words(CPU))[24:] == words(7)
    assert rig.ask(CLOCK, 0x8, words(LONG)) == words(0, 0) + LONG_NAME.ljust(64, b"\0")  # CLOCK_NAME_GET
    for message in (0x9, 0xA):
        assert rig.ask(CLOCK, message, words(CPU, 1)) == words(0)
    assert rig.ask(CLOCK, 0x7, words(CPU, 0)) == words(0)  # two words
    assert rig.ask(CLOCK, 0x7, words(CPU, 0, 0)) == words(PROTOCOL_ERROR)
    assert rig.ask(CLOCK, 0x7, words(CPU, 3)) == words(INVALID)
    for message in range(0xB, 0x10):
        assert rig.ask(CLOCK, message, words(CPU)) == words(NOT_SUPPORTED)
        assert rig.ask(CLOCK, 0x2, words(message)) == words(NOT_FOUND)
    assert rig.ask(CLOCK, 0xF, words(CPU), agent=2)[:4] == words(0)  # the other agent did not negotiate
    assert rig.ask(CLOCK, 0x0) == words(0, 0x30000)  # the platform's, not the agent's
    assert rig.ask(CLOCK, 0x10, words(0x30000)) == words(0)
    assert rig.ask(CLOCK, 0xE, words(MUX)) == words(0, CPU)
