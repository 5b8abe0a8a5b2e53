"""Where table entries lie: page sizes, one level or two, tables that are not there (IHI 0069 §5.2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.entries import L1, Dte
from common.gic.entries_qemu import Cte as QemuCte
from common.gic.entries_qemu import Dte as QemuDte
from common.memory import GuestMemory
from common.registers import RegisterFile
from common.runtime.world import AsyncWorld
from services.gic_its.baser import PAGE_SIZES, TableAt
from services.gic_its.direct import DirectDma
from services.gic_its.profile import KVM, QEMU, Profile
from services.gic_its.regmap import its_frame, resets
from services.gic_its.tables import TableFaultError

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

DEVICES, COLLECTIONS, ITT = 0x4220_0000, 0x4240_0000, 0x4300_0000
VALID, INDIRECT = 1 << 63, 1 << 62
BASE = 0x1_0000


class Hooks:
    """The registers without an ITS."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("read"):
            return lambda: 0
        return lambda old, new: new


def table(memory: GuestMemory, baser: int, limit: int = 65536, n: int = 0) -> TableAt:
    registers = RegisterFile(AsyncWorld(), its_frame(QEMU), Hooks(), resets(QEMU))
    registers.set(f"GITS_BASER{n}", baser)
    return TableAt(DirectDma(memory), registers, n, limit)


@pytest.mark.parametrize("size", range(4))
@pytest.mark.parametrize("pages", [1, 3])
async def test_a_flat_table_of_every_page_size(size: int, pages: int) -> None:
    made = table(GuestMemory(8), VALID | size << 8 | BASE | pages - 1)
    assert made.base == BASE
    assert made.entries == min(PAGE_SIZES[size] * pages // 8, 65536)
    assert await made.place(0) == BASE
    assert await made.place(made.entries - 1) == BASE + 8 * (made.entries - 1)
    assert await made.place(made.entries) is None


async def test_a_table_that_is_not_valid_has_no_entries() -> None:
    made = table(GuestMemory(8), BASE)
    assert made.entries == 0
    assert await made.place(0) is None


@pytest.mark.parametrize("size", range(3))
async def test_two_levels(size: int) -> None:
    page = PAGE_SIZES[size]
    memory = GuestMemory(4 * 0x10000, BASE)
    made = table(memory, VALID | INDIRECT | size << 8 | BASE, limit=1 << 20)
    per_page = page // 8
    assert made.entries == min(per_page * per_page, 1 << 20)
    memory.write(BASE + 8, L1(True, BASE + 0x20000).pack())
    assert await made.place(per_page - 1) is None
    assert await made.place(per_page) == BASE + 0x20000
    assert await made.place(2 * per_page - 1) == BASE + 0x20000 + page - 8
    assert await made.place(2 * per_page) is None


async def test_a_first_level_that_is_not_there() -> None:
    with pytest.raises(TableFaultError, match="0x20000"):
        await table(GuestMemory(8, BASE), VALID | INDIRECT | 2 << 8 | 0x2_0000).place(5)


async def test_a_look_at_what_is_not_there() -> None:
    made = table(GuestMemory(16, BASE), VALID | 2 << 8 | BASE)
    assert await made.look(BASE, 16) == bytes(16)
    with pytest.raises(TableFaultError, match="0x10008"):
        await made.look(BASE + 8, 16)


@pytest.mark.parametrize(("size", "field", "addr"), [
    (0, 0x0000_FFFF_FFFF_F000, 0x0000_FFFF_FFFF_F000),
    (1, 0x0000_FFFF_FFFF_F000, 0x0000_FFFF_FFFF_C000),
    (2, 0x0000_FFFF_FFFF_0000, 0x0000_FFFF_FFFF_0000),
    (2, 0x0000_1234_0000_A000, 0x000A_1234_0000_0000),
    (3, 0x0000_1234_0000_A000, 0x000A_1234_0000_0000),
])  # fmt: skip
def test_addresses_by_page_size(size: int, field: int, addr: int) -> None:
    """64 KiB pages: bits 51:48 of the address are in bits 15:12 of the field."""
    assert table(GuestMemory(8), VALID | size << 8 | field).base == addr


# --- through the ITS ----------------------------------------------------------------------------------------------


async def test_two_level_device_table(rigs: type[Rig]) -> None:
    rig = rigs()
    await rig.start(enable=False)
    await rig.write(0x100, VALID | INDIRECT | DEVICES)
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


async def test_two_level_tables_of_4_kib_in_qemu(rigs: type[Rig]) -> None:
    rig = rigs(profile=QEMU)
    await rig.start(enable=False)
    await rig.write(0x100, VALID | INDIRECT | DEVICES)
    await rig.write(0x108, VALID | INDIRECT | COLLECTIONS)
    await rig.write(0, 1, 4)
    rig.memory.write(DEVICES + 8, L1(True, DEVICES + 0x20000).pack())
    rig.memory.write(COLLECTIONS, L1(True, COLLECTIONS + 0x10000).pack())
    await rig.run(
        Command(op.MAPD, device=512 + 5, size=7, itt=ITT, valid=1),
        Command(op.MAPC, icid=3, rdbase=3, valid=1),
        Command(op.MAPC, icid=600, rdbase=3, valid=1),  # level-1 entry not valid
        Command(op.MAPTI, device=517, event=1, intid=8200, icid=3),
        Command(op.INT, device=517, event=1),
        Command(op.MAPD, device=5, size=7, itt=ITT, valid=1),
    )
    assert QemuDte.unpack(rig.memory.read(DEVICES + 0x20000 + 40, 8)) == QemuDte(True, ITT, 8)
    assert QemuCte.unpack(rig.memory.read(COLLECTIONS + 0x10000 + 24, 8)) == QemuCte(True, 3)
    assert rig.taken == [(3, 8200, 0)]
    assert (rig.its.errors.mapc_collection_oor, rig.its.errors.mapd_device_oor) == (1, 1)


async def test_tables_nowhere(rigs: type[Rig]) -> None:
    rig = rigs()
    await rig.start(enable=False)
    for indirect in (0, INDIRECT):
        await rig.write(0, 0, 4)
        await rig.write(0x100, VALID | indirect | 0x7000_0000)
        await rig.write(0x108, VALID | 0x7000_0000)
        await rig.write(0, 1, 4)
        await rig.run(Command(op.MAPD, device=5, size=7, itt=ITT, valid=1), Command(op.MAPC, icid=0, rdbase=0, valid=1))
    assert (rig.its.errors.mapd_device_oor, rig.its.errors.mapc_collection_oor) == (2, 2)


@pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
async def test_a_flat_table_ends_at_its_last_page(rigs: type[Rig], profile: Profile) -> None:
    rig = rigs(device_pages=1, profile=profile)
    await rig.start()
    await rig.run(*(Command(op.MAPD, device=n, size=7, itt=ITT, valid=1) for n in (8191, 8192)))
    assert rig.its.errors.mapd_device_oor == 1
    assert await rig.its.tables.device(8191) is not None
    assert await rig.its.tables.device(8192) is None
