"""A NIC, the guest's port and the guest's driver in one process, with messages that wait until the test moves them.

Imported as ``tests.services.vdpa_nic.nic_rig``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, Self

from common.histogram import Histogram
from common.virtio.features import Feature, mask
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Call, Irq, Message, Return
from services.guest_driver.buffers import BufferPool
from services.guest_driver.net_ledger import NetLedger
from services.guest_driver.net_pair import BUFFER_BYTES, RX, TX, NetPair
from services.guest_driver.vmm import AddressSpace
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.map_change import State
from tests.common.virtio.ringkit import bring_up
from tests.services.vdpa_nic.wire_rig import BYTES, IOVA, RAM, WINDOW, WORLD, WireRig, as_device_sees

FEATURES: Final = mask(Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.NET_MAC, Feature.NET_STATUS)
#: Sequence numbers of the calls that a test makes by hand begin behind this one.
BY_HAND: Final = 10_000
FRAMES: Final = [bytes([n]) * size for n, size in enumerate((14, 60, 1502, 333), 1)]


class Rig(WireRig):
    """One pair in use, of queues of ``size`` entries; the NIC has ``pairs``."""

    def __init__(
        self,
        *,
        size: int = 8,
        event_idx: bool = True,
        backend: Backend | None = None,
        pairs: int = 1,
        mtu: int = 1500,
    ) -> None:
        self.features = FEATURES | (Feature.EVENT_IDX.bit if event_idx else 0)
        super().__init__(pairs=pairs, size=size, queues=9, mtu=mtu)
        self.space = AddressSpace(IOVA)
        self.space.add(RAM, BYTES)
        self.changes = 0
        #: what the VMM was answered
        self.to_vmm: list[Return] = []
        #: answers to driver() that came later, over the link
        self.said: list[Return] = []
        self.irqs = [0, 0]
        self.pending = [False, False]
        self.areas: list[SplitLayout] = []
        self.rings: list[SplitDriver] = []
        for _ in range(2):
            self.add_ring(size, event_idx)
        self.got: list[bytes] = []
        self.ledger = NetLedger(FRAMES, Histogram())
        pool = BufferPool(self.memory, BUFFER_BYTES)
        pool.add_bank(self.layout.alloc(2 * size * BUFFER_BYTES), 2 * size * BUFFER_BYTES)
        self.net = NetPair(
            (self.rings[0], self.rings[1]),
            (pool, pool),
            iova=IOVA,
            notify=self.port.doorbell,
            receive=self.receive,
        )
        self.nets = [self.net]
        self.calls = 0
        self.by_hand = BY_HAND
        self.script: Generator[tuple[str, list[Any]], Any, None] | None = None
        self.restarts = 0
        self.make_device(backend)

    def add_ring(self, size: int, event_idx: bool = True) -> None:
        """One more queue of the driver's."""
        layout = self.layout.ring(size)
        self.rings.append(SplitDriver(WORLD, self.memory, layout, event_idx=event_idx))
        self.areas.append(as_device_sees(layout))

    # --- the two ends -------------------------------------------------------------------------------------------------

    def receive(self, frames: list[bytes]) -> None:
        self.got += frames
        self.ledger.came(frames, int(self.now * 1e9))

    def interrupted(self, irq: Irq) -> None:
        assert irq.number == self.irqs[irq.queue] + 1
        self.irqs[irq.queue] = irq.number
        self.pending[irq.queue] = True

    @property
    def is_pending(self) -> bool:
        return any(self.pending)

    # --- the link -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        super().connect()
        self.script = None
        self.call("get_status", [])

    def restart(self) -> None:
        """The NIC dies and comes back knowing nothing; the link is left down."""
        self.disconnect()
        self.ledger.device_reset()
        self.restarts += 1
        self.make_device()

    def call(self, op: str, args: list[Any]) -> None:
        self.calls += 1
        self.from_port(Call(self.calls, op, args))

    def returned(self, message: Return) -> None:
        """The transport: bring the device up from where it says that it stands."""
        if message.seq >= BY_HAND:
            self.said.append(message)
            return
        assert message.seq == self.calls
        assert message.errno == 0, message
        if self.script is None:
            self.script = bring_up(self.areas, self.features, message.value)
        following = next(self.script, None)
        if following is not None:
            self.call(*following)

    def driver(self, op: str, *args: Any) -> Return | None:
        """A call of the driver's beside the bring-up; its answer if it came at once, otherwise it will be in
        ``said``."""
        self.by_hand += 1
        return self.device.answer(Call(self.by_hand, op, list(args)))

    def interrupts(self) -> None:
        """The vCPUs take what is pending."""
        for pair, net in enumerate(self.nets):
            for queue, handler in ((2 * pair + RX, net.rx_callback), (2 * pair + TX, net.tx_callback)):
                if self.pending[queue]:
                    self.pending[queue] = False
                    handler()

    # --- the VMM ------------------------------------------------------------------------------------------------------

    def vmm(self, op: str, *args: Any, seq: int = 77) -> Return | None:
        """A call of the VMM; its answer if it came at once."""
        before = len(self.to_vmm)
        self.device.vmm_frame(Call(seq, op, list(args)))
        return self.to_vmm[-1] if len(self.to_vmm) > before else None

    def set_map(self) -> Return | None:
        """The next map: one bank comes, or goes."""
        if WINDOW[0] in self.space.banks:
            self.space.remove(WINDOW[0])
        elif self.changes:
            self.space.add(*WINDOW)
        self.changes += 1
        return self.vmm("set_map", 0, self.space.ranges(), seq=1000 + self.changes)

    def answered(self, message: Message) -> None:
        assert isinstance(message, Return)
        self.to_vmm.append(message)

    # --- the guest ----------------------------------------------------------------------------------------------------

    def bring_up(self) -> None:
        """Map, link, driver; no receive buffers yet."""
        self.set_map()
        self.connect()
        self.settle()
        assert self.to_vmm == [Return(1001, 0)]
        assert self.device.status == 15

    def start(self) -> Self:
        """Bring everything up."""
        self.bring_up()
        self.net.start()
        self.settle()
        assert self.device.queues[RX].in_hand == self.size
        return self

    def send(self, count: int) -> int:
        """Transmit up to ``count`` frames of the ledger."""
        count = min(count, self.net.room)
        return self.net.transmit(self.ledger.make(count, int(self.now * 1e9)))


def running(features: int = 0) -> Rig:
    """A NIC with two echoes done, which holds generation 1; ``features`` are more than a rig negotiates by itself."""
    rig = Rig()
    rig.features |= features
    rig.start()
    rig.send(2)
    rig.settle()
    assert rig.ledger.outstanding == 0
    return rig


def works(rig: Rig) -> None:
    """A ring's worth of frames goes out and comes back, unharmed; no receive buffer is missing."""
    rig.settle()
    rig.send(8)
    rig.settle()
    assert rig.ledger.outstanding == 0
    assert (rig.ledger.duplicated, rig.ledger.corrupted) == (0, 0)
    assert rig.device.queues[RX].in_hand == rig.size


def unharmed(rig: Rig) -> None:
    """It works, and nobody complained of anything since it was made."""
    works(rig)
    assert rig.alarms == []


def at(rig: Rig) -> State:
    """Where the change of map under way stands."""
    return rig.device.changes.machine.state
