"""The guest's end of the ITS link over loopback: MMIO out, commits, DMA and LPIs in, what an ITS must not ask for; and
what MMIO does while the ITS is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from common.errors import BackpressureError, LinkDownError, RingError
from common.gic.registers import GICR_CTLR, GITS_CBASER, GITS_CTLR, GITS_CWRITER, GITS_TRANSLATER, GITS_TYPER
from common.gic.vmm_ops import CTRL_RESET, RESTORE_TABLES, RUN_VCPUS, SET_ITS_REG, STOP_VCPUS
from common.wire.limits import MAX_DMA
from common.wire.messages import (
    Call,
    DmaCommit,
    DmaData,
    DmaRead,
    Eoi,
    Lpi,
    MmioDone,
    MmioRead,
    MmioWrite,
    Return,
)
from services.guest_driver.its_link import MAX_COMMIT, MAX_POSTED
from tests.services.guest_driver.its_peer import BASE, SIZE, Bench
from tests.services.guest_driver.mesh_rig import until, within


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    await made.close()


# --- DMA ----------------------------------------------------------------------------------------------------------


async def test_a_commit_is_one_step(bench: Bench) -> None:
    bench.memory.fill(BASE, 64, 0xFF)
    bench.vcpus.raised(bench.line, 1)
    seen: list[bytes] = []
    bench.line.handler = lambda: seen.append(bench.memory.read(BASE, 8))
    writes: list[tuple[int, bytes | int]] = [(BASE, 4), (BASE + 1, b"ab"), (BASE + 2, b"c"), (BASE + 40, 0)]
    heard = await bench.ask(DmaCommit(64, writes, [(1, 8192, 1), (0, 8192, 1)]), DmaRead(1, BASE, 8))
    assert heard == [Eoi(1, 8192, 1), DmaData(1, b"\0ac\0\xff\xff\xff\xff")], "what is not ours is not ended"
    assert seen == [b"\0ac\0\xff\xff\xff\xff"], "the writes come first"
    stats = bench.its_link.stats
    assert (stats.dma_commits, stats.dma_writes, stats.dma_faults) == (1, 4, 0)


async def test_dma_reads(bench: Bench) -> None:
    bench.memory.write(BASE + 5, b"hello")
    heard = await bench.ask(DmaRead(1, BASE + 4, 7), DmaRead(2, BASE, MAX_DMA))
    assert heard[0] == DmaData(1, b"\0hello\0")
    assert len(heard[1].data) == MAX_DMA
    assert bench.its_link.stats.dma_reads == 3


@pytest.mark.parametrize("addr", [0, -8, BASE - 1, BASE + SIZE - 3, (1 << 64) - 2])
async def test_dma_out_of_bounds(bench: Bench, addr: int) -> None:
    before = bench.memory.read(BASE, 64), bench.memory.read(BASE + SIZE - 64, 64)
    commit = DmaCommit(32, [(addr, b"\xff" * 4), (addr, 4), (BASE + 128, b"x")], [])
    assert await bench.ask(DmaRead(1, addr, 4), commit) == [DmaData(1, None)]
    assert bench.its_link.stats.dma_faults == 3
    assert (bench.memory.read(BASE, 64), bench.memory.read(BASE + SIZE - 64, 64)) == before
    assert bench.memory.read(BASE + 128, 1) == b"x", "a write that misses costs the others nothing"
    assert bench.its.downs == 0, "a fault is the ITS's to handle"


@pytest.mark.parametrize("length", [0, -1, MAX_DMA + 1, 1 << 40])
async def test_dma_of_a_length_that_cannot_be(bench: Bench, length: int) -> None:
    bench.its.link.send(DmaRead(1, BASE, length))
    await until(lambda: bench.its.downs)
    assert bench.its.heard == []
    await until(lambda: bench.its.ups == 2)


@pytest.mark.parametrize(
    ("creadr", "writes"),
    [
        (16, []), (-32, []), (1 << 20, []), (0, [(BASE, -1)]), (0, [(BASE, b"no"), (BASE, -1 << 63)]),
    ],
)  # fmt: skip
async def test_commits_that_cannot_be_are_refused_whole(
    bench: Bench, creadr: int, writes: list[tuple[int, bytes | int]]
) -> None:
    bench.memory.write(BASE, b"as it was")
    bench.its.link.send(DmaCommit(creadr, writes, [(1, 8192, 0)]))
    await until(lambda: bench.its.ups == 2)
    assert bench.memory.read(BASE, 9) == b"as it was"
    assert (bench.its.heard, bench.ran, bench.its_link.stats.dma_commits) == ([], 0, 0)


async def test_more_zeros_than_there_is_memory_are_a_fault(bench: Bench) -> None:
    bench.memory.write(BASE, b"as it was")
    await bench.ask(DmaCommit(0, [(BASE, SIZE + 1), (BASE, 1 << 63), (BASE + 2, 1)], []))
    assert bench.memory.read(BASE, 9) == b"as\0it was"
    assert (bench.its_link.stats.dma_faults, bench.its.downs) == (2, 0)


async def test_a_commit_of_several_frames(bench: Bench) -> None:
    """It takes effect with the last one; what a broken link leaves of it does not."""
    bench.vcpus.raised(bench.line, 1)
    first = DmaCommit(32, [(BASE, b"first")], [(1, 8192, 1)], last=False)
    assert await bench.ask(first) == []
    assert (bench.memory.read(BASE, 5), bench.its_link.stats.dma_commits) == (bytes(5), 0)
    await bench.break_link()
    await bench.ask(DmaCommit(64, [(BASE + 8, b"a")], [], last=False))
    assert await bench.ask(DmaCommit(64, [(BASE + 9, b"b")], [(1, 8192, 1)])) == [Eoi(1, 8192, 1)]
    assert bench.memory.read(BASE, 10) == bytes(8) + b"ab"
    assert (bench.its_link.stats.dma_commits, bench.its_link.stats.dma_writes) == (1, 2)


@pytest.mark.parametrize("data", [bytes(MAX_DMA), 0], ids=["bytes", "zeros"])
async def test_a_commit_without_an_end_is_refused(bench: Bench, data: bytes | int) -> None:
    part = DmaCommit(0, [(BASE, data)] * (1 if data else 8192), [], last=False)
    frames = MAX_COMMIT // (MAX_DMA if data else 8 * 8192)
    for _ in range(frames):
        await bench.ask(part)
    assert bench.its.downs == 0
    bench.its.link.send(part)
    await until(lambda: bench.its.ups == 2)
    assert await bench.ask(DmaCommit(0, [], [])) == []
    assert bench.its_link.stats.dma_writes == 0


async def test_commits_are_bounded_one_by_one(bench: Bench) -> None:
    whole = DmaCommit(0, [(BASE, bytes(MAX_DMA))], [])
    for _ in range(MAX_COMMIT // MAX_DMA + 1):
        await bench.ask(whole)
    await bench.ask(DmaCommit(0, [(BASE, b"part")], [], last=False), DmaCommit(0, [], []))
    assert (bench.memory.read(BASE, 4), bench.its.downs) == (b"part", 0)


async def test_a_commit_may_zero_all_of_memory(bench: Bench) -> None:
    bench.memory.fill(BASE, SIZE, 1)
    await bench.ask(DmaCommit(0xFFFE1, [(BASE, SIZE)], []))
    assert bench.memory.read(BASE, SIZE) == bytes(SIZE)


# --- LPIs ---------------------------------------------------------------------------------------------------------


async def test_lpis_are_taken_and_ended(bench: Bench) -> None:
    bench.vcpus.raised(bench.line, 1)
    bench.vcpus.raised(bench.line, 2)
    heard = await bench.ask(Lpi(1, 8192, 2), Lpi(0, 8192, 2), Lpi(1, 9000, 1), Lpi(1, 8192, 3), Lpi(1, 8192, 0))
    assert heard == [Eoi(1, 8192, 2), Eoi(1, 8192, 0)], "what is not ours is not ended; commands count nothing"
    assert bench.ran == 2
    assert (bench.vcpus.corrupted, bench.vcpus.duplicated) == (3, 0)


async def test_a_handler_that_fails_costs_the_its_nothing(bench: Bench) -> None:
    def handler() -> None:
        raise RingError("used.idx", 9, 4)

    bench.line.handler = handler
    bench.vcpus.raised(bench.line, 1)
    assert await bench.ask(Lpi(1, 8192, 1)) == [Eoi(1, 8192, 1)]
    assert (bench.line.failed, bench.its.downs) == (1, 0)


async def test_an_its_that_was_away_may_deliver_again(bench: Bench) -> None:
    bench.vcpus.raised(bench.line, 1)
    await bench.ask(Lpi(1, 8192, 1))
    await bench.break_link()
    await bench.ask(Lpi(1, 8192, 1))
    assert (bench.line.repeated, bench.vcpus.duplicated) == (1, 0)


# --- MMIO ---------------------------------------------------------------------------------------------------------


async def test_mmio(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    read = loop.create_task(bench.its_link.read("its", 8, 8))
    write = loop.create_task(bench.its_link.write("gicr0", 0x70, 4, 7))
    await until(lambda: len(bench.its.heard) == 2)
    first, second = bench.its.heard
    assert (type(first), first.frame, first.offset, first.size) == (MmioRead, "its", 8, 8)
    assert (type(second), second.frame, second.offset, second.size, second.value) == (MmioWrite, "gicr0", 0x70, 4, 7)
    assert not write.done()
    for done in (MmioDone(second.seq, 0), MmioDone(77, 1), MmioDone(first.seq, 0x1234), MmioDone(first.seq, 5)):
        bench.its.link.send(done)
    assert await within(read) == 0x1234
    await within(write)


async def test_posted_writes(bench: Bench) -> None:
    for value in range(MAX_POSTED):
        bench.its_link.post_write("its", GITS_CWRITER, 8, value)
    with pytest.raises(BackpressureError):
        bench.its_link.post_write("its", GITS_CWRITER, 8, 0)
    await until(lambda: len(bench.its.heard) == MAX_POSTED)
    assert [message.value for message in bench.its.heard] == list(range(MAX_POSTED))
    await bench.ask(MmioDone(bench.its.heard[0].seq, 0), MmioDone(bench.its.heard[0].seq, 0))
    stats = bench.its_link.stats
    assert (stats.posted, stats.posted_done) == (MAX_POSTED, 1)
    bench.its_link.post_write("its", GITS_CWRITER, 8, 0)


async def test_an_access_that_was_given_up(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    given_up, access = (loop.create_task(bench.its_link.read("its", 8, 8)) for _ in range(2))
    await until(lambda: len(bench.its.heard) == 2)
    first, second = bench.its.heard
    given_up.cancel()
    bench.its.link.send(MmioDone(first.seq, 0))
    bench.its.link.send(MmioDone(second.seq, 9))
    assert await within(access) == 9
    await bench.server.close()
    waiting = loop.create_task(bench.its_link.write("gicr0", GICR_CTLR, 4, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    bench.its.heard.clear()
    await bench.serve(6)
    await until(lambda: bench.its.ups == 2)
    assert await bench.ask() == [], "nor does one go out that nobody waits for any more"
    assert not bench.its_link.shadow.programmed


# --- an ITS that was away -----------------------------------------------------------------------------------------


async def test_a_guest_that_has_programmed_nothing_restores_nothing(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    read, given_up = (loop.create_task(bench.its_link.read("its", offset, 8)) for offset in (GITS_TYPER, 0))
    await until(lambda: len(bench.its.heard) == 2)
    given_up.cancel()
    bench.its.answers = True
    await bench.break_link()
    assert await within(read) == GITS_TYPER
    assert bench.its.mmio(MmioRead) == [("its", GITS_TYPER)]
    assert (bench.its.ops, bench.its_link.stats.mmio_again, bench.its_link.stats.restores) == ([], 1, 0)


async def test_mmio_waits_for_an_its_that_is_away(bench: Bench) -> None:
    await bench.server.close()
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(bench.its_link.write("gicr0", 0x70 + 8 * n, 8, n)) for n in range(2)]
    await asyncio.sleep(0)
    bench.its_link.post_write("its", GITS_CBASER, 8, 0)
    bench.its.answers = True
    await bench.serve(6)
    for task in tasks:
        await within(task)
    assert bench.its.mmio() == [("gicr0", 0x70), ("gicr0", 0x78), ("its", GITS_CBASER)], "in their order"
    assert bench.its_link.stats.mmio_waited == 3
    assert bench.its_link.shadow.restore_calls()[-2][1] == (0x90, 0), "recorded when they went out"


async def test_the_its_is_restored_before_mmio_goes_on(bench: Bench) -> None:
    """Of what was under way, writes are done with the restore; reads and MSIs are sent again."""
    await bench.enable()
    await bench.ask(DmaCommit(96, [], []))
    bench.its.answers = False
    heard = len(bench.its.heard)
    loop = asyncio.get_running_loop()
    write = loop.create_task(bench.its_link.write("its", GITS_CWRITER, 8, 128))
    msi = loop.create_task(bench.its_link.write("trans", GITS_TRANSLATER, 4, 3))
    read = loop.create_task(bench.its_link.read("its", GITS_TYPER, 8))
    await asyncio.sleep(0)
    bench.its_link.post_write("its", GITS_CWRITER, 8, 160)
    await until(lambda: len(bench.its.heard) == heard + 4)
    bench.its.call = lambda op, _args: None if op == RUN_VCPUS else (0, None)
    await bench.break_link()
    late = loop.create_task(bench.its_link.write("its", GITS_CWRITER, 8, 192))
    await until(lambda: RUN_VCPUS in bench.its.ops)
    calls = [(m.op, *m.args) for m in bench.its.heard]
    assert [calls[0], calls[1], calls[-3], calls[-2]] == [
        (STOP_VCPUS,), (CTRL_RESET,), (RESTORE_TABLES,), (SET_ITS_REG, GITS_CTLR, 1),
    ]  # fmt: skip
    assert {(SET_ITS_REG, 0x88, 160), (SET_ITS_REG, 0x90, 96)} <= set(calls)
    await bench.ask()
    assert not any(task.done() for task in (write, msi, read, late)), "vCPUs are stopped"
    assert bench.its.mmio() == bench.its.mmio(MmioRead) == []
    bench.its.answers = True
    await bench.ask(Return(bench.its.heard[len(calls) - 1].seq, 0, None))
    assert await within(read) == GITS_TYPER
    for task in (write, msi, late):
        await within(task)
    assert bench.its.mmio() == [("trans", GITS_TRANSLATER), ("its", GITS_CWRITER)]
    stats = bench.its_link.stats
    assert (stats.restores, stats.restore_refused, stats.mmio_again) == (1, 0, 2)
    assert (stats.posted, stats.posted_done) == (1, 1)


async def test_a_link_that_breaks_while_the_its_is_restored(bench: Bench) -> None:
    await bench.enable()
    broken = False

    def call(op: str, _args: object) -> tuple[int, None] | None:
        nonlocal broken
        if op == RESTORE_TABLES and not broken:
            broken = True
            bench.its.link.close("test")
            return None
        return 0, None

    bench.its.call = call
    bench.its.answers = False
    write = asyncio.get_running_loop().create_task(bench.its_link.write("its", GITS_CWRITER, 8, 32))
    await until(lambda: ("its", GITS_CWRITER) in bench.its.mmio())
    await bench.break_link()
    await within(write)
    ops = bench.its.ops
    assert broken
    assert (ops.count(STOP_VCPUS), ops.count(RESTORE_TABLES), ops.count(RUN_VCPUS)) == (2, 2, 1), "from the beginning"
    assert bench.its_link.stats.restores == 1


async def test_an_its_that_refuses_is_the_drivers(bench: Bench) -> None:
    await bench.enable()
    bench.its.call = lambda op, _args: (22, "next past the table") if op == RESTORE_TABLES else (0, None)
    await bench.break_link()
    await until(lambda: bench.refused == 1)
    assert bench.its.ops[-3:] == [RESTORE_TABLES, CTRL_RESET, RUN_VCPUS], "what comes after is left out"
    assert bench.its_link.shadow.restore_calls()[2:-1] == [], "it is as after a reset"
    await bench.enable()
    await bench.break_link()
    await until(lambda: bench.refused == 2)
    stats = bench.its_link.stats
    assert (stats.restores, stats.restore_refused) == (0, 2)
    assert [line[2]["error"] for line in bench.log.lines] == [f"{RESTORE_TABLES} = 22: next past the table"], (
        "logged once"
    )


async def test_an_its_that_refuses_everything_while_its_link_breaks(bench: Bench) -> None:
    """To another link's ITS nothing is restored any more: the driver programs it, too."""
    await bench.enable()

    def call(op: str, _args: object) -> tuple[int, str] | None:
        if op == STOP_VCPUS:
            return 16, "busy"
        if op == CTRL_RESET:
            bench.its.link.close("test")
        return 0, ""

    bench.its.call = call
    await bench.break_link()
    await until(lambda: bench.its.ups == 3)
    await within(bench.its_link.write("gicr0", GICR_CTLR, 4, 1))
    assert (bench.refused, bench.its_link.stats.restore_refused) == (1, 1)


