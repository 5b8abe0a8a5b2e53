"""EnableLPIs, configuration and pending tables (IHI 0069 §5.1, §12.11)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from common.errors import MemoryFaultError
from common.gic import commands as op
from common.gic.commands import Command
from common.gic.lpi import LPI_BASE, LPI_LIMIT, config_byte, pending_intids
from common.memory import GuestMemory
from services.gic_its.direct import DirectDma
from services.gic_its.profile import KVM, QEMU, Profile
from services.gic_its.redistributor import BATCH, STEP

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

CONFIG, PENDING = 0x4260_0000, 0x4270_0000
PENDING3 = PENDING + 3 * 0x20000


def bits(rig: Rig, vcpu: int) -> set[int]:
    """INTIDs that the pending table in memory has."""
    return set(pending_intids(rig.memory.read(PENDING + vcpu * 0x20000 + 1024, 0x1C00), 8192))


def intids(rig: Rig, vcpu: int) -> list[int]:
    return [lpi.intid for lpi in rig.its.redistributors[vcpu]]


class Counting(DirectDma):
    """Counts reads, and at each the LPIs taken since the one before; ``fault`` is the address that faults."""

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory)
        self.between: list[int] = []
        self.reads: list[tuple[int, int]] = []
        self.taken: list[tuple[int, int, int]] = []
        self.seen = self.fault = 0

    async def read(self, addr: int, length: int) -> bytes:
        self.reads.append((addr, length))
        self.between.append(len(self.taken) - self.seen)
        self.seen = len(self.taken)
        if addr == self.fault:
            raise MemoryFaultError("addr", hex(addr), None, "nowhere")
        return await super().read(addr, length)


def full(rigs: type[Rig]) -> tuple[Rig, Counting]:
    """One vCPU whose pending table is all ones."""
    made: list[Counting] = []

    def dma(memory: GuestMemory) -> Counting:
        made.append(Counting(memory))
        return made[0]

    rig = rigs(cpus=1, dma=dma)
    made[0].taken = rig.taken
    rig.memory.fill(PENDING, 0x2000, 0xFF)
    return rig, made[0]


async def test_a_pending_table_of_ones_is_taken_in_linear_time_and_in_slices(rigs: type[Rig]) -> None:
    rig, dma = full(rigs)
    began = time.process_time()
    await rig.start(ptz=False)
    took = time.process_time() - began
    assert [intid for _, intid, _ in rig.taken] == list(range(8192, 65536))
    assert dma.reads == (
        [(PENDING + at, STEP) for at in range(0x400, 0x2000, STEP)]
        + [(CONFIG + at, BATCH) for at in range(0, 0xE000, BATCH)]
    )
    assert max(dma.between) == BATCH
    assert took < 3  # CPU seconds: 0.3 to 0.6, and many when each INTID copies a tuple of all before it


async def test_a_fault_in_mid_table_keeps_what_was_read(rigs: type[Rig]) -> None:
    rig, dma = full(rigs)
    dma.fault = PENDING + 0x600
    await rig.start(ptz=False)
    assert intids(rig, 0) == list(range(8192, 8192 + STEP * 8))
    assert rig.its.stats.pending_faults == 1


async def test_a_fault_in_the_configuration_leaves_a_part_out(rigs: type[Rig]) -> None:
    rig, dma = full(rigs)
    dma.fault = CONFIG + BATCH
    await rig.start(ptz=False)
    assert len(rig.taken) == LPI_LIMIT - LPI_BASE - BATCH
    assert rig.its.stats.config_faults == 1


async def test_lpis_that_go_during_invall_are_left_out(rigs: type[Rig]) -> None:
    rig, dma = full(rigs)
    rig.its.hold()
    await rig.start(ptz=False)
    redistributor = rig.its.redistributors[0]
    gone = redistributor.lpi(60000)

    class Meanwhile(Counting):
        async def read(self, addr: int, length: int) -> bytes:
            if gone.pending:
                assert rig.its.control.in_slice is False
                gone.pending = gone.uncounted = gone.stored = False
                redistributor.forget_idle(gone)
            return await super().read(addr, length)

    dma.__class__ = Meanwhile
    rig.its.control.held = False
    await redistributor.refresh_all()
    assert len(rig.taken) == 65536 - 8192 - 1
    assert redistributor.find(60000) is None


async def test_invall_reads_nothing_while_lpis_are_off(rigs: type[Rig]) -> None:
    rig, dma = full(rigs)
    rig.its.hold()
    await rig.start(ptz=False)
    redistributor = rig.its.redistributors[0]
    redistributor.port.enabled = False
    dma.reads.clear()
    await redistributor.refresh_all()
    assert dma.reads == []


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
    assert intids(rig, 3) == [8195]


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


async def test_lpis_off_writes_the_pending_table_and_on_reads_it(mapped: Rig) -> None:
    its = mapped.its
    assert its.try_msi(2, 20, 1)
    assert its.try_msi(2, 20, 2)
    await mapped.write(0, 0, 4, "gicr3")
    assert mapped.done == []  # what it says is on its way to memory
    assert its.pending(3) == []
    assert bits(mapped, 3) == {8195}
    assert not its.try_msi(2, 20, 3)
    its.eoi(3, 8195, 1)
    assert mapped.taken == [(3, 8195, 1)]
    assert bits(mapped, 3) == {8195}
    await mapped.write(0x78, PENDING3, frame="gicr3")
    await mapped.write(0, 1, 4, "gicr3")
    assert mapped.taken == [(3, 8195, 1), (3, 8195, 0)]


async def test_what_a_vcpu_holds_while_lpis_go_off_is_not_left_behind(mapped: Rig) -> None:
    """Its bit is in the table then; it is software's affair, and no later write of the ITS brings it back."""
    its = mapped.its
    await mapped.run(Command(op.INT, device=2, event=20))
    await mapped.write(0, 0, 4, "gicr3")
    assert bits(mapped, 3) == {8195}
    mapped.memory.fill(PENDING3, 0x2000, 0)
    its.eoi(3, 8195, 0)
    assert bits(mapped, 3) == set()
    await mapped.write(0x78, PENDING3 | 1 << 62, frame="gicr3")
    await mapped.write(0, 1, 4, "gicr3")
    its.hold()
    await mapped.run(
        Command(op.MAPTI, device=2, event=21, intid=8196, icid=3),
        Command(op.INT, device=2, event=21),
    )
    assert bits(mapped, 3) == {8196}


