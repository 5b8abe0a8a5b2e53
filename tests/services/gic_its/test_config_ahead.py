"""Configuration bytes of a slice in a few reads; the same bytes as one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import MemoryFaultError
from common.gic import commands as op
from common.gic.commands import Command
from common.gic.lpi import config_byte
from common.memory import GuestMemory
from services.gic_its.config_ahead import GAP, READS
from services.gic_its.direct import DirectDma
from services.gic_its.profile import KVM, QEMU, Profile
from tests.services.gic_its.conftest import CONFIG, ITT, Rig

SIZE = 0xE000


class Counting(DirectDma):
    """Notes reads of the configuration table, as (first LPI, how many); those that touch ``bad`` fault."""

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory)
        self.reads: list[tuple[int, int]] = []
        self.bad = -1

    async def read(self, addr: int, length: int) -> bytes:
        if CONFIG <= addr < CONFIG + SIZE:
            self.reads.append((addr - CONFIG + 8192, length))
            if addr <= CONFIG + self.bad - 8192 < addr + length:
                raise MemoryFaultError("addr", addr)
        return await super().read(addr, length)


async def made(profile: Profile = KVM) -> tuple[Rig, Counting]:
    dmas: list[Counting] = []

    def dma(memory: GuestMemory) -> Counting:
        dmas.append(Counting(memory))
        return dmas[0]

    rig = Rig(profile=profile, dma=dma, cpus=2)
    await rig.start()
    await rig.run(Command(op.MAPD, device=1, size=15, itt=ITT, valid=1), Command(op.MAPC, icid=0, rdbase=1, valid=1))
    dmas[0].reads.clear()
    return rig, dmas[0]


def mapti(intid: int, event: int | None = None) -> Command:
    return Command(op.MAPTI, device=1, event=intid if event is None else event, intid=intid, icid=0)


async def test_a_slice_is_one_read() -> None:
    rig, dma = await made()
    await rig.run(*(mapti(8192 + n) for n in range(0, 60, 3)))
    assert dma.reads == [(8192, 58)]


async def test_far_ones_are_read_apart_and_the_rest_by_their_commands() -> None:
    rig, dma = await made()
    intids = [8192 + n * (GAP + 1) for n in range(READS + 2)]
    await rig.run(*map(mapti, intids))
    assert dma.reads == [(intid, 1) for intid in intids]
    dma.reads.clear()
    await rig.run(mapti(20000), mapti(20000 + GAP))
    assert dma.reads == [(20000, GAP + 1)]


async def test_one_alone_is_read_by_its_command() -> None:
    rig, dma = await made()
    await rig.run(mapti(8200), Command(op.SYNC))
    assert dma.reads == [(8200, 1)]
    await rig.run(mapti(8200, event=3))  # known already: events share it
    assert dma.reads == [(8200, 1)]


async def test_mapi_and_inv() -> None:
    rig, dma = await made()
    await rig.run(
        Command(op.MAPI, device=1, event=9000, icid=0),
        Command(op.MAPI, device=1, event=9001, icid=0),
        Command(op.MAPI, device=1, event=5, icid=0),
        mapti(70000, event=2),
    )
    assert dma.reads == [(9000, 2)]
    rig.config(9000, config_byte(False))
    dma.reads.clear()
    await rig.run(
        Command(op.INV, device=1, event=9000),
        Command(op.INV, device=1, event=9001),
        Command(op.INV, device=1, event=77),
        Command(op.INT, device=1, event=9000),
        Command(op.INT, device=1, event=9001),
    )
    assert dma.reads == [(9000, 2)]
    assert rig.taken == [(1, 9001, 0)]


async def test_a_part_that_cannot_be_read_is_left_to_its_command() -> None:
    rig, dma = await made()
    dma.bad = 8193
    rig.config(8300, config_byte(False))
    await rig.run(mapti(8192), mapti(8193), mapti(8300), mapti(10000), mapti(10001))
    assert dma.reads == [(8192, 109), (10000, 2), (8192, 1), (8193, 1), (8300, 1)]
    assert rig.its.stats.config_faults == 1
    for intid in (8192, 8193, 8300, 10000):
        assert rig.its.try_msi(1, intid, 1)
    assert [intid for _, intid, _ in rig.taken] == [8192, 10000]


async def test_bytes_are_of_one_slice_only() -> None:
    rig, dma = await made()
    await rig.run(mapti(8192), mapti(8193))
    rig.config(8192, config_byte(False))
    await rig.run(Command(op.INV, device=1, event=8192), Command(op.INT, device=1, event=8192))
    assert rig.taken == []
    assert dma.reads == [(8192, 2), (8192, 1)]


async def test_nothing_is_read_where_lpis_are_off() -> None:
    rig, dma = await made()
    await rig.write(0, 0, 4, "gicr0")
    await rig.run(mapti(8192), mapti(8193))
    assert dma.reads == [(8192, 2)]  # the base of a PE that has them on
    await rig.write(0, 0, 4, "gicr1")
    await rig.run(mapti(8194), mapti(8195))
    assert dma.reads == [(8192, 2)]


async def test_qemu_reads_nothing_ahead() -> None:
    rig, dma = await made(QEMU)
    await rig.run(mapti(8192), mapti(8193))
    assert dma.reads == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["map", "map", "inv", "int", "flip"]), st.integers(0, 1500)), max_size=60),
    st.integers(0, 1500),
)
async def test_it_makes_no_difference(steps: list[tuple[str, int]], bad: int) -> None:
    """In one batch or one command at a time: the same LPIs, in the same state."""
    rigs = [await made(), await made()]
    commands = []
    for kind, number in steps:
        if kind == "flip":
            for rig, _ in rigs:
                rig.config(8192 + number, config_byte(number % 2 == 0, number % 256 & 0xFC))
        else:
            code = {"map": op.MAPTI, "inv": op.INV, "int": op.INT}[kind]
            commands.append(Command(code, device=1, event=number, intid=8192 + number if kind == "map" else 0))
    for _, dma in rigs:
        dma.bad = 8192 + bad
    await rigs[0][0].run(*commands)
    for command in commands:
        await rigs[1][0].run(command)
    states = [
        [(lpi.intid, lpi.enabled, lpi.priority, lpi.configured, lpi.pending) for lpi in rig.its.redistributors[1]]
        for rig, _ in rigs
    ]
    assert states[0] == states[1]
    assert rigs[0][0].taken == rigs[1][0].taken


@pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
async def test_tables_at_different_places_are_told_apart(profile: Profile) -> None:
    """Each PE has the byte of its own table, where software breaks the rule that they are one (§5.1.1)."""
    rig, _ = await made(profile)
    await rig.write(0, 0, 4, "gicr1")
    await rig.write(0x70, 0x4280_0000 | 0xF, frame="gicr1")
    await rig.write(0, 1, 4, "gicr1")
    await rig.run(mapti(8192), mapti(8193), Command(op.INT, device=1, event=8192))
    assert rig.taken == []
    assert rig.its.pending(1) == [8192]
