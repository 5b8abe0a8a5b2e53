"""One guest: memory, vCPUs, the ports and drivers of its devices, the VMM beside it. Everything but the workload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from common.errors import CallError, LinkDownError
from common.gic.saved import SavedIts
from common.histogram import Histogram
from common.memory import GuestMemory, MemoryKey
from common.runtime.clock import monotonic, nanoseconds
from common.runtime.link import LinkClient
from common.runtime.world import AsyncWorld
from services.guest_driver.config import GuestConfig
from services.guest_driver.guest_nic import MAX_PAIRS, GuestNic
from services.guest_driver.its_driver import ItsDriver
from services.guest_driver.its_link import ItsLink
from services.guest_driver.layout import Layout
from services.guest_driver.net import NetDriver
from services.guest_driver.port import Port
from services.guest_driver.scmi_driver import CMDQ, EVENTQ, ScmiDriver, key_of
from services.guest_driver.vcpu import IrqLine, Vcpus
from services.guest_driver.virtio_bus import PortBus

if TYPE_CHECKING:
    from common.runtime.service import Service

#: Where RAM begins, as on QEMU's virt machine.
RAM_BASE: Final = 0x4000_0000
#: First LPI that the guest uses.
FIRST_LPI: Final = 8192

#: Seconds before an ITS that did not take its programming is programmed again.
ITS_RETRY: Final = 0.5


class Guest:
    """One virtual machine. The hooks of ``nic``, and ``on_scmi_restart``, are the workload's, set before
    :meth:`start`."""

    def __init__(self, name: str, service: Service[GuestConfig], waits: dict[str, Histogram]) -> None:
        config = service.config
        self.name: Final = name
        self.config: Final = config
        self.log: Final = service.log.bind(guest=name)
        self.world: Final[AsyncWorld] = service.world
        self.memory: Final = GuestMemory(config.memory_mib << 20, RAM_BASE)
        self.layout: Final = Layout(RAM_BASE, config.memory_mib << 20)
        self.irq_latency: Final = Histogram()
        self.vcpus: Final = Vcpus(monotonic, self.irq_latency, self.log.error)
        self.on_scmi_restart: Callable[[], None] = lambda: None
        self.ready = False
        self._waits: Final = waits
        self.scmi_port: Final = self._port(2, key_of)
        self.nic_port: Final = self._port(2 * MAX_PAIRS + 1)
        self.nic: Final = GuestNic(
            self.world, self.memory, self.layout, (RAM_BASE, config.memory_mib << 20), self.nic_port, config=config,
            log=self.log, raised=lambda event, number: self._raised("nic", event, number),
            took=lambda queue, queue_name: self.took(self.nic_port, queue, queue_name),
        )  # fmt: skip
        #: device → its lines, by MSI event
        self._lines: Final = self._irq_lines()
        self.its_link: Final = ItsLink(
            self.world, self.memory, self.vcpus, cpus=config.vcpus, log=self.log.warning, on_refused=self._its_refused
        )
        self.its: Final = ItsDriver(self.world, self.its_link, self.memory, self.layout.alloc, cpus=config.vcpus)
        self.scmi_bus: Final = PortBus(
            "scmi", self.scmi_port, raised=lambda irq: self._raised("scmi", irq.queue, irq.number),
            spawn=self.world.spawn, log=self.log, on_restart=self._scmi_restarted,
        )  # fmt: skip
        self.scmi: Final = self.world.new(
            ScmiDriver, self.world, self.memory, self.layout, self.scmi_port.doorbell, self.log.warning,
            cmdq_size=config.cmdq_size, eventq_size=config.eventq_size, timeout=config.workload.scmi_timeout,
            atomic_transport=config.atomic_transport, atomic_threshold_us=config.atomic_threshold_us,
            now_ns=nanoseconds,
        )  # fmt: skip
        self.agent: Final = self.scmi.agent
        #: how often the ITS refused to be restored: who programs it again ends when there is a newer one
        self._its_turn = 0
        self._moves = 0
        self._clients = [
            service.connect("scmi", config.scmi, self.scmi_bus, guest=name),
            service.connect("nic", config.nic, self.nic.bus, guest=name),
            service.connect("nic", config.nic, self.nic.vmm, role="vmm", guest=name),
            service.connect("its", config.its, self.its_link, guest=name),
        ]

    def _port(self, queues: int, key_of: Callable[[int], MemoryKey | None] = lambda _generation: None) -> Port:
        soon = asyncio.get_running_loop().call_soon
        # Two turns of the loop: pollers that the used ring wakes look at it in the first.
        port = Port(
            self.world,
            self.memory,
            queues=queues,
            send=lambda _m: None,
            key_of=key_of,
            clock=monotonic,
            defer=lambda: soon(soon, port.signal),  # type: ignore[arg-type]
        )
        return port

    def _irq_lines(self) -> dict[str, list[IrqLine]]:
        """One line an MSI event, which is one a queue; the vCPUs take turns."""
        nic: list[Callable[[], None]] = [partial(self.nic.handle, event) for event in range(len(self.nic.names))]
        lines: dict[str, list[IrqLine]] = {}
        number = 0
        for device, device_id, handlers in (
            ("scmi", self.config.scmi_device_id, [self._cmdq_irq, self._eventq_irq]),
            ("nic", self.config.nic_device_id, nic),
        ):
            lines[device] = []
            for event, handler in enumerate(handlers):
                name, vcpu = f"{device}{event}", number % self.config.vcpus
                line = IrqLine(name, device_id, event, FIRST_LPI + number, vcpu, handler)
                lines[device].append(line)
                self.vcpus.request_irq(line)
                number += 1
        return lines

    def _raised(self, device: str, event: int, number: int) -> None:
        """The port of ``device`` asks for interrupt ``number`` of an event."""
        self.vcpus.raised(self._lines[device][event], number)

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

    @property
    def net(self) -> NetDriver:
        """The NIC's queue pairs, once it is up."""
        return self.nic.net

    # --- bring-up -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up once all links are: ITS, interrupts, memory map, devices, drivers.

        A link that goes down on the way costs a retry. Raises CallError or RemoteError for a device that refuses.
        """
        for client in self._clients:
            await client.wait_up()
        await self._program_its()
        scmi = self.scmi.plan()
        to_scmi, to_nic, to_nic_vmm, _ = self._clients
        await self._until_done(to_nic_vmm, self.nic.vmm.set_map)
        await self._until_done(to_scmi, lambda: self.scmi_bus.probe(scmi))
        await self._until_done(to_nic, lambda: self.nic.bus.probe(self.nic.plan))
        self.scmi.start(self.name)
        await self.nic.start()
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
        """Tables, queue, mappings. Where the ITS goes away meanwhile, its registers wait until it is back."""
        its = self.its
        await its.start()
        for lines in self._lines.values():
            await its.map_device(lines[0].device, 1 << (len(lines) - 1).bit_length())
        for line in self.vcpus.lines:
            await its.map_event(line.device, line.event, line.intid, line.vcpu)
            await its.enable_lpi(line.device, line.event)

    # --- the ITS ------------------------------------------------------------------------------------------------------

    def _its_refused(self) -> None:
        """The VMM could not restore the ITS: the driver programs it, as one that comes out of a reset."""
        self._its_turn += 1
        self.world.spawn("its again", self._its_again(self._its_turn))

    async def _its_again(self, turn: int) -> None:
        while turn == self._its_turn:
            try:
                await self.its.restore()
            except CallError as error:
                self.log.warning("ITS not programmed again yet", error=str(error))
                await asyncio.sleep(ITS_RETRY)
            else:
                self.log.info("ITS programmed again")
                return

    async def inv(self) -> None:
        """One INV and SYNC, as a driver does that changed an LPI's configuration."""
        line = self._lines["scmi"][CMDQ]
        await self.its.inv(line.device, line.event)

    async def restore_its(self, saved: SavedIts) -> None:
        """Put a saved ITS in the place of this guest's; what the guest did since is done again.

        Raises as :meth:`services.guest_driver.its_vmm.ItsVmm.restore`.
        """
        with self.vcpus.anywhere(self.config.vcpus):
            await self.its.go_back(partial(self.its_link.vmm.restore, saved))

    async def set_affinity(self, line: IrqLine, vcpu: int) -> None:
        """Send an interrupt to another vCPU (Linux: irq_set_affinity). What is pending goes along."""
        with self.vcpus.moving(line, vcpu):
            await self.its.move_event(line.device, line.event, vcpu)

    async def balance(self) -> None:
        """Move one interrupt to the next vCPU, each in its turn, as a daemon that spreads them does."""
        lines = self.vcpus.lines
        line = lines[self._moves % len(lines)]
        self._moves += 1
        await self.set_affinity(line, (line.vcpu + 1) % self.config.vcpus)

    async def stop(self) -> None:
        """Let nobody into the agent's channels any more."""
        self.ready = False
        await self.scmi.stop()
