"""The scenarios of kvm-unit-tests' ``arm/gic.c`` for the ITS, against anything that is an Adapter.

Imported as ``tests.services.gic_its.kvm_unit_tests``. Each is a coroutine over :class:`Rig`, so that the same runs in
one process and over the links of the mesh.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, encode
from tests.services.gic_its.machine import CONFIG, ITT, PENDING, PENDING_STEP, QUEUE, standard

CTLR, TYPER, IIDR, CBASER, CWRITER, BASER = 0x0, 0x8, 0x4, 0x80, 0x88, 0x100
PROPBASER, PENDBASER = 0x70, 0x78
DEVICE_TABLE, COLLECTION_TABLE = 0x4220_0000, 0x4240_0000
VALID: Final = 1 << 63
OFF, ON = 0xA0, 0xA1
CPUS: Final = 4


class Rig(Protocol):
    """A guest: its MMIO, its memory, and which LPIs each of its CPUs has taken since the last time."""

    async def read(self, frame: str, offset: int, size: int) -> int: ...
    async def write(self, frame: str, offset: int, size: int, value: int) -> None: ...
    def mem_write(self, addr: int, data: bytes) -> None: ...
    async def taken(self, cpu: int) -> list[int]: ...
    async def migrate(self) -> None: ...


class Suite:
    """A scenario's guest, as far as it has programmed its ITS."""

    def __init__(self, rig: Rig) -> None:
        self.rig: Final = rig
        self.at = 0

    async def lpis(self, enabled: bool = True) -> None:
        rig = self.rig
        await rig.write("gicd", 0, 4, 0x13)
        rig.mem_write(CONFIG, bytes([ON]) * 0x1_0000)
        for cpu in range(CPUS):
            await rig.write(f"gicr{cpu}", PROPBASER, 8, CONFIG | 0x78F)
            await rig.write(f"gicr{cpu}", PENDBASER, 8, PENDING + cpu * PENDING_STEP | 0x780)
            if enabled:
                await rig.write(f"gicr{cpu}", CTLR, 4, 1)

    async def enable(self) -> None:
        rig = self.rig
        await rig.write("its", CBASER, 8, VALID | QUEUE | 15)
        await rig.write("its", BASER, 8, VALID | 2 << 8 | DEVICE_TABLE | 7)
        await rig.write("its", BASER + 8, 8, VALID | 2 << 8 | COLLECTION_TABLE)
        await rig.write("its", CTLR, 4, 1)

    async def run(self, *commands: Command) -> None:
        for command in commands:
            self.rig.mem_write(QUEUE + self.at, encode(command))
            self.at += COMMAND_SIZE
        await self.rig.write("its", CWRITER, 8, self.at)

    async def interrupt(self, device: int, event: int) -> None:
        await self.run(Command(op.INT, device=device, event=event))

    async def all_taken(self) -> list[list[int]]:
        return [await self.rig.taken(cpu) for cpu in range(CPUS)]

    async def set_up(self) -> None:
        await self.lpis()
        await self.enable()
        await self.run(*standard())


async def introspection(rig: Rig) -> None:
    iidr, typer = await rig.read("its", IIDR, 4), await rig.read("its", TYPER, 8)
    await rig.write("its", IIDR, 4, ~iidr & 0xFFFF_FFFF)
    await rig.write("its", TYPER, 8, ~typer & (1 << 64) - 1)
    assert (await rig.read("its", IIDR, 4), await rig.read("its", TYPER, 8)) == (iidr, typer)
    assert typer & 1, "physical LPIs"
    assert typer >> 4 & 0xF, "ITT entry"
    assert typer >> 8 & 0x1F, "EventID bits"
    assert typer >> 13 & 0x1F, "DeviceID bits"
    types = set()
    for n in range(8):
        baser = await rig.read("its", BASER + 8 * n, 8)
        kind = baser >> 56 & 7
        types.add(kind)
        if kind:
            await rig.write("its", BASER + 8 * n, 8, 2 << 8)
            assert await rig.read("its", BASER + 8 * n, 8) >> 8 & 3 == 2, "64 KiB pages"
    assert {1, 4} <= types, "a device table and a collection table"


async def trigger(rig: Rig) -> None:
    suite = Suite(rig)
    await suite.set_up()
    await suite.interrupt(2, 20)
    assert await suite.all_taken() == [[], [], [], [8195]]
    await suite.interrupt(7, 255)
    assert await suite.all_taken() == [[], [], [8196], []]
    rig.mem_write(CONFIG + 3, bytes([OFF]))
    await suite.run(Command(op.INV, device=2, event=20))
    await suite.interrupt(2, 20)
    assert await suite.all_taken() == [[]] * 4, "its LPI is off"
    rig.mem_write(CONFIG + 3, bytes([ON]))
    await suite.interrupt(2, 20)
    await suite.run(Command(op.INVALL, icid=3))
    assert await suite.all_taken() == [[], [], [], [8195]], "INVALL found it on"
    await suite.run(Command(op.MAPD, device=2, size=7, itt=ITT, valid=0))
    await suite.interrupt(2, 20)
    assert await suite.all_taken() == [[]] * 4, "its device is not mapped"


async def migration(rig: Rig) -> None:
    suite = Suite(rig)
    await suite.set_up()
    await rig.migrate()
    await suite.interrupt(2, 20)
    assert await suite.all_taken() == [[], [], [], [8195]]
    await suite.interrupt(7, 255)
    assert await suite.all_taken() == [[], [], [8196], []]


async def pending_migration(rig: Rig) -> None:
    """256 events over two CPUs whose LPIs are off; they became pending in memory; another machine; on."""
    suite = Suite(rig)
    await suite.lpis(enabled=False)
    await suite.enable()
    await suite.run(
        Command(op.MAPD, device=16, size=8, itt=ITT, valid=1),
        Command(op.MAPC, icid=0, rdbase=0, valid=1),
        Command(op.MAPC, icid=1, rdbase=1, valid=1),
    )
    tables = [bytearray(32), bytearray(32)]
    for event in range(256):
        await suite.run(Command(op.MAPTI, device=16, event=event, intid=8192 + event, icid=event % 2))
        tables[event % 2][event // 8] |= 1 << event % 8
    for cpu, table in enumerate(tables):
        rig.mem_write(PENDING + cpu * PENDING_STEP + 8192 // 8, bytes(table))
    await rig.migrate()
    for cpu in range(2):
        await rig.write(f"gicr{cpu}", CTLR, 4, 1)
    for cpu in range(2):
        assert sorted(await rig.taken(cpu)) == list(range(8192 + cpu, 8192 + 256, 2))


async def unmapped_collection(rig: Rig) -> None:
    suite = Suite(rig)
    await suite.lpis()
    await suite.enable()
    await suite.run(
        Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
        Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
    )
    await rig.migrate()
    await suite.interrupt(2, 20)
    assert await suite.all_taken() == [[]] * 4
    await suite.run(Command(op.MAPC, icid=3, rdbase=3, valid=1), Command(op.INVALL, icid=3))
    await suite.interrupt(2, 20)
    assert await suite.all_taken() == [[], [], [], [8195]]


Scenario = Callable[[Rig], Awaitable[None]]

SCENARIOS: Final[tuple[Scenario, ...]] = (introspection, trigger, migration, pending_migration, unmapped_collection)
