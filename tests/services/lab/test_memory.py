"""Watched memory: cells, copies, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import LocalError, MemoryFaultError
from common.memory import FEW, MappedMemory, Mapping, MemoryKey, MemoryMap
from services.lab.explore import explore, run_once
from services.lab.failure import Failure
from services.lab.scenario import Checks, Settings
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld


def refusal(body: Any) -> str:
    """Run ``body(memory)`` as an actor; why there was no verdict."""

    def setup(world: LabWorld) -> Checks:
        async def actor() -> None:
            body(world.memory(64, 0x100))

        world.spawn("cpu", actor())
        return Checks()

    return str(run_once(setup, Replay([]), 100).run.error)


def test_same_bytes_as_guest_memory() -> None:
    memory = LabWorld(Run(Replay([]), 10)).memory(64, 0x100)
    half = memory.view(0x104, 3, "H")
    half[0], half[-1] = 0x1234, 0xFFFF
    assert memory.read(0x104, 6) == bytes.fromhex("34120000ffff")
    memory.write(0x106, b"\x01\x02")
    memory.fill(0x110, 4, 7)
    assert [half[i] for i in range(len(half))] == list(half) == [0x1234, 0x201, 0xFFFF]
    assert memory.read(0x110, 5) == b"\x07\x07\x07\x07\x00"
    assert memory.add_region(0x1000, 8).base == 0x1000
    assert [r.base for r in memory.regions] == [0x100, 0x1000]
    memory.check(0x1000, 8)
    with pytest.raises(MemoryFaultError):
        memory.check(0x1000, 9)
    with pytest.raises(MemoryFaultError):
        memory.read(0x13F, 2)
    with pytest.raises(LocalError):
        memory.view(0x101, 1, "H")
    with pytest.raises(IndexError):
        _ = half[3]
    with pytest.raises(IndexError):
        half[-4] = 0


def test_mixed_widths_on_one_byte() -> None:
    def body(memory: Any) -> None:
        memory.view(0x100, 1, "I")[0] = 1
        _ = memory.view(0x104, 1, "H")[0]
        _ = memory.view(0x102, 1, "H")[0]

    assert "2-byte access at 0x102 overlaps the 4-byte cell at 0x100" in refusal(body)

    def same_start(memory: Any) -> None:
        _ = memory.view(0x100, 1, "H")[0]
        memory.view(0x100, 1, "I")[0] = 1

    assert "mixed widths on one byte" in refusal(same_start)

    def around(memory: Any) -> None:
        _ = memory.view(0x102, 1, "H")[0]
        _ = memory.view(0x100, 1, "Q")[0]

    assert "8-byte access at 0x100 overlaps the 2-byte cell at 0x102" in refusal(around)


@pytest.mark.parametrize(
    "body",
    [
        lambda m: m.view(0x100, 4, "H")[0:2],
        lambda m: m.view(0x100, 4, "H").__setitem__(slice(0, 2), b"1234"),
        lambda m: bytes(m.view(0x100, 4, "H")),
        lambda m: memoryview(m.view(0x100, 4, "H")),
        lambda m: m.view(0x100, 4, "H").tobytes(),
        lambda m: m.view(0x100, 4, "H").cast("B"),
    ],
)
def test_slices_and_buffers(body: Any) -> None:
    text = refusal(body)
    assert "one cell at a time" in text or "buffer access" in text


def exchange(world: LabWorld, torn: bool) -> Checks:
    """A writer fills four bytes in one copy or in two; a reader copies them out."""
    memory = world.memory(64)
    seen = world.array(1, b"")

    async def writer() -> None:
        if torn:
            memory.write(0, b"\x01\x01")
            memory.write(2, b"\x01\x01")
        else:
            memory.write(0, b"\x01\x01\x01\x01")

    async def reader() -> None:
        seen[0] = memory.read(0, 4)

    world.spawn("writer", writer())
    world.spawn("reader", reader())
    return Checks(final=lambda: None if len(set(seen[0])) == 1 else f"torn: {seen[0]!r}")


@pytest.mark.parametrize("brute_force", [False, True])
def test_a_copy_is_one_step(brute_force: bool) -> None:
    whole = explore(lambda w: exchange(w, False), Settings(preemptions=3), brute_force=brute_force)
    assert (whole.verdict, whole.exhaustive) == ("holds", True)
    split = explore(lambda w: exchange(w, True), Settings(preemptions=3), brute_force=brute_force)
    assert split.failure == Failure("final", "", "torn: b'\\x01\\x01\\x00\\x00'")


@pytest.mark.parametrize(("reads", "writes"), [("cell", "copy"), ("copy", "cell"), ("copy", "copy")])
def test_copies_and_cells_wake_each_other(reads: str, writes: str) -> None:
    def setup(world: LabWorld) -> Checks:
        memory = world.memory(64)
        view = memory.view(8, 2, "H")

        async def poller() -> None:
            while not (view[1] if reads == "cell" else memory.read(8, 4)[2]):
                await world.relax()

        async def writer() -> None:
            memory.write(8, b"\x00\x00\x00\x00")  # changes nothing
            if writes == "cell":
                view[1] = 1
            else:
                memory.write(10, b"\x01")

        world.spawn("poller", poller())
        world.spawn("writer", writer())
        return Checks()

    result = explore(setup, Settings(preemptions=2))
    assert (result.verdict, result.exhaustive) == ("holds", True)


def test_memory_through_a_key_may_be_shared() -> None:
    """Actors that reach one MappedMemory share nothing behind the lab's back, before and after its first copies."""

    class Holder:
        __slots__ = ("memory",)

        def __init__(self, memory: MappedMemory) -> None:
            self.memory = memory

    def setup(world: LabWorld) -> Checks:
        key = MemoryKey(MemoryMap([Mapping(0x1000 * i, 16, 0x100 + 16 * i) for i in range(FEW + 1)]), 1)
        mapped = MappedMemory(world.memory(16 * (FEW + 1), 0x100), key)
        mapped.write(0x1000, b"\x00")
        holder = world.new(Holder, mapped)
        mapped.view(0x2000, 1, "H")[0] = 1

        async def writer() -> None:
            holder.memory.write(0x1000, b"\x01")

        async def reader() -> None:
            while mapped.read(0x1000, 1) != b"\x01":
                await world.relax()
            holder.memory = mapped

        world.spawn("writer", writer())
        world.spawn("reader", reader())
        return Checks(final=lambda: None if mapped.read(0x1000, 1) == b"\x01" else "not written")

    result = explore(setup, Settings(preemptions=2))
    assert (result.verdict, result.exhaustive, str(result.failure)) == ("holds", True, "None")
