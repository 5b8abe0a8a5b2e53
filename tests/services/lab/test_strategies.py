"""Which schedules each strategy runs."""

from __future__ import annotations

from services.lab.actor import LAZY, READY, Actor
from services.lab.explore import explore, run_once
from services.lab.scenario import Build, Checks, Settings
from services.lab.strategies import Exhaustive, Random, default
from services.lab.world import LabWorld
from tests.services.lab.toys import Cell


def steps(*counts: int) -> Build:
    """Actors that write one shared cell so many times."""

    def setup(world: LabWorld) -> Checks:
        cell = world.new(Cell)

        async def actor(n: int) -> None:
            for _ in range(n):
                cell.a = 1

        for i, n in enumerate(counts):
            world.spawn(f"cpu{i}", actor(n))
        return Checks()

    return setup


def all_schedules(build: Build, bound: int) -> tuple[list[tuple[str | int, ...]], list[int]]:
    strategy = Exhaustive(bound)
    schedules, preemptions = [], []
    while strategy.begin():
        run = run_once(build, strategy, 100).run
        schedules.append(tuple(run.schedule))
        preemptions.append(run.preemptions)
        strategy.end()
    assert strategy.complete
    return schedules, preemptions


def preempting(schedule: tuple[str | int, ...], counts: tuple[int, ...]) -> int:
    """Preemptions by hand: leaving an actor that has steps left."""
    left = {f"cpu{i}": n for i, n in enumerate(counts)}
    count = 0
    for i, name in enumerate(schedule):
        before = schedule[i - 1] if i else None
        if isinstance(before, str) and before != name and left[before]:
            count += 1
        assert isinstance(name, str)
        left[name] -= 1
    return count


def interleavings(counts: tuple[int, ...]) -> set[tuple[str | int, ...]]:
    if not any(counts):
        return {()}
    found: set[tuple[str | int, ...]] = set()
    for i, n in enumerate(counts):
        if n:
            rest = (*counts[:i], n - 1, *counts[i + 1 :])
            found |= {(f"cpu{i}", *tail) for tail in interleavings(rest)}
    return found


def test_exhaustive_is_exactly_the_bounded_space() -> None:
    for counts in ((3, 3), (2, 2, 2), (1, 4), (4, 1, 2)):
        everything = interleavings(counts)
        for bound in (0, 1, 2, 9):
            schedules, preemptions = all_schedules(steps(*counts), bound)
            assert len(set(schedules)) == len(schedules)
            assert set(schedules) == {s for s in everything if preempting(s, counts) <= bound}
            assert preemptions == [preempting(s, counts) for s in schedules]
            assert preemptions == sorted(preemptions)


def test_exhaustive_takes_every_value_of_a_choice() -> None:
    def setup(world: LabWorld) -> Checks:
        first = world.choice(3, "first")
        second = world.choice(1 + first, "second")
        cell = world.new(Cell)

        async def actor() -> None:
            cell.a = world.choice(2, "third")
            cell.b = second

        world.spawn("cpu", actor())
        return Checks()

    schedules, _ = all_schedules(setup, 0)
    values = {tuple(v for v in s if isinstance(v, int)) for s in schedules}
    assert values == {(a, b, c) for a in range(3) for b in range(1 + a) for c in range(2)}
    assert len(schedules) == len(values)


def test_random_depends_on_the_seed_only() -> None:
    def schedules(seed: int) -> list[tuple[str | int, ...]]:
        strategy = Random(seed)
        found = []
        for _ in range(20):
            assert strategy.begin()
            found.append(tuple(run_once(steps(3, 3), strategy, 100).run.schedule))
            strategy.end()
        assert not strategy.complete
        return found

    assert schedules(1) == schedules(1)
    assert schedules(1) != schedules(2)
    assert len(set(schedules(1))) > 10


def test_default_goes_on_and_lets_time_pass_last() -> None:
    async def nothing() -> None: ...

    coros = [nothing() for _ in range(3)]
    late, one, two = (Actor(n, c, False) for n, c in zip("abc", coros, strict=True))
    late.state, one.state, two.state = LAZY, READY, READY
    assert default(two, [late, one, two]) is two
    assert default(None, [late, one, two]) is one
    assert default(None, [late]) is late
    for coro in coros:
        coro.close()


def test_restart_forgets() -> None:
    strategy = Exhaustive(2)
    for _ in range(3):
        assert strategy.begin()
        run_once(steps(2, 2), strategy, 100)
        strategy.end()
    strategy.restart()
    count = 0
    while strategy.begin():
        run_once(steps(2, 2), strategy, 100)
        strategy.end()
        count += 1
    assert count == len(all_schedules(steps(2, 2), 2)[0])
    assert explore(steps(2, 2), Settings(preemptions=2)).schedules <= count
