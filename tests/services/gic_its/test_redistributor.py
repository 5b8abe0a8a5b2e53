"""EnableLPIs, configuration and pending tables (IHI 0069 §5.1, §12.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.lpi import config_byte

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

PENDING3 = 0x4270_0000 + 3 * 0x20000


async def test_pending_table_is_read_at_enable(rigs: type[Rig]) -> None:
    rig = rigs()
    rig.its.hold()
    rig.memory.write(PENDING3 + 1024, bytes([0b11000]))
    await rig.start(ptz=False)
    assert rig.its.pending(3) == [8195, 8196]
    await rig.standard()
    await rig.run(Command(op.CLEAR, device=2, event=20))
    assert rig.its.pending(3) == [8196]
    rig.its.resume()
    assert rig.taken == [(3, 8196, 0)]
    rig.its.eoi(3, 8196, 0)
    assert rig.its.redistributors[3].port.lpis == (8195,)


async def test_ptz_says_that_the_table_need_not_be_read(rigs: type[Rig]) -> None:
    rig = rigs()
    rig.memory.write(PENDING3 + 1024, b"\xff")
    await rig.start()
    assert rig.its.pending(3) == []


async def test_pending_table_nowhere(rigs: type[Rig]) -> None:
    rig = rigs(cpus=1)
    await rig.start()
    await rig.write(0, 0, 4, "gicr0")
    await rig.write(0x78, 0x7000_0000, frame="gicr0")
    await rig.write(0, 1, 4, "gicr0")
    assert rig.its.stats.pending_faults == 1
    assert await rig.read(0, 4, "gicr0") == 1


async def test_table_bases_are_fixed_while_lpis_are_enabled(rig: Rig) -> None:
    before = [await rig.read(offset, frame="gicr0") for offset in (0x70, 0x78)]
    for offset in (0x70, 0x78):
        await rig.write(offset, 0, frame="gicr0")
    assert [await rig.read(offset, frame="gicr0") for offset in (0x70, 0x78)] == before
    await rig.write(0, 1, 4, "gicr0")  # once more: nothing is read again
    assert await rig.read(0, 4, "gicr0") == 1


async def test_what_is_pending_while_off_comes_at_enable(mapped: Rig) -> None:
    its = mapped.its
    its.try_msi(2, 20, 1)
    its.try_msi(2, 20, 2)
    await mapped.write(0, 0, 4, "gicr3")
    its.eoi(3, 8195, 1)
    assert mapped.taken == [(3, 8195, 1)]
    await mapped.write(0, 1, 4, "gicr3")
    assert mapped.taken == [(3, 8195, 1), (3, 8195, 2)]


async def test_configuration_is_cached_until_inv(mapped: Rig) -> None:
    mapped.config(8195, config_byte(False))
    await mapped.run(Command(op.INT, device=2, event=20))
    assert mapped.taken == [(3, 8195, 0)]
    mapped.its.eoi(3, 8195, 0)
    await mapped.run(Command(op.INV, device=2, event=20), Command(op.INT, device=2, event=20))
    assert mapped.taken == [(3, 8195, 0)]
    assert mapped.its.pending(3) == [8195]


async def test_configuration_nowhere_leaves_it_as_it_was(mapped: Rig) -> None:
    await mapped.write(0, 0, 4, "gicr3")
    await mapped.write(0x70, 0x7000_000F, frame="gicr3")
    await mapped.write(0, 1, 4, "gicr3")
    await mapped.run(Command(op.INV, device=2, event=20), Command(op.INVALL, icid=3))
    assert mapped.its.stats.config_faults == 3
    assert mapped.its.try_msi(2, 20, 1)
    assert mapped.taken == [(3, 8195, 1)]


async def test_lpis_outside_propbaser_idbits(rigs: type[Rig]) -> None:
    rig = rigs(cpus=1)
    await rig.start()
    await rig.run(
        Command(op.MAPD, device=2, size=7, itt=0x4300_0000, valid=1),
        Command(op.MAPC, icid=0, rdbase=0, valid=1),
        Command(op.MAPTI, device=2, event=0, intid=20000, icid=0),
    )
    await rig.write(0, 0, 4, "gicr0")
    await rig.write(0x70, 0x4260_000D, frame="gicr0")  # 14 bits: 8192 to 16383
    await rig.write(0, 1, 4, "gicr0")
    await rig.run(
        Command(op.MAPTI, device=2, event=1, intid=16383, icid=0),
        Command(op.MAPTI, device=2, event=2, intid=16384, icid=0),
    )
    assert rig.its.errors.mapti_physicalid_oor == 1
    await rig.run(Command(op.INVALL, icid=0))
    assert list(rig.its.redistributors[0].port.lpis) == [16383, 20000]
    await rig.run(Command(op.DISCARD, device=2, event=1), Command(op.INVALL, icid=0))
    assert rig.its.stats.config_faults == 0
    assert list(rig.its.redistributors[0].port.lpis) == [20000]
