"""Clock protocol, byte for byte (DEN0056E §4.6)."""

from __future__ import annotations

import pytest

from common.scmi import clock
from tests.services.scmi_platform.scmi_rig import Rig, words

CLOCK = 0x14
CPU, PIXEL, LONG, MUX, NONE = 0, 1, 2, 3, 4
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, OUT_OF_RANGE, BUSY, PROTOCOL_ERROR = -1, -2, -3, -4, -5, -6, -10
LONG_NAME = b"a-clock-with-a-rather-long-name"

SUCCESS = [
    (0x0, b"", words(0, 0x30000)),  # PROTOCOL_VERSION
    (0x1, b"", words(0, 0x0008_0004)),  # PROTOCOL_ATTRIBUTES: 8 asynchronous (23:16), 4 clocks (15:0)
    (0x2, words(0x9), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES
    # CLOCK_ATTRIBUTES: both notifications (31, 30), enabled (0); name; enable latency
    (0x3, words(CPU), words(0, 0xC000_0001) + b"cpu".ljust(16, b"\0") + words(7)),
    # extended config (27), disabled
    (0x3, words(PIXEL), words(0, 0xC800_0000) + b"pixel".ljust(16, b"\0") + words(0)),
    # extended name (29), parents (28), restricted (1), enabled (0)
    (0x3, words(LONG), words(0, 0xF000_0003) + LONG_NAME[:15] + b"\0" + words(0)),
    # CLOCK_DESCRIBE_RATES: 15 rates fit (11:0), 2 remain (31:16)
    (0x4, words(CPU, 0), words(0, 2 << 16 | 15, *(word for n in range(1, 16) for word in (n * 100, 0)))),
    (0x4, words(CPU, 15), words(0, 2, 1600, 0, 1700, 0)),
    (0x4, words(PIXEL, 0), words(0, 1 << 12 | 3, 1000, 0, 2050, 0, 100, 0)),  # triplet (12): lowest, highest, step
    (0x4, words(LONG, 0), words(0, 2, 2, 1, 3, 2)),  # low word first
    (0x5, words(0, CPU, 500, 0), words(0)),  # CLOCK_RATE_SET
    (0x5, words(2, CPU, 500, 0), words(0)),  # "ignore delayed response" means nothing when synchronous
    (0x6, words(CPU), words(0, 300, 0)),  # CLOCK_RATE_GET
    (0x6, words(LONG), words(0, 2, 1)),
    (0x7, words(CPU, 0, 0), words(0)),  # CLOCK_CONFIG_SET: disable
    (0x7, words(CPU, 1, 0), words(0)),  # enable
    (0x7, words(PIXEL, 1 << 16 | 3, 25), words(0)),  # duty cycle (23:16), state unchanged
    (0x8, words(LONG), words(0, 0) + LONG_NAME.ljust(64, b"\0")),  # CLOCK_NAME_GET: flags, name
    (0x9, words(CPU, 1), words(0)),  # CLOCK_RATE_NOTIFY
    (0xA, words(CPU, 1), words(0)),  # CLOCK_RATE_CHANGE_REQUESTED_NOTIFY
    (0xB, words(CPU, 0), words(0, 0, 1, 0)),  # CLOCK_CONFIG_GET: attributes, enabled, no extended value
    (0xB, words(PIXEL, 2), words(0, 0, 0, 90)),  # phase
    (0xC, words(LONG, 0), words(0, 2, CPU, PIXEL)),  # CLOCK_POSSIBLE_PARENTS_GET: 2 returned (7:0)
    (0xC, words(LONG, 1), words(0, 1, PIXEL)),
    (0xD, words(MUX, PIXEL), words(0)),  # CLOCK_PARENT_SET
    (0xE, words(MUX), words(0, CPU)),  # CLOCK_PARENT_GET
    (0xF, words(CPU), words(0, 0xE000_0000)),  # CLOCK_GET_PERMISSIONS: state, parent, rate
    (0xF, words(LONG), words(0, 0)),
    (0x10, words(0x20000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x3, words(NONE), NOT_FOUND),
    (0x4, words(NONE, 0), NOT_FOUND),
    (0x4, words(CPU, 17), OUT_OF_RANGE),
    (0x4, words(PIXEL, 1), OUT_OF_RANGE),
    (0x5, words(0, NONE, 500, 0), NOT_FOUND),
    (0x5, words(0x10, CPU, 500, 0), INVALID),  # reserved flag
    *((0x5, words(flags, CPU, 99, 0), INVALID) for flags in (0, 4, 8)),  # below the lowest, however it is rounded
    *((0x5, words(flags, CPU, 1701, 0), INVALID) for flags in (0, 4, 8)),  # above the highest
    (0x5, words(0, PIXEL, 999, 0), INVALID),
    (0x5, words(0, PIXEL, 2051, 0), INVALID),
    (0x5, words(4, PIXEL, 2001, 0), INVALID),  # in the range, but no step above to round up to
    (0x5, words(0, LONG, 2, 1), DENIED),  # restricted
    (0x6, words(NONE), NOT_FOUND),
    (0x7, words(NONE, 1, 0), NOT_FOUND),
    (0x7, words(CPU, 2, 0), INVALID),  # reserved state
    (0x7, words(CPU, 1 << 8, 0), INVALID),  # reserved bits
    (0x7, words(CPU, 1 << 16 | 3, 5), NOT_SUPPORTED),  # no duty cycle here
    (0x7, words(PIXEL, 1 << 16 | 3, 101), INVALID),  # more than all of the period
    (0x7, words(PIXEL, 2 << 16 | 3, 360), INVALID),  # more than a turn
    (0x7, words(LONG, 0, 0), DENIED),
    (0x8, words(NONE), NOT_FOUND),
    (0x9, words(NONE, 1), NOT_FOUND),
    (0x9, words(CPU, 2), INVALID),
    (0xA, words(NONE, 1), NOT_FOUND),
    (0xA, words(CPU, 2), INVALID),
    (0xB, words(NONE, 0), NOT_FOUND),
    (0xB, words(CPU, 1), NOT_SUPPORTED),
    (0xB, words(CPU, 0x100), INVALID),
    (0xC, words(NONE, 0), NOT_FOUND),
    (0xC, words(CPU, 0), NOT_SUPPORTED),
    (0xC, words(MUX, 2), INVALID),
    (0xD, words(NONE, 0), NOT_FOUND),
    (0xD, words(MUX, NONE), NOT_FOUND),
    (0xD, words(MUX, LONG), INVALID),
    (0xD, words(LONG, CPU), DENIED),
    (0xE, words(NONE), NOT_FOUND),
    (0xE, words(CPU), NOT_SUPPORTED),
    (0xF, words(NONE), NOT_FOUND),
    (0x10, words(0x40000), NOT_SUPPORTED),
    (0x6, b"", PROTOCOL_ERROR),
    (0x6, words(0, 0), PROTOCOL_ERROR),
    (0x7, words(CPU, 1), PROTOCOL_ERROR),  # the two words of older versions
    (0x11, b"", NOT_SUPPORTED),
]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert Rig().ask(CLOCK, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    assert Rig().ask(CLOCK, message, payload) == words(status)


@pytest.mark.parametrize("message", [0x5, 0x6, 0x7, 0x9, 0xA, 0xB, 0xD, 0xE])
def test_denied_clock(message: int) -> None:
    rig = Rig()
    rig.ask(0x10, 0x9, words(1, 1, 0), agent=2)  # device "core" denied to agent 1
    size = {0x5: 16, 0x6: 4, 0x7: 12, 0xE: 4}.get(message, 8)
    payload = words(0, CPU, 0, 0) if message == 0x5 else words(CPU, 0, 0)[:size]
    assert rig.ask(CLOCK, message, payload) == words(DENIED)
    assert rig.ask(CLOCK, 0x3, words(CPU))[4:8] == words(0xC000_0003)  # restricted (1): nothing is permitted
    assert rig.ask(CLOCK, 0xF, words(CPU)) == words(0, 0)


@pytest.mark.parametrize(
    ("clock_id", "flags", "asked", "given"),
    [
        (CPU, 0, 599, 500),  # down
        (CPU, 4, 501, 600),  # up
        (CPU, 8, 549, 500),  # nearest
        (CPU, 8, 550, 500),  # the lower one in the middle
        (CPU, 0xC, 551, 600),  # auto wins over up
        (CPU, 0, 1700, 1700),
        (CPU, 4, 100, 100),
        (PIXEL, 0, 1199, 1100),
        (PIXEL, 4, 1101, 1200),
        (PIXEL, 8, 1160, 1200),
        (PIXEL, 4, 1000, 1000),
        (PIXEL, 0, 2050, 2000),  # the last step at or below the highest rate
        (PIXEL, 8, 2050, 2000),
    ],
)
def test_rounding(clock_id: int, flags: int, asked: int, given: int) -> None:
    rig = Rig()
    assert rig.ask(CLOCK, 0x5, words(flags, clock_id, asked, 0)) == words(0)
    assert rig.ask(CLOCK, 0x6, words(clock_id)) == words(0, given, 0)


def test_config_and_parent_are_read_back() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x7, words(PIXEL, 1 << 16 | 1, 25))
    assert rig.ask(CLOCK, 0xB, words(PIXEL, 1)) == words(0, 0, 1, 25)
    rig.ask(CLOCK, 0x7, words(PIXEL, 0, 0))
    assert rig.ask(CLOCK, 0xB, words(PIXEL, 1)) == words(0, 0, 0, 25)
    rig.ask(CLOCK, 0xD, words(MUX, PIXEL))
    assert rig.ask(CLOCK, 0xE, words(MUX)) == words(0, PIXEL)


def test_rate_set_async() -> None:
    rig = Rig()
    assert rig.ask(CLOCK, 0x5, words(1, CPU, 500, 0)) == words(0)
    token = rig.token
    assert rig.ask(CLOCK, 0x6, words(CPU)) == words(0, 300, 0)  # not yet
    assert rig.platform.tick(rig.now) == pytest.approx(rig.now + 0.001)
    rig.advance(0.001)
    ((agent, head, payload),) = rig.take()
    assert (agent, head.type, head.protocol, head.message, head.token) == (1, 2, CLOCK, 0x5, token)
    assert payload == words(0, CPU, 500, 0)  # status, clock id, rate
    assert rig.ask(CLOCK, 0x6, words(CPU)) == words(0, 500, 0)


def test_ignored_delayed_response_is_not_sent() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x5, words(3, CPU, 500, 0))
    rig.advance(1.0)
    assert rig.take() == []
    assert rig.ask(CLOCK, 0x6, words(CPU)) == words(0, 500, 0)
    assert rig.platform.agents[1].pending[CLOCK] == 0


def test_too_many_asynchronous_changes_are_busy() -> None:
    rig = Rig()
    replies = [rig.ask(CLOCK, 0x5, words(1, CPU, 500, 0)) for _ in range(9)]
    assert replies == [words(0)] * 8 + [words(BUSY)]
    assert rig.ask(CLOCK, 0x5, words(1, CPU, 500, 0), agent=2) == words(0)  # the bound is per agent
    rig.advance(1.0)
    assert rig.ask(CLOCK, 0x5, words(1, CPU, 600, 0)) == words(0)


def test_notifications_reach_whoever_asked() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x9, words(CPU, 1))
    rig.ask(CLOCK, 0xA, words(CPU, 1), agent=2)
    rig.ask(CLOCK, 0x5, words(0, CPU, 500, 0), agent=2)
    (requested, changed) = rig.take()
    assert (requested[0], requested[1].message, requested[1].type) == (2, 1, 3)
    assert requested[2] == words(2, CPU, 500, 0)  # agent that asked, clock, rate
    assert (changed[0], changed[1].message) == (1, 0)
    assert clock.parse_rate_event(changed[2]) == (2, CPU, 500)
    rig.ask(CLOCK, 0x5, words(0, CPU, 500, 0), agent=2)  # the same rate: requested, but nothing changed
    assert [head.message for _, head, _ in rig.take()] == [1]
    rig.ask(CLOCK, 0x9, words(CPU, 0))
    rig.ask(CLOCK, 0xA, words(CPU, 0), agent=2)
    rig.ask(CLOCK, 0x5, words(0, CPU, 600, 0))
    assert rig.take() == []


def test_reset_of_an_agent_announces_the_rate_that_comes_back() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x9, words(CPU, 1), agent=2)
    rig.ask(CLOCK, 0x5, words(0, CPU, 500, 0))
    rig.take()
    rig.platform.reset_agent(1)
    assert [payload for _, _, payload in rig.take()] == [words(1, CPU, 300, 0)]


def test_without_p2a() -> None:
    rig = Rig(p2a=False)
    assert rig.ask(CLOCK, 0x1) == words(0, 4)  # no asynchronous changes
    assert rig.ask(CLOCK, 0x3, words(CPU))[4:8] == words(1)  # no notifications
    assert rig.ask(CLOCK, 0x5, words(1, CPU, 500, 0)) == words(NOT_SUPPORTED)
    assert rig.ask(CLOCK, 0x5, words(3, CPU, 500, 0)) == words(0)  # nothing has to come back
    for message in (0x9, 0xA):
        assert rig.ask(CLOCK, message, words(CPU, 1)) == words(NOT_SUPPORTED)
        assert rig.ask(CLOCK, 0x2, words(message)) == words(NOT_FOUND)
