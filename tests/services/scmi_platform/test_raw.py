"""One connection of the raw port: framing, order, bounds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.scmi import header
from services.scmi_platform.raw import OUTBOX, TURN, RawSession, RawStats

DELAYED = header.HEADER.pack(header.as_delayed(header.pack(0x15, 6, 5))) + b"later"
EVENT = header.notification(0x15, 0, b"event")


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(message)) + message for message in messages)


class Bench:
    """A session whose platform answers each command with its bytes turned round; ``b"mute"`` is not answered."""

    def __init__(self, max_message: int = 200) -> None:
        self.stats = RawStats()
        self.seen: list[bytes] = []
        self.wakes = 0
        self.inside: list[bytes] = []
        self.session = RawSession(self.handle, max_message=max_message, stats=self.stats, wake=self.wake)

    def handle(self, message: bytes) -> bytes | None:
        self.seen.append(message)
        for event in self.inside:
            assert self.session.emit(event)
        return None if message == b"mute" else message[::-1]

    def wake(self) -> None:
        self.wakes += 1


def test_commands_are_answered_in_order() -> None:
    bench = Bench()
    bench.session.receive(framed(b"abcd", b"mute", b"efghi"))
    assert bench.seen == [], "nothing runs before its turn"
    assert bench.session.turn() == framed(b"dcba", b"ihgfe")
    assert bench.session.turn() == b""
    assert (bench.stats.commands, bench.stats.replies, bench.wakes) == (3, 2, 0)


@given(st.lists(st.binary(min_size=4, max_size=40), max_size=20), st.data())
def test_the_pieces_do_not_matter(messages: list[bytes], data: st.DataObject) -> None:
    bench, stream = Bench(), framed(*messages)
    out = b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        bench.session.receive(stream[:size])
        stream = stream[size:]
        out += bench.session.turn()
    assert bench.seen == messages
    assert out == framed(*(message[::-1] for message in messages if message != b"mute"))
    assert bench.session.error is None


@given(st.binary(max_size=300))
def test_any_bytes_are_messages_or_an_error(stream: bytes) -> None:
    bench = Bench(max_message=132)
    bench.session.receive(stream)
    bench.session.turn()
    assert all(4 <= len(message) <= 132 for message in bench.seen)
    rest = stream[len(framed(*bench.seen)) :]
    if bench.session.error is not None:
        assert not 4 <= int.from_bytes(rest[:4], "little") <= 132
    else:
        assert len(rest) < 4 + 132


@pytest.mark.parametrize("length", [0, 3, 201, 0xFFFF_FFFF])
def test_a_length_that_cannot_be(length: int) -> None:
    bench = Bench()
    bench.session.receive(framed(b"good") + struct.pack("<I", length))
    error = bench.session.error
    assert error is not None, "known with the length, whatever follows"
    assert (error.field, error.value, error.limit) == ("frame.length", length, "4 to 200")
    bench.session.receive(framed(b"more"))
    assert bench.session.turn() == framed(b"doog"), "what came before it is answered, what comes after is not"


def test_the_longest_and_the_shortest() -> None:
    bench = Bench()
    bench.session.receive(framed(b"x" * 200, b"y" * 4))
    assert [len(message) for message in bench.seen] == []
    bench.session.turn()
    assert [len(message) for message in bench.seen] == [200, 4]


def test_a_turn_is_bounded() -> None:
    bench = Bench()
    bench.session.receive(framed(*[b"abcd"] * (TURN + 1)))
    assert bench.session.more
    assert bench.session.turn() == framed(*[b"dcba"] * TURN)
    assert bench.session.more
    assert bench.session.turn() == framed(b"dcba")
    assert not bench.session.more


def test_what_is_sent_unasked_goes_out_as_it_came() -> None:
    bench = Bench()
    assert bench.session.emit(EVENT)
    assert bench.wakes == 1
    bench.inside = [DELAYED]
    bench.session.receive(framed(b"abcd"))
    assert bench.session.turn() == framed(EVENT, DELAYED, b"dcba")
    assert bench.wakes == 1, "its own turn sends what it caused"
    assert (bench.stats.events, bench.stats.replies) == (2, 1)
    bench.session.emit(EVENT)
    assert bench.wakes == 2


def test_the_outbox_is_bounded() -> None:
    bench = Bench()
    for _ in range(OUTBOX):
        assert bench.session.emit(EVENT)
    assert not bench.session.emit(EVENT)
    assert not bench.session.emit(DELAYED), "the platform keeps it"
    assert (bench.stats.notifications_dropped, bench.stats.responses_refused) == (1, 1)
    bench.session.receive(framed(b"abcd"))
    assert bench.session.turn() == framed(*[EVENT] * OUTBOX, b"dcba"), "replies have their room"
    assert bench.session.emit(DELAYED)
    assert bench.stats.events == OUTBOX, "counted when they are sent"


def test_after_the_end_nothing_is_sent() -> None:
    bench = Bench()
    assert bench.session.p2a
    bench.session.open = False
    assert [bench.session.p2a, bench.session.emit(EVENT)] == [False, False]
    assert (bench.stats.notifications_dropped, bench.wakes) == (0, 0)


def test_a_platform_that_fails_leaves_the_session_whole() -> None:
    bench = Bench()

    def fail(_message: bytes) -> bytes:
        raise RuntimeError("on purpose")

    session = RawSession(fail, max_message=200, stats=bench.stats, wake=bench.wake)
    session.receive(framed(b"abcd"))
    with pytest.raises(RuntimeError):
        session.turn()
    session.emit(EVENT)
    assert bench.wakes == 1
    assert session.turn() == framed(EVENT)
