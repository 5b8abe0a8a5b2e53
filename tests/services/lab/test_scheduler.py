"""One schedule: what ends it, and what it looks like from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from services.lab.explore import Outcome, explore, run_once
from services.lab.failure import Failure, ForeignAwaitError, ReplayError
from services.lab.scenario import Checks, Settings
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.toys import Cell


def one(setup: Any, schedule: list[str | int] | None = None, limit: int = 200) -> Outcome:
    """Run one schedule, the default one unless told."""
    return run_once(setup, Replay(schedule or []), limit, trace=True)


def actors(world: LabWorld, **coros: Coroutine[Any, Any, Any]) -> Checks:
    for name, coro in coros.items():
        world.spawn(name, coro)
    return Checks()


class TestFailures:
    def test_deadlock_says_who_waits_for_what(self) -> None:
        def setup(world: LabWorld) -> Checks:
            first, second = world.spinlock(), world.spinlock()

            async def cpu(a: Any, b: Any) -> None:
                with a, b:
                    pass

            return actors(world, cpu0=cpu(first, second), cpu1=cpu(second, first))

        run = one(setup, ["cpu0", "cpu1"]).run
        assert run.failure == Failure(
            "deadlock",
            "",
            "cpu0 waits in spinlock spinlock2, held by cpu1; cpu1 waits in spinlock spinlock, held by cpu0",
        )
        assert explore(setup, Settings(preemptions=0)).verdict == "holds"
        assert explore(setup, Settings(preemptions=1)).verdict == "fails"

    def test_taking_a_lock_twice(self) -> None:
        def setup(world: LabWorld) -> Checks:
            lock = world.spinlock()

            async def cpu() -> None:
                with lock, lock:
                    raise AssertionError

            return actors(world, cpu=cpu())

        assert one(setup).run.failure == Failure("deadlock", "cpu", "takes spinlock, which it holds")

    def test_sleeping_with_a_spinlock(self) -> None:
        def setup(world: LabWorld, how: str) -> Checks:
            lock, event, mutex = world.spinlock(), world.event(), world.mutex()

            async def cpu() -> None:
                with lock:
                    if how == "relax":
                        await world.relax()
                    elif how == "wait":
                        await event.wait(1)
                    else:
                        async with mutex:
                            pass

            return actors(world, cpu=cpu())

        for how in ("relax", "wait", "mutex"):
            failure = one(lambda w, how=how: setup(w, how)).run.failure
            assert failure is not None
            assert failure.kind == "atomic"

    def test_step_bound(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def spin() -> None:
                while not cell.a:
                    pass

            return actors(world, spin=spin())

        assert one(setup).run.failure == Failure("livelock", "spin", "step bound of 200 reached")
        result = explore(setup, Settings(limit=200))
        assert result.failure == Failure("livelock", "spin", "step bound of 200 reached")

    def test_exception_in_an_actor(self) -> None:
        def setup(world: LabWorld) -> Checks:
            async def cpu() -> None:
                raise ValueError("bad")

            return actors(world, cpu=cpu())

        assert one(setup).run.failure == Failure("exception", "cpu", "ValueError: bad")

    def test_invariant_names_the_actor_that_broke_it(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def up() -> None:
                cell.a = 1
                cell.b = 1

            async def down() -> None:
                cell.b = 0
                cell.a = 0

            actors(world, up=up(), down=down())
            return Checks(step=lambda: "b without a" if cell.b and not cell.a else None)

        assert one(setup).run.failure is None
        assert explore(setup, Settings(preemptions=0)).verdict == "holds"
        result = explore(setup, Settings(preemptions=2))
        assert result.failure is not None
        assert result.failure.kind == "invariant"
        assert result.failure.detail == "b without a"

    def test_invariant_over_cells_that_actors_do_not_share(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def one_side() -> None:
                cell.a = 1
                cell.a = 0

            async def other_side() -> None:
                cell.b = 1
                cell.b = 0

            actors(world, a=one_side(), b=other_side())
            return Checks(step=lambda: "both up" if cell.a and cell.b else None)

        assert explore(setup, Settings(preemptions=0)).verdict == "holds"
        assert explore(setup, Settings(preemptions=1)).verdict == "fails"

    def test_invariant_broken_by_the_last_step(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def up() -> None:
                cell.a = 1

            actors(world, up=up())
            return Checks(step=lambda: "up" if cell.a else None)

        assert one(setup).run.failure == Failure("invariant", "up", "up")


class TestNotJudged:
    def test_foreign_await(self) -> None:
        def setup(world: LabWorld) -> Checks:
            async def cpu() -> None:
                await asyncio.sleep(0)

            return actors(world, cpu=cpu())

        error = one(setup).run.error
        assert isinstance(error, ForeignAwaitError)
        assert "cpu awaited something" in str(error)

    def test_two_actors_of_one_name(self) -> None:
        def setup(world: LabWorld) -> Checks:
            async def cpu() -> None: ...

            world.spawn("cpu", cpu())
            with pytest.raises(Exception, match="two actors"):
                world.spawn("cpu", cpu())
            return Checks()

        assert one(setup).run.error is not None


class TestLife:
    def test_spawn_in_mid_run_starts_at_once_and_stops_before_its_first_step(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def child() -> None:
                cell.b = cell.a

            async def parent() -> None:
                cell.a = 1
                world.spawn("child", child())
                cell.a = 2

            actors(world, parent=parent())
            return Checks(final=lambda: f"b = {cell.b}")

        assert one(setup).run.failure == Failure("final", "", "b = 2")
        assert one(setup, ["parent", "child"]).run.failure == Failure("final", "", "b = 1")

    def test_actor_without_steps(self) -> None:
        def setup(world: LabWorld) -> Checks:
            async def nothing() -> None: ...

            async def parent() -> None:
                world.spawn("child", nothing())

            return actors(world, parent=parent(), other=nothing())

        run = one(setup).run
        assert (run.failure, run.error, run.steps, run.schedule) == (None, None, 0, [])

    def test_unwinding_runs_clean_up_without_steps(self) -> None:
        cleaned = []

        def setup(world: LabWorld) -> Checks:
            lock, event, cell = world.spinlock(), world.event(), world.new(Cell)

            async def stuck() -> None:
                try:
                    await event.wait()
                finally:
                    with lock:
                        cell.a = 1
                    cleaned.append(cell.a)
                    raise RuntimeError("ignored while unwinding")

            return actors(world, stuck=stuck())

        failure = one(setup).run.failure
        assert failure is not None
        assert failure.kind == "deadlock"
        assert cleaned == [1]

    def test_failure_before_all_have_started(self) -> None:
        def setup(world: LabWorld) -> Checks:
            async def bad() -> None:
                raise ValueError("early")

            async def late() -> None: ...

            return actors(world, bad=bad(), late=late())

        assert one(setup).run.failure == Failure("exception", "bad", "ValueError: early")

    def test_same_seed_same_schedule(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def up() -> None:
                cell.a += 1

            actors(world, x=up(), y=up())
            return Checks(final=lambda: None if cell.a == 2 else f"{cell.a}")

        results = {explore(setup, Settings(strategy="random", seed=s, runs=100)).schedule for s in (3, 3, 3)}
        assert len(results) == 1

    def test_recording_that_does_not_fit(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def up() -> None:
                cell.a = world.choice(2, "which")

            return actors(world, up=up())

        with pytest.raises(ReplayError, match="'nobody' cannot go on here, only up"):
            one(setup, ["nobody"])
        with pytest.raises(ReplayError, match="no value of the choice 'which'"):
            one(setup, ["up", 2])
        assert one(setup, ["up", 1, "up"]).run.failure is None


class TestRelax:
    def test_wakes_on_a_change_only(self) -> None:
        def setup(world: LabWorld, value: int) -> Checks:
            cell = world.new(Cell)

            async def poller() -> None:
                while not cell.a:
                    cell.freed += 1
                    await world.relax()

            async def writer() -> None:
                cell.a = 0
                cell.b = 5
                cell.a = value

            return actors(world, poller=poller(), writer=writer())

        stuck = one(lambda w: setup(w, 0)).run.failure
        assert stuck is not None
        assert stuck.detail == "poller waits in relax(), until a change of Cell.a, Cell.freed"
        run = one(lambda w: setup(w, 1)).run
        assert run.failure is None
        # the poller looked twice: stores of the same value and of other cells did not wake it
        assert sum(step[:2] == ("poller", "relax") for step in run.trace or ()) == 1

    def test_without_reads_it_yields_once(self) -> None:
        def setup(world: LabWorld) -> Checks:
            cell = world.new(Cell)

            async def polite() -> None:
                for _ in range(3):
                    await world.relax()
                cell.b = cell.a

            async def other() -> None:
                cell.a = 1

            actors(world, polite=polite(), other=other())
            return Checks(final=lambda: None if cell.b else "was not let in")

        assert one(setup).run.failure is None
        assert explore(setup, Settings(preemptions=3)).exhaustive

    def test_alone_it_goes_on(self) -> None:
        def setup(world: LabWorld) -> Checks:
            async def alone() -> None:
                while True:
                    await world.relax()

            return actors(world, alone=alone())

        failure = one(setup).run.failure
        assert failure is not None
        assert failure.kind == "livelock"


def test_leap_is_one_step_and_wakes_everybody() -> None:
    def setup(world: LabWorld) -> Checks:
        cell = world.new(Cell)

        def forward() -> None:
            for _ in range(10):
                cell.a += 1

        async def poller() -> None:
            while cell.a != 10:
                await world.relax()

        async def jump() -> None:
            world.leap("ten times", forward)

        actors(world, poller=poller(), jump=jump())
        return Checks(step=lambda: None if cell.a in (0, 10) else "seen in between")

    result = explore(setup, Settings(preemptions=3))
    assert (result.verdict, result.exhaustive) == ("holds", True)
    outcome = one(setup)
    assert ("jump", "leap", None, "ten times") in (outcome.run.trace or ())
