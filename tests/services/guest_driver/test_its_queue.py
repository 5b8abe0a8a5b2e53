"""The command queue writer: wrap, the slot that stays empty, one CWRITER write a batch, time-outs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BackpressureError, CallError, LinkDownError
from common.gic import commands as op
from common.gic.commands import COMMAND_SIZE, Command, decode
from common.gic.registers import GITS_CREADR, GITS_CWRITER
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.guest_driver.its_queue import BACKLOG, CommandQueue, ItsDriverStats

BASE, SIZE = 0x1_0000, 0x1_0000


class SlowIts:
    """Reads the queue as an ITS does, at most ``pace`` commands for each look at CREADR; 0: never."""

    def __init__(self, pace: int) -> None:
        self.memory = GuestMemory(SIZE, BASE)
        self.pace = pace
        self.creadr = self.cwriter = 0
        self.ran: list[Command] = []
        self.writes = 0

    async def read(self, frame: str, offset: int, size: int) -> int:
        if offset == GITS_CWRITER:
            return self.cwriter
        for _ in range(self.pace):
            if self.creadr != self.cwriter:
                self.ran.append(decode(self.memory.read(BASE + self.creadr, COMMAND_SIZE)))
                self.creadr = (self.creadr + COMMAND_SIZE) % SIZE
        return self.creadr

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        if offset == GITS_CWRITER:
            self.writes += 1
            self.cwriter = value
        elif offset == GITS_CREADR:
            raise AssertionError("CREADR is read-only")


def queue(its: SlowIts, timeout: float = 10.0) -> tuple[CommandQueue, ItsDriverStats]:
    stats = ItsDriverStats()
    return CommandQueue(AsyncWorld(), its, its.memory, BASE, SIZE, timeout, stats), stats


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 2100), min_size=1, max_size=6))
async def test_every_command_runs_once_and_in_order(batches: list[int]) -> None:
    its = SlowIts(pace=700)
    commands, stats = queue(its)
    await commands.program()
    its.writes = 0
    sent = 0
    for count in batches:
        await commands.run([Command(op.INT, device=1, event=sent + n) for n in range(count)])
        sent += count
    assert [command.event for command in its.ran] == list(range(sent))
    assert its.creadr == its.cwriter == sent * COMMAND_SIZE % SIZE
    assert its.writes == sum(-(-count // (SIZE // 2 // COMMAND_SIZE)) for count in batches)
    assert (stats.commands, stats.batches) == (sent, len(batches))


async def test_an_its_that_does_not_move_is_a_time_out() -> None:
    its = SlowIts(pace=0)
    commands, stats = queue(its, timeout=0.01)
    for _ in range(4):  # fill it: the queue must never run over CREADR
        with pytest.raises(CallError, match="CREADR"):
            await commands.run([Command(op.SYNC, rdbase=2)] * 900)
    assert stats.timeouts == 4
    assert stats.queue_full > 0
    assert its.creadr == 0
    assert its.cwriter == 1800 * COMMAND_SIZE
    its.pace = 3000
    await commands.run([Command(op.SYNC, rdbase=3)])
    assert its.ran == [Command(op.SYNC, rdbase=2)] * 1800 + [Command(op.SYNC, rdbase=3)]


async def test_what_a_lost_link_cuts_off_is_bounded() -> None:
    class Down(SlowIts):
        async def write(self, frame: str, offset: int, size: int, value: int) -> None:
            raise LinkDownError("mmio")

        async def read(self, frame: str, offset: int, size: int) -> int:
            raise LinkDownError("mmio")

    commands, _ = queue(Down(pace=1))
    batch = [Command(op.SYNC)] * (BACKLOG // COMMAND_SIZE // 4)
    for _ in range(4):
        with pytest.raises(LinkDownError):
            await commands.run(batch)
    with pytest.raises(BackpressureError):
        await commands.run(batch)


async def test_an_empty_batch_writes_nothing() -> None:
    its = SlowIts(pace=1)
    commands, _ = queue(its)
    await commands.run(())
    assert its.writes == 0
