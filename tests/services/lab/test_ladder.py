"""The text ladder."""

from __future__ import annotations

import json

from services.lab.explore import Outcome, replay
from services.lab.ladder import ladder, trace_lines
from services.lab.scenario import Checks
from services.lab.world import LabWorld
from tests.services.lab.toys import Cell, double_free


def failing() -> Outcome:
    return replay(double_free(False), ("cpu0", "cpu1", "cpu1", "cpu1", "cpu1"), 100)


def test_columns_rows_and_the_failure() -> None:
    assert ladder(failing()) == (
        "cpu0            cpu1\n"
        "--------------  --------------\n"
        "Cell.users → 1\n"
        "                Cell.users → 1\n"
        "                Cell.users ← 0\n"
        "                Cell.freed → 0\n"
        "                Cell.freed ← 1\n"
        "Cell.users ← 0\n"
        "Cell.freed → 1\n"
        "Cell.freed ← 2\n"
        "--------------  --------------\n"
        "!! final: freed 2 times\n"
    )


def test_no_failure() -> None:
    assert ladder(replay(double_free(True), (), 100)).endswith("no failure\n")


def test_trace_lines() -> None:
    lines = [json.loads(line) for line in trace_lines(failing())]
    assert lines[0] == {"step": 0, "actor": "cpu0", "kind": "read", "location": "Cell.users", "value": "1"}
    assert [line["step"] for line in lines] == list(range(8))


def busy(world: LabWorld) -> Checks:
    """All kinds of rows; long turns; a cell of one's own; a constant; a cell under a lock."""
    cell, lock, event, atomic = world.new(Cell), world.spinlock(), world.event(), world.atomic()
    memory, own = world.memory(64), world.new(Cell)

    async def first() -> None:
        own.a = cell.freed
        world.choice(2, "way")
        for i in range(40):
            cell.a = i + 1
        with lock:
            cell.b += 1
        atomic.add(2)
        memory.write(8, b"123")
        await event.wait()
        world.leap("far", lambda: None)

    async def second() -> None:
        while cell.a < 40:
            await world.relax()
        with lock:
            cell.b += 1
        memory.read(8, 3)
        event.set()
        _ = cell.freed + atomic.load() + own.b

    world.spawn("first", first())
    world.spawn("second-with-a-rather-long-name-to-wrap", second())
    return Checks()


def test_rows_that_tell_nothing_are_left_out() -> None:
    outcome = replay(busy, (), 500)
    assert outcome.run.failure is None
    short, full = ladder(outcome), ladder(outcome, full=True)
    for text in ("Cell2.a ← 0", "Cell.freed → 1", "Cell.b → 0", "Cell.a ← 20"):
        assert text not in short or text == "Cell.freed → 1"
    for text in ("Cell2.a ← 0", "Cell.freed → 0", "Cell.b → 0", "Cell.a ← 20"):
        assert text in full
    for text in ("more steps", "Cell.b ← 1", "way = 0", "atomic ← 0 → 2", "copy_in mem[0x8], 3 bytes", "leap far"):
        assert text in short, text
    for text in ("lock spinlock", "unlock spinlock", "wait event set", "set event", "blocked: event.wait()"):
        assert text in short, text
    assert len(full.splitlines()) > len(short.splitlines())


def test_actors_of_one_name_share_a_column() -> None:
    def setup(world: LabWorld) -> Checks:
        cell = world.new(Cell)

        async def store(value: int) -> None:
            cell.users = value

        async def starter() -> None:
            world.spawn("worker", store(5))
            await world.relax()
            world.spawn("worker", store(6))

        world.spawn("starter", starter())
        world.spawn("other 7", store(7))
        return Checks()

    head = ladder(replay(setup, (), 100), full=True).splitlines()[0].split()
    assert "worker" in head
    assert head.count("worker") == 1
    assert head.count("7") == 1, "there is no actor that is called 'other'"
