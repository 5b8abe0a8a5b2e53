"""A NIC, the guest's port and the guest's driver in one process, with messages that wait until the test moves them.

Imported as ``tests.services.vdpa_nic.nic_rig``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any, Final

from common.histogram import Histogram
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.virtio.features import Feature, mask
from common.virtio.msi_source import MsiSource
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.codec import decode, encode
from common.wire.limits import MAX_FRAME, PREFIX
from common.wire.messages import Broken, Call, Irq, Message, Msi, Notice, Return
from services.guest_driver.layout import Layout
from services.guest_driver.net import BUFFER_BYTES, RX, TX, NetDriver
from services.guest_driver.net_ledger import NetLedger
from services.guest_driver.port import Port
from services.guest_driver.vmm import AddressSpace
from services.vdpa_nic.backend import Backend, Echo
from services.vdpa_nic.core import NicDevice
from tests.common.virtio.ringkit import bring_up

RAM: Final = 0x4000_0000
BYTES: Final = 1 << 18
IOVA: Final = 1 << 32
MAC: Final = b"\2RM\0\0\1"
FEATURES: Final = mask(Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.NET_MAC, Feature.NET_STATUS)
WORLD: Final = AsyncWorld()
FRAMES: Final = [bytes([n]) * size for n, size in enumerate((14, 60, 1502, 333), 1)]


class Rig:
    """One NIC with queues of ``size`` entries. ``up`` is the guest's link; what is sent while it is down is gone."""

    def __init__(self, *, size: int = 8, event_idx: bool = True, backend: Backend | None = None) -> None:
        self.size = size
        self.now = 1.0
        self.features = FEATURES | (Feature.EVENT_IDX.bit if event_idx else 0)
        self.memory = GuestMemory(BYTES, RAM)
        self.layout = Layout(RAM, BYTES)
        self.space = AddressSpace((RAM, BYTES), IOVA, (0x8000_0000, 1 << 16))
        self.to_device: deque[Message] = deque()
        self.to_port: deque[Message] = deque()
        self.up = False
        #: what the VMM was answered, and every Broken and Notice that went by
        self.to_vmm: list[Return] = []
        self.alarms: list[Message] = []
        self.msis: dict[int, int] = {}
        self.irqs = [0, 0]
        self.pending = [False, False]
        self.port = Port(
            WORLD, self.memory, queues=2, send=self.from_port, key_of=self.space.key_of, clock=lambda: self.now
        )
        self.areas, rings = [], []
        for _ in range(2):
            at = SplitLayout.packed_at(self.layout.alloc(sum(SplitLayout.sizes(size)) + 128, 4096), size)
            rings.append(SplitDriver(WORLD, self.memory, at, event_idx=event_idx))
            self.areas.append(SplitLayout(size, at.desc + IOVA, at.driver + IOVA, at.device + IOVA))
        self.rings = rings
        self.got: list[bytes] = []
        self.ledger = NetLedger(FRAMES, Histogram())
        self.net = NetDriver(
            WORLD,
            self.memory,
            (rings[0], rings[1]),
            (self.layout.alloc(size * BUFFER_BYTES), self.layout.alloc(size * BUFFER_BYTES)),
            iova=IOVA,
            notify=self.port.doorbell,
            receive=self.receive,
        )
        self.calls = 0
        self.script: Generator[tuple[str, list[Any]], Any, None] | None = None
        self.restarts = 0
        self.logged: list[str] = []
        self.observed: list[tuple[int, float]] = []
        self.make_device(backend)

    # --- the two ends -------------------------------------------------------------------------------------------------

    def make_device(self, backend: Backend | None = None) -> None:
        self.device = NicDevice(
            send=self.from_device,
            answer_vmm=self.answered,
            msi=MsiSource("vm", 0x20, self.note_msi),
            clock=lambda: self.now,
            backend=backend or Echo(),
            queue_size=self.size,
            mac=MAC,
            log=lambda event, **_fields: self.logged.append(event),
            observe=lambda queue, seconds: self.observed.append((queue, seconds)),
        )

    def receive(self, frames: list[bytes]) -> None:
        self.got += frames
        self.ledger.came(frames, int(self.now * 1e9))

    def from_port(self, message: Message) -> None:
        if isinstance(message, Irq):
            assert message.number == self.irqs[message.queue] + 1
            self.irqs[message.queue] = message.number
            self.pending[message.queue] = True
        if isinstance(message, Broken):
            self.alarms.append(message)
        if self.up:
            self.to_device.append(decode(encode(message, MAX_FRAME)[PREFIX:]))

    def from_device(self, message: Message) -> None:
        if isinstance(message, (Broken, Notice)):
            self.alarms.append(message)
        if self.up:
            self.to_port.append(decode(encode(message, MAX_FRAME)[PREFIX:]))

    def note_msi(self, message: Message) -> None:
        assert isinstance(message, Msi)
        self.msis[message.event] = message.number

    # --- the link -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.up = True
        self.device.reconnected()
        self.port.link_up()
        self.script = None
        self.call("get_status", [])

    def disconnect(self) -> None:
        self.up = False
        self.to_device.clear()
        self.to_port.clear()
        self.port.link_down()

    def restart(self) -> None:
        """The NIC dies and comes back knowing nothing; the link is left down."""
        self.disconnect()
        self.ledger.device_reset()
        self.restarts += 1
        self.make_device()

    def call(self, op: str, args: list[Any]) -> None:
        self.calls += 1
        self.from_port(Call(self.calls, op, args))

    def step(self, end: str, count: int = 1000) -> None:
        """Let the device or the port handle ``count`` messages that have arrived, as one batch."""
        if end == "device":
            for _ in range(min(count, len(self.to_device))):
                self.device.frame(self.to_device.popleft())
            self.device.batch_end()
            return
        for _ in range(min(count, len(self.to_port))):
            message = self.to_port.popleft()
            if isinstance(message, Return):
                self.returned(message)
            elif not isinstance(message, Notice):
                self.port.frame(message)

    def returned(self, message: Return) -> None:
        """The transport: bring the device up from where it says that it stands."""
        assert message.seq == self.calls
        assert message.errno == 0, message
        if self.script is None:
            self.script = bring_up(self.areas, self.features, message.value)
        following = next(self.script, None)
        if following is not None:
            self.call(*following)

    def settle(self) -> None:
        """Move messages and interrupts until there are none."""
        self.step("device", 0)
        while self.to_device or self.to_port or any(self.pending):
            self.step("device")
            self.step("port")
            self.interrupts()

    def interrupts(self) -> None:
        """The vCPUs take what is pending."""
        for queue, handler in ((RX, self.net.rx_callback), (TX, self.net.tx_callback)):
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
        key = self.space.next_key()
        return self.vmm("set_map", *self.space.set_map_args(key), seq=1000 + key.generation)

    def answered(self, message: Message) -> None:
        assert isinstance(message, Return)
        self.to_vmm.append(message)
        if message.seq >= 1000 and not message.errno:
            self.space.confirm(message.seq - 1000)

    # --- the guest ----------------------------------------------------------------------------------------------------

    def start(self) -> Rig:
        """Bring everything up."""
        assert self.set_map() == Return(1001, 0)
        self.connect()
        self.settle()
        assert self.device.status == 15
        self.net.start()
        self.settle()
        assert self.device.queues[RX].in_hand == self.size
        return self

    def send(self, count: int) -> int:
        """Transmit up to ``count`` frames of the ledger."""
        count = min(count, self.net.room)
        return self.net.transmit(self.ledger.make(count, int(self.now * 1e9)))
