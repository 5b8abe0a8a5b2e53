"""EnableLPIs, configuration and pending tables (IHI 0069 §5.1, §12.11)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from common.errors import MemoryFaultError
from common.gic import commands as op
from common.gic.commands import Command
from common.gic.lpi import config_byte
from common.memory import GuestMemory
from services.gic_its.direct import DirectDma
from services.gic_its.redistributor import BATCH

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

CONFIG, PENDING = 0x4260_0000, 0x4270_0000
PENDING3 = PENDING + 3 * 0x20000


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
        [(PENDING + at, 512) for at in range(0x400, 0x2000, 512)]
        + [(CONFIG + at, 4096) for at in range(0, 0xE000, 4096)]
    )
    assert max(dma.between) == BATCH
    assert took < 1  # CPU seconds: 0.1, and 2.8 when each INTID copied a tuple of all before it


async def test_a_fault_in_mid_table_keeps_what_was_read(rigs: type[Rig]) -> None:
    rig, dma = full(rigs)
    dma.fault = PENDING + 0x600
    await rig.start(ptz=False)
    assert intids(rig, 0) == list(range(8192, 8192 + BATCH))
    assert rig.its.stats.pending_faults == 1


async def test_lpis_that_go_during_invall_are_left_out(rigs: type[Rig]) -> None:
    rig, dma = full(rigs)
    rig.its.hold()
    await rig.start(ptz=False)
    redistributor = rig.its.redistributors[0]
    gone = redistributor.lpi(60000)

    class Meanwhile(Counting):
        async def read(self, addr: int, length: int) -> bytes:
            gone.pending = False
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
    assert intids(rig, 0) == [16383, 20000]
    await rig.run(Command(op.DISCARD, device=2, event=1), Command(op.INVALL, icid=0))
    assert rig.its.stats.config_faults == 0
    assert intids(rig, 0) == [20000]
