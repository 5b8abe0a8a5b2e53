"""Run many schedules of one variant until one fails, the space is exhausted, or the budget is spent."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from common.errors import LocalError
from services.lab.actor import Chooser
from services.lab.failure import Failure
from services.lab.scenario import Build, Settings
from services.lab.scheduler import Run
from services.lab.sharing import Sharing
from services.lab.strategies import NAMES, Exhaustive, Random, Replay, Strategy
from services.lab.world import LabWorld

Verdict = Literal["holds", "fails", "not judged"]

#: Memory models that exist, by the name that the command line uses.
MEMORIES: Final = ("sc",)

_COLLECT_EVERY: Final = 2000


@dataclass(slots=True, frozen=True)
class Result:
    """What an exploration found.

    ``exhaustive``: every schedule within the bound was run. ``schedules`` and ``steps`` count those of the final
    search. ``preemptions`` is the bound of an exhaustive search, or what the failing schedule needed. ``error`` says
    why there is no verdict.
    """

    verdict: Verdict
    exhaustive: bool
    schedules: int
    steps: int
    preemptions: int | None
    failure: Failure | None = None
    schedule: tuple[str | int, ...] = ()
    error: str | None = None


@dataclass(slots=True)
class Outcome:
    """One finished schedule and its world (labels, names)."""

    run: Run
    world: LabWorld


def run_once(
    build: Build,
    chooser: Chooser,
    limit: int,
    sharing: Sharing | None = None,
    audit: bool = True,
    trace: bool = False,
) -> Outcome:
    """Set up and execute one schedule. A failed final check becomes the run's failure."""
    run = Run(chooser, limit, sharing, trace)
    world = LabWorld(run, audit)
    checks = build(world)
    run.invariant = checks.step
    run.execute()
    if run.error is None and run.failure is None:
        wrong = checks.final()
        if wrong is not None:
            run.failure = Failure("final", "", wrong)
    return Outcome(run, world)


def strategy_of(settings: Settings) -> Strategy:
    """Raises LocalError for a strategy or a memory model that does not exist, saying which do."""
    if settings.memory not in MEMORIES:
        raise LocalError(f"no memory model {settings.memory!r}; there is {', '.join(MEMORIES)}")
    if settings.strategy == "random":
        if settings.runs <= 0:
            raise LocalError("a random search needs a number of runs")
        return Random(settings.seed)
    if settings.strategy == "exhaustive":
        if settings.preemptions < 0:
            raise LocalError("the number of preemptions is not negative")
        return Exhaustive(settings.preemptions)
    raise LocalError(f"no strategy {settings.strategy!r}; there are {', '.join(NAMES)}")


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Schedules leave cycles of greenlets and frames behind; collecting them in bulk is cheaper."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def explore(
    build: Build,
    settings: Settings,
    progress: Callable[[int], None] | None = None,
    brute_force: bool = False,
) -> Result:
    """Search. With ``brute_force`` every watched access is a preemption point (see :mod:`services.lab.sharing`).

    Raises LocalError for settings that do not exist; whatever goes wrong inside a run is a verdict.
    """
    strategy = strategy_of(settings)
    sharing = None if brute_force else Sharing()
    total = schedules = steps = 0
    bound = settings.preemptions if settings.strategy == "exhaustive" else None
    with _quiet_collector():
        while not (settings.runs and schedules >= settings.runs) and strategy.begin():
            # the walk over what actors share costs more than a schedule: on runs 0, 1, 2, 4, 8 …
            outcome = run_once(build, strategy, settings.limit, sharing, audit=total & (total - 1) == 0)
            run = outcome.run
            total += 1
            schedules += 1
            steps += run.steps
            if run.error is not None:
                return Result("not judged", False, schedules, steps, bound, error=str(run.error))
            if run.failure is not None:
                schedule = tuple(run.schedule)
                error = _not_repeatable(build, settings.limit, schedule, run.failure)
                if error is not None:
                    return Result("not judged", False, schedules, steps, bound, run.failure, schedule, error)
                return Result("fails", False, schedules, steps, run.preemptions, run.failure, schedule)
            if sharing is not None and sharing.grew:
                sharing.grew = False
                strategy.restart()
                if settings.strategy == "exhaustive":
                    schedules = steps = 0
                    continue
            strategy.end()
            if total % _COLLECT_EVERY == 0:
                gc.collect()
                if progress is not None:
                    progress(schedules)
    return Result("holds", strategy.complete, schedules, steps, bound)


def replay(build: Build, schedule: Sequence[str | int], limit: int) -> Outcome:
    """Repeat a recorded schedule with a trace, every access a step. Raises ReplayError if it does not fit."""
    return run_once(build, Replay(schedule), limit, None, audit=True, trace=True)


def _not_repeatable(build: Build, limit: int, schedule: tuple[str | int, ...], failure: Failure) -> str | None:
    """A failure counts only if its schedule, repeated step by step, shows it again."""
    try:
        again = replay(build, schedule, limit).run
    except LocalError as error:
        return f"the failing schedule cannot be repeated: {error}"
    if again.error is not None:
        return str(again.error)
    if again.failure != failure:
        return f"the failing schedule gave {failure}, repeated it gave {again.failure}"
    return None
