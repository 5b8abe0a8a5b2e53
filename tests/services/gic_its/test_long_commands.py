"""Commands that walk over many events: others have their turn in between."""

from __future__ import annotations

import asyncio

import pytest

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command
from common.gic.lpi import LPI_BASE, config_byte
from common.memory import GuestMemory
from services.gic_its.commands import WORK
from services.gic_its.ordered import BITS
from services.gic_its.profile import KVM, QEMU, Profile
from services.gic_its.redistributor import BATCH
from tests.services.gic_its.conftest import CONFIG, ITT, QUEUE_PAGES, Rig
from tests.services.gic_its.dma_kinds import Turning

CWRITER = 0x88
#: What is walked over between two turns at most: WORK, and the rest of the group of events in which it is passed.
BOUND = WORK + (1 << BITS)
LPIS = 65536 - LPI_BASE


class Beside:
    """An actor that looks at the ITS at every turn; ``most`` is the largest step between two looks."""

    def __init__(self, rig: Rig, look: str) -> None:
        self.rig = rig
        self.look = look
        self.most = self.turns = 0
        self.confirmed = 0

    def count(self) -> int:
        its = self.rig.its
        match self.look:
            case "mapped":
                return its.control.events
            case "there":
                return sum(lpi.events for lpi in its.redistributors[1])
            case _:
                return len(its.pending(1))

    async def during(self, command: Command) -> None:
        rig = self.rig
        rig.queue(command)
        before = self.count()
        write = asyncio.create_task(rig.write(CWRITER, rig.at))
        while not write.done():
            await asyncio.sleep(0)
            self.turns += 1
            now = self.count()
            self.most = max(self.most, abs(now - before))
            before = now


