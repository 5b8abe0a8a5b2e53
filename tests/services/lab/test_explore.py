"""The search finds what it should, and nothing else; the reduction agrees with brute force."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LocalError
from services.lab.explore import explore, replay, run_once
from services.lab.failure import Failure
from services.lab.scenario import Build, Checks, Settings
from services.lab.sharing import Sharing
from services.lab.strategies import Exhaustive
from services.lab.world import LabWorld
from tests.services.lab.toys import TOYS, Cell, aba, double_free


@pytest.mark.parametrize("brute_force", [False, True])
@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
@pytest.mark.parametrize(("name", "toy", "fails"), TOYS, ids=[t[0] for t in TOYS])
def test_verdict_of_toys(name: str, toy: Callable[[], Build], fails: bool, strategy: str, brute_force: bool) -> None:
    result = explore(toy(), Settings(strategy=strategy, preemptions=2, runs=3000), brute_force=brute_force)
    assert result.verdict == ("fails" if fails else "holds"), result
    assert result.exhaustive == (strategy == "exhaustive" and not fails)
    if fails:
        again = replay(toy(), result.schedule, 2000).run
        assert again.failure == result.failure
        assert again.preemptions >= (result.preemptions or 0) or strategy == "random"


def test_failure_with_fewest_preemptions_comes_first() -> None:
    assert explore(double_free(False), Settings(preemptions=5)).preemptions == 1
    assert explore(double_free(False), Settings(preemptions=0)).verdict == "holds"


def test_wrap_is_found_without_any_preemption() -> None:
    result = explore(aba(4, 4), Settings(preemptions=0))
    assert result.failure == Failure("deadlock", "", "poller waits in relax(), until a change of Cell.a")


def program(ops: list[list[tuple[str, int]]]) -> Callable[[list[object]], Build]:
    """Actors that read, write, add and lock as told; what each read goes to ``seen``."""

    def at(seen: list[object]) -> Build:
        def setup(world: LabWorld) -> Checks:
            cells = world.array(3, 0)
            locks = [world.spinlock(), world.spinlock()]
            atomic, event = world.atomic(0), world.event()
            logs = [world.new(Cell) for _ in ops]

            async def actor(me: int) -> None:
                log = logs[me]
                for op, n in ops[me]:
                    if op == "r":
                        log.a = 10 * log.a + cells[n] + 1
                    elif op == "w":
                        cells[n] = me + 1
                    elif op == "i":
                        cells[n] = cells[n] + 1
                    elif op == "L":
                        with locks[n % 2]:
                            cells[n] = cells[n] + 1
                            log.b = 10 * log.b + cells[n]
                    elif op == "a":
                        log.a = 10 * log.a + atomic.add(1)
                    elif op == "s":
                        event.set()
                    elif op == "e":
                        log.b = 10 * log.b + (await event.wait(1.0 if n else None))

            for me in range(len(ops)):
                world.spawn(f"cpu{me}", actor(me))

            def final() -> None:
                seen.append((tuple(cells[i] for i in range(3)), tuple((log.a, log.b) for log in logs)))

            return Checks(final=final)

        return setup

    return at


def outcomes(ops: list[list[tuple[str, int]]], bound: int, brute_force: bool) -> tuple[set[object], int]:
    """Every final state and failure within the bound, and the number of schedules; no schedule twice."""
    strategy, sharing = Exhaustive(bound), None if brute_force else Sharing()
    seen: list[object] = []
    schedules: set[tuple[str | int, ...]] = set()
    count = 0
    while strategy.begin():
        run = run_once(program(ops)(seen), strategy, 500, sharing, audit=False).run
        assert run.error is None
        assert run.preemptions <= bound
        if run.failure is not None:
            seen.append(run.failure)
        count += 1
        schedules.add(tuple(run.schedule))
        if sharing is not None and sharing.grew:
            sharing.grew = False
            strategy.restart()
            seen.clear()
            schedules.clear()
            count = 0
        else:
            strategy.end()
        assert count < 20000
    assert len(schedules) == count
    return set(seen), count


OPS = st.tuples(st.sampled_from("rwiLase"), st.integers(0, 2))


PROGRAMS = st.lists(st.lists(OPS, min_size=1, max_size=3), min_size=2, max_size=3).filter(
    lambda ops: sum(len(actor) for actor in ops) <= 5
)


@settings(max_examples=50, deadline=None)
@given(PROGRAMS, st.integers(0, 2))
def test_quiet_steps_change_no_outcome(ops: list[list[tuple[str, int]]], bound: int) -> None:
    brute, many = outcomes(ops, bound, True)
    reduced, few = outcomes(ops, bound, False)
    assert reduced == brute
    assert few <= many


def test_all_interleavings_are_counted() -> None:
    # two actors of three steps each: 6 over 3
    seen, count = outcomes([[("w", 0)] * 3, [("w", 0)] * 3], 6, True)
    assert count == 20
    assert len(seen) == 2


def test_locked_cells_need_no_preemption_point() -> None:
    ops = [[("L", 0), ("L", 0)], [("L", 0), ("L", 0)]]
    assert outcomes(ops, 4, False)[1] == outcomes(ops, 4, True)[1] == 6
    for mixed in ([[("L", 0)], [("i", 0)]], [[("L", 0), ("i", 0)], [("L", 0), ("i", 0)]]):
        assert outcomes(mixed, 4, False)[0] == outcomes(mixed, 4, True)[0]


@pytest.mark.parametrize(
    "bad",
    [
        Settings(strategy="pct"),
        Settings(memory="tso"),
        Settings(strategy="random", runs=0),
        Settings(preemptions=-1),
    ],
)
def test_settings_that_do_not_exist(bad: Settings) -> None:
    with pytest.raises(LocalError):
        explore(aba(4, 4), bad)


def test_runs_bound_an_exhaustive_search() -> None:
    result = explore(aba(8, 4), Settings(preemptions=3, runs=5))
    assert (result.verdict, result.exhaustive, result.schedules) == ("holds", False, 5)


def test_unseen_sharing_is_not_judged() -> None:
    def setup(world: LabWorld) -> Checks:
        box = [0]

        async def actor() -> None:
            box.append(1)

        world.spawn("a", actor())
        world.spawn("b", actor())
        return Checks()

    result = explore(setup, Settings())
    assert result.verdict == "not judged"
    assert "a and b share a list of 1" in str(result.error)


def test_failure_that_cannot_be_repeated_is_not_judged() -> None:
    turns = []

    def setup(world: LabWorld) -> Checks:
        async def actor() -> None:
            turns.append(1)

        world.spawn("a", actor())
        return Checks(final=lambda: "odd" if len(turns) == 1 else None)

    assert explore(setup, Settings()).verdict == "not judged"


def test_progress_is_told() -> None:
    told: list[int] = []
    explore(aba(8, 1), Settings(strategy="random", runs=4000), progress=told.append)
    assert told == [2000, 4000]


_SCRIPT = """
from services.lab.explore import explore
from services.lab.scenario import Settings
from tests.services.lab.toys import double_free, peterson
for toy in (double_free(False), peterson(False)):
    for s in (Settings(strategy="random", seed=7, runs=1000), Settings(preemptions=3)):
        print(explore(toy, s))
"""


def test_same_in_every_process() -> None:
    root = Path(__file__).resolve().parents[3]
    outputs = set()
    for hashseed in ("0", "1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": hashseed, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", _SCRIPT], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert outputs.pop().count("fails") == 4
