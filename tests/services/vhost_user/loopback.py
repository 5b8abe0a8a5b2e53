"""A back end for socket tests: a device whose rings copy what they read into what they may write, behind a Listener.

:class:`BackEnd` is the service's side, :func:`converse` a well-behaved front end that has its bytes sent back.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from common.errors import RemoteError
from common.memory import GuestMemory
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.vhost_user.connection import Listener, close_fd
from services.vhost_user.mapping import Mapper, check_event
from services.vhost_user.memory import SharedMemory
from services.vhost_user.messages import ALL_PROTOCOL_FEATURES, F_PROTOCOL_FEATURES
from services.vhost_user.session import Session, SessionStats
from services.vhost_user.target import Vring
from services.vhost_user.world import FencedWorld
from tests.services.vhost_user.front_end import GUARD, FrontEnd, GuestRam
from tests.services.vhost_user.recorder import FEATURES

SIZE = 16


def open_fds() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Loopback:
    """A Target on shared memory and eventfds. ``lost`` is called when the front end cut off its memory."""

    device_features = FEATURES
    queue_sizes: Sequence[int] = (256, 256)

    def __init__(self, mapper: Mapper, lost: Callable[[], None]) -> None:
        self.memory = SharedMemory()
        self.rings: dict[int, tuple[Vring, SplitDevice]] = {}
        self.echoed = 0
        self.resets = 0
        self.broken: list[str] = []
        self._mapper, self._lost = mapper, lost

    def features_set(self, features: int) -> None: ...

    def _ring(self, vring: Vring, memory: SharedMemory, base: int) -> SplitDevice:
        assert vring.desc is not None
        assert vring.avail is not None
        assert vring.used is not None
        places = zip((vring.desc, vring.avail, vring.used), SplitLayout.sizes(vring.size), strict=True)
        layout = SplitLayout(vring.size, *(memory.guest_address(user, length) for user, length in places))
        return SplitDevice(FencedWorld(), memory.guest, layout, avail=base, used=base)

    def memory_set(self, memory: SharedMemory) -> None:
        moved = {i: (v, self._ring(v, memory, ring.last_avail_idx)) for i, (v, ring) in self.rings.items()}
        self.rings, self.memory = moved, memory

    def vring_start(self, vring: Vring) -> None:
        self.rings[vring.index] = vring, self._ring(vring, self.memory, vring.base)
        if vring.kick is not None:
            asyncio.get_running_loop().add_reader(vring.kick, self._kicked, vring)
        self._serve(vring)

    def vring_stop(self, index: int) -> int:
        vring, ring = self.rings.pop(index)
        if vring.kick is not None:
            asyncio.get_running_loop().remove_reader(vring.kick)
        return ring.last_avail_idx

    def _kicked(self, vring: Vring) -> None:
        assert vring.kick is not None
        with contextlib.suppress(BlockingIOError):  # a hostile front end gives one event to two rings
            os.eventfd_read(vring.kick)
        self._serve(vring)

    def _serve(self, vring: Vring) -> None:
        if not vring.enabled or vring.index not in self.rings:
            return
        if not self._mapper.still_whole():
            asyncio.get_running_loop().call_soon(self._lost)
            return
        memory, (_, ring) = self.memory.guest, self.rings[vring.index]
        try:
            while (popped := ring.pop()) is not None:
                head, segments, readable = popped
                data = b"".join(memory.read(addr, length) for addr, length, _ in segments[:readable])
                written = 0
                for addr, length, _ in segments[readable:]:
                    memory.write(addr, data[written : written + length])
                    written += len(data[written : written + length])
                ring.push(head, written)
                self.echoed += 1
        except RemoteError as error:
            self.broken.append(str(error))  # the error itself would keep the memory mapped
        if vring.call is not None:
            with contextlib.suppress(BlockingIOError):  # its count is full: the peer has its event
                os.eventfd_write(vring.call, 1)

    def vring_enable(self, index: int, on: bool) -> None:
        if on and index in self.rings:
            self._serve(self.rings[index][0])

    def call_set(self, vring: Vring) -> None: ...

    def status_set(self, status: int) -> None: ...

    def reset(self) -> None:
        self.resets += 1

    def config_get(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def config_set(self, offset: int, data: bytes) -> None: ...


class BackEnd:
    """The device behind a listener at ``path``; an asynchronous context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mapper = Mapper()
        self.stats = SessionStats()
        self._visitors = 0
        #: exceptions that nobody caught
        self.faults: list[dict[str, Any]] = []
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.device = Loopback(self.mapper, lambda: self.listener.drop())
        self.listener = Listener(path, self.session, self.log)

    def session(self) -> Session:
        return Session(
            self.device, map_fd=self.mapper.map, close=close_fd, check_event=check_event, log=self.log, stats=self.stats
        )

    def log(self, event: str, **fields: Any) -> None:
        self.logged.append((event, fields))

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.faults.append(context))
        await self.listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.stop()
        assert not self.faults

    async def left(self) -> None:
        """Wait until one more front end than before has come and gone."""
        self._visitors += 1
        while self.listener.accepted < self._visitors or self.listener.connection is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def serves(self, *, count: int = 3) -> None:
        """Fail unless a well-behaved front end is served now, and leaves nothing behind."""
        before, echoed = open_fds(), self.device.echoed
        await asyncio.to_thread(converse, self.path, count)
        await self.left()
        assert self.device.echoed - echoed == count
        assert open_fds() == before


class Ring:
    """The driver's side of ring ``index`` in ``ram``."""

    def __init__(self, front_end: FrontEnd, ram: GuestRam, index: int = 0) -> None:
        self.front_end, self.ram, self.index = front_end, ram, index
        self.memory = GuestMemory()
        self.memory.add_region(ram.guest, ram.size, memoryview(ram.bytes))
        self.layout = SplitLayout.packed_at(ram.guest, SIZE)
        self.driver = SplitDriver(FencedWorld(), self.memory, self.layout)
        user = ram.user - ram.guest
        layout = self.layout
        assert front_end.start_ring(index, SIZE, layout.desc + user, layout.driver + user, layout.device + user) == 0

    def echo(self, data: bytes) -> bytes:
        """What comes back for ``data``."""
        out, back = self.ram.guest + 0x8000, self.ram.guest + 0xC000
        self.memory.write(out, data)
        self.memory.fill(back, len(data), 0xEE)
        self.driver.add([(out, len(data))], [(back, len(data))], "echo")
        self.front_end.kick(self.index)
        while (done := self.driver.get_buf()) is None:
            call = self.front_end.calls[self.index]
            assert select.select([call], [], [], GUARD)[0], "no interrupt"
            os.eventfd_read(call)
        assert done == ("echo", len(data))
        return self.memory.read(back, len(data))


def converse(path: Path, count: int = 3) -> None:
    """Negotiate, share memory, start a ring, have ``count`` buffers echoed, stop it, leave."""
    ram = GuestRam()
    with FrontEnd(path) as front_end:
        assert front_end.negotiate() & ~F_PROTOCOL_FEATURES == FEATURES
        assert front_end.ask_u64(15) == ALL_PROTOCOL_FEATURES
        assert front_end.features(FEATURES & ~(1 << 29) | F_PROTOCOL_FEATURES) == 0
        assert front_end.share(ram) == 0
        ring = Ring(front_end, ram)
        for n in range(count):
            data = f"message {n}".encode() * (n + 1)
            assert ring.echo(data) == data
        assert front_end.stop_ring(0) == count
        del ring
    gc.collect()
    ram.close()
