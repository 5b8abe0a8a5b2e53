"""Locks, events, atomics, deadlines."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from services.lab.explore import explore, run_once
from services.lab.scenario import Build, Checks, Settings
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.toys import Cell


def every(build: Build, preemptions: int = 4) -> str:
    """The failure of an exhaustive search, or "holds"."""
    result = explore(build, Settings(preemptions=preemptions))
    assert result.error is None, result.error
    assert result.failure is not None or result.exhaustive
    return "holds" if result.failure is None else str(result.failure)


def counting(kind: str) -> Build:
    """Two actors add one each, under a lock of this kind, atomically, or not at all."""

    def setup(world: LabWorld) -> Checks:
        cell, spin, mutex, atomic = world.new(Cell), world.spinlock(), world.mutex(), world.atomic()
        pause = world.event()

        async def up() -> None:
            if kind == "spinlock":
                with spin:
                    cell.a += 1
            elif kind == "mutex":
                async with mutex:
                    was = cell.a
                    await pause.wait(1)
                    cell.a = was + 1
            elif kind == "atomic":
                if atomic.add(1) == 2:
                    cell.a = 2
            elif kind == "load and store":
                atomic.store(atomic.load() + 1)
                cell.a = atomic.load()
            else:
                cell.a += 1

        world.spawn("x", up())
        world.spawn("y", up())
        return Checks(final=lambda: None if cell.a == 2 else f"{cell.a}")

    return setup


def test_exclusion() -> None:
    for kind in ("spinlock", "mutex", "atomic"):
        assert every(counting(kind)) == "holds", kind
    for kind in ("load and store", "nothing"):
        assert every(counting(kind)) == "final: 1", kind


def test_swap_lock_spins_until_released() -> None:
    def setup(world: LabWorld) -> Checks:
        word, cell = world.atomic(), world.new(Cell)

        async def cpu() -> None:
            while word.swap(1):
                await world.relax()
            cell.a += 1
            word.store(0)

        for name in ("x", "y", "z"):
            world.spawn(name, cpu())
        return Checks(final=lambda: None if cell.a == 3 else f"{cell.a}")

    assert every(setup, 2) == "holds"


def test_lock_is_free_again_after_an_exception() -> None:
    def setup(world: LabWorld) -> Checks:
        spin, mutex = world.spinlock(), world.mutex()

        async def cpu() -> None:
            for _ in range(2):
                try:
                    with spin:
                        raise KeyError
                except KeyError:
                    pass
                try:
                    async with mutex:
                        raise KeyError
                except KeyError:
                    pass

        world.spawn("cpu", cpu())
        return Checks()

    assert every(setup) == "holds"


def waiting(timeout: float | None, fire: bool) -> Build:
    def setup(world: LabWorld) -> Checks:
        event, cell = world.event(), world.new(Cell)

        async def waiter() -> None:
            cell.a = 1 + (await event.wait(timeout))
            cell.b = event.is_set()

        async def setter() -> None:
            if fire:
                event.set()

        world.spawn("waiter", waiter())
        world.spawn("setter", setter())
        return Checks(final=lambda: None if cell.a == 2 else "timed out")

    return setup


def test_wait() -> None:
    assert every(waiting(None, True)) == "holds"
    assert every(waiting(None, False)) == "deadlock: waiter waits in event.wait()"
    assert every(waiting(0.5, True)) == "final: timed out"
    assert every(waiting(0.5, False)) == "final: timed out"


def test_an_event_cleared_before_its_waiter_runs_is_waited_for_again() -> None:
    def setup(world: LabWorld) -> Checks:
        event, cell = world.event(), world.new(Cell)

        async def waiter() -> None:
            cell.a = 1 + (await event.wait())
            cell.b = event.is_set()

        async def setter() -> None:
            event.set()
            event.clear()
            event.set()

        world.spawn("waiter", waiter())
        world.spawn("setter", setter())
        return Checks(final=lambda: None if cell.a == 2 else "woken without the flag")

    def cleared(world: LabWorld) -> Checks:
        event = world.event()

        async def waiter() -> None:
            await event.wait()

        async def setter() -> None:
            event.set()
            event.clear()

        world.spawn("waiter", waiter())
        world.spawn("setter", setter())
        return Checks()

    assert every(setup) == "holds"
    assert every(cleared) == "deadlock: waiter waits in event.wait()"


def test_default_schedule_lets_time_pass_last() -> None:
    assert run_once(waiting(0.5, True), Replay([]), 100).run.failure is None


def test_clear() -> None:
    def setup(world: LabWorld) -> Checks:
        event, cell = world.event(), world.new(Cell)

        async def poller() -> None:
            while not event.is_set():
                await world.relax()
            event.clear()
            cell.a = 1 + event.is_set()

        async def setter() -> None:
            event.set()

        world.spawn("poller", poller())
        world.spawn("setter", setter())
        return Checks(final=lambda: None if cell.a == 1 else "still set")

    assert every(setup) == "holds"


def polling(reply: bool) -> Build:
    def setup(world: LabWorld) -> Checks:
        cell = world.new(Cell)

        async def poller() -> None:
            deadline = world.deadline(1.0)
            while not cell.a and not deadline.expired:
                await world.relax()
            cell.b = 1 + cell.a

        async def device() -> None:
            if reply:
                cell.a = 1

        world.spawn("poller", poller())
        world.spawn("device", device())
        return Checks(final=lambda: None if cell.b == 2 else "timed out")

    return setup


def test_deadline() -> None:
    assert every(polling(reply=True)) == "final: timed out"
    assert every(polling(reply=False)) == "final: timed out"
    assert run_once(polling(reply=True), Replay([]), 100).run.failure is None


@pytest.mark.parametrize(("seconds", "expect"), [(1.0, "holds"), (inf, "deadlock")])
def test_a_deadline_wakes_a_loop_that_has_not_looked_at_it_yet(seconds: float, expect: str) -> None:
    """Unless it is infinite: then nobody does."""

    def setup(world: LabWorld) -> Checks:
        cell = world.new(Cell)

        async def poller() -> None:
            deadline = world.deadline(seconds)
            while not cell.a:
                await world.relax()
                if deadline.expired:
                    return

        world.spawn("poller", poller())
        return Checks()

    assert every(setup).startswith(expect)


@pytest.mark.parametrize(("seconds", "expect"), [(1.0, "holds"), (inf, "deadlock")])
def test_an_infinite_wait_never_times_out(seconds: float, expect: str) -> None:
    def setup(world: LabWorld) -> Checks:
        event = world.event()

        async def waiter() -> None:
            await event.wait(seconds)

        world.spawn("waiter", waiter())
        return Checks()

    assert every(setup).startswith(expect)


def test_cancelled_deadline_stays_as_it_is() -> None:
    def setup(world: LabWorld) -> Checks:
        cell, event = world.new(Cell), world.event()

        async def poller() -> None:
            deadline = world.deadline(1.0)
            deadline.cancel()
            cell.a = deadline.expired
            await event.wait()
            cell.b = deadline.expired

        async def other() -> None:
            event.set()

        world.spawn("poller", poller())
        world.spawn("other", other())
        return Checks(final=lambda: None if cell.a == cell.b else "expired after cancel")

    assert every(setup) == "holds"

    def waiting_for_it(world: LabWorld) -> Checks:
        async def poller() -> None:
            deadline = world.deadline(1.0)
            deadline.cancel()
            while not deadline.expired:
                await world.relax()

        world.spawn("poller", poller())
        return Checks()

    assert "deadlock: poller waits in relax()" in every(waiting_for_it)


def test_outside_of_a_run_nothing_blocks() -> None:
    world: Any = LabWorld(Run(Replay([]), 10))
    lock, event, atomic = world.spinlock(), world.event(), world.atomic(3)
    with lock, lock:
        pass
    assert not event.is_set()
    event.set()
    assert event.is_set()
    assert (atomic.load(), atomic.add(2), atomic.swap(1), atomic.load()) == (3, 5, 5, 1)
    for waiter, value in ((event.wait(), True), (world.relax(), None)):
        with pytest.raises(StopIteration) as stopped:
            waiter.send(None)
        assert stopped.value.value is value
