"""Who goes next: at random, exhaustively within a bound, or as recorded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Protocol

from services.lab.actor import READY, Actor, Chooser
from services.lab.failure import ReplayError

#: The strategies that exist, by the name that the command line uses.
NAMES: Final = ("random", "exhaustive")


class Strategy(Chooser, Protocol):
    """A chooser for many schedules, one after the other."""

    #: every schedule of the bounded space has been run
    complete: bool

    def begin(self) -> bool:
        """Before a schedule. False: there is none left."""
        ...

    def end(self) -> None:
        """After a schedule that did not fail."""
        ...

    def restart(self) -> None:
        """Preemption points have been added: what was explored so far no longer counts."""
        ...


def default(current: Actor | None, ready: list[Actor]) -> Actor:
    """Who goes on if nobody intervenes: the same actor, else the first that time need not push."""
    if current is not None:
        return current
    for actor in ready:
        if actor.state == READY:
            return actor
    return ready[0]


class Random:
    """Every choice uniform; schedule number i of seed s is the same in every process."""

    __slots__ = ("_rng", "complete")

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.complete = False

    def begin(self) -> bool:
        return True

    def end(self) -> None:
        """Nothing to remember."""

    def restart(self) -> None:
        """Nothing to repeat: more preemption points only make later schedules finer."""

    def pick(self, current: Actor | None, ready: list[Actor]) -> Actor:
        return ready[int(self._rng.random() * len(ready))]

    def choose(self, count: int, label: str) -> int:
        return int(self._rng.random() * count)


class _Deviation:
    """A schedule as its difference from the default: after ``base``, at decision ``at`` take alternative ``alt``."""

    __slots__ = ("alt", "at", "base")

    def __init__(self, base: _Deviation | None, at: int, alt: int) -> None:
        self.base = base
        self.at = at
        self.alt = alt


class Exhaustive:
    """Every schedule with at most ``bound`` preemptions, each once, those with few preemptions first.

    A preemption is leaving an actor that could go on. A schedule is determined by the decisions where it deviates
    from the default; each run offers its later alternatives as new schedules.
    """

    __slots__ = ("_alt", "_at", "_cost", "_deviation", "_frontier", "_open", "_path", "_step", "bound", "complete")

    def __init__(self, bound: int) -> None:
        self.bound: Final = bound
        self.restart()

    def restart(self) -> None:
        self.complete = False
        #: by number of preemptions: schedules still to be run
        self._frontier: list[list[_Deviation | None]] = [[] for _ in range(self.bound + 1)]
        self._frontier[0].append(None)

    def begin(self) -> bool:
        for cost, waiting in enumerate(self._frontier):
            if waiting:
                self._cost = cost
                deviation = self._deviation = waiting.pop()
                #: the deviations still ahead, next one last
                self._path: list[_Deviation] = []
                while deviation is not None:
                    self._path.append(deviation)
                    deviation = deviation.base
                #: decisions after the last deviation: (number, alternatives, preemptions)
                self._open: list[tuple[int, int, int]] = []
                self._step = 0
                self._advance()
                return True
        self.complete = True
        return False

    def _advance(self) -> None:
        if self._path:
            deviation = self._path.pop()
            self._at, self._alt = deviation.at, deviation.alt
        else:
            self._at = -1

    def end(self) -> None:
        for at, count, preemptions in self._open:
            waiting = self._frontier[self._cost + preemptions]
            for alt in range(1, count):
                waiting.append(_Deviation(self._deviation, at, alt))

    def _decide(self, count: int, preemptions: int) -> int:
        """The alternative to take at this decision; 0 is the default."""
        step = self._step
        self._step = step + 1
        if self._at < 0:
            if self._cost + preemptions <= self.bound:
                self._open.append((step, count, preemptions))
            return 0
        if step < self._at:
            return 0
        alt = self._alt
        self._advance()
        return alt

    def pick(self, current: Actor | None, ready: list[Actor]) -> Actor:
        count = len(ready)
        if count == 1:
            return ready[0]
        alt = self._decide(count, 0 if current is None else 1)
        chosen = default(current, ready)
        if alt:
            others = [a for a in ready if a is not chosen]
            chosen = others[alt - 1]
        return chosen

    def choose(self, count: int, label: str) -> int:
        return self._decide(count, 0) if count > 1 else 0


class Replay:
    """As recorded. Past the end of the recording the default goes on.

    Raises ReplayError where the recording names an actor that cannot go on, or a choice is missing.
    """

    __slots__ = ("_at", "_schedule")

    def __init__(self, schedule: Sequence[str | int]) -> None:
        self._schedule = schedule
        self._at = 0

    def pick(self, current: Actor | None, ready: list[Actor]) -> Actor:
        at = self._at
        if at >= len(self._schedule):
            return default(current, ready)
        self._at = at + 1
        wanted = self._schedule[at]
        for actor in ready:
            if actor.name == wanted:
                return actor
        raise ReplayError(f"schedule[{at}]: {wanted!r} cannot go on here, only {', '.join(a.name for a in ready)}")

    def choose(self, count: int, label: str) -> int:
        at = self._at
        if at >= len(self._schedule):
            return 0
        self._at = at + 1
        value = self._schedule[at]
        if not isinstance(value, int) or not 0 <= value < count:
            raise ReplayError(f"schedule[{at}]: {value!r} is no value of the choice {label!r} (0 to {count - 1})")
        return value
