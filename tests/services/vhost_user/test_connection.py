"""The socket: whole messages with their descriptors, one front end at a time, an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from common.errors import LocalError
from services.vhost_user.connection import Connection
from services.vhost_user.messages import U64, Request
from services.vhost_user.session import Session
from tests.services.vhost_user.front_end import FrontEnd, GuestRam, message
from tests.services.vhost_user.loopback import BackEnd, open_fds

T = TypeVar("T")


@pytest.fixture
async def back_end(tmp_path: Path) -> AsyncIterator[BackEnd]:
    before = open_fds()
    async with BackEnd(tmp_path / "vhost.sock") as back_end:
        yield back_end
    assert open_fds() == before


async def play(back_end: BackEnd, part: Callable[[FrontEnd], T]) -> T:
    """Run ``part`` with a connected front end in a thread, until the back end has seen it leave."""

    def whole() -> T:
        with FrontEnd(back_end.path) as front_end:
            return part(front_end)

    result = await asyncio.to_thread(whole)
    await back_end.left()
    return result


async def test_front_ends_one_after_another(back_end: BackEnd) -> None:
    for _ in range(3):
        await back_end.serves()
    assert back_end.listener.accepted == 3
    assert back_end.device.resets == 3
    assert not back_end.logged


async def test_the_second_front_end_waits_for_the_first(back_end: BackEnd) -> None:
    order: list[str] = []
    first_is_in, second_waits = threading.Event(), threading.Event()

    def first() -> None:
        with FrontEnd(back_end.path) as front_end:
            front_end.ask_u64(Request.GET_FEATURES)
            first_is_in.set()
            assert second_waits.wait(60)
            front_end.ask_u64(Request.GET_FEATURES)
            order.append("first")

    def second() -> None:
        assert first_is_in.wait(60)
        with FrontEnd(back_end.path) as front_end:
            front_end.send(Request.GET_FEATURES)
            second_waits.set()
            front_end.receive()
            order.append("second")

    await asyncio.gather(asyncio.to_thread(first), asyncio.to_thread(second))
    assert order == ["first", "second"]


async def test_bytes_one_by_one_equal_the_whole(back_end: BackEnd) -> None:
    def slowly(front_end: FrontEnd) -> None:
        ram = GuestRam()
        send = front_end.send_raw

        def by_bytes(data: bytes, fds: object = ()) -> None:
            send(data[:1], fds)  # type: ignore[arg-type]
            for n in range(1, len(data)):
                send(data[n : n + 1])

        front_end.send_raw = by_bytes  # type: ignore[method-assign]
        front_end.negotiate()
        assert front_end.share(ram) == 0
        assert front_end.ask_u64(Request.GET_QUEUE_NUM) == 2
        ram.close()

    await play(back_end, slowly)
    assert not back_end.logged


async def test_descriptors_belong_to_the_message_that_they_came_with(back_end: BackEnd) -> None:
    """Several messages in one write, the last with descriptors."""

    def together(front_end: FrontEnd) -> None:
        front_end.negotiate()
        event = os.eventfd(0)
        ask = message(Request.GET_STATUS)
        call = message(Request.SET_VRING_CALL, U64.pack(1), need_reply=True)
        front_end.send_raw(ask + ask)
        front_end.send_raw(call + ask, [event])
        assert [front_end.receive()[0] for _ in range(4)] == [40, 40, 13, 40]
        os.close(event)

    await play(back_end, together)
    assert not back_end.logged


async def test_descriptors_with_the_payload_are_the_messages_too(back_end: BackEnd) -> None:
    def split(front_end: FrontEnd) -> None:
        front_end.negotiate()
        event = os.eventfd(0)
        data = message(Request.SET_VRING_ERR, U64.pack(0), need_reply=True)
        front_end.send_raw(data[:12])
        front_end.send_raw(data[12:], [event])
        assert U64.unpack(front_end.receive()[2]) == (0,)
        os.close(event)

    await play(back_end, split)


@pytest.mark.parametrize("pieces", [1, 2])
async def test_more_than_eight_descriptors_are_refused_and_closed(back_end: BackEnd, pieces: int) -> None:
    def many(front_end: FrontEnd) -> None:
        front_end.negotiate()
        event = os.eventfd(0)
        data = message(Request.SET_MEM_TABLE, bytes(8 + 8 * 32), need_reply=True)
        if pieces == 1:
            front_end.send_raw(data, [event] * 20)
        else:
            front_end.send_raw(data[:20], [event] * 5)
            front_end.send_raw(data[20:], [event] * 5)
        assert U64.unpack(front_end.receive()[2]) == (1,)
        assert front_end.ask_u64(Request.GET_QUEUE_NUM) == 2
        os.close(event)

    await play(back_end, many)
    assert back_end.stats.refused == {"fds": 1}


async def test_descriptors_do_not_pile_up_while_a_message_is_read(back_end: BackEnd) -> None:
    """Eight with each byte: no more than eight are ever kept."""

    def pile(front_end: FrontEnd) -> None:
        front_end.negotiate()
        connection, event = back_end.listener.connection, os.eventfd(0)
        assert connection is not None
        before = front_end.ask_u64(Request.GET_QUEUE_NUM), len(os.listdir("/proc/self/fd"))
        data = message(Request.SET_MEM_TABLE, bytes(8), need_reply=True)
        for n in range(len(data) - 1):
            front_end.send_raw(data[n : n + 1], [event] * 8)
        while connection._header is None or len(connection._data) < 7:  # all but the last byte has been read
            time.sleep(0.001)
        assert len(os.listdir("/proc/self/fd")) <= before[1] + 8
        front_end.send_raw(data[-1:])
        assert U64.unpack(front_end.receive()[2]) == (1,)
        os.close(event)

    await play(back_end, pile)
    assert back_end.stats.refused == {"fds": 1}


async def test_descriptors_are_not_inherited(back_end: BackEnd) -> None:
    def keep(front_end: FrontEnd) -> bool:
        front_end.negotiate()
        event = os.eventfd(0)
        assert front_end.do(Request.SET_VRING_CALL, U64.pack(0), [event]) == 0
        os.close(event)
        assert back_end.listener.connection is not None
        call = back_end.listener.connection.session.vrings[0].call
        assert call is not None
        return os.get_inheritable(call)

    assert not await play(back_end, keep)


async def test_a_message_cut_short_is_logged(back_end: BackEnd) -> None:
    event = os.eventfd(0)

    def longer(front_end: FrontEnd) -> None:
        front_end.send_raw(message(Request.SET_VRING_CALL, U64.pack(0))[:15], [event])

    def short(front_end: FrontEnd) -> None:
        front_end.send_raw(b"\x01\x00")

    await play(back_end, longer)
    await play(back_end, short)
    os.close(event)
    assert [fields["error"] for _, fields in back_end.logged] == ["in the middle of a message"] * 2


async def test_a_bad_header_ends_the_connection(back_end: BackEnd) -> None:
    def bad(front_end: FrontEnd) -> bool:
        front_end.send_raw(bytes(12))
        return front_end.hung_up()

    assert await play(back_end, bad)
    ((event, fields),) = back_end.logged
    assert (event, fields["error"]) == ("connection_ended", "header.version = 0 (limit 1)")
    await back_end.serves()


def stalled(connection: Connection) -> bool:
    """Does a reply wait for a front end that does not read?"""
    out = connection._out
    time.sleep(0.01)
    return bool(out) and connection._out is out


async def test_a_front_end_that_does_not_read_its_replies_stalls_itself_alone(back_end: BackEnd) -> None:
    """Replies wait in order for as long as it takes, and nothing is read meanwhile."""

    def greedy(front_end: FrontEnd) -> int:
        front_end.negotiate()
        front_end.ask_u64(Request.GET_QUEUE_NUM)
        connection = back_end.listener.connection
        assert connection is not None
        front_end.sock.setblocking(False)
        ask, sent = message(Request.GET_QUEUE_NUM), 0
        while True:
            try:
                sent += front_end.sock.send(ask)
            except BlockingIOError:
                if stalled(connection):
                    break
        front_end.sock.settimeout(60)
        assert sent % len(ask) == 0
        sent //= len(ask)
        for _ in range(sent):
            assert front_end.receive() == (Request.GET_QUEUE_NUM, 5, U64.pack(2))
        assert front_end.ask_u64(Request.GET_QUEUE_NUM) == 2
        return sent

    assert await play(back_end, greedy) > 100
    assert back_end.stats.requests["GET_QUEUE_NUM"] > 100


async def test_a_front_end_that_leaves_with_replies_unread(back_end: BackEnd) -> None:
    def rude(front_end: FrontEnd) -> None:
        front_end.ask_u64(Request.GET_FEATURES)
        connection = back_end.listener.connection
        assert connection is not None
        front_end.sock.setblocking(False)
        while not stalled(connection):
            with contextlib.suppress(BlockingIOError):
                while True:
                    front_end.send_raw(message(Request.GET_FEATURES))

    await play(back_end, rude)
    await back_end.serves()


async def test_a_fault_of_the_device_ends_the_connection_only(back_end: BackEnd) -> None:
    def fault(_status: int) -> None:
        raise ValueError("a bug")

    back_end.device.status_set = fault  # type: ignore[method-assign, assignment]

    def provoke(front_end: FrontEnd) -> bool:
        front_end.negotiate()
        front_end.send(Request.SET_STATUS, U64.pack(1))
        return front_end.hung_up()

    assert await play(back_end, provoke)
    assert "a bug" in back_end.logged[0][1]["error"]
    await back_end.serves()


async def test_a_session_that_does_not_end_cleanly_is_logged(back_end: BackEnd) -> None:
    def fault() -> None:
        raise ValueError("a bug")

    back_end.device.reset = fault  # type: ignore[method-assign]
    await play(back_end, lambda f: f.negotiate())
    assert back_end.logged[0][0] == "session_end_failed"
    del back_end.device.reset
    await back_end.serves()


async def test_a_front_end_for_which_there_is_no_session_is_sent_away(back_end: BackEnd) -> None:
    def fault() -> Session:
        raise ValueError("a bug")

    whole, back_end.listener._new_session = back_end.listener._new_session, fault  # type: ignore[misc]
    assert await play(back_end, lambda f: f.hung_up())
    back_end.listener._new_session = whole  # type: ignore[misc]
    assert back_end.logged[0][0] == "front_end_not_accepted"
    await back_end.serves()


async def test_drop_hangs_up(back_end: BackEnd) -> None:
    loop = asyncio.get_running_loop()

    def wait(front_end: FrontEnd) -> bool:
        front_end.negotiate()
        front_end.ask_u64(Request.GET_STATUS)
        loop.call_soon_threadsafe(back_end.listener.drop)
        return front_end.hung_up()

    assert await play(back_end, wait)
    back_end.listener.drop()
    await back_end.serves()


async def test_stop_hangs_up_and_removes_the_socket(tmp_path: Path) -> None:
    before = open_fds()
    back_end = BackEnd(tmp_path / "s")
    await back_end.listener.stop()
    await back_end.listener.start()
    front_end = await asyncio.to_thread(FrontEnd, back_end.path)
    await asyncio.to_thread(front_end.ask_u64, Request.GET_FEATURES)
    await back_end.listener.stop()
    assert await asyncio.to_thread(front_end.hung_up)
    front_end.close()
    await back_end.left()
    assert not back_end.path.exists()
    assert open_fds() == before
    await back_end.listener.start()
    await back_end.serves()
    await back_end.listener.stop()


async def test_paths(tmp_path: Path) -> None:
    before = open_fds()
    path = tmp_path / "s"
    path.write_text("a file")
    with pytest.raises(LocalError, match="something else"):
        await BackEnd(path).listener.start()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        with pytest.raises(LocalError, match="vhost-user socket"):
            await BackEnd(tmp_path / "no" / "such" / "directory").listener.start()
    async with BackEnd(path) as first:  # nobody listens at what was left
        with pytest.raises(LocalError, match="another process"):
            await BackEnd(path).listener.start()
        await first.serves()
    assert open_fds() == before


async def test_a_listener_without_descriptors_left_tries_again(
    back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    accept, fail = loop.sock_accept, [OSError(24, "Too many open files")]

    async def sock_accept(sock: socket.socket) -> tuple[socket.socket, object]:
        if fail:
            raise fail.pop()
        return await accept(sock)

    await back_end.serves()
    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    # the accept under way is the one of before
    await back_end.serves()
    await back_end.serves()
    assert [fields["error"] for _, fields in back_end.logged] == ["[Errno 24] Too many open files"]
