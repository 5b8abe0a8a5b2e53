"""A hostile front end on a real socket, with real memory and descriptors.

After each attack the next, well-behaved front end is served, and the process has as many open files as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.vhost_user.messages import (
    ALL_PROTOCOL_FEATURES,
    CONFIG,
    F_PROTOCOL_FEATURES,
    HEADER,
    MEM_REG,
    U64,
    VRING_ADDR,
    VRING_STATE,
    Request,
)
from services.vhost_user.requests import TABLE
from tests.services.vhost_user.front_end import FrontEnd, GuestRam, memory_table, message
from tests.services.vhost_user.loopback import SIZE, BackEnd, Ring, open_fds
from tests.services.vhost_user.recorder import FEATURES


@pytest.fixture
async def back_end(tmp_path: Path) -> AsyncIterator[BackEnd]:
    before = open_fds()
    async with BackEnd(tmp_path / "vhost.sock") as back_end:
        yield back_end
    assert open_fds() == before


async def attack(back_end: BackEnd, *parts: Callable[[FrontEnd], object]) -> None:
    """Each part on a connection of its own; whatever the back end does to it is fine."""

    def whole(part: Callable[[FrontEnd], object]) -> None:
        with FrontEnd(back_end.path) as front_end, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            part(front_end)

    before = open_fds()
    for part in parts:
        await asyncio.to_thread(whole, part)
        await back_end.left()
    assert open_fds() == before
    await back_end.serves()


def ready(front_end: FrontEnd, *rams: GuestRam) -> None:
    front_end.negotiate()
    assert front_end.features(FEATURES & ~(1 << 29) | F_PROTOCOL_FEATURES) == 0
    if rams:
        assert front_end.share(*rams) == 0


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    ram = GuestRam()
    yield ram
    ram.close()


class FileRam(GuestRam):
    """Memory in a file that cannot be sealed against shrinking."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        sealable, self.fd = self.fd, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        os.close(sealable)
        os.ftruncate(self.fd, self.size)
        self.bytes.close()
        self.bytes = type(self.bytes)(self.fd, self.size)


# --- bytes -----------------------------------------------------------------------------------------------------------


async def test_garbage(back_end: BackEnd) -> None:
    dice = random.Random(17)
    await attack(back_end, *(lambda f, n=n: f.send_raw(dice.randbytes(n)) for n in (1, 11, 12, 13, 500, 100_000)))


async def test_garbage_behind_a_good_header(back_end: BackEnd) -> None:
    """Headers that are right, so that everything behind them is looked at."""
    dice = random.Random(18)

    def flood(front_end: FrontEnd) -> None:
        front_end.negotiate()
        reader = threading.Thread(target=drain, args=(front_end.sock,))
        reader.start()
        for _ in range(3000):
            request = dice.choice((dice.randrange(50), dice.getrandbits(32)))
            size = dice.choice((0, 8, 8, 12, 40, dice.randrange(4097)))
            payload = dice.choice((bytes(size), dice.randbytes(size), U64.pack(dice.randrange(300)) + bytes(4089)))[
                :size
            ]
            front_end.send_raw(HEADER.pack(request, dice.choice((1, 9)), size) + payload)
        front_end.sock.shutdown(socket.SHUT_WR)
        reader.join()

    await attack(back_end, flood)
    assert back_end.stats.requests.total() > 3000
    assert {"unknown", "size", "fds"} <= set(back_end.stats.refused)


def drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


@pytest.mark.parametrize("header", [(1, 0, 0), (1, 5, 0), (1, 1, 4097), (1, 1, 0xFFFF_FFFF), (0xFFFF_FFFF, 2, 8)])
async def test_bad_headers_hang_up(back_end: BackEnd, header: tuple[int, int, int]) -> None:
    def part(front_end: FrontEnd) -> None:
        front_end.send_raw(HEADER.pack(*header), [0, 1, 2])
        assert front_end.hung_up()

    await attack(back_end, part)


