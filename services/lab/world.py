"""The lab's world: what algorithms get from it is watched (sequentially consistent memory)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from common.world import Fence
from services.lab.actor import Actor
from services.lab.memory import LabMemory
from services.lab.reach import Audit, WorldMade
from services.lab.scheduler import Run
from services.lab.sharing import Location
from services.lab.sync import Atomic, Deadline, Event, Mutex, Spinlock
from services.lab.watched import Array, Fifo, Table, make, name_of

T = TypeVar("T")


class LabWorld(WorldMade):
    """Implements :class:`common.world.World` on top of one :class:`Run`.

    Before the run starts (the scenario's set-up) nothing is a step. ``audit`` walks what each actor reaches.
    """

    __slots__ = ("_audit", "_labels", "mb", "rmb", "run", "wmb")

    def __init__(self, run: Run, audit: bool = True) -> None:
        self.run: Final = run
        # sequential consistency: every store is visible at once, so a fence has nothing to do
        self.wmb: Fence = None
        self.rmb: Fence = None
        self.mb: Fence = None
        self._labels: dict[Location, str] = {}
        self._audit = Audit() if audit else None
        run.name_of = self.name_of
        if audit:
            run.on_spawn = self._walk

    # --- what algorithms use ---------------------------------------------------------------------------------------

    def new(self, cls: type[T], /, *args: Any, **kwargs: Any) -> T:
        made: T = make(self.run, cls, args, kwargs)
        return made

    def memory(self, size: int, base: int = 0) -> LabMemory:
        return LabMemory(self.run, size, base)

    def queue(self) -> Fifo:
        return Fifo(self.run)

    def array(self, length: int, fill: Any = None) -> Array:
        return Array(self.run, length, fill)

    def table(self) -> Table:
        return Table(self.run)

    def atomic(self, value: int = 0) -> Atomic:
        return Atomic(self.run, value)

    def spinlock(self) -> Spinlock:
        return Spinlock(self.run, "spinlock")

    def mutex(self) -> Mutex:
        return Mutex(self.run, "mutex")

    def event(self) -> Event:
        return Event(self.run)

    def deadline(self, seconds: float) -> Deadline:
        """May expire at any time, whatever ``seconds`` says, as long as it is finite."""
        return Deadline(self.run, seconds)

    def spawn(self, name: str, coro: Coroutine[Any, Any, Any], /) -> None:
        """In mid-run an algorithm may start several actors of one name: the second one is called ``name 2``."""
        run = self.run
        if run.started:
            run.setup_names[name] = count = run.setup_names.get(name, 0) + 1
            if count > 1:
                name = f"{name} {count}"
        run.spawn(name, coro)

    async def relax(self) -> None:
        self.run.relax()

    async def turn(self) -> None:
        """Every access is a point at which others may have their turn."""

    # --- what scenarios use besides --------------------------------------------------------------------------------

    def choice(self, count: int, label: str) -> int:
        """0 to ``count`` - 1: every value is a branch of the search."""
        return self.run.choose(count, label)

    def leap(self, what: str, action: Callable[[], None]) -> None:
        """Do all of ``action`` (plain code on world-made things) as one step, called ``what`` in ladders."""
        self.run.leap(what, action)

    def label(self, thing: Any, cell: int | str, text: str) -> None:
        """Call one cell of world-made ``thing`` (an address of memory, an index, a field) ``text`` in ladders."""
        self._labels[name_of(thing), cell] = text

    def called(self, thing: Any, name: str) -> None:
        """Set-up only: a readable name for a world-made object. Raises WatchError once actors run, and for memory."""
        if self.run.started or isinstance(thing, LabMemory):
            raise self.run.refuse(f"{name_of(thing)}: objects are named before the run starts, memory by label()")
        thing.lab_name = name

    def name_of(self, loc: Location) -> str:
        """A location for people."""
        text = self._labels.get(loc)
        if text is not None:
            return text
        name, cell = loc
        if isinstance(cell, int):
            return f"{name}[{cell:#x}]" if name.startswith("mem") else f"{name}[{cell}]"
        if cell.startswith("["):
            return name + cell
        return name if cell in ("lock", "set", "value", "expired", "*") else f"{name}.{cell}"

    def _walk(self, actor: Actor) -> None:
        assert self._audit is not None
        error = self._audit.add(actor.name, actor.coro)
        if error is not None and self.run.error is None:
            self.run.error = error