async def big(devices: int = 1) -> Rig:
    """All LPIs mapped at collection 0, PE 0, over ``devices`` devices; and an event of device 100 at PE 3."""
    rig = Rig()
    await rig.start()
    room = QUEUE_PAGES * 4096 // COMMAND_SIZE - 1
    each = LPIS // devices
    commands = [
        *(Command(op.MAPD, device=n, size=15, itt=ITT, valid=1) for n in range(devices)),
        Command(op.MAPD, device=100, size=1, itt=ITT + 0x80000, valid=1),
        Command(op.MAPC, icid=0, rdbase=0, valid=1),
        Command(op.MAPC, icid=3, rdbase=3, valid=1),
        Command(op.MAPTI, device=100, event=0, intid=8192, icid=3),
        *(Command(op.MAPTI, device=n // each, event=n % each, intid=8192 + n, icid=0) for n in range(LPIS)),
    ]
    for at in range(0, len(commands), room):
        await rig.run(*commands[at : at + room])
    assert rig.its.control.events == LPIS + 1
    return rig


@pytest.mark.parametrize(
    ("command", "look"),
    [
        (Command(op.MAPD, device=0, size=15, valid=0), "mapped"),
        (Command(op.MAPD, device=0, size=15, itt=ITT, valid=1), "mapped"),
        (Command(op.MAPC, icid=0, rdbase=1, valid=1), "there"),
    ],
    ids=str,
)
async def test_a_walk_over_every_event_gives_turns(command: Command, look: str) -> None:
    rig = await big()
    beside = Beside(rig, look)
    await beside.during(command)
    assert 0 < beside.most <= BOUND
    assert beside.turns >= LPIS // BOUND


async def test_mapc_v0_gives_turns() -> None:
    rig = await big()
    its = rig.its
    redistributor = its.redistributors[0]
    before = sum(lpi.events for lpi in redistributor)
    most = 0
    rig.queue(Command(op.MAPC, icid=0, valid=0))
    write = asyncio.create_task(rig.write(CWRITER, rig.at))
    number = 0
    while not write.done():
        await asyncio.sleep(0)
        now = sum(lpi.events for lpi in redistributor)
        most, before = max(most, before - now), now
        number += 1
        assert its.try_msi(100, 0, number)  # translated all the while
        its.eoi(3, 8192, number)
    assert before == 0
    assert 0 < most <= BOUND
    assert rig.done == [(100, 0, n) for n in range(1, number + 1)]


async def test_movall_of_every_lpi_gives_turns() -> None:
    rig = await big()
    rig.its.hold()
    for event in range(LPIS):
        assert rig.its.try_msi(0, event, 1)
    beside = Beside(rig, "pending")
    await beside.during(Command(op.MOVALL, rdbase=0, rdbase2=1))
    assert 0 < beside.most <= BOUND
    assert len(rig.its.pending(1)) == LPIS
    assert rig.its.pending(0) == []


async def test_a_walk_that_finds_nothing_counts_too() -> None:
    """MAPC of a collection without events, beside many of another."""
    rig = await big(devices=32)
    turns = 0
    rig.queue(Command(op.MAPC, icid=7, rdbase=1, valid=1))
    write = asyncio.create_task(rig.write(CWRITER, rig.at))
    while not write.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= LPIS // BOUND // 2


async def test_a_storm_of_short_walks_gives_turns(mapped: Rig) -> None:
    await mapped.run(*(Command(op.MAPTI, device=7, event=n, intid=8300 + n, icid=2) for n in range(200)))
    mapped.queue(*(Command(op.MAPC, icid=2, rdbase=n % 2, valid=1) for n in range(200)))
    mapped.queue(Command(op.INT, device=7, event=3))
    write = asyncio.create_task(mapped.write(CWRITER, mapped.at))
    turns = 0
    while not write.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 200 * 200 // BOUND
    assert mapped.taken == [(1, 8303, 0)]


async def test_many_collections_that_go_end_their_slice_early() -> None:
    """Each of these commands rewrites the list from its place on."""
    rig = Rig()
    await rig.start()
    count = 900
    await rig.run(*(Command(op.MAPC, icid=n, rdbase=n % 4, valid=1) for n in range(count)))
    rig.queue(*(Command(op.MAPC, icid=n, valid=0) for n in range(count)))
    write = asyncio.create_task(rig.write(CWRITER, rig.at))
    most, before = 0, count
    while not write.done():
        await asyncio.sleep(0)
        now = len(rig.its.control.collections)
        most, before = max(most, (before - now) * before), now
    assert 0 < most <= WORK + count
    assert rig.its.control.collections == ()


@pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
async def test_invall_reads_in_batches_and_offers_each_before_the_next(rigs: type[Rig], profile: Profile) -> None:
    class Counting(Turning):
        def __init__(self, memory: GuestMemory) -> None:
            super().__init__(memory)
            self.seen = 0
            self.between: list[int] = []

        async def read(self, addr: int, length: int) -> bytes:
            if CONFIG <= addr < CONFIG + LPIS:
                assert length <= BATCH
                self.between.append(len(rig.taken) - self.seen)
                self.seen = len(rig.taken)
            return await super().read(addr, length)

    made: list[Counting] = []

    def dma(memory: GuestMemory) -> Counting:
        made.append(Counting(memory))
        return made[0]

    rig = rigs(cpus=1, dma=dma, profile=profile)
    await rig.start(enable=False)
    await rig.write(0, 0, 4, "gicr0")
    rig.memory.fill(0x4270_0000 + 1024, LPIS // 8, 0xFF)
    await rig.write(0x78, 0x4270_0000, frame="gicr0")
    rig.memory.fill(CONFIG, LPIS, config_byte(False))
    await rig.write(0, 1, 4, "gicr0")
    await rig.write(0, 1, 4)
    assert rig.taken == []
    rig.memory.fill(CONFIG, LPIS, config_byte(True))
    made[0].between.clear()
    await rig.run(Command(op.MAPC, icid=0, rdbase=0, valid=1), Command(op.INVALL, icid=0))
    assert len(rig.taken) == LPIS
    assert max(made[0].between) == BATCH
