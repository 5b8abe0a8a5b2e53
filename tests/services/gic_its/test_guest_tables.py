"""Tables in guest memory only, in QEMU's layout: every use is a look."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.entries_qemu import Cte, Dte, Ite
from services.gic_its.profile import QEMU
from tests.services.gic_its.conftest import COLLECTIONS, DEVICES, ITT, Rig

NOWHERE = 0x7000_0000
INT = Command(op.INT, device=2, event=20)


async def standard() -> Rig:
    rig = Rig(profile=QEMU)
    await rig.start()
    await rig.standard()
    return rig


def kinds(rig: Rig) -> dict[str, int]:
    return {name: count for name, count in asdict(rig.its.errors).items() if count}


def dte(rig: Rig, device: int) -> Dte:
    return Dte.unpack(rig.memory.read(DEVICES + 8 * device, 8))


def cte(rig: Rig, icid: int) -> Cte:
    return Cte.unpack(rig.memory.read(COLLECTIONS + 8 * icid, 8))


def ite(rig: Rig, event: int, itt: int = ITT) -> Ite:
    return Ite.unpack(rig.memory.read(itt + 12 * event, 12))


async def test_what_commands_write() -> None:
    rig = await standard()
    assert (dte(rig, 2), dte(rig, 7)) == (Dte(True, ITT, 8), Dte(True, ITT + 0x10000, 8))
    assert (cte(rig, 3), cte(rig, 2), cte(rig, 1).valid) == (Cte(True, 3), Cte(True, 2), False)
    assert ite(rig, 20) == Ite(True, 8195, 3)
    await rig.run(
        Command(op.MOVI, device=2, event=20, icid=2),
        Command(op.DISCARD, device=7, event=255),
        Command(op.MAPC, icid=3, valid=0),
        Command(op.MAPD, device=7, valid=0),
        Command(op.MAPI, device=2, event=20, icid=2),
    )
    assert ite(rig, 20) == Ite(True, 8195, 2)
    assert rig.memory.read(ITT + 0x10000 + 12 * 255, 12) == bytes(12)
    assert rig.memory.read(COLLECTIONS + 24, 8) == bytes(8)
    assert rig.memory.read(DEVICES + 56, 8) == bytes(8)
    assert kinds(rig) == {"mapti_physicalid_oor": 1}


async def test_mapti_overwrites() -> None:
    rig = await standard()
    await rig.run(Command(op.MAPTI, device=2, event=20, intid=8300, icid=2), INT)
    assert ite(rig, 20) == Ite(True, 8300, 2)
    assert rig.taken == [(2, 8300, 0)]


async def test_every_use_is_a_look() -> None:
    """What software writes into the tables counts at once, for commands and for MSIs."""
    rig = await standard()
    its = rig.its
    rig.memory.write(ITT + 12 * 20, Ite(True, 8400, 2).pack())
    await rig.run(INT)
    assert await its.msi(2, 20, 1) == ""
    assert rig.taken == [(2, 8400, 0)]
    rig.memory.write(COLLECTIONS + 16, Cte(True, 1).pack())
    await rig.run(INT)
    assert rig.taken == [(2, 8400, 0), (1, 8400, 0)]
    rig.memory.write(DEVICES + 16, bytes(8))
    assert await its.msi(2, 20, 2) == "unmapped"


@pytest.mark.parametrize(
    ("addr", "data"),
    [
        (DEVICES + 16, bytes(8)),
        (DEVICES + 16, Dte(True, ITT, 4).pack()),  # event 20 is past the ITT
        (COLLECTIONS + 24, bytes(8)),
        (COLLECTIONS + 24, Cte(True, 4).pack()),  # there is no such PE
        (ITT + 12 * 20, bytes(12)),
        (ITT + 12 * 20, (1 | 8195 << 2 | 3 << 32).to_bytes(12, "little")),  # not a physical interrupt
        (ITT + 12 * 20, Ite(True, 8195, 9000).pack()),  # past the collection table
    ],
)
async def test_what_is_not_mapped(addr: int, data: bytes) -> None:
    rig = await standard()
    rig.memory.write(addr, data)
    assert await rig.its.msi(2, 20, 1) == "unmapped"
    await rig.run(INT)
    assert kinds(rig) == {"int_unmapped_interrupt": 1}
    assert rig.taken == []


async def test_an_intid_that_is_no_lpi_of_the_redistributor_is_dropped() -> None:
    rig = await standard()
    for intid in (65536, (1 << 24) - 1):
        rig.memory.write(ITT + 12 * 20, Ite(True, intid, 3).pack())
        assert await rig.its.msi(2, 20, 1) == "lpis_off"
        await rig.run(INT)
    assert kinds(rig) == {"int_lpis_off": 2}


@pytest.mark.parametrize("intid", [0, 5, 1023, 8191])
async def test_an_intid_below_the_lpis_never_comes(intid: int) -> None:
    """MAPTI refuses it, so software wrote it."""
    rig = await standard()
    rig.memory.write(ITT + 12 * 20, Ite(True, intid, 3).pack())
    assert await rig.its.msi(2, 20, 1) != ""
    await rig.run(INT)
    assert rig.taken == []
    assert rig.its.pending(3) == []


WITH_ITT = [
    Command(op.MAPTI, device=9, event=1, intid=8200, icid=3),
    Command(op.MOVI, device=9, event=1, icid=3),
    Command(op.DISCARD, device=9, event=1),
    Command(op.INT, device=9, event=1),
    Command(op.CLEAR, device=9, event=1),
    Command(op.INV, device=9, event=1),
]


@pytest.mark.parametrize("command", WITH_ITT, ids=str)
async def test_an_itt_that_is_not_there_stalls(command: Command) -> None:
    rig = await standard()
    rig.queue(Command(op.MAPD, device=9, size=7, itt=NOWHERE, valid=1), command, INT)
    await rig.write(0x88, rig.at)
    assert await rig.read(0x90) == rig.at - 0x40 | 1
    assert kinds(rig) == {"table_fault": 1}
    assert rig.taken == []


@pytest.mark.parametrize(
    ("baser", "command"),
    [
        (0x100, Command(op.MAPD, device=9, size=7, itt=ITT, valid=1)),
        (0x100, Command(op.MAPD, device=9, valid=0)),
        (0x100, INT),
        (0x108, Command(op.MAPC, icid=9, rdbase=1, valid=1)),
        (0x108, Command(op.MAPC, icid=9, valid=0)),
        (0x108, Command(op.INV, device=2, event=20)),
        (0x108, Command(op.MOVI, device=2, event=20, icid=2)),
    ],
    ids=str,
)
async def test_a_table_that_is_not_there_stalls(baser: int, command: Command) -> None:
    rig = await standard()
    await rig.write(0, 0, 4)
    await rig.write(baser, 1 << 63 | 2 << 8 | NOWHERE)
    await rig.write(0, 1, 4)
    start = rig.at
    rig.queue(command, Command(op.SYNC))
    await rig.write(0x88, rig.at)
    assert await rig.read(0x90) == start | 1
    assert kinds(rig) == {"table_fault": 1}


@pytest.mark.parametrize("code", [op.INT, op.CLEAR, op.DISCARD])
async def test_a_collection_table_that_is_not_there_leads_nowhere(code: int) -> None:
    """As on QEMU these go on; MSIs, too, have no queue to stall."""
    rig = await standard()
    await rig.write(0, 0, 4)
    await rig.write(0x108, 1 << 63 | 2 << 8 | NOWHERE)
    await rig.write(0, 1, 4)
    await rig.run(Command(code, device=2, event=20), Command(op.SYNC))
    assert sum(kinds(rig).values()) == 1
    await rig.write(0, 0, 4)
    await rig.write(0x108, 1 << 63 | 2 << 8 | COLLECTIONS)
    await rig.write(0, 1, 4)
    await rig.run(INT)
    assert rig.taken == [(3, 8195, 0)]  # DISCARD did not either


async def test_tables_that_are_not_valid_map_nothing() -> None:
    rig = await standard()
    await rig.write(0, 0, 4)
    await rig.write(0x100, 0)
    await rig.write(0x108, 0)
    await rig.write(0, 1, 4)
    await rig.run(
        Command(op.MAPD, device=9, size=7, itt=ITT, valid=1), Command(op.MAPC, icid=1, rdbase=1, valid=1), INT
    )
    assert kinds(rig) == {"mapd_device_oor": 1, "mapc_collection_oor": 1, "int_unmapped_interrupt": 1}
    await rig.write(0, 0, 4)
    await rig.write(0x100, 1 << 63 | 2 << 8 | DEVICES)
    await rig.write(0x108, 1 << 63 | 2 << 8 | COLLECTIONS)
    await rig.write(0, 1, 4)
    await rig.run(INT)
    assert rig.taken == [(3, 8195, 0)]  # all was where it is: in guest memory


async def test_a_command_that_a_fault_stopped_changed_nothing() -> None:
    """MOVI looks at the new collection after the old; the entry is as it was."""
    rig = await standard()
    await rig.write(0, 0, 4)
    await rig.write(0x108, 1 << 63 | 1 << 62 | 2 << 8 | COLLECTIONS + 0x10000)
    await rig.write(0, 1, 4)
    rig.memory.write(COLLECTIONS + 0x10000, (1 << 63 | COLLECTIONS).to_bytes(8, "little"))
    rig.memory.write(COLLECTIONS + 0x10008, (1 << 63 | NOWHERE).to_bytes(8, "little"))
    start = rig.at
    rig.queue(Command(op.MOVI, device=2, event=20, icid=8193))
    await rig.write(0x88, rig.at)
    assert await rig.read(0x90) == start | 1
    assert ite(rig, 20) == Ite(True, 8195, 3)
