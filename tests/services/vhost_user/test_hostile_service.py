"""The service as a process, and front ends that mean it harm: after each the next one is served as if nothing was.

What each does must be counted by ``/metrics``, and none of it may cost memory or descriptors for good.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from services.mesh.scrape import Sample
from services.scmi_platform.core import FEATURES
from services.vhost_user.messages import F_PROTOCOL_FEATURES, HEADER, MEM_REG, U64, VRING_ADDR, VRING_STATE, Request
from tests.mesh.harness import until
from tests.services.vhost_user.front_end import FrontEnd, GuestRam, memory_table
from tests.services.vhost_user.scmi_front import CMDQ, Guest
from tests.services.vhost_user.test_server import CPU, RATE_GET, rate
from tests.services.vhost_user.test_server_life import Platform, platform

#: Times that all of them come in turn.
ROUNDS: Final = 200
#: Entries of their rings.
SIZE: Final = 32
DESC: Final = struct.Struct("<QIHH")
NEXT, WRITE, INDIRECT = 1, 2, 4

Attack = Callable[[Path, random.Random], None]
#: Each with what it adds to: a reason of ringmesh_vhost_user_refused_total, or another counter's name.
ATTACKS: Final[list[tuple[Attack, str]]] = []


def attack(counted: str) -> Callable[[Attack], Attack]:
    def enter(one: Attack) -> Attack:
        ATTACKS.append((one, counted))
        return one

    return enter


@contextlib.contextmanager
def front_end(path: Path) -> Iterator[FrontEnd]:
    """Negotiated, as far as the features; what the other side hangs up on is fine."""
    with FrontEnd(path) as front, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        front.negotiate()
        assert front.features(FEATURES | F_PROTOCOL_FEATURES) == 0
        yield front


class Liar(Guest):
    """A guest whose driver writes whatever it likes into its ring."""

    def __init__(self, path: Path, ram: GuestRam | None = None) -> None:
        super().__init__(path, size=SIZE, up=False)
        self._own = self.rams[0]
        self.ram = ram or self._own
        self.rams = [self.ram]
        self.bring_up()

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self.ram is not self._own:
            self._own.close()

    def write(self, address: int, data: bytes) -> None:
        at = address - self.ram.guest
        self.ram.bytes[at : at + len(data)] = data

    def chain(self, *descriptors: tuple[int, int, int, int]) -> None:
        """Write these from 0 on, make 0 available, kick."""
        layout = self.layouts[CMDQ]
        self.write(layout.desc, b"".join(DESC.pack(*one) for one in descriptors))
        self.available(1)

    def available(self, index: int) -> None:
        layout = self.layouts[CMDQ]
        self.write(layout.driver, struct.pack("<HHH", 0, index, 0))
        with contextlib.suppress(OSError):
            self.front.kick(CMDQ)
        self.heard()

    def heard(self) -> None:
        """The kick has been seen: an answer to a request that came after it, or the end of the connection."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(2):
                self.front.ask_u64(Request.GET_QUEUE_NUM)


# --- bytes and descriptors -------------------------------------------------------------------------------------------


@attack("frame")
def garbage(path: Path, rng: random.Random) -> None:
    with front_end(path) as front:
        front.send_raw(b"\xff" * 12 + rng.randbytes(rng.randrange(5000)))
        assert front.hung_up()


