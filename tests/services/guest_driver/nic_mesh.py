"""A guest's NIC as the service has it (driver, load, hotplug, VMM) and the device, in one process: messages, interrupts
and tasks move when the test moves them, in an order drawn from a seed.

Imported as ``tests.services.guest_driver.nic_mesh``.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any, Final

from common.memory import GuestMemory
from common.runtime.config import PeerConfig
from common.runtime.world import AsyncWorld
from common.virtio.msi_source import MsiSource
from common.wire.codec import decode, encode
from common.wire.limits import MAX_FRAME, PREFIX
from common.wire.messages import Message
from services.guest_driver.config import GuestConfig, WorkloadConfig
from services.guest_driver.guest_nic import GuestNic
from services.guest_driver.layout import Layout
from services.guest_driver.net_load import NetLoad
from services.guest_driver.port import Port
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.backends.echo import Echo
from tests.services.guest_driver.mesh_rig import Quiet
from tests.services.vdpa_nic.wire_rig import is_alarm, new_nic

RAM: Final = (0x4000_0000, 4 << 20)
FRAMES: Final = [bytes([n]) * size for n, size in enumerate((14, 60, 333, 98), 1)]


class Wire:
    """One direction of a link. What is sent while it is down is gone."""

    def __init__(self) -> None:
        self.messages: Final[deque[bytes]] = deque()
        self.up = False

    def send(self, message: Message) -> None:
        if self.up:
            self.messages.append(encode(message, MAX_FRAME)[PREFIX:])

    def take(self, count: int) -> Iterator[Any]:
        for _ in range(min(count, len(self.messages))):
            yield decode(self.messages.popleft())


class GuestEnd:
    """The guest's end of one link, as its handler sees a Link."""

    def __init__(self, wire: Wire, epoch: int) -> None:
        self.send: Final = wire.send
        self.peer_epoch: Final = epoch

    def flush(self) -> None:
        """Nothing is kept back."""


