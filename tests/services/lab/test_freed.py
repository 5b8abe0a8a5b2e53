"""Use after free, seen by the lab."""

from __future__ import annotations

from typing import Any

import pytest

from services.lab.explore import explore
from services.lab.freed import free
from services.lab.scenario import Checks, Settings
from services.lab.world import LabWorld


class Thing:
    __slots__ = ("fifo", "lock", "value")

    def __init__(self, world: Any) -> None:
        self.fifo = world.queue()
        self.lock = world.spinlock()
        self.value = 1


async def touch(thing: Thing, how: str) -> None:
    if how == "field":
        thing.value = 2
    elif how == "fifo":
        thing.fifo.append(3)
    elif how == "lock":
        with thing.lock:
            pass


@pytest.mark.parametrize("how", ["field", "fifo", "lock"])
def test_a_touch_after_or_at_the_time_fails(how: str) -> None:
    def build(world: LabWorld) -> Checks:
        thing = world.new(Thing, world)
        done = world.event()

        async def own() -> None:
            free(world, thing)
            done.set()

        async def late() -> None:
            await done.wait()
            await touch(thing, how)

        world.spawn("late", late())
        world.spawn("owner", own())
        return Checks()

    result = explore(build, Settings(preemptions=1))
    assert result.failure is not None
    assert result.failure.detail.startswith("AssertionError: use after free of ")


def test_about_to_touch_fails_and_checks_may_look() -> None:
    def build(world: LabWorld) -> Checks:
        thing = world.new(Thing, world)
        word = world.atomic()

        async def own() -> None:
            word.add(1)
            free(world, thing)

        world.spawn("user", touch(thing, "field"))
        world.spawn("owner", own())
        return Checks(final=lambda: None if thing.value else "no value")

    result = explore(build, Settings(preemptions=1))
    assert result.failure is not None
    assert "while user is at it" in result.failure.detail


def test_freed_when_all_is_over_is_no_failure() -> None:
    def build(world: LabWorld) -> Checks:
        thing = world.new(Thing, world)

        async def alone() -> None:
            await touch(thing, "fifo")
            free(world, thing)

        world.spawn("alone", alone())
        return Checks(final=lambda: None if thing.value == 1 and len(thing.fifo) == 1 else "gone")

    assert explore(build, Settings(preemptions=1)).verdict == "holds"
