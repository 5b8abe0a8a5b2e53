"""The real service at a socket, and the other side of it: a front end whose guest is our own driver half.

:class:`Served` runs in the test's event loop. :class:`Guest` blocks, as a guest's CPU does while it polls: run it by
``asyncio.to_thread``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from common.memory import GuestMemory
from common.runtime.config import AdminConfig, LogConfig
from common.scmi import header
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.scmi_platform.core import FEATURES
from services.scmi_platform.faults import FaultPlan
from services.vhost_user.config import VhostUserConfig
from services.vhost_user.messages import F_PROTOCOL_FEATURES
from services.vhost_user.server import VhostUserScmi
from services.vhost_user.world import FencedWorld
from tests.services.scmi_platform.scmi_rig import SMALL
from tests.services.vhost_user.front_end import GUARD, FrontEnd, GuestRam

CMDQ, EVENTQ = 0, 1


class Served:
    """``ringmesh serve scmi --listen vhost-user:…`` on the small board, in this event loop."""

    def __init__(self, *sockets: str, faults: FaultPlan | None = None, **settings: Any) -> None:
        self.service = VhostUserScmi(
            VhostUserConfig(
                admin=AdminConfig(port=0),
                log=LogConfig(level="error"),
                board=str(SMALL),
                sockets=sockets,
                faults=faults or FaultPlan(),
                **settings,
            )
        )
        self.task: asyncio.Task[int]

    async def __aenter__(self) -> Self:
        self.task = asyncio.get_running_loop().create_task(self.service.run())
        await self.until(lambda: self.task.done() or not self.service.not_ready())
        assert not self.task.done(), self.task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.service.shut_down()
        async with asyncio.timeout(GUARD):
            assert await self.task == 0

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(GUARD):
            while not holds():  # noqa: ASYNC110  (other tasks move what it looks at)
                await asyncio.sleep(0.002)

    def value(self, name: str, **labels: str) -> float:
        """A counter or gauge."""
        return self.service.metrics.value(name, **labels)


class Guest:
    """A front end connected to ``path``, memory, and the driver's half of both rings, ``size`` entries from ``start``
    on; brought up unless ``up`` is false."""

    def __init__(
        self, path: Path, *, size: int = 32, start: int = 0, features: int = FEATURES, up: bool = True
    ) -> None:
        self.front = FrontEnd(path)
        self.rams = [GuestRam()]
        self.memory = GuestMemory()
        self.memory.add_region(self.rams[0].guest, self.rams[0].size, memoryview(self.rams[0].bytes))
        self.size, self.features = size, features
        self.world = FencedWorld()
        self.base = self.rams[0].guest
        self.layouts = [SplitLayout.packed_at(self.base + 0x4000 * queue, size) for queue in range(2)]
        self.drivers = [
            SplitDriver(
                self.world, self.memory, layout, event_idx=True, start=start,
                indirect=self.base + 0x10000 + 0x8000 * queue, indirect_max=4,
            )
            for queue, layout in enumerate(self.layouts)
        ]  # fmt: skip
        self.token = 0
        #: where buffers lie, 512 bytes for each of the cmdq's messages, behind these those of the eventq
        self.data = self.base + 0x40000
        self.events = [self.base + 0x60000 + 512 * n for n in range(size)]
        if up:
            self.bring_up(start)

    def bring_up(self, start: int = 0) -> None:
        self.front.negotiate()
        assert self.front.features(self.features | F_PROTOCOL_FEATURES) == 0
        assert self.front.share(*self.rams) == 0
        for queue in range(2):
            self.start(queue, start)

    def start(self, queue: int, base: int) -> None:
        user = self.rams[0].user - self.rams[0].guest
        at = self.layouts[queue]
        areas = (at.desc + user, at.driver + user, at.device + user)
        assert self.front.start_ring(queue, self.size, *areas, base=base) == 0

    def reconnect(self, path: Path) -> None:
        """To another device process, as QEMU does: every ring goes on where its used index stands."""
        self.front.close()
        self.front = FrontEnd(path)
        self.front.negotiate()
        assert self.front.features(self.features | F_PROTOCOL_FEATURES) == 0
        assert self.front.share(*self.rams) == 0
        for queue, layout in enumerate(self.layouts):
            self.start(queue, self.memory.view(layout.device, 2, "H")[1])

    def close(self) -> None:
        self.front.close()
        self.drivers.clear()
        del self.memory
        gc.collect()
        for ram in self.rams:
            with suppress(BufferError):  # a traceback still holds on to it: say what failed, not this
                ram.close()

    # --- commands -----------------------------------------------------------------------------------------------------

    def command(self, protocol: int, message: int, *words: int, poll: bool = False, **how: Any) -> bytes:
        """What follows the header of the reply."""
        [reply] = self.commands([(protocol, message, words)], poll=poll, **how)
        return reply

    def commands(
        self, many: list[tuple[int, int, tuple[int, ...]]], *, poll: bool = False, room: int = 132, pieces: int = 1
    ) -> list[bytes]:
        """Commands that are under way together; their replies in this order, headers checked and taken off."""
        driver = self.drivers[CMDQ]
        if poll:
            driver.disable_cb()
        else:
            driver.enable_cb_prepare()
        requests = []
        for n, (protocol, message, words) in enumerate(many):
            self.token = (self.token + 1) % header.TOKENS
            request = header.command(protocol, message, self.token, b"".join(struct.pack("<I", w) for w in words))
            requests.append(request)
            self.send(n, request, room, pieces)
        if driver.kick_prepare():
            self.front.kick(CMDQ)
        replies: dict[int, bytes] = {}
        deadline = time.monotonic() + GUARD
        while len(replies) < len(many):
            got = driver.get_bufs(self.size)
            replies.update((n, self.memory.read(self.data + 512 * n + 256, length)) for n, length in got)
            if not got and poll:
                assert time.monotonic() < deadline, "no reply to a polled command"
                time.sleep(0)
            elif not got and driver.enable_cb():
                self.wait(CMDQ)
        for n, request in enumerate(requests):
            assert replies[n][:4] == request[:4]
        return [replies[n][4:] for n in range(len(many))]

    def send(self, n: int, request: bytes, room: int = 132, pieces: int = 1) -> None:
        """Make one command available, request and reply both in so many pieces; it is number ``n`` for get_bufs."""
        at = self.data + 512 * n
        self.memory.write(at, request)
        self.drivers[CMDQ].add(self.split(at, len(request), pieces), self.split(at + 256, room, pieces), n)

    @staticmethod
    def split(at: int, size: int, pieces: int) -> list[tuple[int, int]]:
        step = -(-size // pieces)
        return [(at + begin, min(step, size - begin)) for begin in range(0, size, step)]

    def wait(self, queue: int) -> None:
        """Sleep until the device interrupts."""
        call = self.front.calls[queue]
        assert select.select([call], [], [], GUARD)[0], "no interrupt"
        os.eventfd_read(call)

    def interrupts(self, queue: int) -> int:
        """How often the device interrupted since the last look."""
        try:
            return os.eventfd_read(self.front.calls[queue])
        except BlockingIOError:
            return 0

    # --- what comes unasked -------------------------------------------------------------------------------------------

    def feed(self, *rooms: int) -> None:
        """Buffers for the eventq."""
        driver = self.drivers[EVENTQ]
        for room in rooms:
            at = self.events.pop(0)
            driver.add([], [(at, room)], at)
        if driver.kick_prepare():
            self.front.kick(EVENTQ)

    def event(self) -> bytes:
        """The next message on the eventq; waits for its interrupt."""
        driver = self.drivers[EVENTQ]
        while (got := driver.get_buf()) is None:
            if driver.enable_cb():
                self.wait(EVENTQ)
        at, length = got
        self.events.append(at)
        return self.memory.read(at, length)


@asynccontextmanager
async def guest_at(path: Path, **about: Any) -> AsyncIterator[Guest]:
    """A guest that is brought up and taken down in a thread."""
    guest = await asyncio.to_thread(Guest, path, **about)
    try:
        yield guest
    finally:
        await asyncio.to_thread(guest.close)
