"""Use after free: from a moment on, whoever touches one of some world-made objects fails, and the object is named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from services.lab.final import slots_of
from services.lab.sync import Atomic, Event, Lock
from services.lab.watched import Array, Fifo, Table, name_of
from services.lab.world import LabWorld

_SIMPLE: Final = (Array, Atomic, Event, Fifo, Lock, Table)


class _Freed:
    """Takes the place of the run in a freed object: every step of an actor on it is a failure."""

    __slots__ = ("_name", "_run")

    def __init__(self, run: Any, name: str) -> None:
        self._run = run
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        run = self._run
        # checks, and actors that are being stopped, may look
        if run.current is not None:
            raise AssertionError(f"use after free of {self._name}")
        return getattr(run, attribute)


def _cells(thing: Any) -> Iterable[int | str]:
    """The cells of one object, as its steps name them."""
    if isinstance(thing, Array):
        return range(len(thing.items))
    if isinstance(thing, Table):
        return ("keys", *(f"[{key}]" for key in thing.items))
    for kind, cell in ((Fifo, "*"), (Lock, "lock"), (Event, "set"), (Atomic, "value")):
        if isinstance(thing, kind):
            return (cell,)
    return slots_of(type(thing).__mro__[1])


def free(world: LabWorld, *things: Any) -> None:
    """Free ``things`` and the containers, locks, events and atomics that are fields of theirs; memory is not freed.

    Raises AssertionError in the caller where an actor sleeps on one of them, or is about to touch it.
    """
    freed: list[Any] = []
    for thing in things:
        freed.append(thing)
        if not isinstance(thing, _SIMPLE):
            # behind the lab's back: looking is no step
            fields = [base.__dict__[name].__get__(thing) for name, base in slots_of(type(thing).__mro__[1]).items()]
            freed += [field for field in fields if isinstance(field, _SIMPLE)]
    run: Any = world.run
    names = {name_of(thing) for thing in freed}
    for actor in run.actors:
        if actor is not run.current and actor.loc is not None and actor.loc[0] in names:
            raise AssertionError(f"free of {actor.loc[0]} while {actor.name} is at it: {actor.kind}")
    sharing, owner = run.sharing, run.current
    for thing in freed:
        if sharing is not None and owner is not None:
            # to free is to write: what only one other actor touches is a preemption point now
            for cell in _cells(thing):
                if (name_of(thing), cell) not in sharing.shared:
                    sharing.touch((name_of(thing), cell), owner.name, True, owner.held)
        setattr(thing, "run" if isinstance(thing, _SIMPLE) else "lab_run", _Freed(run, name_of(thing)))