@attack("unknown")
def garbage_behind_good_headers(path: Path, rng: random.Random) -> None:
    def drain(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass

    with front_end(path) as front:
        reader = threading.Thread(target=drain, args=(front.sock,))
        reader.start()
        for _ in range(60):
            size = rng.choice((0, 8, 12, 40, rng.randrange(4097)))
            front.send_raw(HEADER.pack(rng.randrange(60), rng.choice((1, 9)), size) + rng.randbytes(size))
        front.send_raw(HEADER.pack(999, 1, 0))
        with contextlib.suppress(OSError):
            front.sock.shutdown(socket.SHUT_WR)
        reader.join()


@attack("fds")
def descriptors_that_nobody_asked_for(path: Path, rng: random.Random) -> None:
    event = os.eventfd(0)
    try:
        with front_end(path) as front:
            for count in (1, 8, 9, 64, 200):
                front.send(Request.SET_OWNER, b"", [event] * count)
                front.send(Request.SET_VRING_CALL, U64.pack(0), [event] * count)
            front.ask_u64(Request.GET_QUEUE_NUM)
            front.send_raw(b"\x01", [event] * 8)  # half a header, and gone
    finally:
        os.close(event)


@attack("fds")
def events_that_are_none(path: Path, rng: random.Random) -> None:
    read, write = os.pipe()
    try:
        with front_end(path) as front:
            for request in (Request.SET_VRING_CALL, Request.SET_VRING_ERR):
                assert front.do(request, U64.pack(0), [rng.choice((read, write, front.sock.fileno()))]) == 1
    finally:
        os.close(read)
        os.close(write)


@attack("size")
def replies_that_nobody_reads(path: Path, rng: random.Random) -> None:
    with front_end(path) as front:
        front.send(Request.SET_STATUS, b"")
        front.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(20_000):
                front.sock.send(HEADER.pack(Request.GET_FEATURES, 1, 0))


# --- memory ----------------------------------------------------------------------------------------------------------


@attack("memory")
def tables_that_lie(path: Path, rng: random.Random) -> None:
    ram = GuestRam()
    guest, size, user = ram.guest, ram.size, ram.user
    lies = [
        [(guest, size * 2, user, 0)],
        [(guest, 4096, user, (1 << 64) - 4096)],
        [(guest, 8192, user, 0), (guest + 4096, 4096, user + size, 0)],
        [((1 << 64) - 4096, 8192, user, 0)],
        [(guest, 1 << 62, user, 0)],
        [(guest, 0, user, 0)],
    ]
    with front_end(path) as front:
        for regions in rng.sample(lies, 3):
            assert front.do(Request.SET_MEM_TABLE, memory_table(regions), [ram.fd] * len(regions)) == 1
            assert front.do(Request.ADD_MEM_REG, MEM_REG.pack(0, *regions[0]), [ram.fd]) in (0, 1)
    ram.close()


@attack("memory")
def memory_that_is_none(path: Path, rng: random.Random) -> None:
    with front_end(path) as front, open("/dev/zero", "rb+", buffering=0) as zero:
        for fd in (zero.fileno(), front.sock.fileno()):
            assert front.do(Request.ADD_MEM_REG, MEM_REG.pack(0, 0, 4096, 0, 0), [fd]) == 1
    reading = os.memfd_create("read-only", os.MFD_CLOEXEC)
    os.ftruncate(reading, 4096)
    again = os.open(f"/proc/self/fd/{reading}", os.O_RDONLY | os.O_CLOEXEC)
    with front_end(path) as front:
        assert front.do(Request.ADD_MEM_REG, MEM_REG.pack(0, 0, 4096, 0, 0), [again]) == 1
    os.close(reading)
    os.close(again)


@attack("memory")
def rings_outside(path: Path, rng: random.Random) -> None:
    ram = GuestRam()
    end = ram.user + ram.size
    with front_end(path) as front:
        assert front.share(ram) == 0
        where = rng.choice(((end, ram.user, ram.user), (ram.user, end - 16, ram.user), (0, 0, 0)))
        assert front.do(Request.SET_VRING_NUM, VRING_STATE.pack(0, SIZE)) == 0
        desc, avail, used = where
        assert front.do(Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, desc, used, avail, 0)) == 0
        kick = os.eventfd(0)
        assert front.do(Request.SET_VRING_KICK, U64.pack(0), [kick]) == 1
        os.close(kick)
    ram.close()


@attack("phase")
def memory_of_a_ring_that_runs_taken_away(path: Path, rng: random.Random) -> None:
    with Liar(path) as liar:
        assert liar.front.remove(liar.ram) == 1
        assert liar.front.do(Request.SET_MEM_TABLE, memory_table([])) == 1
        assert rate(liar.command(*RATE_GET, CPU)) == 300
        assert liar.front.do(Request.SET_OWNER) == 1


# --- rings -----------------------------------------------------------------------------------------------------------


@attack("ringmesh_vhost_queue_broken_total")
def descriptors_in_a_circle(path: Path, rng: random.Random) -> None:
    with Liar(path) as liar:
        data = liar.data
        if rng.random() < 0.5:
            liar.chain((data, 4, NEXT, 1), (data, 4, NEXT, 0))
        else:
            table = liar.base + 0x10000
            liar.write(table, DESC.pack(data, 4, NEXT, 0))
            liar.chain((table, 16, INDIRECT, 0))


@attack("ringmesh_vhost_queue_broken_total")
def descriptors_that_lead_nowhere(path: Path, rng: random.Random) -> None:
    with Liar(path) as liar:
        data, end = liar.data, liar.ram.guest + liar.ram.size
        liar.chain(
            *rng.choice(
                (
                    [(data, 4, NEXT, SIZE)],
                    [(end - 2, 4, 0, 0)],
                    [(0, 4, 0, 0)],
                    [((1 << 64) - 2, 0xFFFF_FFFF, NEXT, 1), (data, 4, WRITE, 0)],
                    [(data, 4, NEXT | WRITE, 1), (data, 4, 0, 0)],  # readable behind writable
                    [(data, 15, INDIRECT, 0)],
                    [(data, 16 * 70_000, INDIRECT, 0)],
                    [(end - 8, 16, INDIRECT, 0)],
                )
            )
        )


@attack("ringmesh_vhost_queue_broken_total")
def an_index_that_jumps(path: Path, rng: random.Random) -> None:
    with Liar(path) as liar:
        liar.available(rng.choice((SIZE + 1, 0x7FFF, 0xFFFF)))


