"""One guest: memory, vCPUs, the ports and drivers of its devices, the VMM beside it. Everything but the workload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from common.errors import CallError, LinkDownError
from common.histogram import Histogram
from common.memory import GuestMemory, MemoryKey
from common.runtime.clock import monotonic, nanoseconds
from common.runtime.link import Link, LinkClient
from common.runtime.world import AsyncWorld
from common.virtio.features import DeviceId, Feature, mask
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Avail, Irq, Message, Return
from services.guest_driver.calls import Calls
from services.guest_driver.config import GuestConfig
from services.guest_driver.its_driver import ItsDriver
from services.guest_driver.its_link import ItsLink
from services.guest_driver.layout import Layout
from services.guest_driver.net import BUFFER_BYTES, NetDriver
from services.guest_driver.port import Port
from services.guest_driver.scmi_driver import CMDQ, EVENTQ, ScmiDriver, key_of
from services.guest_driver.vcpu import IrqLine, Vcpus
from services.guest_driver.virtio_bus import DevicePlan, QueuePlan, VirtioBus
from services.guest_driver.vmm import AddressSpace

if TYPE_CHECKING:
    from common.runtime.service import Service

#: Where RAM begins, as on QEMU's virt machine.
RAM_BASE: Final = 0x4000_0000
#: A bank that the memory map shows and hides, far above RAM.
WINDOW: Final = (0x8000_0000, 1 << 20)
#: The NIC sits behind an IOMMU: guest address a is I/O virtual address a + IOVA.
IOVA: Final = 1 << 32
#: First LPI that the guest uses.
FIRST_LPI: Final = 8192
#: Events of each device, a power of two.
EVENTS: Final = 4

#: Seconds before an ITS that did not take its programming is programmed again.
ITS_RETRY: Final = 0.5

RX: Final = 0
TX: Final = 1


class Vmm:
    """The LinkHandler for role ``vmm``: tells the NIC its memory map."""

    def __init__(self, space: AddressSpace, spawn: Callable[..., None]) -> None:
        self.space: Final = space
        self.calls: Final = Calls("vmm")
        self.changes = 0
        self._spawn: Final = spawn

    def link_up(self, link: Link) -> None:
        self.calls.attach(link)
        key = self.space.key_of(self.space.generation)
        if key is not None:  # the NIC may have restarted, or never have heard it; one that has it says so
            self._spawn("set_map again", self._say(key))

    def link_frame(self, _link: Link, message: Any) -> None:
        if type(message) is Return:
            self.calls.returned(message)

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, _link: Link, reason: str) -> None:
        self.calls.detach(reason)

    async def change_map(self) -> None:
        """Put the next generation in force. Raises LinkDownError or CallError; the NIC is told again when back."""
        key = self.space.next_key()
        await self.calls.call("set_map", *self.space.set_map_args(key))
        self.space.confirm(key.generation)
        self.changes += 1

    async def _say(self, key: MemoryKey) -> None:
        try:
            await self.calls.call("set_map", *self.space.set_map_args(key))
        except (LinkDownError, CallError):
            return  # the next link_up says it again, and so does the next change
        self.space.confirm(key.generation)


class Guest:
    """One virtual machine. ``receive(frames)`` and ``after_tx()`` are the workload's, set before :meth:`start`."""

    def __init__(self, name: str, service: Service[GuestConfig], waits: dict[str, Histogram]) -> None:
        config = service.config
        self.name: Final = name
        self.config: Final = config
        self.log: Final = service.log.bind(guest=name)
        self.world: Final[AsyncWorld] = service.world
        self.memory: Final = GuestMemory(config.memory_mib << 20, RAM_BASE)
        self.memory.add_region(*WINDOW)
        self.layout: Final = Layout(RAM_BASE, config.memory_mib << 20)
        self.irq_latency: Final = Histogram()
        self.vcpus: Final = Vcpus(monotonic, self.irq_latency, self.log.error)
        self.space: Final = AddressSpace((RAM_BASE, config.memory_mib << 20), IOVA, WINDOW)
        self.receive: Callable[[list[bytes]], None] = lambda _frames: None
        self.after_tx: Callable[[], None] = lambda: None
        self.on_scmi_restart: Callable[[], None] = lambda: None
        self.on_nic_restart: Callable[[], None] = lambda: None
        self.ready = False
        self._waits: Final = waits
        self.scmi_port: Final = self._port(key_of)
        self.nic_port: Final = self._port(self.space.key_of)
        self._lines: Final = self._irq_lines()
        self.its_link: Final = ItsLink(self.memory, self.vcpus, on_up=self._its_up)
        self.its: Final = ItsDriver(self.world, self.its_link, self.memory, self.layout.alloc, cpus=config.vcpus)
        self.scmi_bus: Final = self._bus("scmi", self.scmi_port, self._scmi_restarted)
        self.nic_bus: Final = self._bus("nic", self.nic_port, lambda: self.on_nic_restart())
        self.vmm: Final = Vmm(self.space, self.world.spawn)
        self.rings: dict[str, SplitDriver] = {}
        self.scmi: Final = self.world.new(
            ScmiDriver, self.world, self.memory, self.layout, self.scmi_port.doorbell, self.log.warning,
            cmdq_size=config.cmdq_size, eventq_size=config.eventq_size, timeout=config.workload.scmi_timeout,
            atomic_transport=config.atomic_transport, atomic_threshold_us=config.atomic_threshold_us,
            now_ns=nanoseconds,
        )  # fmt: skip
        self.agent: Final = self.scmi.agent
        self.net: NetDriver
        self._its_programmed = False
        #: the ITS holds what the driver mapped; False from before it is programmed anew until that is done
        self._its_whole = True
        #: how often the ITS link came up: who programs the ITS again ends when there is a newer one
        self._its_turn = 0
        self._clients = [
            service.connect("scmi", config.scmi, self.scmi_bus, guest=name),
            service.connect("nic", config.nic, self.nic_bus, guest=name),
            service.connect("nic", config.nic, self.vmm, role="vmm", guest=name),
            service.connect("its", config.its, self.its_link, guest=name),
        ]

    def _port(self, key_of: Callable[[int], MemoryKey | None]) -> Port:
        soon = asyncio.get_running_loop().call_soon
        # Two turns of the loop: pollers that the used ring wakes look at it in the first.
        port = Port(
            self.world,
            self.memory,
            queues=2,
            send=lambda _m: None,
            key_of=key_of,
            clock=monotonic,
            defer=lambda: soon(soon, port.signal),  # type: ignore[arg-type]
        )
        return port

    def _bus(self, name: str, port: Port, on_restart: Callable[[], None]) -> VirtioBus:
        return _PortBus(self, name, port, spawn=self.world.spawn, log=self.log, on_restart=on_restart)

    def _irq_lines(self) -> dict[tuple[str, int], IrqLine]:
        """One line a queue; the vCPUs take turns."""
        lines: dict[tuple[str, int], IrqLine] = {}
        for device, device_id, handlers in (
            ("scmi", self.config.scmi_device_id, (self._cmdq_irq, self._eventq_irq)),
            ("nic", self.config.nic_device_id, (self._rx_irq, self._tx_irq)),
        ):
            for queue, handler in enumerate(handlers):
                number = len(lines)
                line = IrqLine(
                    f"{device}{queue}", device_id, queue, FIRST_LPI + number, number % self.config.vcpus, handler
                )
                lines[device, queue] = line
                self.vcpus.request_irq(line)
        return lines

    def raised(self, device: str, message: Irq) -> None:
        """The port of ``device`` asks for an interrupt."""
        self.vcpus.raised(self._lines[device, message.queue], message.number)

    def _scmi_restarted(self) -> None:
        self.scmi.restarted()
        self.on_scmi_restart()

    # --- interrupt handlers -------------------------------------------------------------------------------------------

    def took(self, port: Port, queue: int, name: str) -> None:
        """The driver looked at a queue: how long had its oldest used buffer been there?"""
        waited = port.queues[queue].visible.take(monotonic())
        if waited is not None:
            self._waits[name].observe(waited)

    def _cmdq_irq(self) -> None:
        self.took(self.scmi_port, CMDQ, "cmdq")
        self.scmi.cmdq_irq()

    def _eventq_irq(self) -> None:
        self.took(self.scmi_port, EVENTQ, "eventq")
        self.scmi.eventq_irq()

    def _rx_irq(self) -> None:
        self.took(self.nic_port, RX, "rx0")
        self.net.rx_callback()

    def _tx_irq(self) -> None:
        self.took(self.nic_port, TX, "tx0")
        self.net.tx_callback()
        self.after_tx()

    # --- bring-up -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up once all links are: ITS, interrupts, memory map, devices, drivers.

        A link that goes down on the way costs a retry. Raises CallError or RemoteError for a device that refuses.
        """
        for client in self._clients:
            await client.wait_up()
        await self._program_its()
        scmi = self.scmi.plan()
        net = DevicePlan(
            DeviceId.NET,
            mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.ACCESS_PLATFORM, Feature.NET_MAC, Feature.NET_STATUS),
            self._make_net_queues,
        )
        to_scmi, to_nic, to_nic_vmm, _ = self._clients
        await self._until_done(to_nic_vmm, self.vmm.change_map)
        await self._until_done(to_scmi, lambda: self.scmi_bus.probe(scmi))
        await self._until_done(to_nic, lambda: self.nic_bus.probe(net))
        self.rings |= self.scmi.rings
        self.scmi.start(self.name)
        self.net.start()
        self.ready = True

    async def _until_done(self, client: LinkClient, step: Callable[[], Awaitable[object]]) -> None:
        """Take a step of the bring-up, and again from its beginning where the link goes down in it."""
        while True:
            await client.wait_up()
            try:
                await step()
            except LinkDownError as error:
                self.log.warning("bring-up begins this step again", peer=client.peer, error=str(error))
            else:
                return

    async def _program_its(self) -> None:
        """Tables, queue, mappings. What the driver has been asked for it remembers before it tells the ITS, so a
        lost link costs one restore()."""
        its, to_its = self.its, self._clients[3]
        steps: list[Callable[[], Awaitable[None]]] = [its.start]
        for device in (self.config.scmi_device_id, self.config.nic_device_id):
            steps.append(partial(its.map_device, device, EVENTS))
        for line in self._lines.values():
            steps.append(partial(its.map_event, line.device, line.event, line.intid, line.vcpu))
            steps.append(partial(its.enable_lpi, line.device, line.event))
        for step in steps:
            try:
                await step()
            except LinkDownError as error:
                self.log.warning("ITS is programmed again", error=str(error))
                await self._until_done(to_its, its.restore)
        self._its_programmed = True

    def _net_ring(self, name: str, features: int) -> tuple[SplitDriver, SplitLayout]:
        """A ring in guest memory, and its layout as the NIC sees it."""
        at = self.layout.ring(self.config.net_queue_size)
        ring = self.world.new(
            SplitDriver, self.world, self.memory, at, event_idx=bool(features & Feature.EVENT_IDX.bit)
        )
        self.rings[name] = ring
        return ring, SplitLayout(at.size, at.desc + IOVA, at.driver + IOVA, at.device + IOVA)

    def _make_net_queues(self, features: int) -> list[QueuePlan]:
        size = self.config.net_queue_size
        rx, rx_at = self._net_ring("rx0", features)
        tx, tx_at = self._net_ring("tx0", features)
        self.net = NetDriver(
            self.world,
            self.memory,
            (rx, tx),
            (self.layout.alloc(size * BUFFER_BYTES), self.layout.alloc(size * BUFFER_BYTES)),
            iova=IOVA,
            notify=self.nic_port.doorbell,
            receive=lambda frames: self.receive(frames),
        )
        return [QueuePlan(RX, rx_at, RX), QueuePlan(TX, tx_at, TX)]

    # --- the ITS ------------------------------------------------------------------------------------------------------

    def _its_up(self, restarted: bool) -> None:
        self._its_turn += 1
        if self._its_programmed:
            self._its_whole = self._its_whole and not restarted
            self.world.spawn("its again", self._its_again(self._its_turn))

    async def _its_again(self, turn: int) -> None:
        """An ITS that is not as it was mapped is programmed anew; one that is goes on where the link broke."""
        while turn == self._its_turn:
            whole = self._its_whole
            try:
                await (self.its.resume() if whole else self.its.restore())
            except LinkDownError:
                return  # the next link_up begins again
            except CallError as error:
                if turn == self._its_turn:
                    self._its_whole = False
                    self.log.warning("ITS not programmed again yet", error=str(error))
                    await asyncio.sleep(ITS_RETRY)
            else:
                if turn == self._its_turn:
                    self._its_whole = True
                    self.log.info("ITS link is back" if whole else "ITS programmed again")
                return

    async def inv(self) -> None:
        """One INV and SYNC, as a driver does that changed an LPI's configuration."""
        line = next(iter(self._lines.values()))
        await self.its.inv(line.device, line.event)

    async def stop(self) -> None:
        """Let nobody into the agent's channels any more."""
        self.ready = False
        await self.scmi.stop()


class _PortBus(VirtioBus):
    """A bus whose port sends over the link, and whose interrupts the vCPUs' books see first."""

    def __init__(self, guest: Guest, name: str, port: Port, **kwargs: Any) -> None:
        super().__init__(name, port, **kwargs)
        self._guest: Final = guest
        self._to: Link | None = None
        port.send = self._send

    def _send(self, message: Message) -> None:
        if type(message) is Irq:
            self._guest.raised(self.name, message)
        link = self._to
        if link is None:
            return
        link.send(message)
        if type(message) is Avail and len(self.port.queues[message.queue].in_flight) == len(message.chains):
            # nothing else is under way on this queue: waiting for company would only cost it time
            link.flush()

    def link_up(self, link: Link) -> None:
        self._to = link
        super().link_up(link)

    def link_down(self, link: Link, reason: str) -> None:
        if self._to is link:
            self._to = None
        super().link_down(link, reason)