async def test_disconnect_at_every_byte_of_a_message(back_end: BackEnd, ram: GuestRam) -> None:
    data = message(Request.SET_MEM_TABLE, memory_table([ram.region]))

    def cut(at: int) -> Callable[[FrontEnd], None]:
        def part(front_end: FrontEnd) -> None:
            front_end.negotiate()
            front_end.send_raw(data[:at], [ram.fd] * 3)

        return part

    await attack(back_end, *(cut(at) for at in range(1, len(data))))


# --- sizes and descriptors -------------------------------------------------------------------------------------------


async def test_every_request_with_every_number_of_descriptors_and_wrong_sizes(back_end: BackEnd) -> None:
    """Each is answered as the table has it, and the connection stays in step throughout."""

    def part(front_end: FrontEnd) -> None:
        ready(front_end)
        event = os.eventfd(0)
        for request in range(46):
            for count in range(10):
                for size in sorted({0, 7, 8, 9, 12, 40, 41, 264, 265, 4096}):
                    # what is negotiated stays so: without REPLY_ACK there would be no answer
                    agreed = U64.pack(ALL_PROTOCOL_FEATURES) if request == Request.SET_PROTOCOL_FEATURES else b""
                    payload = (agreed + bytes(4096))[:size]
                    front_end.send(request, payload, [event] * count, need_reply=True)
                    answered, flags, payload = front_end.receive()
                    assert (answered, flags) == (request, 5)
                    if request not in TABLE or not TABLE[request].replies:
                        assert payload in (U64.pack(0), U64.pack(1))
        assert front_end.ask_u64(Request.GET_QUEUE_NUM) == 2
        os.close(event)

    await attack(back_end, part)


async def test_events_that_are_none(back_end: BackEnd, ram: GuestRam) -> None:
    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        read, write = os.pipe()
        ring = Ring(front_end, ram)
        for request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR):
            for fd in (read, write, ram.fd, front_end.sock.fileno()):
                assert front_end.do(request, U64.pack(0), [fd]) == 1
        assert ring.echo(b"alive") == b"alive"
        os.close(read)
        os.close(write)

    await attack(back_end, part)


async def test_a_call_whose_count_is_full(back_end: BackEnd, ram: GuestRam) -> None:
    """An eventfd that can take no more is not waited for."""

    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        Ring(front_end, ram)
        os.eventfd_read(front_end.calls[0])
        os.eventfd_write(front_end.calls[0], (1 << 64) - 2)
        front_end.kick(0)
        front_end.kick(0)
        assert front_end.ask_u64(Request.GET_QUEUE_NUM) == 2

    await attack(back_end, part)


# --- memory ----------------------------------------------------------------------------------------------------------


async def test_tables_that_overlap_or_lie(back_end: BackEnd, ram: GuestRam) -> None:
    size, guest, user = ram.size, ram.guest, ram.user
    lies = [
        [(guest, size * 2, user, 0)],
        [(guest, size, user, 16)],
        [(guest, size, user, size)],
        [(guest, size, user, (1 << 64) - size)],
        [(guest, 0, user, 0)],
        [(guest, 24, user, 0)],
        [(guest + 1, 4096, user, 0)],
        [(guest, 4096, user + 8, 0)],
        [(guest, 4096, user, 4)],
        [((1 << 64) - 4096, 8192, user, 0)],
        [(guest, 8192, (1 << 64) - 4096, 0)],
        [(guest, (1 << 64) - 16, 0, 0)],
        [(guest, 8192, user, 0), (guest + 4096, 4096, user + size, 0)],
        [(guest, 8192, user, 0), (guest + size, 8192, user + 4096, 0)],
        [(guest, 4096, user, 0)] * 8,
    ]

    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        ring = Ring(front_end, ram)
        for regions in lies:
            assert front_end.do(Request.SET_MEM_TABLE, memory_table(regions), [ram.fd] * len(regions)) == 1, regions
            if len(regions) == 1:
                assert front_end.do(Request.ADD_MEM_REG, MEM_REG.pack(0, *regions[0]), [ram.fd]) == 1
                assert front_end.do(Request.REM_MEM_REG, MEM_REG.pack(0, *regions[0]), [ram.fd]) == 1
        # what was there before is there still
        assert ring.echo(b"the old table") == b"the old table"

    await attack(back_end, part)
    # by index alone: no region may take the place of another that is served
    assert back_end.stats.refused["memory"] >= len(lies)