class NicMesh:
    """``pairs`` queue pairs with rings of ``size`` entries. :meth:`move` makes one step."""

    def __init__(
        self, pairs: int = 4, *, size: int = 16, window: int = 32, seed: int = 1, max_pairs: int = 4,
        backend: Backend | None = None, **workload: Any,
    ) -> None:  # fmt: skip
        self.random: Final = random.Random(seed)
        self.pairs, self.size, self.max_pairs = pairs, size, max_pairs
        self.now = 1.0
        self.world: Final = AsyncWorld()
        self.memory: Final = GuestMemory(RAM[1], RAM[0])
        self.log: Final = Quiet()
        peer = PeerConfig(port=1)
        config = GuestConfig(
            scmi=peer, nic=peer, its=peer, net_pairs=pairs, net_queue_size=size,  # type: ignore[arg-type]
            workload=WorkloadConfig(net_window=window, **workload),
        )  # fmt: skip
        self.port: Final = Port(self.world, self.memory, queues=129, send=lambda _message: None, clock=lambda: self.now)
        self.pending: Final[set[int]] = set()
        self.nic: Final = GuestNic(
            self.world, self.memory, Layout(*RAM), RAM, self.port, config=config, log=self.log,
            raised=lambda event, _number: self.pending.add(event), took=lambda _queue, _name: None,
        )  # fmt: skip
        self.load: Final = NetLoad(self.nic, config.workload, FRAMES, lambda: int(self.now * 1e9))
        self.to_guest, self.to_device, self.to_vmm, self.from_vmm = (Wire() for _ in range(4))
        self.epoch = 0
        self.alarms: list[Message] = []
        self.logged: list[str] = []
        self.restart(backend)

    # --- the device ---------------------------------------------------------------------------------------------------

    def restart(self, backend: Backend | None = None) -> None:
        """A NIC that knows nothing; the links are down."""
        self.cut()
        self.epoch += 1
        self.device = new_nic(
            backend or Echo(self.max_pairs),
            self.logged,
            send=self._from_device,
            answer_vmm=self.to_vmm.send,
            msi=MsiSource("vm", 0x20, lambda _message: None),
            clock=lambda: self.now,
            queue_size=64,
            max_pairs=self.max_pairs,
        )

    def _from_device(self, message: Message) -> None:
        if is_alarm(message):
            self.alarms.append(message)
        self.to_guest.send(message)

    def cut(self) -> None:
        """Both links break."""
        for wire in (self.to_guest, self.to_device, self.to_vmm, self.from_vmm):
            if wire.up:
                wire.up = False
                wire.messages.clear()
                if wire is self.to_guest:
                    self.nic.bus.link_down(self._link, "test")
                elif wire is self.to_vmm:
                    self.nic.vmm.link_down(self._link, "test")

    def connect(self) -> None:
        for wire in (self.to_guest, self.to_device, self.to_vmm, self.from_vmm):
            wire.up = True
        self.device.reconnected()
        link: Any = GuestEnd(self.to_device, self.epoch)
        self._link = link
        self.nic.bus.link_up(link)
        to_vmm: Any = GuestEnd(self.from_vmm, self.epoch)
        self.nic.vmm.link_up(to_vmm)

    # --- movement -----------------------------------------------------------------------------------------------------

    def move(self) -> None:
        """One step of somebody, whoever's turn it is."""
        count = self.random.choice((1, 3, 100))
        match self.random.randrange(5):
            case 0:
                for message in self.to_device.take(count):
                    self.device.frame(message)
                self.device.batch_end()
            case 1:
                for message in self.to_guest.take(count):
                    self.nic.bus.link_frame(self._link, message)
            case 2:
                for message in self.from_vmm.take(1):
                    self.device.vmm_frame(message)
            case 3:
                for message in self.to_vmm.take(1):
                    self.nic.vmm.link_frame(self._link, message)
            case _:
                for event in sorted(self.pending):
                    self.pending.discard(event)
                    self.nic.handle(event)

    async def run(self, work: Coroutine[Any, Any, Any], guard: int = 1_000_000) -> Any:
        """Move until ``work`` is done; its result."""
        task = asyncio.get_running_loop().create_task(work)
        while not task.done():
            self.move()
            await asyncio.sleep(0)
            guard -= 1
            assert guard, "hangs"
        return task.result()

    async def go_on(self, steps: int) -> None:
        """Move so many steps, and let tasks run."""
        for _ in range(steps):
            self.move()
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Move until there is nothing to move."""
        rest = 0
        while rest < 40:
            self.move()
            await asyncio.sleep(0)
            wires = (self.to_guest, self.to_device, self.to_vmm, self.from_vmm)
            rest = 0 if any(wire.messages for wire in wires) or self.pending else rest + 1

    async def start(self) -> NicMesh:
        self.connect()
        await self.run(self._bring_up())
        await self.settle()
        return self

    async def _bring_up(self) -> None:
        await self.nic.vmm.set_map()
        await self.nic.bus.probe(self.nic.plan)
        await self.nic.start()

    # --- what must hold -----------------------------------------------------------------------------------------------

    def spotless(self) -> None:
        """Nothing lost, doubled, corrupted or out of turn; no queue broken; nothing stranded."""
        assert self.alarms == [], self.alarms
        for ledger in self.load.ledgers:
            for key in ("duplicated", "corrupted", "reordered"):
                assert getattr(ledger, key) == 0, key
        assert self.nic.indices.wrong == 0

    def conserved(self) -> None:
        """Every buffer is free, or in one ring once."""
        pool = self.nic.hotplug._pool
        rings = [ring for pair in self.nic.net.pairs for ring in pair.rings]
        held = [ring.tokens[head] for ring in rings for head in range(ring.size) if ring.tokens[head] is not None]
        assert len(held) == len(set(held))
        there = {base + i * pool.size for base, size in pool._banks.items() for i in range(size // pool.size)}
        free = {*pool._free, *pool._fresh}
        retiring = {a for bank in pool._retiring for a in there if bank.start <= a < bank.stop}
        assert not free & set(held)
        assert free | set(held) | retiring == there
        assert len(set(held) & retiring) == sum(bank.outstanding for bank in pool._retiring)
        assert set(pool.views) == there

    def agree(self) -> None:
        """The queues stand: device, port and ring memory have the same indices."""
        for queue in self.port.queues[: 2 * self.max_pairs + 1]:
            if queue.ring is None:
                continue
            far = self.device.queues[queue.index]
            handed_back = 0 if far.live else len(queue.in_flight)
            assert (queue.ring.last_avail_idx - handed_back) & 0xFFFF == self.device.op_get_vq_state(queue.index)
            _desc, driver, device = (area - (1 << 32) for area in far.areas)
            used = int.from_bytes(self.memory.read(device + 2, 2), "little")
            assert used == queue.ring.used_idx == far.used_idx
            avail = int.from_bytes(self.memory.read(driver + 2, 2), "little")
            assert 0 <= (avail - queue.ring.last_avail_idx) & 0xFFFF <= queue.ring.size
            ring = self.nic.rings[self.nic.names[next(e for e, q in self.nic._queues.items() if q == queue.index)]]
            assert avail == ring.avail_idx
            chains = sum(ring.tokens[head] is not None for head in range(ring.size))
            # what the driver has not got back: used and not looked at, handed back, or never fetched
            assert chains == (avail - ring.last_used_idx) & 0xFFFF
            assert (used - ring.last_used_idx) & 0xFFFF <= chains
