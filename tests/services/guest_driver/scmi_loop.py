"""The whole virtio-scmi path in one process, without sockets: agent, channels, ring, port, device, platform.

Imported as ``tests.services.guest_driver.scmi_loop``. Messages wait in ``to_device`` and ``to_guest`` until the test
(or the pump) moves them; interrupts wait in ``msis``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.scmi import header
from common.virtio.device_core import Transport
from common.virtio.msi_source import MsiSource
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Call, Message, Msi, Return
from common.workqueue import WorkQueue
from services.guest_driver.layout import Layout
from services.guest_driver.port import Port
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_virtio_rx import RxChannel
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.boards.agent import ProfileName
from services.scmi_platform.core import FEATURES, ScmiCore
from services.scmi_platform.mesh_device import IDENTITY, ScmiDevice
from tests.common.virtio.ringkit import bring_up

BOARD = Path(__file__).parents[1] / "scmi_platform" / "board_small.toml"
T = TypeVar("T")

CMDQ, EVENTQ = 0, 1


def quiet(_event: str, **_fields: object) -> None:
    """A log that nobody reads."""


class Held(ScmiCore):
    """A device core that can keep commands back, so that a test answers them in an order of its own."""

    holding = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: list[tuple[int, bytes, int]] = []

    def _command(self, head: int, request: bytes, room: int) -> None:
        if self.holding:
            self.held.append((head, request, room))
        else:
            super()._command(head, request, room)

    def let_go(self, at: int = 0) -> None:
        """Answer the held command number ``at``."""
        super()._command(*self.held.pop(at))


class Loop:
    """One guest and one platform. Make it inside a running event loop."""

    def __init__(
        self,
        *,
        size: int = 16,
        features: int = FEATURES,
        timeout: float = 5.0,
        board: Path = BOARD,
        start: int = 0,
        polling: bool = True,
        atomic: bool = True,
        threshold_us: int = 0,
        profile: ProfileName = "scmi-3.2",
    ) -> None:
        self.now = 100.0
        self.world = AsyncWorld()
        self.memory = GuestMemory(1 << 20)
        self.features = features
        layout = Layout(0, 1 << 20)
        self.layouts = []
        self.rings = []
        for _ in range(2):
            at = SplitLayout.packed_at(layout.alloc(16 * size + 8 * size + 4096, 4096), size)
            self.layouts.append(at)
            self.rings.append(self.world.new(SplitDriver, self.world, self.memory, at, event_idx=True, start=start))
        self.start_idx = start
        self.to_device: deque[Message] = deque()
        self.to_guest: deque[Message] = deque()
        self.msis: deque[Msi] = deque()
        self.returns: list[Return] = []
        self.port = Port(
            self.world,
            self.memory,
            queues=2,
            send=self.to_device.append,
            key_of=lambda generation: IDENTITY if generation == 0 else None,
            clock=lambda: self.now,
        )
        self.agents = Agents(Board.load(board).with_profile(profile), lambda: self.now)
        self.board = board
        self.device: ScmiDevice
        self.core: Held
        self.new_device()
        self.waits: list[tuple[int, float]] = []
        self.workqueue = self.world.new(WorkQueue, self.world)
        self.agent = self.world.new(
            ScmiAgent, self.world, self.log, timeout=timeout, atomic_threshold_us=threshold_us,
            now_ns=lambda: int(self.now * 1e9),
        )  # fmt: skip
        for events in self.agent.event_tables():
            self.agent.notifications.register_protocol_events(events)
        self.logged: list[tuple[str, dict[str, object]]] = []
        bell = self.port.doorbell
        self.tx = self.world.new(
            TxChannel, self.world, self.memory, self.rings[CMDQ], layout, lambda: bell(CMDQ), self.agent.rx_callback,
            self.workqueue, polling=polling, atomic_enabled=atomic,
        )  # fmt: skip
        self.rx = self.world.new(
            RxChannel, self.world, self.memory, self.rings[EVENTQ], layout, lambda: bell(EVENTQ),
            self.agent.rx_callback,
        )  # fmt: skip
        self.agent.attach(self.tx)
        self.rx.on_broken = self.agent.channel_broken
        self.port.link_up()
        self.configure()
        self.world.spawn("deferred", self.workqueue.run())
        self.agent.notifications.start("vm0")
        self.interrupts = True
        self.pumping = True

    def log(self, event: str, **fields: object) -> None:
        self.logged.append((event, fields))

    # --- the device ---------------------------------------------------------------------------------------------------

    def new_device(self) -> None:
        agent = self.agents.allot("vm0")

        def make_core(device: Transport) -> Held:
            self.core = Held(
                self.agents.platform, agent, device, clock=lambda: self.now,
                observe=lambda queue, seconds: self.waits.append((queue, seconds)),
            )  # fmt: skip
            return self.core

        self.device = ScmiDevice(
            make_core, send=self.to_guest.append, msi=MsiSource("vm0", 16, self._msi), clock=lambda: self.now, log=quiet
        )
        self.agents.attach(agent, self.core)

    def _msi(self, message: Message) -> None:
        assert isinstance(message, Msi)
        self.msis.append(message)

    def configure(self) -> None:
        for op, args in bring_up(self.layouts, self.features):
            answer = self.device.answer(Call(0, op, args))
            assert answer is not None
            assert answer.errno == 0, answer
            if op == "set_vq_num" and self.start_idx:
                self.device.answer(Call(0, "set_vq_state", [args[0], self.start_idx]))
        self.device.batch_end()

    def lose_link(self) -> None:
        """The connection breaks: what was on its way is gone."""
        self.port.link_down()
        self.to_device.clear()
        self.to_guest.clear()

    def reconnect(self) -> None:
        self.port.link_up()

    def restart_device(self) -> None:
        """The service is killed and started again: everything on its side is new, the board as at power-on."""
        self.lose_link()
        self.msis.clear()
        self.agents = Agents(Board.load(self.board), lambda: self.now)
        self.new_device()
        self.port.link_up()
        while self.to_device:
            self.device.frame(self.to_device.popleft())
        self.configure()

    # --- moving things ------------------------------------------------------------------------------------------------

    def device_turn(self) -> bool:
        """The device takes one message and answers. False: there was none."""
        if not self.to_device:
            return False
        self.device.frame(self.to_device.popleft())
        self.device.batch_end()
        return True

    def guest_turn(self) -> bool:
        if not self.to_guest:
            return False
        message = self.to_guest.popleft()
        if isinstance(message, Return):
            self.returns.append(message)
        else:
            self.port.frame(message)
        self.world.stir()
        return True

    def irq_turn(self) -> bool:
        if not self.msis:
            return False
        msi = self.msis.popleft()
        (self.tx if msi.event == 40 + CMDQ else self.rx).complete_cb()
        self.device.msi.done(msi.event, msi.number)
        self.world.stir()
        return True

    def settle(self) -> None:
        """Move everything until nothing moves."""
        while self.device_turn() or self.guest_turn() or (self.interrupts and self.irq_turn()):
            pass

    async def pump(self) -> None:
        while self.pumping:
            self.settle()
            await asyncio.sleep(0)

    async def run(self, work: Awaitable[T]) -> T:
        """Await ``work`` while everything moves."""
        pump = asyncio.get_running_loop().create_task(self.pump())
        try:
            return await work
        finally:
            self.pumping = False
            await pump
            self.pumping = True

    async def start(self) -> None:
        """Give the eventq its buffers and let them arrive."""
        self.rx.start()
        self.settle()

    async def ticks(self, seconds: float) -> None:
        self.now += seconds
        self.agents.platform.tick(self.now)
        self.settle()
        await turns()

    async def close(self) -> None:
        await self.tx.close()
        await self.rx.close()
        await self.workqueue.stop()
        self.agent.detach()
        await self.agent.notifications.close()
        await self.world.close()

    # --- looking ------------------------------------------------------------------------------------------------------

    def accounted(self) -> None:
        """Every message of the cmdq is in one place: free, on the ring (or just taken off it), pending, or polled."""
        free, pending = list(self.tx.free_list), list(self.tx.pending_cmds_list)
        ring = [self.rings[CMDQ].tokens[i] for i in range(self.rings[CMDQ].size) if self.rings[CMDQ].tokens[i]]
        polled = [
            xfer.priv
            for xfer in (self.agent.in_flight[token] for token in self.agent.in_flight)
            if xfer.priv is not None
        ]
        assert len(free) == len(set(map(id, free))), "a message is on the free list twice"
        assert not set(map(id, free)) & set(map(id, ring + pending + polled)), "a free message is in use"
        assert len(set(map(id, free + ring + pending + polled))) == self.tx.max_msg, "a message is lost"
        assert all(msg.users.load() == 0 for msg in free)


def check_waits(loop: Loop, poll: bool) -> None:
    """Every response was waited for as ``poll`` says."""
    stats = loop.agent.stats
    assert (stats.response_polled_ok > 0, stats.response_ok > 0) == (poll, not poll)


async def turns(count: int = 8) -> None:
    """Let tasks run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


def reply(request: bytes, payload: bytes = b"", status: int = 0) -> bytes:
    return request[: header.HEADER.size] + status.to_bytes(4, "little", signed=True) + payload


Worker = Callable[[], Awaitable[None]]