async def test_as_many_regions_as_there_are_slots_and_one_more(back_end: BackEnd) -> None:
    rams = [GuestRam(0x1000, 0x1000 * n, 0x1000 * n) for n in range(33)]

    def part(front_end: FrontEnd) -> None:
        ready(front_end)
        assert [front_end.add(ram) for ram in rams] == [0] * 32 + [1]
        assert [front_end.remove(ram) for ram in rams] == [0] * 32 + [1]

    await attack(back_end, part)
    for ram in rams:
        ram.close()


async def test_memory_taken_from_under_a_live_ring(back_end: BackEnd, ram: GuestRam) -> None:
    other = GuestRam(0x10000, 0, 0x1000)

    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        ring = Ring(front_end, ram)
        assert front_end.share(other) == 1
        assert front_end.remove(ram) == 1
        assert ring.echo(b"still here") == b"still here"
        assert front_end.share(other, ram) == 0
        assert ring.echo(b"moved") == b"moved"
        assert front_end.remove(other) == 0
        assert ring.echo(b"alone") == b"alone"

    await attack(back_end, part)
    other.close()


# --- rings -----------------------------------------------------------------------------------------------------------


async def test_rings_outside_memory(back_end: BackEnd, ram: GuestRam) -> None:
    end = ram.user + ram.size
    inside = ram.user

    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        for desc, avail, used in (
            (end, inside, inside), (inside, end, inside), (inside, inside, end), (end - 16, inside, inside),
            (inside, end - 32, inside), (inside, inside, end - 128), (0, 0, 0), (ram.guest, ram.guest, ram.guest),
            ((1 << 64) - 16, inside, inside),
        ):  # fmt: skip
            assert front_end.do(Request.SET_VRING_NUM, VRING_STATE.pack(0, SIZE)) == 0
            assert front_end.do(Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, desc, used, avail, 0)) == 0
            event = os.eventfd(0)
            assert front_end.do(Request.SET_VRING_KICK, U64.pack(0), [event]) == 1
            os.close(event)
        assert front_end.do(Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, inside + 8, inside, inside, 0)) == 1
        Ring(front_end, ram)

    await attack(back_end, part)


async def test_a_ring_of_garbage_breaks_alone(back_end: BackEnd, ram: GuestRam) -> None:
    dice = random.Random(19)

    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        Ring(front_end, ram)
        for _ in range(50):
            ram.bytes[: SIZE * 40] = dice.randbytes(SIZE * 40)
            front_end.kick(0)
            assert front_end.ask_u64(Request.GET_QUEUE_NUM) == 2

    await attack(back_end, part)
    assert back_end.device.broken, (back_end.logged, back_end.device.echoed)


