"""Base protocol, byte for byte (DEN0056E §4.2)."""

from __future__ import annotations

import pytest

from services.scmi_platform.protocol import ProtocolServer
from services.scmi_platform.registry import ProtocolTable
from tests.services.scmi_platform.scmi_rig import Rig, words

BASE, CLOCK, SENSOR = 0x10, 0x14, 0x15
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND = -1, -2, -3, -4
BOSS = 2


def name16(text: str) -> bytes:
    return text.encode().ljust(16, b"\0")


SUCCESS = [
    # message, payload, what follows the header
    (0x0, b"", words(0, 0x20001)),  # PROTOCOL_VERSION: 2.1
    (0x1, b"", words(0, 0x0000_0202)),  # PROTOCOL_ATTRIBUTES: 2 agents (15:8), 2 protocols (7:0)
    (0x2, words(0x3), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES of BASE_DISCOVER_VENDOR: none
    (0x2, words(0x10), words(0, 0)),  # … of NEGOTIATE_PROTOCOL_VERSION
    (0x2, words(0x8), words(0, 0)),  # … of BASE_NOTIFY_ERRORS, with a P2A channel
    (0x3, b"", words(0) + name16("acme")),  # BASE_DISCOVER_VENDOR
    (0x4, b"", words(0) + name16("toys")),  # BASE_DISCOVER_SUB_VENDOR
    (0x5, b"", words(0, 0x01020304)),  # BASE_DISCOVER_IMPLEMENTATION_VERSION
    (0x6, words(0), words(0, 2) + b"\x14\x15\0\0"),  # BASE_DISCOVER_LIST_PROTOCOLS: two, padded to a word
    (0x6, words(1), words(0, 1) + b"\x15\0\0\0"),  # skip one
    (0x6, words(2), words(0, 0)),  # skip all: the empty list that ends an iteration
    (0x7, words(0), words(0, 0) + name16("platform")),  # BASE_DISCOVER_AGENT 0
    (0x7, words(2), words(0, 2) + name16("BOSS")),
    (0x7, words(-1), words(0, 1) + name16("OSPM")),  # 0xFFFFFFFF: who am I
    (0x8, words(1), words(0)),  # BASE_NOTIFY_ERRORS on
    (0x8, words(0), words(0)),  # off
    (0xB, words(1, 0), words(0)),  # BASE_RESET_AGENT_CONFIGURATION of oneself
    (0x10, words(0x20000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x2, words(0x3F), NOT_FOUND),  # no such message
    (0x6, words(3), INVALID),  # skip beyond the protocols
    (0x7, words(3), NOT_FOUND),  # no such agent
    (0x8, words(2), INVALID),  # reserved bit of notify_enable
    (0x9, words(1, 0, 1), DENIED),  # BASE_SET_DEVICE_PERMISSIONS by an agent that is not trusted
    (0xA, words(1, 0, 0x14, 1), DENIED),  # BASE_SET_PROTOCOL_PERMISSIONS likewise
    (0xB, words(9, 0), NOT_FOUND),  # BASE_RESET_AGENT_CONFIGURATION of nobody
    (0xB, words(1, 2), INVALID),  # reserved flag
    (0xB, words(2, 0), DENIED),  # somebody else's
    (0xB, words(1, 1), DENIED),  # one's own permissions
    (0x10, words(0x30000), NOT_SUPPORTED),  # a version from the future
    (0x3F, b"", NOT_SUPPORTED),  # no such message
]

BOSS_ERRORS = [
    (0x9, words(3, 0, 1), NOT_FOUND),  # no such agent
    (0x9, words(1, 2, 1), NOT_FOUND),  # no such device
    (0x9, words(1, 0, 2), INVALID),  # reserved flag
    (0xA, words(3, 0, 0x14, 1), NOT_FOUND),
    (0xA, words(1, 2, 0x14, 1), NOT_FOUND),
    (0xA, words(1, 0, 0x77, 1), NOT_FOUND),  # no such protocol
    (0xA, words(1, 0, 0x10, 0), NOT_FOUND),  # base cannot be taken away
    (0xA, words(1, 0, 0x114, 0), INVALID),  # reserved bits of command id
    (0xA, words(1, 0, 0x14, 2), INVALID),
]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert Rig().ask(BASE, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    assert Rig().ask(BASE, message, payload) == words(status)


@pytest.mark.parametrize(("message", "payload", "status"), BOSS_ERRORS)
def test_permission_errors(message: int, payload: bytes, status: int) -> None:
    assert Rig().ask(BASE, message, payload, agent=BOSS) == words(status)


def test_list_protocols_goes_on_where_a_reply_is_full() -> None:
    rig = Rig()
    for number in range(0x80, 0x80 + 100):
        rig.platform.protocols[number] = ProtocolServer(rig.platform, ProtocolTable(number, (1,)))
    rig.platform.max_payload = 76
    seen: list[int] = []
    while count := int.from_bytes((reply := rig.ask(BASE, 0x6, words(len(seen))))[4:8], "little"):
        seen += reply[8 : 8 + count]
    assert seen == sorted(one for one in rig.platform.protocols if one != BASE)


def test_device_permissions_close_and_open_every_domain_of_the_device() -> None:
    rig = Rig()
    get = (CLOCK, 0x6, words(1))
    assert rig.ask(BASE, 0x9, words(1, 0, 0), agent=BOSS) == words(0)  # agent 1, device "disp", deny
    assert rig.ask(*get) == words(DENIED)
    assert rig.ask(SENSOR, 0x6, words(1, 0)) == words(DENIED)
    assert rig.ask(CLOCK, 0x6, words(0))[:4] == words(0)  # another device's clock
    assert rig.ask(*get, agent=BOSS)[:4] == words(0)  # another agent
    assert rig.ask(CLOCK, 0xF, words(1)) == words(0, 0)  # CLOCK_GET_PERMISSIONS: none
    assert rig.ask(BASE, 0x9, words(1, 0, 1), agent=BOSS) == words(0)  # allow
    assert rig.ask(*get)[:4] == words(0)


def test_protocol_permissions_leave_other_protocols_alone() -> None:
    rig = Rig()
    assert rig.ask(BASE, 0xA, words(1, 0, SENSOR, 0), agent=BOSS) == words(0)
    assert rig.ask(SENSOR, 0x6, words(1, 0)) == words(DENIED)
    assert rig.ask(CLOCK, 0x6, words(1))[:4] == words(0)
    assert rig.ask(BASE, 0xA, words(1, 0, SENSOR, 1), agent=BOSS) == words(0)
    assert rig.ask(SENSOR, 0x6, words(1, 0))[:4] == words(0)


def test_reset_keeps_permissions_unless_told_otherwise() -> None:
    rig = Rig()
    rig.ask(BASE, 0x9, words(1, 0, 0), agent=BOSS)
    rig.ask(BASE, 0xB, words(1, 0), agent=BOSS)
    assert rig.ask(CLOCK, 0x6, words(1)) == words(DENIED)
    rig.ask(BASE, 0xB, words(1, 1), agent=BOSS)
    assert rig.ask(CLOCK, 0x6, words(1))[:4] == words(0)


def test_reset_puts_back_what_the_agent_configured() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x5, words(0, 0, 500, 0))  # cpu to 500 Hz by agent 1
    rig.ask(CLOCK, 0x5, words(0, 1, 1200, 0), agent=BOSS)  # pixel to 1200 Hz by agent 2
    rig.ask(CLOCK, 0x9, words(1, 1), agent=1)  # subscribe
    rig.ask(SENSOR, 0xA, words(0, 0))  # temp off
    rig.ask(CLOCK, 0x5, words(1, 0, 700, 0))  # asynchronous, never finished
    rig.ask(CLOCK, 0x10, words(0x20000))
    rig.take()
    assert rig.ask(BASE, 0xB, words(1, 0)) == words(0)
    assert rig.ask(CLOCK, 0x6, words(0)) == words(0, 300, 0)
    assert rig.ask(CLOCK, 0x6, words(1)) == words(0, 1200, 0)  # not agent 1's
    assert rig.ask(SENSOR, 0x9, words(0))[4] & 1 == 1
    assert rig.ask(CLOCK, 0xF, words(0))[:4] == words(0)  # version 3 again
    rig.advance(1.0)
    rig.ask(CLOCK, 0x5, words(0, 1, 1300, 0), agent=BOSS)
    assert rig.take() == []


def test_error_event() -> None:
    rig = Rig()
    rig.ask(BASE, 0x8, words(1), agent=BOSS)
    rig.ask(CLOCK, 0x6, b"")  # too short: PROTOCOL_ERROR
    first = rig.token
    rig.ask(SENSOR, 0x6, words(2, 0))  # a sensor that is off: PROTOCOL_ERROR
    rig.advance(0.1)
    ((agent, head, payload),) = rig.take()
    assert (agent, head.protocol, head.message, head.type) == (BOSS, BASE, 0, 3)
    assert payload == words(
        1,  # the agent whose commands failed
        2,  # two reports, not fatal
        first << 18 | CLOCK << 10 | 0x6,
        -10,
        (first + 1) << 18 | SENSOR << 10 | 0x6,
        -10,
    )
    rig.advance(0.1)
    assert rig.take() == []


def test_error_reports_are_bounded() -> None:
    rig = Rig()
    rig.ask(BASE, 0x8, words(1))
    for _ in range(20):
        rig.ask(CLOCK, 0x6, b"")
    rig.advance(0.1)
    ((_, _, payload),) = rig.take()
    assert len(payload) == 128
    assert rig.stats.error_reports_dropped == 5


def test_without_p2a_nothing_asks_for_notifications() -> None:
    rig = Rig(p2a=False)
    assert rig.ask(BASE, 0x8, words(1)) == words(NOT_SUPPORTED)
    assert rig.ask(BASE, 0x2, words(0x8)) == words(NOT_FOUND)
