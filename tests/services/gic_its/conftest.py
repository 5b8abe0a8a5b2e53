"""A guest for the ITS: memory with the areas of the recorded cases, raw register programming, a log of what came."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, encode
from common.gic.lpi import config_byte
from common.gic.registers import GITS_CREADR, GITS_CWRITER
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.gic_its.dma import Dma
from services.gic_its.held_tables import Limits
from services.gic_its.profile import KVM, Profile

BASE, SIZE = 0x4200_0000, 0x120_0000
QUEUE, QUEUE_PAGES = 0x4200_0000, 16
DEVICES, COLLECTIONS = 0x4220_0000, 0x4240_0000
CONFIG, PENDING = 0x4260_0000, 0x4270_0000
ITT = 0x4300_0000


class Rig:
    """One Its over 18 MiB of memory; ``taken`` and ``done`` are what it delivered and confirmed."""

    def __init__(
        self,
        cpus: int = 4,
        dma: Callable[[GuestMemory], Dma] = DirectDma,
        limits: Limits | None = None,
        device_pages: int = 8,
        profile: Profile = KVM,
    ) -> None:
        self.memory = GuestMemory(SIZE, BASE)
        self.taken: list[tuple[int, int, int]] = []
        self.done: list[tuple[int, int, int]] = []
        self.cpus = cpus
        self.device_pages = device_pages
        self.at = 0
        self.its = Its(
            AsyncWorld(),
            dma(self.memory),
            cpus=cpus,
            deliver=lambda *lpi: self.taken.append(lpi),
            done=lambda *msi: self.done.append(msi),
            profile=profile,
            limits=limits,
        )

    async def write(self, offset: int, value: int, size: int = 8, frame: str = "its") -> None:
        await self.its.mmio_write(frame, offset, size, value)

    async def read(self, offset: int, size: int = 8, frame: str = "its") -> int:
        return self.its.read(frame, offset, size)

    async def start(self, ptz: bool = True, enable: bool = True) -> None:
        """Registers as a guest programs them; every LPI enabled in the configuration table."""
        await self.write(0x00, 0x13, 4, "gicd")
        self.memory.fill(CONFIG, 0xE000, config_byte(True))
        for cpu in range(self.cpus):
            frame = f"gicr{cpu}"
            await self.write(0x70, CONFIG | 0x78F, frame=frame)
            await self.write(0x78, PENDING + cpu * 0x20000 | ptz << 62, frame=frame)
            await self.write(0x00, 1, 4, frame=frame)
        await self.write(0x80, 1 << 63 | QUEUE | QUEUE_PAGES - 1)
        await self.write(0x100, 1 << 63 | 2 << 8 | DEVICES | self.device_pages - 1)
        await self.write(0x108, 1 << 63 | 2 << 8 | COLLECTIONS)
        await self.write(0x00, int(enable), 4)
        self.at = 0

    def queue(self, *commands: Command | bytes) -> None:
        """Put commands into the queue without telling the ITS."""
        for command in commands:
            self.memory.write(QUEUE + self.at, command if isinstance(command, bytes) else encode(command))
            self.at = (self.at + COMMAND_SIZE) % (QUEUE_PAGES * 4096)

    async def run(self, *commands: Command | bytes) -> None:
        self.queue(*commands)
        await self.write(GITS_CWRITER, self.at)
        assert await self.read(GITS_CREADR) & ~1 == self.at

    async def standard(self) -> None:
        """The set-up of kvm-unit-tests: devices 2 and 7, collections 3 and 2, 2/20 → 8195 → c3, 7/255 → 8196 → c2."""
        await self.run(
            Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
            Command(op.MAPD, device=7, size=7, itt=ITT + 0x10000, valid=1),
            Command(op.MAPC, icid=3, rdbase=3, valid=1),
            Command(op.MAPC, icid=2, rdbase=2, valid=1),
            Command(op.INVALL, icid=3),
            Command(op.INVALL, icid=2),
            Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
            Command(op.MAPTI, device=7, event=255, intid=8196, icid=2),
        )

    def config(self, intid: int, byte: int) -> None:
        self.memory.write(CONFIG + intid - 8192, bytes([byte]))

    def word(self, addr: int) -> int:
        return int.from_bytes(self.memory.read(addr, 8), "little")


@pytest.fixture(scope="session")
def rigs() -> type[Rig]:
    """The class, for tests that make their own."""
    return Rig


@pytest.fixture
async def rig() -> Rig:
    """Programmed, enabled, nothing mapped."""
    rig = Rig()
    await rig.start()
    return rig


@pytest.fixture
async def mapped() -> Rig:
    """The standard set-up."""
    rig = Rig()
    await rig.start()
    await rig.standard()
    return rig
