"""The NIC of one guest, the driver's side: port, bus, rings, queue pairs, control queue; the VMM and the DIMMs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from common.errors import CallError, RemoteError, RingError
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.virtio.features import DeviceId, Feature, mask, net_unmet
from common.virtio.net_config import NetConfig, parse
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Irq
from services.guest_driver.buffers import BufferPool
from services.guest_driver.config import MAX_NET_PAIRS, GuestConfig
from services.guest_driver.hotplug import Hotplug
from services.guest_driver.index_check import IndexCheck
from services.guest_driver.layout import Layout
from services.guest_driver.net import NetDriver, queue_names
from services.guest_driver.net_ctrl import CTRL_AREA_BYTES, NetCtrl
from services.guest_driver.net_pair import BUFFER_BYTES, RX, TX
from services.guest_driver.port import Port
from services.guest_driver.rx_reset import RxReset
from services.guest_driver.virtio_bus import DevicePlan, PortBus, QueuePlan
from services.guest_driver.vmm import AddressSpace
from services.guest_driver.vmm_link import Vmm

#: The NIC sits behind an IOMMU: guest address a is I/O virtual address a + IOVA.
IOVA: Final = 1 << 32
#: A bank that the VMM shows and hides at will: no driver uses it.
WINDOW: Final = (0x8000_0000, 1 << 20)

#: max_virtqueue_pairs of the largest NIC whose control queue the port reaches (§5.1.2: it comes behind all pairs).
MAX_PAIRS: Final = MAX_NET_PAIRS
#: Entries of the control queue: one command is under way at a time.
CTRL_ENTRIES: Final = 16

#: What the driver can use.
FEATURES: Final = mask(
    Feature.VERSION_1,
    Feature.EVENT_IDX,
    Feature.ACCESS_PLATFORM,
    Feature.RING_RESET,
    Feature.NET_MAC,
    Feature.NET_STATUS,
    Feature.NET_MTU,
    Feature.NET_MRG_RXBUF,
    Feature.NET_CSUM,
    Feature.NET_GUEST_CSUM,
    Feature.NET_CTRL_VQ,
    Feature.NET_CTRL_RX,
    Feature.NET_CTRL_RX_EXTRA,
    Feature.NET_CTRL_VLAN,
    Feature.NET_CTRL_MAC_ADDR,
    Feature.NET_CTRL_GUEST_OFFLOADS,
    Feature.NET_GUEST_ANNOUNCE,
)


def memory_needed(pairs: int, size: int) -> int:
    """Bytes of guest memory for the rings and buffers of so many queue pairs with ``size`` entries a queue."""
    ring = 4096 + sum(SplitLayout.sizes(size)) + 4096
    return 2 * pairs * (ring + size * BUFFER_BYTES)


@dataclass(slots=True)
class GuestNicStats:
    """What the driver counts beside its queue pairs."""

    #: times that the configuration space was read because it may have changed
    config_reads: int = 0
    link_downs: int = 0
    announces: int = 0


class GuestNic:
    """``world`` spawns its tasks. ``raised(event, number)`` hears of interrupts that the port asks for; ``took(queue,
    name)`` that the driver looked at a queue.

    Set before :meth:`probe`: ``on_pairs(count)`` hears how many queue pairs are driven, before anything is received;
    ``receive(pair, frames)``, ``after_tx(pair)``; ``on_restart()``: the NIC lost its memory; ``on_carrier(up)``: the
    cable was pulled or plugged; ``quiet(pair)``: nothing is to be received on it.
    """

    def __init__(
        self,
        world: AsyncWorld,
        memory: GuestMemory,
        layout: Layout,
        ram: tuple[int, int],
        port: Port,
        *,
        config: GuestConfig,
        log: Any,
        raised: Callable[[int, int], None],
        took: Callable[[int, str], None],
    ) -> None:
        self._world: Final = world
        self._memory: Final = memory
        self._layout: Final = layout
        self._config: Final = config
        self._log: Final = log
        self._raised: Final = raised
        self._took: Final = took
        self.on_pairs: Callable[[int], None] = lambda _count: None
        self.receive: Callable[[int, list[bytes]], None] = lambda _pair, _frames: None
        self.after_tx: Callable[[int], None] = lambda _pair: None
        self.on_restart: Callable[[], None] = lambda: None
        self.on_carrier: Callable[[bool], None] = lambda _up: None
        self.quiet: Callable[[int], bool] = lambda _pair: False
        self.stats: Final = GuestNicStats()
        self.port: Final = port
        self.bus: Final = PortBus(
            "nic", port, raised=self._irq, spawn=world.spawn, log=log, on_restart=self._restarted,
            restore=self._restore, on_config=lambda: world.spawn("nic config", self._read_config()),
        )  # fmt: skip
        port.on_broken = self._broke
        space = AddressSpace(IOVA)
        space.add(*ram)
        memory.add_region(*WINDOW)
        self.vmm: Final = Vmm(space, world.spawn, window=WINDOW, op=config.workload.map_op)
        self.indices: Final = IndexCheck(port)
        self.resets: Final = RxReset(self.bus)
        #: queues by MSI event
        self.names: Final = queue_names(config.net_pairs)
        self.rings: Final[dict[str, SplitDriver]] = {}
        self.net: NetDriver
        self.hotplug: Hotplug
        #: none where the device offers no control queue
        self.ctrl: NetCtrl | None = None
        #: what the configuration space said last
        self.config = NetConfig()
        #: and its generation; None where this NIC has not been asked yet
        self._generation: int | None = None
        features = FEATURES | (Feature.NET_MQ.bit if config.net_pairs > 1 else 0)
        self.plan: Final = DevicePlan(DeviceId.NET, features, self._make_queues, self._choose)
        #: MSI event → the device's queue
        self._queues: dict[int, int] = {}

    # --- interrupts ---------------------------------------------------------------------------------------------------

    def index_of(self, name: str) -> int | None:
        """The device's number of the queue ``name``; None where it has none."""
        return self._queues.get(self.names.index(name))

    def stranded(self, name: str) -> int:
        """Buffers that the port has forgotten in the queue ``name``."""
        index = self.index_of(name)
        return 0 if index is None else self.port.stranded(index)

    def _irq(self, message: Irq) -> None:
        last = len(self.names) - 1
        event = last if message.queue == self._queues.get(last) else message.queue
        self._raised(event, message.number)

    def handle(self, event: int) -> None:
        """The interrupt ``event`` was taken."""
        queue = self._queues[event]
        self._took(queue, self.names[event])
        if event == len(self.names) - 1:
            assert self.ctrl is not None
            self.ctrl.ctrl_callback()
        elif event & 1 == RX:
            self.net.pairs[event >> 1].rx_callback()
        else:
            self.net.pairs[event >> 1].tx_callback()
            self.after_tx(event >> 1)

    # --- bring-up (virtio 1.3 §3.1.1, §5.1.5) -------------------------------------------------------------------------

    def _choose(self, features: int, config: bytes) -> int:
        """No feature without what it requires; MQ only of a device whose control queue is within reach."""
        while unmet := net_unmet(features):  # the device must not offer such a set, the driver must not take it
            features &= ~mask(*unmet)
        if features & Feature.NET_MQ.bit and (parse(config, features).max_virtqueue_pairs > MAX_PAIRS):
            features &= ~Feature.NET_MQ.bit
        self.config = parse(config, features)
        return features

    def _make_queues(self, features: int) -> list[QueuePlan]:
        """Rings, buffers and drivers for the ``features`` that were negotiated."""
        size = self._config.net_queue_size
        most = self.config.max_virtqueue_pairs if features & Feature.NET_MQ.bit else 1
        count = min(self._config.net_pairs, most)
        self._queues = {event: event for event in range(2 * count)}
        plans = []
        rings = []
        for pair in range(count):
            both = [self._ring(self.names[2 * pair + way], size, features) for way in (RX, TX)]
            plans += [QueuePlan(2 * pair + way, both[way][1], 2 * pair + way, after_restore=True) for way in (RX, TX)]
            rings.append((both[RX][0], both[TX][0]))
        pool = BufferPool(self._memory, BUFFER_BYTES)
        bank = 2 * count * size * BUFFER_BYTES
        pool.add_bank(self._layout.alloc(bank), bank)
        self.net = NetDriver(
            rings,
            (pool, pool),
            iova=IOVA,
            notify=self.port.doorbell,
            receive=lambda pair, frames: self.receive(pair, frames),
            mergeable=bool(features & Feature.NET_MRG_RXBUF.bit),
        )
        self.hotplug = Hotplug(
            self._world, self._memory, pool, self.vmm, self.net.pairs,
            reset_rx=self.resets.reset if features & Feature.RING_RESET.bit else None,
            quiet=lambda pair: self.quiet(pair),
        )  # fmt: skip
        if features & Feature.NET_CTRL_VQ.bit:
            plans.append(self._make_ctrl(2 * most, features))
        self.on_pairs(count)
        return plans

    def _make_ctrl(self, queue: int, features: int) -> QueuePlan:
        event = len(self.names) - 1
        self._queues[event] = queue
        ring, layout = self._ring("ctrl", CTRL_ENTRIES, features)
        self.ctrl = self._world.new(
            NetCtrl, self._world, self._memory, ring, self._layout.alloc(CTRL_AREA_BYTES), IOVA,
            lambda: self.port.doorbell(queue), features=features,
        )  # fmt: skip
        return QueuePlan(queue, layout, event)

    def _ring(self, name: str, size: int, features: int) -> tuple[SplitDriver, SplitLayout]:
        """A ring in guest memory, and its layout as the NIC sees it."""
        at = self._layout.ring(size)
        event_idx = bool(features & Feature.EVENT_IDX.bit)
        ring = self._world.new(SplitDriver, self._world, self._memory, at, event_idx=event_idx)
        self.rings[name] = ring
        return ring, SplitLayout(at.size, at.desc + IOVA, at.driver + IOVA, at.device + IOVA)

    async def start(self) -> None:
        """After the probe: receive buffers, and all queue pairs switched on (§5.1.6.5.6.1)."""
        self.net.start()
        count = len(self.net.pairs)
        if count > 1 and self.ctrl is not None:
            try:
                await self.ctrl.set_pairs(count)
            except CallError as error:
                self._log.warning("the NIC goes on with one queue pair", error=str(error))
                self.on_pairs(1)
            else:
                self.net.set_active(count)
        await self._read_config()

    def _restarted(self) -> None:
        self._generation = None
        self.on_restart()

    def _broke(self, queue: int) -> None:
        """A queue is dead until the driver resets the NIC: whoever waits for a control command's answer is told."""
        if self.ctrl is not None and queue == self.index_of("ctrl"):
            self.ctrl.abort()

    async def _restore(self) -> None:
        """A NIC that restarted is told by its control queue what had been set."""
        if self.ctrl is not None:
            try:
                await self.ctrl.restore()
            except (CallError, RingError) as error:
                self._log.error("the NIC does not take its settings again", error=str(error))

    # --- changes of the configuration space ---------------------------------------------------------------------------

    @property
    def carrier(self) -> bool:
        """Is the cable plugged in, as far as the driver knows?"""
        return self.config.link_up

    async def _read_config(self) -> None:
        try:
            generation, data = await self.bus.read_config()
            config = parse(data, self.bus.features)
        except RemoteError as error:  # a device that is back is asked again
            self._log.warning("configuration space not read", error=str(error))
            return
        self.stats.config_reads += 1
        old, self.config = self.config, config
        seen = sum(getattr(old, name) != getattr(config, name) for name in ("link_up", "announce", "mac"))
        # down and up again before anybody looked
        missed = self._generation is not None and (generation - self._generation) & 0xFFFF_FFFF > seen
        self._generation = generation
        if old.link_up and (not config.link_up or missed):
            self.stats.link_downs += 1
            self.on_carrier(False)
        if config.link_up and (not old.link_up or missed):
            self.on_carrier(True)
        if config.announce and self.ctrl is not None:
            # the frames that are sent carry captured addresses: there is nothing of ours to announce
            self.stats.announces += 1
            await self._acknowledge(self.ctrl)

    async def _acknowledge(self, ctrl: NetCtrl) -> None:
        try:
            await ctrl.announce_ack()
        except (CallError, RingError) as error:
            self._log.warning("announcement not acknowledged", error=str(error))

    # --- the indices --------------------------------------------------------------------------------------------------

    async def check_indices(self) -> None:
        """Ask the NIC where each queue stands, as a VMM does, and compare. Raises LinkDownError or CallError."""
        if self.vmm.epoch != self.bus.epoch:
            return  # one of the links is at a NIC that is gone
        asked = self.indices.ask(self.bus.turn)
        states = await self.vmm.vq_states(asked.used)
        for wrong in self.indices.answered(asked, states, self.bus.turn):
            self._log.error("indices disagree", error=wrong)
