"""Locks, events, atomics and deadlines whose operations are steps."""

from __future__ import annotations

from math import inf
from types import TracebackType

from services.lab.actor import BLOCKED, LAZY, READY, Actor
from services.lab.reach import WorldMade
from services.lab.scheduler import Run


class Lock(WorldMade):
    """What spinlock and mutex share: an owner. Taking it blocks while held; release is a step of its own."""

    __slots__ = ("_word", "lab_name", "owner", "run")

    def __init__(self, run: Run, word: str) -> None:
        self.run = run
        self._word = word
        self.lab_name = run.name(word)
        self.owner: Actor | None = None

    def state(self) -> int:
        return READY if self.owner is None else BLOCKED

    def brief(self) -> str:
        return self.describe()

    def describe(self) -> str:
        holder = f", held by {self.owner.name}" if self.owner is not None else ""
        return f"{self._word} {self.lab_name}{holder}"

    def take(self) -> None:
        run = self.run
        actor = run.current
        if actor is None:
            return
        if self.owner is actor:
            run.fail("deadlock", f"takes {self.lab_name}, which it holds")
        loc = (self.lab_name, "lock")
        run.gated("lock", loc, True, self)
        self.owner = actor
        actor.held |= {self.lab_name}
        run.note("lock", loc, "")

    def drop(self) -> None:
        run = self.run
        actor = run.current
        if actor is not None:
            loc = (self.lab_name, "lock")
            run.access("unlock", loc, True)
            actor.held -= {self.lab_name}
            run.note("unlock", loc, "")
        self.owner = None


class Spinlock(Lock):
    """``with``: for sections that do not sleep; the lab checks that they do not."""

    __slots__ = ()

    def __enter__(self) -> None:
        self.take()
        if self.run.current is not None:
            self.run.current.spins += 1

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self.run.current is not None:
            self.run.current.spins -= 1
        self.drop()


class Mutex(Lock):
    """``async with``: may be held across an await."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        if self.run.current is not None:
            self.run.no_sleep_here(self.run.current, f"async with {self.lab_name}")
        self.take()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None
    ) -> None:
        self.drop()


class Event(WorldMade):
    """A flag that actors wait for. A wait with a time-out may end at any time before the flag is set; one of
    infinite length never does."""

    __slots__ = ("_flag", "lab_name", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lab_name = run.name("event")
        self._flag = False

    @property
    def flag(self) -> bool:
        """The state, looked at from outside: no step."""
        return self._flag

    def _store(self, value: bool) -> None:
        run = self.run
        loc = (self.lab_name, "set")
        run.access("set" if value else "clear", loc, True)
        if self._flag != value:
            run.changed(loc)
        self._flag = value
        run.note("set" if value else "clear", loc, "")

    def set(self) -> None:
        self._store(True)

    def clear(self) -> None:
        self._store(False)

    def is_set(self) -> bool:
        loc = (self.lab_name, "set")
        self.run.access("read", loc, False)
        self.run.note("read", loc, str(self._flag))
        return self._flag

    async def wait(self, timeout: float | None = None) -> bool:
        run = self.run
        if run.current is None:
            return self._flag
        loc = (self.lab_name, "set")
        run.no_sleep_here(run.current, f"{self.lab_name}.wait()")
        run.gated("wait", loc, False, _Waiting(self, timeout is not None and timeout != inf))
        run.note("wait", loc, "set" if self._flag else "time-out")
        return self._flag


class _Waiting:
    """One wait for an event."""

    __slots__ = ("_event", "_timed")

    def __init__(self, event: Event, timed: bool) -> None:
        self._event = event
        self._timed = timed

    def state(self) -> int:
        if self._event.flag:
            return READY
        return LAZY if self._timed else BLOCKED

    def brief(self) -> str:
        return self.describe()

    def describe(self) -> str:
        return f"{self._event.lab_name}.wait()"


class Atomic(WorldMade):
    """An integer; each operation is one step."""

    __slots__ = ("_value", "lab_name", "run")

    def __init__(self, run: Run, value: int) -> None:
        self.run = run
        self.lab_name = run.name("atomic")
        self._value = value

    def load(self) -> int:
        loc = (self.lab_name, "value")
        self.run.access("read", loc, False)
        self.run.note("read", loc, str(self._value))
        return self._value

    def _update(self, kind: str, value: int | None, add: int) -> int:
        """Store ``value``, or what is there plus ``add``; returns what was there."""
        run = self.run
        loc = (self.lab_name, "value")
        run.access(kind, loc, True)
        old = self._value
        self._value = old + add if value is None else value
        actor = run.current
        if actor is not None:
            if kind != "write":
                actor.reads.add(loc)
            if self._value != old:
                run.changed(loc)
            run.note(kind, loc, f"{old} → {self._value}" if kind != "write" else str(self._value))
        return old

    def store(self, value: int) -> None:
        self._update("write", value, 0)

    def add(self, n: int) -> int:
        return self._update("add", None, n) + n

    def swap(self, value: int) -> int:
        return self._update("swap", value, 0)


class Deadline(WorldMade):
    """A flag that an actor of its own may raise at any time until it is cancelled; never, at infinity."""

    __slots__ = ("_cancelled", "_expired", "lab_name", "run")

    def __init__(self, run: Run, seconds: float = 0.0) -> None:
        self.run = run
        self.lab_name = run.name("deadline")
        self._expired = False
        self._cancelled = False
        if seconds != inf:
            run.spawn(self.lab_name, self._fire(), daemon=True)
            if run.current is not None:
                # whoever made it looks at it: a relax() before the first look must not sleep through it
                run.current.reads.add((self.lab_name, "expired"))

    def state(self) -> int:
        return BLOCKED if self._cancelled else LAZY

    def brief(self) -> str:
        return self.describe()

    def describe(self) -> str:
        return f"{self.lab_name}, cancelled"

    async def _fire(self) -> None:
        run = self.run
        loc = (self.lab_name, "expired")
        run.gated("expire", loc, True, self)
        self._expired = True
        run.changed(loc)
        run.note("expire", loc, "")

    @property
    def expired(self) -> bool:
        loc = (self.lab_name, "expired")
        self.run.access("read", loc, False)
        self.run.note("read", loc, str(self._expired))
        return self._expired

    def cancel(self) -> None:
        loc = (self.lab_name, "expired")
        self.run.access("cancel", loc, True)
        self._cancelled = True
        self.run.note("cancel", loc, "")
