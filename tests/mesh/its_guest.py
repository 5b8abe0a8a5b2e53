"""A guest's part in its ITS without the rest of a guest: memory, vCPUs, VMM, link, driver; and devices that raise MSIs.

Imported as ``tests.mesh.its_guest``.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

from common.errors import CallError
from common.gic.lpi import LPI_BASE, config_byte
from common.histogram import Histogram
from common.memory import GuestMemory
from common.runtime.clock import monotonic
from common.runtime.link import Link, LinkClient
from common.runtime.metrics import Metrics
from common.runtime.world import AsyncWorld
from common.virtio.msi_source import MsiSource
from common.wire.messages import Message, MsiDone
from services.guest_driver.its_driver import ItsDriver, ItsLayout
from services.guest_driver.its_link import ItsLink
from services.guest_driver.layout import Layout
from services.guest_driver.vcpu import IrqLine, Vcpus
from tests.mesh.harness import GUARD, TOKEN
from tests.services.guest_driver.mesh_rig import Quiet

RAM_BASE: Final = 0x4000_0000
RAM_SIZE: Final = 16 << 20
CPUS: Final = 8
#: Seconds between two looks of a device at what it has to send again.
TICK: Final = 0.01


class CountingVcpus(Vcpus):
    """vCPUs that count each LPI that a command raised, and keep where they came."""

    def __init__(self) -> None:
        super().__init__(monotonic, Histogram())
        self.latency: Final = self._latency
        #: INTIDs of commands → how often they were taken, and on which vCPUs since they were last asked for
        self.commanded: Final[dict[int, int]] = {}
        self.at: Final[dict[int, list[int]]] = {}

    def take(self, vcpu: int, intid: int, number: int) -> bool:
        if intid in self.commanded:
            assert number == 0, f"nobody raised LPI {intid} but a command"
            self.commanded[intid] += 1
            self.at[intid].append(vcpu)
            return True
        return super().take(vcpu, intid, number)


class ItsGuest:
    """Guest ``name`` of the ITS that listens at ``port``, and may die. Every LPI is enabled as soon as it is mapped."""

    def __init__(self, port: int, name: str = "vm", *, queue: int = 1 << 16, cpus: int = CPUS) -> None:
        self.name: Final = name
        self.failed: Final[list[tuple[str, BaseException]]] = []
        self.world: Final = AsyncWorld(on_failure=lambda actor, error: self.failed.append((actor, error)))
        self.memory: Final = GuestMemory(RAM_SIZE, RAM_BASE)
        self.vcpus: Final = CountingVcpus()
        self.log: Final = Quiet()
        self.link: Final = ItsLink(
            self.world, self.memory, self.vcpus, cpus=cpus, log=self.log.warning, on_refused=self._refused
        )
        self.driver: Final = ItsDriver(
            self.world, self.link, self.memory, Layout(RAM_BASE, RAM_SIZE).alloc, cpus=cpus,
            layout=ItsLayout(queue=queue, timeout=GUARD / 2),
        )  # fmt: skip
        self.client: Final = LinkClient(
            role="guest", peer="its", host="127.0.0.1", port=port, token=TOKEN, epoch=secrets.randbits(53),
            handler=self.link, metrics=Metrics("guest"), guest=name, stir=self.world.stir,
        )  # fmt: skip
        self.reprogrammed = 0

    async def start(self) -> None:
        await self.client.start()
        await self.client.wait_up()
        await self.driver.start()
        intids = (1 << 14) - LPI_BASE
        self.memory.write(self.driver._config, bytes([config_byte(True)]) * intids)

    async def close(self) -> None:
        await self.client.close()
        await self.world.close()
        assert self.failed == []

    def _refused(self) -> None:
        self.world.spawn("its again", self._program_again())

    async def _program_again(self) -> None:
        while True:
            try:
                await self.driver.restore()
            except CallError as error:
                self.log.error("not programmed", error=str(error))
                await asyncio.sleep(0.1)
            else:
                self.reprogrammed += 1
                return


class Devices:
    """Devices ``ids`` of one guest behind a link of ``role`` to the ITS at ``port``. A LinkHandler."""

    def __init__(self, port: int, role: str, guest: ItsGuest, ids: tuple[int, ...]) -> None:
        self._guest: Final = guest
        self.sources: Final = {device: MsiSource(guest.name, device, self._send) for device in ids}
        self.lines: Final[list[IrqLine]] = []
        self._link: Link | None = None
        self.client: Final = LinkClient(
            role=role, peer="its", host="127.0.0.1", port=port, token=TOKEN, epoch=secrets.randbits(53),
            handler=self, metrics=Metrics(role),
        )  # fmt: skip
        self._ticks: asyncio.Task[None] | None = None

    async def start(self, events: int, first_lpi: int) -> None:
        """Map ``events`` events of each device, to vCPUs in turn."""
        await self.client.start()
        await self.client.wait_up()
        for device in self.sources:
            await self._guest.driver.map_device(device, events)
            for event in range(events):
                intid = first_lpi + len(self.lines)
                line = IrqLine(f"{device}.{event}", device, event, intid, intid % CPUS, lambda: None)
                self.lines.append(line)
                self._guest.vcpus.request_irq(line)
                await self._guest.driver.map_event(device, event, intid, line.vcpu)
                await self._guest.driver.enable_lpi(device, event)
        self._ticks = asyncio.get_running_loop().create_task(self._tick())

    async def close(self) -> None:
        if self._ticks is not None:
            self._ticks.cancel()
            await asyncio.wait([self._ticks])
        await self.client.close()

    def raise_(self, line: IrqLine) -> None:
        number = line.raised + 1
        self._guest.vcpus.raised(line, number)
        self.sources[line.device].raise_(line.event, number, monotonic())

    @property
    def unsettled(self) -> list[IrqLine]:
        """Events of which an MSI was not taken; all of them while one was not confirmed."""
        unconfirmed = any(source.unconfirmed for source in self.sources.values())
        return [line for line in self.lines if unconfirmed or line.taken != line.raised]

    def _send(self, message: Message) -> None:
        if self._link is not None:
            self._link.send(message)

    def link_up(self, link: Link) -> None:
        self._link = link
        for source in self.sources.values():
            source.resend_all(monotonic())

    def link_frame(self, _link: Link, message: Any) -> None:
        assert isinstance(message, MsiDone)
        self.sources[message.device].done(message.event, message.number)

    def link_batch(self, _link: Link) -> None: ...

    def link_down(self, _link: Link, _reason: str) -> None:
        self._link = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for source in self.sources.values():
                source.tick(monotonic())
