"""An actor, its gates, and what a strategy sees of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from services.lab.sharing import Location

#: What a gate says. LAZY: may go on, but only because time passes (a time-out, a deadline): no strategy prefers
#: it, and to leave such an actor is no preemption.
BLOCKED: Final = 0
LAZY: Final = 1
READY: Final = 2


class Gate(Protocol):
    """When may a published step execute?"""

    def state(self) -> int: ...
    def brief(self) -> str:
        """What kind of waiting this is, for a row of the ladder."""
        ...

    def describe(self) -> str:
        """What exactly the actor waits for, for a verdict."""
        ...


class Chooser(Protocol):
    """A strategy, seen from one schedule."""

    def pick(self, current: Actor | None, ready: list[Actor]) -> Actor:
        """Who goes next. ``ready`` is never empty; ``current`` ran last and is READY still, or None."""
        ...

    def choose(self, count: int, label: str) -> int:
        """A nondeterministic choice of the scenario, 0 to ``count`` - 1."""
        ...


class Actor:
    """A coroutine in a greenlet, with the step that it has published."""

    __slots__ = (
        "alive", "coro", "daemon", "dirty", "gate", "held", "kind", "loc", "name", "names", "ranges", "reads", "resume",
        "spins", "state", "thread",
    )  # fmt: skip

    def __init__(self, name: str, coro: Coroutine[Any, Any, Any], daemon: bool) -> None:
        self.name = name
        self.coro = coro
        self.daemon = daemon
        self.alive = True
        self.kind = ""
        self.loc: Location | None = None
        self.gate: Gate | None = None
        self.state = READY
        #: cells and (memory, start, end) ranges read since the last relax()
        self.reads: set[Location] = set()
        self.ranges: list[tuple[str, int, int]] = []
        #: another actor has changed one of them since
        self.dirty = False
        #: names of the locks held, and how many of them are spinlocks
        self.held: frozenset[str] = frozenset()
        self.spins = 0
        #: per-kind counters from which the objects that this actor makes get their names
        self.names: dict[str, int] = {}
        self.thread: Any = None
        self.resume: Callable[[], Any] = lambda: None


class Relax:
    """The gate of ``relax()``: something that the loop has read has been changed by another actor.

    ``written``: the cells that anybody writes in this run, for people; the rest of what was read cannot change.
    """

    __slots__ = ("actor", "name_of", "written")

    def __init__(self, actor: Actor, written: set[Location], name_of: Callable[[Location], str]) -> None:
        self.actor = actor
        self.written = written
        self.name_of = name_of

    def state(self) -> int:
        return READY if self.actor.dirty else BLOCKED

    def brief(self) -> str:
        return "relax()"

    def describe(self) -> str:
        reads = self.actor.reads
        cells = sorted(self.name_of(loc) for loc in reads & self.written or reads)
        return "relax(), until a change of " + ", ".join(cells)


class Turns(Protocol):
    """Who is running."""

    current: Actor | None


class Yield:
    """The gate of ``relax()`` in a loop that read nothing: let another actor make a step, if one can."""

    __slots__ = ("actor", "others", "run")

    def __init__(self, run: Turns, actor: Actor) -> None:
        self.run = run
        self.actor = actor
        self.others = False

    def state(self) -> int:
        if self.run.current is not self.actor:
            self.others = True
        return READY if self.others else BLOCKED

    def brief(self) -> str:
        return "relax()"

    def describe(self) -> str:
        return "relax(), having read nothing"
