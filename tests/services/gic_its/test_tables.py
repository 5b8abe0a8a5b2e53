"""Tables written through to guest memory in KVM's layout, revision 0; flat and two-level device tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.entries import L1, Cte, Dte, Ite

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

DEVICES, COLLECTIONS, ITT = 0x4220_0000, 0x4240_0000, 0x4300_0000


def dte(rig: Rig, device: int) -> Dte:
    return Dte.unpack(rig.memory.read(DEVICES + 8 * device, 8))


def ite(rig: Rig, event: int) -> Ite:
    return Ite.unpack(rig.memory.read(ITT + 8 * event, 8))


def ctes(rig: Rig, count: int) -> list[Cte]:
    return [Cte.unpack(rig.memory.read(COLLECTIONS + 8 * n, 8)) for n in range(count)]


async def test_devices_are_chained(mapped: Rig) -> None:
    assert dte(mapped, 2) == Dte(True, ITT, 8, 5)
    assert dte(mapped, 7) == Dte(True, ITT + 0x10000, 8, 0)
    await mapped.run(Command(op.MAPD, device=4, size=3, itt=ITT + 0x20000, valid=1))
    assert [dte(mapped, n).next for n in (2, 4, 7)] == [2, 3, 0]
    await mapped.run(Command(op.MAPD, device=4, valid=0), Command(op.MAPD, device=7, valid=0))
    assert dte(mapped, 2).next == 0
    assert not dte(mapped, 4).valid


async def test_events_are_chained(mapped: Rig) -> None:
    assert ite(mapped, 20) == Ite(8195, 3, 0)
    await mapped.run(
        Command(op.MAPTI, device=2, event=25, intid=8201, icid=3),
        Command(op.MAPTI, device=2, event=22, intid=8202, icid=2),
    )
    assert [ite(mapped, n) for n in (20, 22, 25)] == [Ite(8195, 3, 2), Ite(8202, 2, 3), Ite(8201, 3, 0)]
    await mapped.run(Command(op.DISCARD, device=2, event=22), Command(op.MOVI, device=2, event=20, icid=2))
    assert [ite(mapped, n) for n in (20, 22)] == [Ite(8195, 2, 5), Ite(0, 0, 0)]


async def test_collections_are_a_list(mapped: Rig) -> None:
    assert ctes(mapped, 3) == [Cte(True, 3, 3), Cte(True, 2, 2), Cte(False, 0, 0)]
    await mapped.run(
        Command(op.MAPTI, device=2, event=1, intid=8200, icid=9),  # in use, but not mapped
        Command(op.MAPC, icid=3, valid=0),
        Command(op.MAPC, icid=2, rdbase=1, valid=1),
    )
    assert ctes(mapped, 3) == [Cte(True, 1, 2), Cte(True, 0xFFFFFFFF, 9), Cte(False, 0, 0)]


async def test_a_full_collection_table_has_no_end_mark(rigs: type[Rig]) -> None:
    rig = rigs()
    await rig.start()
    rig.memory.fill(COLLECTIONS + 0x10000, 8, 0xEE)
    rig.its.registers.set("GITS_BASER1", rig.its.registers.get("GITS_BASER1"))
    from services.gic_its.state import Collection

    tables = rig.its._commands._tables
    rig.its.control.collections = tuple(range(8192))
    for icid in range(8192):
        tables._collections[icid] = Collection(icid)
    tables.write_collections(8191)
    assert rig.word(COLLECTIONS + 0x10000) == 0xEEEE_EEEE_EEEE_EEEE


async def test_two_level_device_table(rigs: type[Rig]) -> None:
    rig = rigs()
    await rig.start(enable=False)
    await rig.write(0x100, 1 << 63 | 1 << 62 | DEVICES)
    await rig.write(0, 1, 4)
    rig.memory.write(DEVICES, L1(True, DEVICES + 0x20000).pack())
    rig.memory.write(DEVICES + 16, L1(True, 0x7000_0000).pack())
    await rig.run(
        Command(op.MAPD, device=5, size=7, itt=ITT, valid=1),
        Command(op.MAPD, device=8192, size=7, itt=ITT, valid=1),  # level-1 entry not valid
        Command(op.MAPD, device=16384, size=7, itt=ITT, valid=1),  # level-2 page nowhere
    )
    assert rig.its.control.devices == ((5,),)
    assert rig.its.errors.mapd_device_oor == 2
    assert Dte.unpack(rig.memory.read(DEVICES + 0x20000 + 40, 8)) == Dte(True, ITT, 8, 0)


async def test_tables_nowhere(rigs: type[Rig]) -> None:
    rig = rigs()
    await rig.start(enable=False)
    for indirect in (0, 1 << 62):
        await rig.write(0, 0, 4)
        await rig.write(0x100, 1 << 63 | indirect | 0x7000_0000)
        await rig.write(0x108, 1 << 63 | 0x7000_0000)
        await rig.write(0, 1, 4)
        await rig.run(Command(op.MAPD, device=5, size=7, itt=ITT, valid=1), Command(op.MAPC, icid=0, rdbase=0, valid=1))
    assert (rig.its.errors.mapd_device_oor, rig.its.errors.mapc_collection_oor) == (2, 2)


async def test_a_flat_table_ends_at_its_last_page(rigs: type[Rig]) -> None:
    rig = rigs(device_pages=1)
    await rig.start()
    await rig.run(*(Command(op.MAPD, device=n, size=7, itt=ITT, valid=1) for n in (8191, 8192)))
    assert rig.its.control.devices == ((8191,),)
