"""A NIC and the guest's port in one process, with messages that wait until the test moves them; the driver is what the
rigs that build on it bring.

Imported as ``tests.services.vdpa_nic.wire_rig``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Final

from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.virtio.msi_source import MsiSource
from common.virtio.policy import DEFAULT_POLICY
from common.virtio.split_layout import SplitLayout
from common.wire.codec import decode, encode
from common.wire.limits import MAX_FRAME, PREFIX
from common.wire.messages import Broken, Irq, Message, Msi, Notice, Return
from services.guest_driver.layout import Layout
from services.guest_driver.port import Port
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.backends.echo import Echo
from services.vdpa_nic.nic import NicDevice

RAM: Final = 0x4000_0000
BYTES: Final = 1 << 18
IOVA: Final = 1 << 32
WINDOW: Final = (0x8000_0000, 1 << 16)
MAC: Final = b"\2RM\0\0\1"
WORLD: Final = AsyncWorld()


def as_device_sees(at: SplitLayout) -> SplitLayout:
    """A ring of the guest's by its IOVAs."""
    return SplitLayout(at.size, at.desc + IOVA, at.driver + IOVA, at.device + IOVA)


def is_alarm(message: Message) -> bool:
    """Is it a queue that breaks, or a complaint of the device?"""
    return isinstance(message, Broken) or (isinstance(message, Notice) and message.what != "config")


def new_nic(backend: Backend, logged: list[str], **rest: Any) -> NicDevice:
    """A NIC whose log goes to ``logged``; the rest is :class:`NicDevice`'s."""
    return NicDevice(backend, policy=DEFAULT_POLICY, mac=MAC, log=lambda event, **_fields: logged.append(event), **rest)


class WireRig(ABC):
    """A NIC for ``pairs`` queue pairs of ``size`` entries, and a port with ``queues`` queues whose memory is ``memory``
    if not the rig's own. ``up`` is the guest's link; what is sent while it is down is gone."""

    def __init__(self, *, pairs: int, size: int, queues: int, mtu: int = 1500, memory: Any = None) -> None:
        self.max_pairs: Final = pairs
        self.mtu: Final = mtu
        self.size: Final = size
        self.now = 1.0
        self.memory: Final = GuestMemory(BYTES, RAM)
        self.memory.add_region(*WINDOW)
        self.layout: Final = Layout(RAM, BYTES)
        self.to_device: deque[Message] = deque()
        self.to_port: deque[Message] = deque()
        self.up = False
        #: every Broken and every Notice that went by, but those of a change of configuration: they are in ``notices``
        self.alarms: list[Message] = []
        self.notices: list[Notice] = []
        self.msis: dict[int, int] = {}
        self.logged: list[str] = []
        self.observed: list[tuple[int, float]] = []
        self.port: Final = Port(
            WORLD, memory or self.memory, queues=queues, send=self.from_port, clock=lambda: self.now
        )

    # --- the two ends -------------------------------------------------------------------------------------------------

    def make_device(self, backend: Backend | None = None) -> None:
        self.device = new_nic(
            backend or Echo(self.max_pairs),
            self.logged,
            send=self.from_device,
            answer_vmm=self.answered,
            msi=MsiSource("vm", 0x20, self.note_msi),
            clock=lambda: self.now,
            queue_size=self.size,
            max_pairs=self.max_pairs,
            mtu=self.mtu,
            observe=lambda queue, seconds: self.observed.append((queue, seconds)),
        )

    def from_port(self, message: Message) -> None:
        if isinstance(message, Irq):
            self.interrupted(message)
        if isinstance(message, Broken):
            self.alarms.append(message)
        if self.up:
            self.to_device.append(decode(encode(message, MAX_FRAME)[PREFIX:]))

    def from_device(self, message: Message) -> None:
        if is_alarm(message):
            self.alarms.append(message)
        elif isinstance(message, Notice):
            self.notices.append(message)
        if self.up:
            self.to_port.append(decode(encode(message, MAX_FRAME)[PREFIX:]))

    def note_msi(self, message: Message) -> None:
        assert isinstance(message, Msi)
        self.msis[message.event] = message.number

    # --- what the driver and the VMM see ------------------------------------------------------------------------------

    @abstractmethod
    def interrupted(self, irq: Irq) -> None:
        """The port asks for an interrupt."""

    @abstractmethod
    def interrupts(self) -> None:
        """The vCPUs take what is pending."""

    @property
    @abstractmethod
    def is_pending(self) -> bool:
        """Is an interrupt?"""

    @abstractmethod
    def returned(self, message: Return) -> None:
        """A call of the driver is answered."""

    @abstractmethod
    def answered(self, message: Message) -> None:
        """A call of the VMM is answered."""

    # --- the link -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.up = True
        self.device.reconnected()
        self.port.link_up()

    def disconnect(self) -> None:
        self.up = False
        self.to_device.clear()
        self.to_port.clear()
        self.port.link_down()

    def device_takes(self, message: Message) -> None:
        self.device.frame(message)

    def step(self, end: str, count: int = 1000) -> None:
        """Let the device or the port handle ``count`` messages that have arrived, as one batch."""
        if end == "device":
            for _ in range(min(count, len(self.to_device))):
                self.device_takes(self.to_device.popleft())
            self.device.batch_end()
            return
        for _ in range(min(count, len(self.to_port))):
            message = self.to_port.popleft()
            if isinstance(message, Return):
                self.returned(message)
            elif not isinstance(message, Notice):
                self.port.frame(message)

    def settle(self) -> None:
        """Move messages and interrupts until there are none."""
        self.step("device", 0)
        for _ in range(10_000):
            if not (self.to_device or self.to_port or self.is_pending):
                return
            self.step("device")
            self.step("port")
            self.interrupts()
        raise AssertionError("the mesh does not come to rest")