# --- vCPUs that the VMM has stopped -------------------------------------------------------------------------------


async def test_hold_waits_for_what_is_under_way(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    under_way = loop.create_task(bench.its_link.read("its", 8, 8))
    await until(lambda: bench.its.heard)
    hold = loop.create_task(bench.its_link.hold())
    later = loop.create_task(bench.its_link.read("its", 0, 4))
    await bench.ask()
    assert not hold.done()
    bench.its.answers = True
    await bench.ask(MmioDone(bench.its.heard[0].seq, 1))
    await within(hold)
    assert await within(under_way) == 1
    assert len(bench.its.mmio(MmioRead)) == 1
    bench.its_link.release()
    assert await within(later) == 0
    bench.its_link.release()


async def test_hold_ends_with_the_link(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    access = loop.create_task(bench.its_link.read("its", 8, 8))
    await until(lambda: bench.its.heard)
    hold = loop.create_task(bench.its_link.hold())
    await asyncio.sleep(0)
    bench.its.answers = True
    await bench.break_link()
    with pytest.raises(LinkDownError, match="went down"):
        await within(hold)
    assert await within(access) == 8
    await within(bench.its_link.hold())
    with pytest.raises(LinkDownError, match="not there"):
        await bench.its_link.hold()
    await bench.break_link()
    bench.its_link.release()
    assert await within(bench.its_link.read("its", 8, 8)) == 8


async def test_a_return_to_no_call_is_ignored(bench: Bench) -> None:
    assert await bench.ask(Return(7, 0, None)) == []
    assert not any(isinstance(message, Call) for message in bench.its.heard)