@attack("ringmesh_vhost_queue_broken_total")
def the_same_head_many_times(path: Path, rng: random.Random) -> None:
    """The eventq keeps what it is given."""
    with Liar(path) as liar:
        layout = liar.layouts[1]
        liar.write(layout.desc, DESC.pack(liar.data, 128, WRITE, 0))
        liar.write(layout.driver, struct.pack("<HH", 0, 2) + bytes(2 * SIZE))
        liar.front.kick(1)
        liar.heard()


@attack("ringmesh_scmi_device_malformed_total")
def commands_that_are_none(path: Path, rng: random.Random) -> None:
    """Gigabytes to read, no room to write, or all of the ring's descriptors in one chain."""
    with Liar(path) as liar:
        data = liar.data
        liar.chain(
            *rng.choice(
                (
                    [(data, 3, NEXT, 1), (data, 64, WRITE, 0)],
                    [(data, 0x8_0000, 0, 0)],
                    [(data, 64, WRITE, 0)],
                    [*((data, 1, NEXT, n + 1) for n in range(SIZE - 1)), (data, 1, 0, 0)],
                )
            )
        )


@attack("ringmesh_vhost_device_starts_total")
def rings_of_noise(path: Path, rng: random.Random) -> None:
    with Liar(path) as liar:
        for _ in range(5):
            liar.write(liar.layouts[CMDQ].desc, rng.randbytes(SIZE * 22))
            liar.front.kick(CMDQ)
            liar.heard()


# --- files that shrink -----------------------------------------------------------------------------------------------


@attack("ringmesh_vhost_queue_broken_total")
def memory_that_shrinks_under_load(path: Path, rng: random.Random) -> None:
    """In a file, which cannot be sealed against it."""
    ram = GuestRam()
    sealable, file = ram.fd, path.with_suffix(f".ram-{rng.random()}")
    ram.fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    os.unlink(file)
    os.ftruncate(ram.fd, ram.size)
    os.close(sealable)
    ram.bytes.close()
    ram.bytes = type(ram.bytes)(ram.fd, ram.size)
    with Liar(path, ram) as liar:
        stop = threading.Event()

        def shrink() -> None:
            while not stop.is_set():
                for size in (0, 8192, ram.size):
                    os.ftruncate(ram.fd, size)

        shrinker = threading.Thread(target=shrink)
        shrinker.start()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(50):
                liar.front.kick(CMDQ)
                liar.front.ask_u64(Request.GET_QUEUE_NUM)
        stop.set()
        shrinker.join()
        os.ftruncate(ram.fd, 0)
        liar.front.kick(CMDQ)
        assert liar.front.hung_up()


# --- the judge -------------------------------------------------------------------------------------------------------


class Judge:
    """A service, what it counts, and what it takes."""

    def __init__(self, served: Platform, path: Path) -> None:
        self.served, self.path = served, path
        self._process = psutil.Process(served.process.pid)
        # a full pipe would stop the service
        assert served.process.stderr is not None
        self.log: list[str] = []
        self._reader = threading.Thread(target=self.log.extend, args=(served.process.stderr,), daemon=True)
        self._reader.start()

    def count(self, counted: str) -> float:
        sample = Sample.parse(self.served.get("/metrics")).values
        if counted.startswith("ringmesh_"):
            return sum(value for (name, _), value in sample.items() if name == counted)
        return sum(
            value
            for (name, labels), value in sample.items()
            if name == "ringmesh_vhost_user_refused_total" and ("reason", counted) in labels
        )

    def serves(self) -> None:
        """A front end as it should be is served."""
        guest = Guest(self.path)
        try:
            assert rate(guest.command(*RATE_GET, CPU)) == 300
        finally:
            guest.close()

    def takes(self) -> tuple[int, int]:
        """Bytes of memory and descriptors, once nobody is connected."""
        return self._process.memory_info().rss, self._process.num_fds()


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    path = tmp_path / "vm0.sock"
    with platform(path) as served:
        judge = Judge(served, path)
        judge.serves()
        yield judge
        assert served.process.poll() is None


@pytest.mark.parametrize(("one", "counted"), ATTACKS, ids=[one.__name__ for one, _ in ATTACKS])
def test_each_is_counted_and_the_next_is_served(judge: Judge, one: Attack, counted: str) -> None:
    before = judge.count(counted)
    for seed in range(8):
        one(judge.path, random.Random(seed))
    judge.serves()
    assert judge.count(counted) > before


def test_two_hundred_rounds_leave_nothing_behind(judge: Judge) -> None:
    rng = random.Random(21)
    taken: list[tuple[int, int]] = []
    for _ in range(ROUNDS):
        one, _ = rng.choice(ATTACKS)
        one(judge.path, rng)
        judge.serves()
        taken.append(judge.takes())
    least = min(fds for _, fds in taken)
    # the last front end has gone; what it handed over the service may still be closing
    until(lambda: judge.takes()[1] <= least + 2, "descriptors are given back")
    assert judge.takes()[0] < taken[ROUNDS // 2][0] + (2 << 20)
