"""common.runtime.session: dispatch, joined writes, back-pressure, errors of handlers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from common.errors import FrameError, RingError
from common.runtime.link import LinkServer
from common.runtime.metrics import Metrics
from common.runtime.session import JOIN_LIMIT
from common.wire.codec import encode
from common.wire.limits import MAX_BACKLOG, MAX_FRAME
from common.wire.messages import VERSION, Call, Hello, Kick, Refuse, Return, Used, Welcome

REFUSED = "ringmesh_frames_refused_total"
WRITES = "ringmesh_link_writes_total"


async def _up(server: LinkServer, handler: Any, dial: Any) -> Any:
    peer = await dial(server.port)
    await peer.greet()
    await handler.until(lambda: handler.link is not None)
    return peer


async def test_frames_and_bytes_are_counted(server: LinkServer, handler: Any, metrics: Metrics, dial: Any) -> None:
    handler.on_frame = lambda link, message: link.send(Return(message.seq, 0))
    peer = await _up(server, handler, dial)
    before = metrics.value("ringmesh_link_bytes_total", link="guest", direction="out")
    peer.write(Call(1, "a", []), Call(2, "b", []))
    assert [await peer.read(), await peer.read()] == [Return(1, 0), Return(2, 0)]
    size = len(encode(Call(1, "a", []))) + len(encode(Call(2, "b", [])))
    assert metrics.value("ringmesh_link_frames_total", link="guest", direction="in") == 2
    assert metrics.value("ringmesh_link_bytes_total", link="guest", direction="in") == size
    assert metrics.value("ringmesh_link_frames_total", link="guest", direction="out") == 3  # with the welcome
    sent = metrics.value("ringmesh_link_bytes_total", link="guest", direction="out")
    assert sent - before == 2 * len(encode(Return(1, 0)))


async def test_answers_to_one_batch_leave_in_one_write(
    server: LinkServer, handler: Any, metrics: Metrics, dial: Any
) -> None:
    handler.on_frame = lambda link, message: link.send(Return(message.seq, 0))
    peer = await _up(server, handler, dial)
    writes = metrics.value(WRITES, link="guest")
    peer.write(*(Call(i, "op", []) for i in range(64)))
    assert [(await peer.read()).seq for _ in range(64)] == list(range(64))
    assert handler.batches == 1
    assert metrics.value(WRITES, link="guest") == writes + 1


async def test_frames_sent_outside_a_batch_are_joined_too_and_flush_is_at_once(
    server: LinkServer, handler: Any, metrics: Metrics, dial: Any
) -> None:
    peer = await _up(server, handler, dial)
    writes = metrics.value(WRITES, link="guest")
    for queue in range(10):
        assert handler.link.send(Kick(queue))
    assert metrics.value(WRITES, link="guest") == writes
    assert [(await peer.read()).queue for _ in range(10)] == list(range(10))
    assert metrics.value(WRITES, link="guest") == writes + 1
    handler.link.send(Kick(10))
    handler.link.flush()
    handler.link.flush()
    assert metrics.value(WRITES, link="guest") == writes + 2
    assert (await peer.read()).queue == 10


async def test_a_long_answer_leaves_in_pieces(server: LinkServer, handler: Any, metrics: Metrics, dial: Any) -> None:
    big = Used(0, 0, [(0, bytes(JOIN_LIMIT * 5 // 8))])  # two of them pass the limit

    def answer(link: Any, message: Any) -> None:
        for _ in range(10):
            link.send(big)

    handler.on_frame = answer
    peer = await _up(server, handler, dial)
    writes = metrics.value(WRITES, link="guest")
    peer.write(Call(1, "op", []))
    for _ in range(10):
        assert await peer.read() == big
    assert metrics.value(WRITES, link="guest") == writes + 5


async def test_a_truncated_frame_waits_for_its_rest(server: LinkServer, handler: Any, dial: Any) -> None:
    peer = await _up(server, handler, dial)
    frame = encode(Call(5, "op", [b"x" * 100]))
    for byte in frame[:-1]:
        peer.write(bytes([byte]))
    await peer.writer.drain()
    await asyncio.sleep(0.02)
    assert handler.frames == []
    peer.write(frame[-1:])
    await handler.until(lambda: bool(handler.frames))
    peer.write(frame[:7])
    peer.writer.write_eof()
    await handler.until(lambda: bool(handler.downs))
    assert len(handler.frames) == 1


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (encode(Kick(0)), "frame.tag", "tag"),
        ((MAX_FRAME + 1).to_bytes(4, "little"), "frame.length", "length"),
        (b"\x03\x00\x00\x00abc", "frame.body", "body"),
        (b"\x09\x00\x00\x00\x92\xa4\x80ick\xd0\xd8\x00", "frame.body", "body"),
    ],
)
async def test_a_bad_frame_refuses_the_peer_after_the_good_ones_before_it(
    server: LinkServer, handler: Any, metrics: Metrics, dial: Any, bad: bytes, field: str, reason: str
) -> None:
    peer = await _up(server, handler, dial)
    peer.write(Call(1, "op", []), bad, Call(2, "op", []))
    (refuse,) = await peer.read_all()
    assert isinstance(refuse, Refuse)
    assert refuse.field == field
    assert handler.frames == [Call(1, "op", [])]
    assert len(handler.downs) == 1
    assert handler.downs[0].startswith("refused")
    assert metrics.value(REFUSED, link="guest", reason=reason) == 1
    assert metrics.value("ringmesh_links_up", link="guest") == 0


async def test_a_remote_error_of_the_handler_refuses_that_peer_only(
    server: LinkServer, handler: Any, metrics: Metrics, dial: Any
) -> None:
    def refuse(link: Any, message: Any) -> None:
        if message.op == "bad":
            raise RingError("avail.idx", 700, 256)

    handler.on_frame = refuse
    peer, other = await dial(server.port), await dial(server.port)
    await peer.greet(guest="vm0")
    await other.greet(guest="vm1")
    peer.write(Call(1, "bad", []), Call(2, "good", []))
    (told,) = await peer.read_all()
    assert (told.field, "700" in told.reason) == ("avail.idx", True)
    assert metrics.value(REFUSED, link="guest", reason="handler") == 1
    other.write(Call(3, "good", []))
    await handler.until(lambda: Call(3, "good", []) in handler.frames)
    assert Call(2, "good", []) not in handler.frames
    assert metrics.value("ringmesh_links_up", link="guest") == 1


async def test_a_crash_of_the_handler_closes_that_link_only(
    server: LinkServer, handler: Any, metrics: Metrics, dial: Any
) -> None:
    def crash(link: Any, message: Any) -> None:
        raise KeyError("our own bug")

    handler.on_frame = crash
    peer = await _up(server, handler, dial)
    peer.write(Call(1, "op", []))
    (told,) = await peer.read_all()
    assert (told.field, "our own bug" in told.reason) == ("internal", False)
    assert handler.downs == ["handler failed"]
    assert metrics.value("ringmesh_link_handler_errors_total", link="guest") == 1
    await (await dial(server.port)).greet()


async def test_a_handler_that_closes_sees_no_further_frame(server: LinkServer, handler: Any, dial: Any) -> None:
    handler.on_frame = lambda link, message: link.close("enough")
    peer = await _up(server, handler, dial)
    peer.write(Call(1, "op", []), Call(2, "op", []))
    assert await peer.read_all() == []
    assert handler.frames == [Call(1, "op", [])]
    assert handler.downs == ["enough"]
    handler.link.close("again")
    assert handler.downs == ["enough"]


async def test_link_down_may_fail_without_harm(server: LinkServer, handler: Any, metrics: Metrics, dial: Any) -> None:
    peer = await _up(server, handler, dial)

    def crash(link: Any, reason: str) -> None:
        raise KeyError("bug")

    handler.link_down = crash
    handler.link.close()
    assert metrics.value("ringmesh_link_handler_errors_total", link="guest") == 1
    assert await peer.read() is None


async def test_what_was_sent_before_close_arrives(server: LinkServer, handler: Any, dial: Any) -> None:
    peer = await _up(server, handler, dial)
    handler.link.send(Kick(3))
    handler.link.close()
    assert await peer.read_all() == [Kick(3)]


async def test_a_refusal_by_the_peer_takes_the_link_down(server: LinkServer, handler: Any, dial: Any) -> None:
    peer = await _up(server, handler, dial)
    peer.write(Refuse("frame.tag", "not here"))
    await handler.until(lambda: bool(handler.downs))
    assert handler.downs == ["refused by peer: frame.tag: not here"]


async def test_a_peer_that_stops_reading_is_cut_at_the_backlog_limit(
    server: LinkServer, handler: Any, metrics: Metrics
) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await loop.sock_sendall(sock, encode(Hello(VERSION, "guest", "s3cret", 1)))
        await handler.until(lambda: handler.link is not None)
        frame = Used(0, 0, [(0, bytes(100_000))])
        sent = 0
        while handler.link.send(frame):
            sent += 1
            assert sent < 10 * MAX_BACKLOG / 100_000, "the backlog is not bounded"
            if sent % 4 == 0:
                await asyncio.sleep(0)
    assert handler.downs == ["peer stopped reading"]
    assert metrics.value(REFUSED, link="guest", reason="backlog") == 1
    assert sent * 100_000 >= MAX_BACKLOG


async def test_an_oversize_message_of_our_own_is_the_callers_error(server: LinkServer, handler: Any, dial: Any) -> None:
    peer = await _up(server, handler, dial)
    with pytest.raises(FrameError, match="must be split"):
        handler.link.send(Used(0, 0, [(0, bytes(MAX_FRAME))]))
    handler.link.send(Kick(1))
    assert await peer.read() == Kick(1)


async def test_each_batch_and_each_change_stirs_the_world(handler: Any, dial: Any, serve: Any) -> None:
    stirred: list[int] = []
    server = await serve(token="", epoch=1, stir=lambda: stirred.append(1))
    peer = await _up(server, handler, dial)
    before = len(stirred)
    peer.write(Call(1, "op", []), Call(2, "op", []))
    await handler.until(lambda: handler.batches >= 1 and len(handler.frames) == 2)
    await asyncio.sleep(0)
    assert len(stirred) == before + handler.batches
    handler.link.close()
    assert len(stirred) == before + handler.batches + 1


async def test_frames_behind_the_hello_are_handed_over_and_those_behind_a_refusal_are_not(
    server: LinkServer, handler: Any, dial: Any
) -> None:
    peer = await dial(server.port)
    peer.write(Hello(VERSION, "guest", "s3cret", 1), Call(1, "op", []))
    await handler.until(lambda: bool(handler.frames))
    handler.link.close("enough")
    peer.write(Call(2, "op", []))
    await peer.writer.drain()
    assert isinstance(await peer.read(), Welcome)
    assert await peer.read() is None
    assert handler.frames == [Call(1, "op", [])]


async def test_a_crash_at_link_up_closes_the_link(
    server: LinkServer, handler: Any, metrics: Metrics, dial: Any
) -> None:
    def crash(link: Any) -> None:
        raise KeyError("bug")

    handler.link_up = crash
    peer = await dial(server.port)
    peer.write(Hello(VERSION, "guest", "s3cret", 1))
    welcome, told = await peer.read_all()
    assert isinstance(welcome, Welcome)
    assert told.field == "internal"
    assert handler.downs == ["handler failed"]
    assert metrics.value("ringmesh_links_up", link="guest") == 0
