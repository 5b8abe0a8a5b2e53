"""What may be stored in a watched field, and what two actors share behind the world's back.

The lab sees only what its world made. A mutable object that two actors' coroutines both reach and that the world did
not make would be shared without a preemption point: a silent hole in every verdict. So it is an error of the run.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import gc
import types
from collections.abc import Iterable
from typing import Any, Final

from common.errors import WatchError
from services.lab.final import final_fields, slots_of

_known: Final[dict[type[Any], bool]] = {}


class WorldMade:
    """Mark of everything that a lab world hands in."""

    __slots__ = ()


#: Types whose values never change, compared by value.
ATOMS: Final = frozenset({int, bool, str, bytes, float, complex, type(None), type(Ellipsis), range})

_PASSIVE: Final = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GenericAlias,
    property,
    staticmethod,
    classmethod,
    enum.Enum,
    WorldMade,
)


def _frozen(cls: type[Any]) -> bool:
    """Are the fields of ``cls`` set once: by what Python enforces, or since each of its slots is declared Final?"""
    known = _known.get(cls)
    if known is None:
        known = _known[cls] = _is_frozen(cls)
    return known


def _is_frozen(cls: type[Any]) -> bool:
    params = getattr(cls, "__dataclass_params__", None)
    config = getattr(cls, "__struct_config__", None)
    if (params is not None and params.frozen) or (config is not None and config.frozen):
        return True
    slots = slots_of(cls)
    return bool(slots) and not cls.__dictoffset__ and set(slots) == final_fields(cls)


def _fields(value: Any) -> Iterable[Any]:
    if dataclasses.is_dataclass(value):
        return [getattr(value, f.name) for f in dataclasses.fields(value)]
    names = getattr(type(value), "__struct_fields__", None) or slots_of(type(value))
    return [getattr(value, name) for name in names if hasattr(value, name)]


def storable(value: Any) -> bool:
    """May ``value`` be stored in a watched field: is it immutable all the way down, or world-made?"""
    return type(value) in ATOMS or _storable(value, set())


def _storable(value: Any, seen: set[int]) -> bool:
    cls = type(value)
    if cls in ATOMS or isinstance(value, _PASSIVE) or id(value) in seen:
        return True
    seen.add(id(value))
    held: Iterable[Any]
    if isinstance(value, tuple | frozenset):
        held = value
    elif isinstance(value, types.MappingProxyType):
        held = (*value.keys(), *value.values())
    elif isinstance(value, types.MethodType):
        held = (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        held = _captured(value)
    elif _frozen(cls):
        held = _fields(value)
    else:
        return isinstance(value, int | str | bytes | float)
    return all(_storable(v, seen) for v in held)


def _captured(function: types.FunctionType) -> list[Any]:
    """What a function carries with it: closure cells and defaults, not its module's globals."""
    held: list[Any] = list(function.__defaults__ or ())
    held += (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    return held


@functools.cache
def _rebinds(code: types.CodeType) -> frozenset[str]:
    """Names of enclosing functions' variables that ``code`` assigns (``nonlocal``)."""
    stores = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_DEREF", "DELETE_DEREF")}
    return frozenset(stores & set(code.co_freevars))


class Reach:
    """The mutable objects that ``root`` reaches without passing through the world, by identity."""

    __slots__ = ("cells", "objects", "rebound")

    def __init__(self, root: Any) -> None:
        self.objects: dict[int, Any] = {}
        #: variables of enclosing functions, and those of them that code reached from here assigns
        self.cells: dict[int, str] = {}
        self.rebound: set[int] = set()
        seen = {id(root)}
        #: found to be immutable all the way down
        good: set[int] = set()
        todo = [root]
        while todo:
            thing = todo.pop()
            if isinstance(thing, types.FunctionType):
                self._variables(thing)
                around: Iterable[Any] = _captured(thing)
            elif isinstance(thing, types.MappingProxyType):
                around = (*thing.keys(), *thing.values())
            else:
                around = gc.get_referents(thing)
            for held in around:
                if id(held) in seen or type(held) in ATOMS or isinstance(held, _PASSIVE):
                    continue
                seen.add(id(held))
                todo.append(held)
                if not isinstance(held, types.CellType) and id(held) not in good:
                    below: set[int] = set()
                    if _storable(held, below):
                        good |= below
                    else:
                        self.objects[id(held)] = held

    def _variables(self, function: types.FunctionType) -> None:
        code = function.__code__
        rebinds = _rebinds(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self.cells[id(cell)] = name
            if name in rebinds:
                self.rebound.add(id(cell))


class Audit:
    """The walk over the actors of one run."""

    __slots__ = ("_actors",)

    def __init__(self) -> None:
        self._actors: list[tuple[str, Reach]] = []

    def add(self, name: str, coro: Any) -> WatchError | None:
        """Walk what a new actor's coroutine reaches; an error if another actor reaches some of it too."""
        mine = Reach(coro)
        for other, theirs in self._actors:
            what = ""
            for key in mine.objects.keys() & theirs.objects.keys():
                what = _describe(mine.objects[key])
            for key in (mine.rebound | theirs.rebound) & mine.cells.keys() & theirs.cells.keys():
                what = f"the variable {mine.cells[key]!r} of an enclosing function, which one of them assigns"
            if what:
                return WatchError(f"{other} and {name} share {what}: the world did not make it, the lab cannot see it")
        self._actors.append((name, mine))
        return None


def _describe(thing: Any) -> str:
    text = type(thing).__qualname__
    return f"a {text} of {len(thing)}" if isinstance(thing, list | dict | set | bytearray) else f"a {text}"