async def test_requests_in_any_order(back_end: BackEnd, ram: GuestRam) -> None:
    """Mostly sensible requests, at random: in step to the end."""
    dice = random.Random(20)
    user = ram.user
    requests = [
        (Request.SET_OWNER, b"", 0), (Request.RESET_OWNER, b"", 0), (Request.RESET_DEVICE, b"", 0),
        (Request.SET_FEATURES, U64.pack(FEATURES | F_PROTOCOL_FEATURES), 0), (Request.SET_FEATURES, U64.pack(1), 0),
        (Request.SET_MEM_TABLE, memory_table([ram.region]), 1), (Request.SET_MEM_TABLE, memory_table([]), 0),
        (Request.ADD_MEM_REG, MEM_REG.pack(0, *ram.region), 1), (Request.REM_MEM_REG, MEM_REG.pack(0, *ram.region), 0),
        (Request.SET_STATUS, U64.pack(0), 0), (Request.SET_STATUS, U64.pack(15), 0),
        (Request.SET_CONFIG, CONFIG.pack(0, 2, 0) + b"ab", 0),
        *((Request.SET_VRING_NUM, VRING_STATE.pack(n, SIZE), 0) for n in range(3)),
        *((Request.SET_VRING_BASE, VRING_STATE.pack(n, 0), 0) for n in range(3)),
        *((Request.SET_VRING_ENABLE, VRING_STATE.pack(n, 1), 0) for n in range(3)),
        *((Request.SET_VRING_ADDR, VRING_ADDR.pack(n, 0, user, user + 512, user + 256, 0), 0) for n in range(3)),
        *((r, U64.pack(n), 1) for n in range(3) for r in (12, 12, 12, 13, 14)),
        *((r, U64.pack(n | 0x100), 0) for n in range(3) for r in (12, 13, 14)),
    ]  # fmt: skip

    def part(front_end: FrontEnd) -> None:
        front_end.negotiate()
        event = os.eventfd(0, os.EFD_NONBLOCK)
        for _ in range(3000):
            request, payload, fds = dice.choice(requests)
            files = [ram.fd if request in (Request.SET_MEM_TABLE, Request.ADD_MEM_REG) else event] * fds
            front_end.do(request, payload, files)
            if dice.random() < 0.1:
                os.eventfd_write(event, 1)
            if dice.random() < 0.1:
                front_end.ask(Request.GET_VRING_BASE, VRING_STATE.pack(dice.randrange(3), 0))
        os.close(event)

    await attack(back_end, part)
    assert back_end.device.resets > 10


# --- files that shrink -----------------------------------------------------------------------------------------------


async def test_a_sealable_memfd_cannot_shrink_once_shared(back_end: BackEnd, ram: GuestRam) -> None:
    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        with pytest.raises(PermissionError):
            os.ftruncate(ram.fd, 0)

    await attack(back_end, part)


async def test_a_file_that_shrank_before_a_kick_ends_the_connection(back_end: BackEnd, tmp_path: Path) -> None:
    ram = FileRam(tmp_path / "ram")

    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        ring = Ring(front_end, ram)
        assert ring.echo(b"whole") == b"whole"
        os.ftruncate(ram.fd, 0)
        front_end.kick(0)
        assert front_end.hung_up()

    await attack(back_end, part)
    ram.close()


async def test_a_file_that_shrinks_again_and_again_under_traffic(back_end: BackEnd, tmp_path: Path) -> None:
    """Between the look at the file and the access: whenever the back end is unlucky, and it lives."""
    ram = FileRam(tmp_path / "ram")
    plain = back_end.mapper
    # nobody looks beforehand: every access meets the file as it is
    back_end.device._mapper = type("Trusting", (), {"still_whole": staticmethod(lambda: True)})()

    def part(front_end: FrontEnd) -> None:
        ready(front_end, ram)
        Ring(front_end, ram)
        for _ in range(100):
            os.ftruncate(ram.fd, 0)
            front_end.kick(0)
            os.ftruncate(ram.fd, ram.size)
            front_end.kick(0)
        os.ftruncate(ram.fd, 0)
        front_end.kick(0)
        assert front_end.ask_u64(Request.GET_QUEUE_NUM) == 2
        assert front_end.stop_ring(0) == 0
        assert any(mapping.guard and mapping.guard.lost for mapping in plain._loose)

    await attack(back_end, part)
    ram.close()


async def test_a_file_without_its_bytes_is_refused(back_end: BackEnd, tmp_path: Path) -> None:
    ram = FileRam(tmp_path / "ram")
    os.ftruncate(ram.fd, ram.size - 1)

    def part(front_end: FrontEnd) -> None:
        ready(front_end)
        assert front_end.share(ram) == 1
        assert front_end.add(ram) == 1

    await attack(back_end, part)
    ram.close()
