"""The platform as a whole: framing, drops, repeats after a reset, delayed responses, fuzz."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LocalError
from common.scmi import base, clock, header, sensor
from common.scmi.status import Status
from services.scmi_platform.protocols.clock import ClockProtocol
from tests.services.scmi_platform.scmi_rig import JUNO, Rig, words

CLOCK, SENSOR = 0x14, 0x15
#: a recorded boot of real Linux: shared data that stands beside the checkout, not in it
STATUSES = {int(status) for status in Status}


@pytest.mark.parametrize("request_", [b"", b"\0", b"\0\0\0"])
def test_no_header_no_answer(request_: bytes) -> None:
    rig = Rig()
    assert rig.platform.handle(1, request_) is None
    assert rig.stats.dropped_short == 1


@pytest.mark.parametrize(
    ("word", "status"),
    [
        (header.pack(CLOCK, 0x6, 9, 1), Status.PROTOCOL_ERROR),  # the reserved type
        (header.pack(CLOCK, 0x6, 9, 2), Status.PROTOCOL_ERROR),  # a delayed response from an agent
        (header.pack(CLOCK, 0x6, 9, 3), Status.PROTOCOL_ERROR),
        (header.pack(CLOCK, 0x6, 9) | 1 << 28, Status.PROTOCOL_ERROR),  # reserved bits
        (header.pack(0x16, 0x0, 9), Status.NOT_SUPPORTED),  # a protocol that is not there
        (header.pack(CLOCK, 0x7F, 9), Status.NOT_SUPPORTED),
    ],
)
def test_a_header_that_means_nothing_is_answered(word: int, status: Status) -> None:
    rig = Rig()
    reply = rig.platform.handle(1, header.HEADER.pack(word) + bytes(4))
    back = header.unpack(word)
    assert reply == words(header.pack(back.protocol, back.message, back.token), status)
    assert getattr(rig.stats, status.name.lower()) == 1


def test_unknown_agent_is_our_own_mistake() -> None:
    with pytest.raises(LocalError, match="agent 3"):
        Rig().platform.handle(3, bytes(4))


def test_payload_limit_has_a_floor() -> None:
    with pytest.raises(LocalError, match="max_payload"):
        Rig(max_payload=75)


def test_small_messages_still_carry_every_list() -> None:
    rig = Rig(board=JUNO, max_payload=76)
    rates, index = [], 0
    while True:
        one = clock.parse_rates(rig.ask(CLOCK, 0x4, words(5, index))[4:])
        rates += one.rates
        index += len(one.rates)
        if not one.remaining:
            break
    assert len(rates) == 7
    # 76 bytes less status and flags word leave room for eight rates.
    small = clock.parse_rates(Rig(max_payload=76).ask(CLOCK, 0x4, words(0, 0))[4:])
    assert (len(small.rates), small.remaining) == (8, 9)
    found = 0
    while found < 25:
        descriptors, remaining = sensor.parse_descriptors(rig.ask(SENSOR, 0x3, words(found))[4:])
        assert descriptors[0].id == found
        found += len(descriptors)
        assert remaining == 25 - found


# --- repeats after a reset ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "message", "payload", "repeatable"),
    [
        (CLOCK, 0x5, words(0, 0, 500, 0), True),
        (CLOCK, 0x5, words(3, 0, 500, 0), True),  # asynchronous, but nothing comes back
        (CLOCK, 0x5, words(1, 0, 500, 0), False),
        (SENSOR, 0x6, words(0, 0), True),
        (SENSOR, 0x6, words(0, 1), False),
    ],
)
def test_again(protocol: int, message: int, payload: bytes, repeatable: bool) -> None:
    rig = Rig()
    reply = rig.ask(protocol, message, payload, again=True)
    assert reply[:4] == words(0 if repeatable else Status.COMMS_ERROR)
    assert (rig.stats.re_executed, rig.stats.refused_after_reset) == ((1, 0) if repeatable else (0, 1))
    rig.advance(1.0)
    assert [head.type for _, head, _ in rig.take()] == []


# --- delayed responses must arrive, notifications may be lost (virtio 1.3 §5.17) -----------------------------------


def test_a_delayed_response_waits_for_room_and_keeps_its_place() -> None:
    rig = Rig()
    rig.room = 0
    rig.ask(CLOCK, 0x5, words(1, 0, 500, 0))
    rig.ask(CLOCK, 0x5, words(1, 0, 600, 0))
    rig.ask(CLOCK, 0x9, words(0, 1))
    rig.advance(0.01)
    assert rig.stats.notifications_dropped == 2
    assert rig.platform.agents[1].pending[CLOCK] == 2  # what waits still counts against the bound
    rig.advance(0.01)
    assert rig.stats.delayed_retried == 1
    rig.room = 1000
    rig.advance(0.01)
    assert [payload for _, _, payload in rig.take()] == [words(0, 0, 500, 0), words(0, 0, 600, 0)]
    assert rig.stats.delayed_responses == 2
    assert rig.platform.agents[1].pending[CLOCK] == 0


def test_nothing_overtakes_a_delayed_response_of_the_same_agent() -> None:
    rig = Rig()
    rig.refuse_once = 1
    for rate, agent in ((500, 1), (600, 1), (700, 2)):
        rig.ask(CLOCK, 0x5, words(1, 0, rate, 0), agent=agent)
    rig.advance(0.01)  # there is room again right after the first was refused
    assert [(agent, payload) for agent, _, payload in rig.take()] == [(2, words(0, 0, 700, 0))]
    rig.advance(0.01)
    assert [payload for _, _, payload in rig.take()] == [words(0, 0, 500, 0), words(0, 0, 600, 0)]


def test_reset_forgets_what_waits() -> None:
    rig = Rig()
    rig.room = 0
    rig.ask(CLOCK, 0x5, words(1, 0, 500, 0))
    rig.advance(0.01)
    rig.ask(CLOCK, 0x5, words(1, 0, 600, 0))
    rig.platform.reset_agent(1)
    rig.room = 1000
    rig.advance(0.01)
    assert rig.take() == []


def test_an_agent_that_begins_anew_leaves_what_it_set() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x9, words(0, 1))
    rig.ask(CLOCK, 0x5, words(0, 0, 500, 0))
    rig.take()
    rig.platform.reset_agent(1, settings=False)
    clocks = rig.platform.protocols[CLOCK]
    assert isinstance(clocks, ClockProtocol)
    assert clocks.domains[0].rate == 500
    assert not rig.platform.subscribed(CLOCK, 0, 0)
    rig.platform.reset_agent(1)
    assert clocks.domains[0].rate == 300


def test_a_failure_that_nobody_waits_for_is_reported() -> None:
    rig = Rig()
    rig.ask(0x10, 0x8, words(1))
    one = rig.platform.agents[1]
    request = header.command(CLOCK, 0x5, 77, words(3, 0, 500, 0))
    assert rig.platform.later(one, request, 0.0, lambda: Status.BUSY, respond=False)
    rig.advance(0.1)
    ((_, head, payload),) = rig.take()
    assert head.type == header.NOTIFICATION
    assert base.parse_error_event(payload).reports == [(77 << 18 | CLOCK << 10 | 0x5, Status.BUSY)]


def test_a_subscriber_that_lost_its_channel_gets_nothing() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x9, words(0, 1))
    rig.has_p2a = False
    rig.ask(CLOCK, 0x5, words(0, 0, 500, 0))
    assert rig.take() == []
    assert rig.stats.notifications_dropped == 1


def test_commands_lists_what_an_agent_may_call() -> None:
    rig = Rig()
    assert rig.platform.commands(1)[header.key(CLOCK, 0x6)].name == "CLOCK_RATE_GET"
    assert rig.platform.tick(0.0) is None


# --- fuzz: every message gets a well-formed reply, or a counted drop -------------------------------------------------


def check_reply(rig: Rig, request: bytes) -> None:
    drops = rig.stats.dropped_short
    reply = rig.platform.handle(1, request)
    if reply is None:
        assert len(request) < 4
        assert rig.stats.dropped_short == drops + 1
        return
    asked = header.unpack(int.from_bytes(request[:4], "little"))
    given_ = header.unpack(int.from_bytes(reply[:4], "little"))
    assert given_ == (asked.message, header.COMMAND, asked.protocol, asked.token, 0)
    assert 4 <= len(reply) - 4 <= rig.platform.max_payload
    assert len(reply) % 4 == 0
    status = int.from_bytes(reply[4:8], "little", signed=True)
    assert status in STATUSES
    assert status == 0 or len(reply) == 8


ANY_REQUEST = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda protocol, message, fields: header.command(protocol, message, 1, words(*fields)),
        st.sampled_from([0x10, CLOCK, SENSOR]),
        st.integers(0, 0x11),
        st.lists(st.one_of(st.integers(0, 20), st.integers(0, 0xFFFF_FFFF)), max_size=5),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY_REQUEST, max_size=40), st.booleans())
def test_any_message_gets_a_reply(requests: list[bytes], p2a: bool) -> None:
    """Whatever one agent sends, in whatever order: a well-formed reply each, and time goes on."""
    rig = Rig(p2a=p2a)
    for request in requests:
        check_reply(rig, request)
        rig.advance(0.7)
    for _, raw in rig.sent:
        assert header.unpack(int.from_bytes(raw[:4], "little")).type in (header.DELAYED_RESPONSE, header.NOTIFICATION)
        assert len(raw) - 4 <= rig.platform.max_payload
    if not p2a:
        assert rig.sent == []


def test_twenty_thousand_mutated_messages() -> None:
    """Valid commands with some bits flipped, bytes cut off or added; a fixed seed, so that a failure comes back."""
    rng = random.Random(1)
    rig = Rig(board=JUNO)
    rows = list(rig.platform.commands(1).items())
    for step in range(20_000):
        key, row = rng.choice(rows)
        payload = words(*(rng.choice((0, 1, 2, 3, 5, 24, 600_000_000, rng.getrandbits(32))) for _ in range(5)))
        raw = bytearray(header.HEADER.pack(key | rng.randrange(1024) << 18) + payload[: row.max_size])
        for _ in range(rng.choice((0, 0, 1, 3))):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.1:
            raw = raw[: rng.randrange(len(raw))] if rng.random() < 0.5 else raw + bytes(rng.randrange(9))
        check_reply(rig, bytes(raw))
        if step % 16 == 0:
            rig.advance(0.3)
            rig.sent.clear()
    assert rig.stats.success > 2000
    assert min(rig.stats.protocol_error, rig.stats.not_found, rig.stats.invalid_parameters) > 200
