"""The lab's world implements the contract and names things."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from common.errors import WatchError
from common.world import World
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.toys import Cell


def lab() -> LabWorld:
    return LabWorld(Run(Replay([]), 10))


def test_every_name_of_the_contract() -> None:
    world: World = lab()
    for name, member in vars(World).items():
        if not name.startswith("_") and inspect.isfunction(member):
            assert (
                list(inspect.signature(getattr(LabWorld, name)).parameters)[:2]
                == list(inspect.signature(member).parameters)[:2]
            ), name
    assert (world.wmb, world.rmb, world.mb) == (None, None, None)


def test_names_of_locations() -> None:
    world = lab()
    cell, array, table, memory = world.new(Cell), world.array(2), world.table(), world.memory(8)
    event, queue, lock, deadline = world.event(), world.queue(), world.spinlock(), world.mutex()
    world.label(memory, 2, "used.idx")
    world.called(lock, "vq.lock")
    named: list[tuple[tuple[Any, Any], str]] = [
        ((cell.lab_name, "a"), "Cell.a"),  # type: ignore[attr-defined]
        ((array.lab_name, 1), "array[1]"),
        ((table.lab_name, "[5]"), "table[5]"),
        ((table.lab_name, "keys"), "table.keys"),
        ((memory.lab_name, 2), "used.idx"),
        ((memory.lab_name, 4), "mem[0x4]"),
        ((event.lab_name, "set"), "event"),
        ((queue.lab_name, "*"), "queue"),
        ((lock.lab_name, "lock"), "vq.lock"),
        ((deadline.lab_name, "lock"), "mutex"),
    ]
    for loc, text in named:
        assert world.name_of(loc) == text


def test_naming_comes_before_the_run() -> None:
    world = lab()
    with pytest.raises(WatchError, match="memory by label"):
        world.called(world.memory(8), "ram")
    cell = world.new(Cell)
    world.run.execute()
    with pytest.raises(WatchError, match="before the run"):
        world.called(cell, "late")


def test_leap_in_setup_is_just_a_call() -> None:
    world = lab()
    done: list[int] = []
    world.leap("x", lambda: done.append(1))
    assert done == [1]


def test_actors_that_an_algorithm_starts_have_names_of_their_own() -> None:
    world = lab()
    names: list[str] = []

    async def worker() -> None:
        assert world.run.current is not None
        names.append(world.run.current.name)

    async def starter() -> None:
        for _ in range(3):
            world.spawn("worker", worker())

    world.spawn("starter", starter())
    world.run.execute()
    assert names == ["worker", "worker 2", "worker 3"]
