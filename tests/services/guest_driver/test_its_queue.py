"""The command queue writer: wrap, the slot that stays empty, one CWRITER write a batch, many vCPUs, time-outs."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CallError
from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, decode
from common.gic.registers import GITS_CBASER, GITS_CREADR, GITS_CWRITER
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.guest_driver.its_queue import MAX_BATCHES, CommandQueue, ItsDriverStats

BASE, SIZE = 0x1_0000, 0x1_0000


class SlowIts:
    """Reads the queue as an ITS does, at most ``pace`` commands for each look at CREADR; 0: never. Each look takes a
    turn of the loop, and ``away`` seconds once."""

    def __init__(self, pace: int) -> None:
        self.memory = GuestMemory(SIZE, BASE)
        self.pace = pace
        self.away = 0.0
        self.creadr = self.cwriter = 0
        self.ran: list[Command] = []
        self.writes = 0
        self.looks = self.most_looks = 0

    async def read(self, frame: str, offset: int, size: int) -> int:
        assert offset == GITS_CREADR
        self.looks += 1
        self.most_looks = max(self.most_looks, self.looks)
        away, self.away = self.away, 0.0
        await asyncio.sleep(away)
        self.looks -= 1
        for _ in range(self.pace):
            if self.creadr != self.cwriter:
                self.ran.append(decode(self.memory.read(BASE + self.creadr, COMMAND_SIZE)))
                self.creadr = (self.creadr + COMMAND_SIZE) % SIZE
        return self.creadr

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        if offset == GITS_CBASER:
            self.creadr = 0
        else:
            assert (offset, value) == (GITS_CWRITER, 0)
            self.cwriter = 0

    def post_write(self, frame: str, offset: int, size: int, value: int) -> None:
        assert (frame, offset, size) == ("its", GITS_CWRITER, 8)
        self.writes += 1
        self.cwriter = value


def queue(its: SlowIts, timeout: float = 10.0) -> tuple[CommandQueue, ItsDriverStats]:
    stats = ItsDriverStats()
    return CommandQueue(AsyncWorld(), its, its.memory, BASE, SIZE, timeout, stats), stats


def ints(first: int, count: int) -> list[Command]:
    return [Command(op.INT, device=1, event=first + n) for n in range(count)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 2100), min_size=1, max_size=6))
async def test_every_command_runs_once_and_in_order(batches: list[int]) -> None:
    its = SlowIts(pace=700)
    commands, stats = queue(its)
    await commands.program()
    sent = 0
    for count in batches:
        await commands.run(ints(sent, count))
        sent += count
        assert len(its.ran) == sent, "run() waits for the end"
    assert [command.event for command in its.ran] == list(range(sent))
    assert its.creadr == its.cwriter == sent * COMMAND_SIZE % SIZE
    assert its.writes == sum(-(-count // (SIZE // 2 // COMMAND_SIZE)) for count in batches)
    assert (stats.commands, stats.batches) == (sent, len(batches))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=2, max_size=12), st.integers(100, 2000))
async def test_many_vcpus_queue_at_once(batches: list[int], pace: int) -> None:
    """Each batch stands in one piece, in the order in which the vCPUs came; nobody returns before its own has run."""
    its = SlowIts(pace)
    commands, stats = queue(its)
    order: list[int] = []

    async def vcpu(number: int) -> None:
        batch = [Command(op.INT, device=number, event=n) for n in range(batches[number])]
        target = await commands.post(batch)
        order.append(number)
        await commands.wait(target)
        assert sum(command.device == number for command in its.ran) == len(batch)

    async with asyncio.timeout(20), asyncio.TaskGroup() as vcpus:
        for number in range(len(batches)):
            vcpus.create_task(vcpu(number))
    assert order == sorted(order)
    assert [(c.device, c.event) for c in its.ran] == [(d, e) for d, n in enumerate(batches) for e in range(n)]
    assert its.most_looks == 1, "an older CREADR must not come after a newer one"
    assert stats.batches == len(batches)


async def test_post_does_not_wait_for_the_its() -> None:
    its = SlowIts(pace=0)
    commands, stats = queue(its)
    targets = [await commands.post(ints(n, 1)) for n in range(3)]
    assert targets == [32, 64, 96]
    assert (its.cwriter, its.writes, stats.creadr_polls) == (96, 3, 0)
    its.pace = 2
    await commands.wait(targets[1])
    assert len(its.ran) == 2
    await commands.wait(targets[0])
    assert stats.creadr_polls == 1, "known to have run"


async def test_one_look_serves_all_who_wait() -> None:
    its = SlowIts(pace=8)
    commands, stats = queue(its)
    targets = [await commands.post(ints(n, 1)) for n in range(8)]
    await asyncio.gather(*(commands.wait(target) for target in targets))
    assert stats.creadr_polls == 1


async def test_batches_that_the_its_has_not_run_are_bounded() -> None:
    """Each is a write that waits for its answer at the other end."""
    its = SlowIts(pace=0)
    commands, _ = queue(its, timeout=0.01)
    for number in range(MAX_BATCHES):
        await commands.post(ints(number, 1))
    with pytest.raises(CallError, match="CREADR"):
        await commands.post(ints(MAX_BATCHES, 1))
    assert its.writes == MAX_BATCHES
    its.pace = 1
    await commands.run(ints(MAX_BATCHES, 1))
    assert [command.event for command in its.ran] == list(range(MAX_BATCHES + 1))


async def test_an_its_that_does_not_move_is_a_time_out() -> None:
    its = SlowIts(pace=0)
    commands, stats = queue(its, timeout=0.01)
    for _ in range(4):  # fill it: the queue must never run over CREADR
        with pytest.raises(CallError, match="CREADR"):
            await commands.run([Command(op.SYNC, rdbase=2)] * 900)
    assert stats.timeouts == 4
    assert stats.queue_full == 2
    assert its.creadr == 0
    assert its.cwriter == 1800 * COMMAND_SIZE
    its.pace = 3000
    await commands.run([Command(op.SYNC, rdbase=3)])
    assert its.ran == [Command(op.SYNC, rdbase=2)] * 1800 + [Command(op.SYNC, rdbase=3)]


async def test_the_slot_before_creadr_stays_empty() -> None:
    its = SlowIts(pace=0)
    commands, stats = queue(its, timeout=0.01)
    await commands.post(ints(0, 1024))
    await commands.post(ints(1024, 1023))
    assert (its.cwriter, stats.queue_full) == (SIZE - COMMAND_SIZE, 0)
    with pytest.raises(CallError):
        await commands.post(ints(2047, 1))
    assert its.cwriter == SIZE - COMMAND_SIZE


async def test_an_its_that_moves_now_and_then_is_waited_for() -> None:
    its = SlowIts(pace=1)
    commands, stats = queue(its, timeout=0.05)
    await commands.run(ints(0, 100))  # a command each 2 ms: four time-outs long
    assert stats.timeouts == 0


async def test_an_its_that_was_away_had_no_time_to_move() -> None:
    its = SlowIts(pace=0)
    commands, stats = queue(its, timeout=0.05)
    its.away = 0.2

    async def back() -> None:
        await asyncio.sleep(0.23)
        its.pace = 1

    task = asyncio.get_running_loop().create_task(back())
    await commands.run(ints(0, 1))
    await task
    assert stats.timeouts == 0


async def test_a_creadr_past_cwriter_is_not_believed() -> None:
    its = SlowIts(pace=0)
    commands, _ = queue(its, timeout=0.01)
    its.creadr = 96
    with pytest.raises(CallError, match="CREADR"):
        await commands.run(ints(0, 2))
    its.creadr = 64
    await commands.run(())


async def test_who_waits_for_what_was_in_a_queue_that_is_programmed_anew_waits_no_more() -> None:
    its = SlowIts(pace=0)
    commands, _ = queue(its)
    target = await commands.post(ints(0, 5))
    task = asyncio.get_running_loop().create_task(commands.wait(target))
    await asyncio.sleep(0)
    await commands.program()
    async with asyncio.timeout(5):
        await task
    its.pace = 1
    await commands.run(ints(7, 3))
    assert ([command.event for command in its.ran], its.creadr) == ([7, 8, 9], 96), "it begins at its base"


async def test_an_empty_batch_writes_nothing() -> None:
    its = SlowIts(pace=1)
    commands, stats = queue(its)
    await commands.run(())
    assert (its.writes, stats.batches) == (0, 0)
