"""The command queue: writers of CWRITER, who waits for what, what else goes through the runner (IHI 0069 §5.3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, encode
from common.memory import GuestMemory
from services.gic_its.profile import KVM, QEMU, Profile
from tests.services.gic_its.conftest import ITT, QUEUE, QUEUE_PAGES, Rig
from tests.services.gic_its.dma_kinds import Turning, gated, turns

LAP = QUEUE_PAGES * 4096
CTLR, CBASER, CWRITER, CREADR, BASER0 = 0x0, 0x80, 0x88, 0x90, 0x100
INT_2_20 = Command(op.INT, device=2, event=20)
INT_7_255 = Command(op.INT, device=7, event=255)
SYNC = encode(Command(op.SYNC))

both = pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)


class Order:
    """A rig whose commands are told apart: each is an INT of an event of its own. ``ran`` has them in their order."""

    EVENTS = 4096

    def __init__(self, profile: Profile, dma: Callable[[GuestMemory], Turning] = Turning) -> None:
        self.rig = Rig(profile=profile, dma=dma, cpus=1)
        self.numbers = 0

    async def start(self) -> None:
        await self.rig.start()
        await self.rig.run(
            Command(op.MAPD, device=1, size=11, itt=ITT, valid=1), Command(op.MAPC, icid=0, rdbase=0, valid=1)
        )
        for first in range(0, self.EVENTS, 1024):
            await self.rig.run(
                *(Command(op.MAPTI, device=1, event=n, intid=8192 + n, icid=0) for n in range(first, first + 1024))
            )

    @property
    def ran(self) -> list[int]:
        return [intid - 8192 for _, intid, _ in self.rig.taken]

    def put(self, count: int) -> list[int]:
        """Queue ``count`` new commands without telling the ITS; their numbers."""
        numbers = list(range(self.numbers, self.numbers + count))
        self.numbers += count
        self.rig.queue(*(Command(op.INT, device=1, event=n) for n in numbers))
        return numbers


# --- many writers ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("seed", range(6))
async def test_every_command_runs_once_in_order_and_each_writer_waits_for_its_own(profile: Profile, seed: int) -> None:
    order = Order(profile)
    await order.start()
    rng = random.Random(seed)
    rig = order.rig
    late: list[int] = []

    async def writer() -> None:
        for _ in range(rng.randint(1, 12)):
            own = order.put(rng.choice((1, 2, 5, 70)))
            await rig.write(CWRITER, rig.at)
            ran = order.ran
            assert ran[-1] >= own[-1]
            late.append(ran[-1] - own[-1])
            await turns(rng.randint(0, 4))

    await asyncio.gather(*(writer() for _ in range(6)))
    assert order.ran == list(range(order.numbers))
    assert await rig.read(CREADR) == rig.at


async def test_a_writer_does_not_wait_for_commands_that_others_queue_later() -> None:
    order = Order(KVM)
    await order.start()
    rig = order.rig
    own = order.put(3)
    write = asyncio.create_task(rig.write(CWRITER, rig.at))
    ended = False
    while not ended:
        order.put(64)  # somebody else, all the time
        rig.its.post("its", CWRITER, 8, rig.at, lambda: None)
        ended = write.done()
        await asyncio.sleep(0)
        assert order.numbers < 1400
    assert order.ran[: len(own)] == own
    await rig.its.drain()
    assert order.ran == list(range(order.numbers))


@both
async def test_a_second_writer_runs_after_the_first_and_msis_come_between(profile: Profile) -> None:
    rig, gate = await gated(profile)
    start = rig.at
    gate.open = False
    rig.queue(INT_2_20)
    first = asyncio.create_task(rig.write(CWRITER, rig.at))
    await turns()
    rig.queue(INT_7_255)
    second = asyncio.create_task(rig.write(CWRITER, rig.at))
    await turns()
    assert len(gate.waiting) == 1
    assert await rig.read(CWRITER) == start + 0x40  # stored at once
    assert await rig.read(CREADR) == start
    if profile is KVM:
        assert rig.its.try_msi(7, 255, 1)
        assert rig.taken == [(2, 8196, 1)]
    while not first.done():
        gate.step()
        await turns()
    assert await rig.read(CREADR) == start + 0x20
    assert not second.done()
    gate.open = True
    gate.step()
    await second
    assert [taken for taken in rig.taken if taken[2] == 0] == [(3, 8195, 0), (2, 8196, 0)][: 2 - (profile is KVM)]
    assert await rig.read(CREADR) == start + 0x40


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([KVM, QEMU]))
async def test_a_rogue_writer_delays_others_by_a_lap_at_most(seed: int, profile: Profile) -> None:
    """One that moves CWRITER anywhere, all the time. Nobody waits for more than the queue is long."""
    rng = random.Random(seed)
    rig = Rig(dma=Turning, profile=profile, cpus=1)
    await rig.start()
    rig.memory.write(QUEUE, SYNC * (LAP // COMMAND_SIZE))
    its = rig.its
    for _ in range(4):
        begun = its.commands.command_sync
        write = asyncio.create_task(rig.write(CWRITER, rng.randrange(0, LAP, COMMAND_SIZE)))
        while not write.done():
            its.post("its", CWRITER, 8, rng.randrange(0, LAP, COMMAND_SIZE), lambda: None)
            await turns(rng.randint(1, 3))
        assert its.commands.command_sync - begun <= LAP // COMMAND_SIZE + 128  # and the slice that is under way


async def test_a_full_queue_waits_for_all_of_it() -> None:
    rig = Rig()
    await rig.start()
    await rig.run(*[SYNC] * (LAP // COMMAND_SIZE - 1))
    assert rig.its.commands.command_sync == LAP // COMMAND_SIZE - 1
    assert rig.its.queued == 0


async def test_the_queue_wraps(mapped: Rig) -> None:
    for _ in range(3):
        await mapped.run(*[SYNC] * 1500)
    assert mapped.its.commands.command_sync == 4500
    await mapped.run(INT_2_20)
    assert mapped.taken == [(3, 8195, 0)]


async def test_a_cwriter_that_moves_nothing_is_done_at_once(mapped: Rig) -> None:
    done: list[bool] = []
    mapped.its.post("its", CWRITER, 8, mapped.at, lambda: done.append(True))
    assert done == [True]
    mapped.its.post("its", 0x18, 4, 1, lambda: done.append(True))  # no register
    assert done == [True, True]


async def test_halves_of_cwriter(mapped: Rig) -> None:
    mapped.queue(INT_2_20)
    await mapped.write(CWRITER + 4, 0xFFFF_FFFF, 4)
    assert mapped.taken == []
    await mapped.write(CWRITER, mapped.at, 4)
    assert mapped.taken == [(3, 8195, 0)]


# --- other registers, in their turn ----------------------------------------------------------------------------------


@both
async def test_ctlr_waits_for_what_was_queued_before_it_and_cwriter_behind_it_waits(profile: Profile) -> None:
    rig, gate = await gated(profile)
    start = rig.at
    gate.open = False
    ended: list[str] = []
    rig.queue(INT_2_20)
    rig.its.post("its", CWRITER, 8, rig.at, lambda: ended.append("first"))
    rig.its.post("its", CTLR, 4, 0, lambda: ended.append("off"))
    rig.queue(INT_7_255)
    rig.its.post("its", CWRITER, 8, rig.at, lambda: ended.append("second"))
    await turns()
    assert ended == []
    assert await rig.read(CTLR, 4) & 1
    assert await rig.read(CWRITER) == start + 0x20
    gate.open = True
    gate.step()
    await rig.its.drain()
    assert ended == ["first", "off", "second"]
    assert rig.taken == [(3, 8195, 0)]
    assert (await rig.read(CWRITER), await rig.read(CREADR)) == (start + 0x40, start + 0x20)
    await rig.write(CTLR, 1, 4)
    assert rig.taken == [(3, 8195, 0), (2, 8196, 0)]


async def test_cbaser_and_basers_in_their_turn() -> None:
    rig, gate = await gated(KVM)
    its = rig.its
    ended: list[str] = []

    def post(name: str, offset: int, value: int, size: int = 8) -> None:
        its.post("its", offset, size, value, lambda: ended.append(name))

    gate.open = False
    rig.queue(INT_2_20)
    post("run", CWRITER, rig.at)
    post("fixed", CBASER, 0)  # enabled: dropped
    post("off", CTLR, 0, 4)
    post("baser", BASER0, 0)
    post("cbaser", CBASER, 1 << 63 | QUEUE | 3)
    post("past", CWRITER, 0x4000)
    post("back", BASER0, 1 << 63 | 2 << 8 | 0x4220_0007)
    rig.memory.write(QUEUE, encode(INT_7_255))
    post("on", CTLR, 1, 4)
    post("again", CWRITER, 0x20)
    await turns()
    assert ended == []
    gate.open = True
    gate.step()
    await its.drain()
    assert ended == ["run", "fixed", "off", "baser", "cbaser", "past", "back", "on", "again"]
    assert rig.taken == [(3, 8195, 0)]
    assert (await rig.read(CWRITER), await rig.read(CREADR)) == (0x20, 0x20)
    assert its.stats.cwriter_dropped == 1
    assert its.errors.int_unmapped_interrupt == 1  # the devices went with their table


async def test_commands_before_enable_run_at_enable_and_the_write_waits_for_them() -> None:
    rig = Rig(dma=Turning)
    await rig.start(enable=False)
    rig.queue(Command(op.MAPD, device=2, size=7, itt=ITT, valid=1))
    await rig.write(CWRITER, rig.at)
    assert await rig.read(CREADR) == 0
    assert await rig.read(CTLR, 4) == 0
    assert rig.its.queued == 1
    await rig.write(CTLR, 1, 4)
    assert await rig.read(CREADR) == 0x20
    assert await rig.read(CTLR, 4) == 1 << 31 | 1
    assert rig.its.commands.command_mapd == 1


async def test_drain_waits_for_the_queue_and_nothing_else() -> None:
    rig, gate = await gated(KVM)
    await rig.its.drain()
    gate.open = False
    rig.queue(INT_2_20)
    rig.its.post("its", CWRITER, 8, rig.at, lambda: None)
    drained = asyncio.create_task(rig.its.drain())
    await turns()
    assert not drained.done()
    gate.open = True
    gate.step()
    await drained
    assert rig.taken == [(3, 8195, 0)]
    await rig.write(CTLR, 0, 4)
    rig.queue(INT_2_20)
    await rig.write(CWRITER, rig.at)
    await rig.its.drain()
    assert rig.its.queued == 1


# --- what cannot be run ----------------------------------------------------------------------------------------------


@both
async def test_an_unreadable_queue_is_skipped_one_by_one(profile: Profile) -> None:
    rig = Rig(profile=profile)
    await rig.start(enable=False)
    edge = 0x4200_0000 + 0x120_0000 - 0x10000  # its last page is memory; then there is none
    await rig.write(CBASER, 1 << 63 | edge | 0x1F)
    await rig.write(CTLR, 1, 4)
    good = [Command(op.MAPC, icid=1, rdbase=1, valid=1), Command(op.SYNC)]
    for n, command in enumerate(good):
        rig.memory.write(edge + 0xFFC0 + n * 32, encode(command))
    await rig.write(CWRITER, 0xFFC0)
    before = rig.its.errors.unknown
    await rig.write(CWRITER, 0x10060)
    assert await rig.read(CREADR) == 0x10060
    assert rig.its.errors.unreadable == 3
    assert rig.its.errors.unknown == before
    assert (rig.its.commands.command_mapc, rig.its.commands.command_sync) == (1, 1)


class TestCwriterPastTheQueue:
    async def test_kvm_drops_it(self, mapped: Rig) -> None:
        before = await mapped.read(CWRITER)
        for beyond in (0x10000, 0x10020, 0xFFFE0):
            await mapped.write(CWRITER, beyond)
            assert await mapped.read(CWRITER) == before
        assert mapped.its.stats.cwriter_dropped == 3
        await mapped.write(CWRITER, 1 << 20 | mapped.at | 0x1F)
        assert await mapped.read(CWRITER) == before

    async def test_qemu_stores_it_and_nothing_runs(self) -> None:
        rig = Rig(profile=QEMU)
        await rig.start()
        await rig.standard()
        rig.queue(INT_2_20)
        for beyond in (0x10000, 0xFFFE0, 0x10000 | 0x1E):
            await rig.write(CWRITER, beyond)
            assert await rig.read(CWRITER) == beyond
            assert rig.its.queued == 0
        assert rig.taken == []
        await rig.write(CWRITER, 1 << 32 | rig.at)
        assert await rig.read(CWRITER) == 1 << 32 | rig.at
        assert rig.taken == [(3, 8195, 0)]


class TestStall:
    """qemu: a fault in a table stops the queue."""

    async def stalled(self) -> Rig:
        rig = Rig(profile=QEMU)
        await rig.start()
        await rig.standard()
        rig.memory.write(0x42200000 + 8 * 9, (1 | 7 << 1 | 0x7000_0000 >> 8 << 6).to_bytes(8, "little"))
        rig.queue(Command(op.MAPTI, device=9, event=0, intid=8200, icid=3), INT_2_20)
        await rig.write(CWRITER, rig.at)
        return rig

    async def test_the_queue_stalls_and_nobody_waits(self) -> None:
        rig = await self.stalled()
        assert await rig.read(CREADR) == rig.at - 0x40 | 1
        assert rig.its.errors.table_fault == 1
        assert rig.taken == []
        await rig.its.drain()
        assert await rig.read(CREADR) == rig.at - 0x40 | 1
        assert rig.its.errors.table_fault == 1

    @pytest.mark.parametrize("how", ["cwriter", "ctlr"])
    async def test_it_is_tried_again(self, how: str) -> None:
        rig = await self.stalled()

        async def retry() -> None:
            if how == "cwriter":
                await rig.write(CWRITER, rig.at | 1)  # Retry
            else:
                await rig.write(CTLR, 0, 4)
                await rig.write(CTLR, 1, 4)

        await retry()
        assert rig.its.errors.table_fault == 2
        assert await rig.read(CREADR) == rig.at - 0x40 | 1
        rig.memory.write(0x42200000 + 8 * 9, (1 | 7 << 1 | (ITT + 0x20000) >> 8 << 6).to_bytes(8, "little"))
        await retry()
        assert rig.taken == [(3, 8195, 0)]
        assert await rig.read(CREADR) == rig.at | 1  # Stalled sticks
        assert await rig.read(CWRITER) & 1 == 0
        await rig.run(INT_7_255)
        assert await rig.read(CREADR) == rig.at | 1
        await rig.write(CTLR, 0, 4)
        await rig.write(CBASER, await rig.read(CBASER))
        assert await rig.read(CREADR) == 0

    async def test_creadr_may_be_moved_and_nothing_runs_before_the_next_cwriter(self) -> None:
        rig = await self.stalled()
        await rig.write(CREADR, rig.at - 0x20)
        assert rig.taken == []
        assert await rig.read(CREADR) & ~1 == rig.at - 0x20
        await rig.its.drain()
        assert rig.taken == []
        await rig.write(CWRITER, rig.at)
        assert rig.taken == [(3, 8195, 0)]
        assert rig.its.stats.creadr_writes == 1

    async def test_kvm_never_stalls(self, mapped: Rig) -> None:
        await mapped.write(CREADR, 0x40)
        assert await mapped.read(CREADR) == mapped.at
        await mapped.write(CTLR, 0, 4)
        await mapped.write(BASER0, 1 << 63 | 2 << 8 | 0x7000_0000)
        await mapped.write(CTLR, 1, 4)
        await mapped.run(Command(op.MAPD, device=1, size=7, itt=ITT, valid=1))
        assert mapped.its.errors.mapd_device_oor == 1
