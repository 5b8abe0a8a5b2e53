"""What one guest can make of its ITS is neither lost for good nor in the way of others: cases that a review found."""

from __future__ import annotations

import itertools

from common.gic import commands as op
from common.gic.commands import Command, encode
from common.gic.lpi import LPI_LIMIT
from common.gic.registers import GITS_CREADR, GITS_CWRITER
from services.gic_its.adapter import CaseAdapter
from services.gic_its.commands import WORK
from services.gic_its.held_tables import WALK
from services.gic_its.profile import QEMU
from tests.services.gic_its.conftest import CONFIG, ITT, PENDING, QUEUE, Rig

BASER0, BASER1 = 0x100, 0x108


async def test_disabling_lpis_confirms_nothing() -> None:
    """The bit in the table is on its way to guest memory: where that is lost the device must send its MSI again."""
    rig = Rig()
    await rig.start()
    await rig.standard()
    rig.its.hold()
    assert await rig.its.msi(2, 20, 1) == ""
    await rig.write(0, 0, 4, frame="gicr3")
    assert rig.done == []
    assert rig.its.pending(3) == []
    assert rig.memory.read(PENDING + 3 * 0x20000 + 8195 // 8, 1) == bytes([1 << 8195 % 8])
    assert await rig.its.msi(2, 20, 1) == "lpis_off"
    await rig.write(0x78, PENDING + 3 * 0x20000, frame="gicr3")
    await rig.write(0, 1, 4, frame="gicr3")
    assert await rig.its.msi(2, 20, 1) == ""
    rig.its.resume()
    ((vcpu, intid, number),) = rig.taken
    rig.its.eoi(vcpu, intid, number)
    assert rig.done == [(2, 20, 1)]


async def test_cpus_that_write_translater_have_an_account_of_their_own() -> None:
    rig = Rig(profile=QEMU)
    await rig.start()
    await rig.run(
        Command(op.MAPC, icid=1, rdbase=1, valid=1),
        Command(op.MAPD, device=0, size=7, itt=ITT, valid=1),
        Command(op.MAPTI, device=0, event=5, intid=8205, icid=1),
    )
    for expected in (1, 2):
        await rig.write(0x40, 5, 4, frame="trans")
        assert len(rig.taken) == expected
        rig.its.eoi(*rig.taken[-1])
    assert await rig.its.msi(0, 5, 1) == ""
    assert len(rig.taken) == 3, "the device's first MSI is no repeat"


async def test_qemus_pending_table_has_the_msis_of_devices() -> None:
    rig = Rig(profile=QEMU)
    await rig.start()
    await rig.standard()
    rig.its.hold()
    assert await rig.its.msi(2, 20, 1) == ""
    place = PENDING + 3 * 0x20000 + 8195 // 8
    assert rig.memory.read(place, 1) == bytes([1 << 8195 % 8])
    rig.its.resume()
    assert rig.memory.read(place, 1) == bytes(1)


async def test_a_flood_of_pending_tables_has_an_end() -> None:
    rig = Rig(cpus=4)
    rig.memory.fill(PENDING, 4 * 0x20000, 0xFF)
    rig.memory.fill(CONFIG, 0xE000, 0xA0)
    for cpu in range(4):
        await rig.write(0x70, CONFIG | 0x78F, frame=f"gicr{cpu}")
        await rig.write(0x78, PENDING + cpu * 0x20000, frame=f"gicr{cpu}")
        await rig.write(0, 1, 4, frame=f"gicr{cpu}")
    assert sum(len(rig.its.pending(cpu)) for cpu in range(4)) < LPI_LIMIT + 4096
    assert rig.its.stats.pending_limit == 3


async def test_a_baser_that_goes_away_is_forgotten_in_turns() -> None:
    rig = Rig()
    await rig.start()
    maps = [Command(op.MAPTI, device=2, event=e, intid=8192 + e, icid=3) for e in range(2000)]
    await rig.run(
        Command(op.MAPD, device=2, size=10, itt=ITT, valid=1), Command(op.MAPC, icid=3, rdbase=3, valid=1), *maps
    )
    world, seen = rig.its.runs._world, []
    turn = type(world).turn

    async def counting() -> None:
        seen.append(rig.its.control.events)
        await turn(world)

    world.turn = counting  # type: ignore[method-assign]
    await rig.write(0, 0, 4)
    baser1 = await rig.read(BASER1)
    for value in (0, baser1):
        seen.clear()
        await rig.write(BASER1, value)
        assert len(seen) >= 1000 // (WORK + WALK) - 2
    seen.clear()
    await rig.write(BASER0, 0)
    assert rig.its.control.events == 0
    steps = [a - b for a, b in itertools.pairwise(seen)]
    assert len(steps) > 5
    assert max(steps) <= WORK + WALK


async def test_a_write_that_waits_has_no_effect_after_a_reset() -> None:
    rig = Rig()
    rig.its.post("gicr0", 0, 4, 1, lambda: None)
    rig.its.reset()
    await rig.its.drain()
    await rig.write(0x70, CONFIG | 0x78F, frame="gicr0")
    assert await rig.read(0x70, frame="gicr0") == CONFIG | 0x78F, "LPIs are off, so the table may be moved"


def program(adapter: CaseAdapter, devices: int) -> None:
    adapter.mem_fill(CONFIG, 0x10000, 0xA1)
    adapter.mmio_write("gicd", 0, 4, 0x13)
    for cpu in range(4):
        adapter.mmio_write(f"gicr{cpu}", 0x70, 8, CONFIG | 0x78F)
        adapter.mmio_write(f"gicr{cpu}", 0x78, 8, PENDING + cpu * 0x20000 | 1 << 62)
        adapter.mmio_write(f"gicr{cpu}", 0, 4, 1)
    adapter.mmio_write("its", 0x80, 8, 1 << 63 | QUEUE | 15)
    adapter.mmio_write("its", BASER0, 8, 1 << 63 | devices | 0x200)
    adapter.mmio_write("its", BASER1, 8, 1 << 63 | 0x4240_0200)
    adapter.mmio_write("its", 0, 4, 1)


def put(adapter: CaseAdapter, *commands: Command) -> None:
    adapter.mem_write(QUEUE, b"".join(map(encode, commands)))
    adapter.mmio_write("its", GITS_CWRITER, 8, 32 * len(commands))


def test_a_queue_that_stands_still_stands_still_after_a_migration() -> None:
    """As in QEMU: what the guest moved CREADR back to, or mended, runs when the guest says so."""
    adapter = CaseAdapter({}, "qemu")
    program(adapter, 0x4220_0000)
    put(
        adapter,
        Command(op.MAPC, icid=3, rdbase=3, valid=1),
        Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
        Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
        Command(op.INT, device=2, event=20),
    )
    assert adapter.ack(3) == 8195
    adapter.mmio_write("its", GITS_CREADR, 8, 0x60)
    adapter.migrate()
    assert adapter.mmio_read("its", GITS_CREADR, 8) == 0x60
    assert adapter.pending_all(3) == []
    adapter.mmio_write("its", GITS_CWRITER, 8, 0x80)
    assert adapter.pending_all(3) == [8195]
    adapter.close()


def test_a_stalled_queue_that_was_mended_waits_for_the_guest_after_a_migration() -> None:
    adapter = CaseAdapter({}, "qemu")
    program(adapter, 0x4220_0000)
    put(
        adapter,
        Command(op.MAPC, icid=3, rdbase=3, valid=1),
        Command(op.MAPD, device=5, size=3, itt=0x7000_0000_0000, valid=1),
        Command(op.MAPTI, device=5, event=1, intid=8230, icid=3),
    )
    assert adapter.mmio_read("its", GITS_CREADR, 8) == 0x41
    adapter.mem_write(QUEUE + 0x40, encode(Command(op.SYNC, rdbase=3)))
    adapter.migrate()
    assert adapter.mmio_read("its", GITS_CREADR, 8) == 0x41
    adapter.mmio_write("its", GITS_CWRITER, 8, 0x61)
    assert adapter.mmio_read("its", GITS_CREADR, 8) == 0x61
    adapter.close()