async def test_lpis_off_leaves_nothing_of_what_nothing_leads_to(mapped: Rig) -> None:
    its = mapped.its
    its.hold()
    await mapped.run(
        Command(op.INT, device=2, event=20), Command(op.MAPD, device=2, valid=0), Command(op.INT, device=7, event=255)
    )
    await mapped.write(0, 0, 4, "gicr3")
    await mapped.write(0, 0, 4, "gicr3")
    assert intids(mapped, 3) == []
    assert bits(mapped, 3) == {8195}
    assert intids(mapped, 2) == [8196]


class TestStored:
    """The pending table in memory, while LPIs are on: what INT raised and nobody would raise again."""

    @pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
    async def test_what_rests_is_stored_and_cleared_when_it_is_delivered(
        self, rigs: type[Rig], profile: Profile
    ) -> None:
        rig = rigs(profile=profile)
        await rig.start()
        await rig.standard()
        its = rig.its
        its.hold()
        await rig.run(
            Command(op.MAPTI, device=2, event=21, intid=8193, icid=3),
            Command(op.INT, device=2, event=20),
            Command(op.INT, device=2, event=21),
        )
        assert bits(rig, 3) == {8193, 8195}
        await rig.run(Command(op.CLEAR, device=2, event=21))
        assert bits(rig, 3) == {8195}
        its.resume()
        assert rig.taken == [(3, 8195, 0)]
        assert bits(rig, 3) == set()
        await rig.run(Command(op.INT, device=2, event=20))
        assert bits(rig, 3) == {8195}  # once more, while the vCPU holds it
        its.eoi(3, 8195, 0)
        assert bits(rig, 3) == set()

    async def test_an_msi_is_not_stored_for_its_device_sends_it_again(self, mapped: Rig) -> None:
        mapped.its.hold()
        assert mapped.its.try_msi(2, 20, 1)
        await mapped.run(Command(op.SYNC))
        assert bits(mapped, 3) == set()
        await mapped.run(Command(op.INT, device=2, event=20))
        assert bits(mapped, 3) == {8195}

    async def test_what_was_taken_and_raised_by_its_device_is_not_stored_any_more(self, mapped: Rig) -> None:
        its = mapped.its
        its.hold()
        await mapped.run(Command(op.INT, device=2, event=20))
        assert bits(mapped, 3) == {8195}
        assert its.acknowledge(3) == (8195, 0)
        assert its.try_msi(2, 20, 1)
        await mapped.run(Command(op.SYNC))
        assert its.pending(3) == [8195]
        assert bits(mapped, 3) == set()

    async def test_what_moves_is_stored_where_it_is(self, mapped: Rig) -> None:
        mapped.its.hold()
        await mapped.run(Command(op.INT, device=2, event=20))
        await mapped.run(Command(op.MOVI, device=2, event=20, icid=2))
        assert (bits(mapped, 3), bits(mapped, 2)) == (set(), {8195})
        await mapped.run(Command(op.MOVALL, rdbase=2, rdbase2=1))
        assert (bits(mapped, 2), bits(mapped, 1)) == (set(), {8195})
        assert mapped.its.try_msi(2, 20, 1)
        assert mapped.its.pending(2) == [8195]
        await mapped.run(Command(op.MOVALL, rdbase=1, rdbase2=2))
        assert (bits(mapped, 2), bits(mapped, 1)) == ({8195}, set())

    async def test_what_is_saved_while_a_vcpu_holds_it_is_cleared_by_its_eoi(self, mapped: Rig) -> None:
        its = mapped.its
        assert its.try_msi(2, 20, 1)
        its.hold()
        its.redistributors[3].write_pending()
        assert bits(mapped, 3) == {8195}
        its.resume()
        its.eoi(3, 8195, 1)
        assert bits(mapped, 3) == set()

    async def test_lpis_beyond_idbits_have_no_place(self, rigs: type[Rig]) -> None:
        rig = rigs(cpus=1)
        await rig.start()
        rig.its.hold()
        await rig.run(
            Command(op.MAPD, device=2, size=7, itt=0x4300_0000, valid=1),
            Command(op.MAPC, icid=0, rdbase=0, valid=1),
            Command(op.MAPTI, device=2, event=0, intid=20000, icid=0),
            Command(op.MAPTI, device=2, event=1, intid=16383, icid=0),
        )
        await rig.write(0, 0, 4, "gicr0")
        await rig.write(0x70, 0x4260_000D, frame="gicr0")
        await rig.write(0, 1, 4, "gicr0")
        image = rig.memory.read(PENDING + 0x800, 0x2000)
        await rig.run(Command(op.INT, device=2, event=0), Command(op.INT, device=2, event=1))
        assert rig.its.pending(0) == [16383, 20000]  # KVM looks at IDbits when it maps
        rig.its.redistributors[0].write_pending()
        assert rig.memory.read(PENDING + 0x800, 0x2000) == image

    async def test_a_table_of_no_lpis_is_neither_read_nor_written(self, rigs: type[Rig]) -> None:
        rig = rigs(cpus=1)
        await rig.start()
        await rig.write(0, 0, 4, "gicr0")
        rig.memory.fill(PENDING, 0x2000, 0xFF)
        await rig.write(0x70, CONFIG | 12, frame="gicr0")
        await rig.write(0x78, PENDING, frame="gicr0")
        await rig.write(0, 1, 4, "gicr0")
        assert intids(rig, 0) == []
        await rig.write(0, 0, 4, "gicr0")
        assert rig.memory.read(PENDING, 0x2000) == b"\xff" * 0x2000


@pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
async def test_ptz_by_profile(rigs: type[Rig], profile: Profile) -> None:
    rig = rigs(profile=profile)
    rig.its.hold()
    rig.memory.write(PENDING3 + 1024, b"\x08")
    await rig.start()
    assert rig.its.pending(3) == ([] if profile is KVM else [8195])
    assert bool(await rig.read(0x78, frame="gicr3") >> 62 & 1) == (profile is QEMU)


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
    assert intids(rig, 0) == [16383, 20000]
    await rig.run(Command(op.DISCARD, device=2, event=1), Command(op.INVALL, icid=0))
    assert rig.its.stats.config_faults == 0
    assert intids(rig, 0) == [20000]
