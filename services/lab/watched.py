"""Shared objects and containers whose accesses are steps.

:func:`watched_class` makes a subclass of an algorithm's own class: a property over each slot descriptor, and nothing
else. Its methods are the very function objects that the services run. Reading a field that the class annotates
``Final`` is no step; storing to it once ``__init__`` is through leaves the run without a verdict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final, overload

from services.lab.final import final_fields, slots_of
from services.lab.reach import ATOMS, WorldMade, storable
from services.lab.scheduler import Run

_classes: Final[dict[type[Any], type[Any]]] = {}


class _Idle:
    """Stands for the run while an object is under construction: nobody else knows it yet."""

    __slots__ = ()
    current: Final = None

    def spy(self, loc: object, write: bool) -> None:
        """Nothing to see."""

    refuse = staticmethod(TypeError)


_IDLE: Final = _Idle()


def show(value: Any) -> str:
    """A value as the ladder prints it; never touches a watched field."""
    cls = type(value)
    if cls is int:
        return str(value) if -1 <= value < 4096 else hex(value)
    if cls in ATOMS:
        return repr(value)
    if isinstance(value, WorldMade):
        return name_of(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple):
        return "(" + ", ".join(show(v) for v in value) + ")"
    return cls.__name__.lower()


def name_of(thing: Any) -> str:
    """The lab's name of a world-made object."""
    return str(getattr(thing, "lab_name", type(thing).__name__))


def guard(run: Any, name: str, field: object, value: Any) -> None:
    """Refuse a value that could be changed behind the lab's back."""
    if type(value) not in ATOMS and not storable(value):
        raise run.refuse(f"{name}.{field}: a {type(value).__qualname__} is neither immutable nor world-made")


def differs(old: Any, new: Any) -> bool:
    """Has a stored value changed? World-made objects by identity: comparing them would read their fields."""
    return old is not new and not (type(old) in ATOMS and type(new) in ATOMS and old == new)


def _watched_field(field: str, slot: Any) -> property:
    peek: Callable[[Any], Any] = slot.__get__
    poke: Callable[[Any, Any], None] = slot.__set__

    def get(self: Any) -> Any:
        run = self.lab_run
        if run.current is None:
            run.spy((self.lab_name, field), False)
            return peek(self)
        loc = (self.lab_name, field)
        run.access("read", loc, False)
        value = peek(self)
        if run.trace is not None:
            run.note("read", loc, show(value))
        return value

    def put(self: Any, value: Any) -> None:
        run = self.lab_run
        if type(value) not in ATOMS:
            guard(run, self.lab_name, field, value)
        loc = (self.lab_name, field)
        if run.current is None:
            run.spy(loc, True)
            poke(self, value)
            return
        run.access("write", loc, True)
        try:
            old = peek(self)
        except AttributeError:
            old = run
        poke(self, value)
        if differs(old, value):
            run.changed(loc)
        if run.trace is not None:
            run.note("write", loc, show(value))

    return property(get, put)


def _final_field(field: str, slot: Any) -> property:
    """Set while ``__init__`` runs and never again; so nobody can tell when it is read."""
    peek: Callable[[Any], Any] = slot.__get__
    poke: Callable[[Any, Any], None] = slot.__set__

    def put(self: Any, value: Any) -> None:
        run = self.lab_run
        if run is not _IDLE:
            raise run.refuse(f"{self.lab_name}.{field} is Final: nothing may be stored in it after __init__")
        guard(run, self.lab_name, field, value)
        poke(self, value)

    return property(peek, put)


def watched_class(cls: type[Any]) -> type[Any]:
    """The watched subclass of ``cls``. Raises TypeError if ``cls`` has instances with a ``__dict__``."""
    made = _classes.get(cls)
    if made is None:
        if cls.__dictoffset__:
            raise TypeError(f"{cls.__qualname__} has no __slots__ (or inherits from a class without)")
        namespace: dict[str, Any] = {"__slots__": ("lab_name", "lab_run"), "__module__": cls.__module__}
        final = final_fields(cls)
        for field, base in slots_of(cls).items():
            namespace[field] = (_final_field if field in final else _watched_field)(field, base.__dict__[field])
        metaclass: Any = type(cls)
        made = _classes[cls] = metaclass(cls.__name__, (cls, WorldMade), namespace)
    return made


def make(run: Run, cls: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Construct a watched object; its own fields become steps once ``__init__`` is through."""
    try:
        made: type[Any] = watched_class(cls)
    except TypeError as error:
        raise run.refuse(str(error)) from None
    thing: Any = object.__new__(made)
    thing.lab_name = run.name(cls.__name__)
    thing.lab_run = _IDLE
    try:
        thing.__init__(*args, **kwargs)
    except TypeError as error:
        if "neither immutable nor world-made" in str(error):
            raise run.refuse(str(error)) from None
        raise
    thing.lab_run = run
    return thing


class Fifo(WorldMade):
    """``collections.deque`` as one watched location: every operation is a step on the whole."""

    __slots__ = ("items", "lab_name", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lab_name = run.name("queue")
        self.items: deque[Any] = deque()

    def _write(self, what: str, item: Any) -> None:
        run = self.run
        guard(run, self.lab_name, what, item)
        loc = (self.lab_name, "*")
        run.access("write", loc, True)
        if run.current is not None:
            run.changed(loc)
            run.note(what, loc, "" if item is None else show(item))

    def _read(self, what: str, text: str = "") -> None:
        run = self.run
        loc = (self.lab_name, "*")
        run.access("read", loc, False)
        run.note(what, loc, text)

    def append(self, item: Any, /) -> None:
        self._write("append", item)
        self.items.append(item)

    def appendleft(self, item: Any, /) -> None:
        self._write("appendleft", item)
        self.items.appendleft(item)

    def popleft(self) -> Any:
        """Raises IndexError when empty."""
        self._write("popleft", None)
        return self.items.popleft()

    def remove(self, item: Any, /) -> None:
        """Raises ValueError if ``item`` is not in it."""
        self._write("remove", item)
        for index, held in enumerate(self.items):
            if not differs(held, item):
                del self.items[index]
                return
        raise ValueError(f"{self.lab_name}.remove: not in the queue")

    def __len__(self) -> int:
        self._read("len")
        return len(self.items)

    def __contains__(self, item: object, /) -> bool:
        self._read("in", show(item))
        return any(not differs(held, item) for held in self.items)

    def __iter__(self) -> Iterator[Any]:
        self._read("iter")
        return iter(tuple(self.items))


class Array(WorldMade):
    """A fixed-length array, one watched location an element."""

    __slots__ = ("items", "lab_name", "run")

    def __init__(self, run: Run, length: int, fill: Any) -> None:
        self.run = run
        self.lab_name = run.name("array")
        guard(run, self.lab_name, "fill", fill)
        self.items = [fill] * length

    def _at(self, index: Any) -> int:
        if type(index) is not int:
            raise self.run.refuse(f"{self.lab_name}[{index!r}]: one element at a time")
        if not -len(self.items) <= index < len(self.items):
            raise IndexError(f"{self.lab_name}[{index}] of {len(self.items)}")
        return index % len(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> Any:
        run = self.run
        loc = (self.lab_name, self._at(index))
        run.access("read", loc, False)
        value = self.items[index]
        if run.trace is not None:
            run.note("read", loc, show(value))
        return value

    def __setitem__(self, index: int, value: Any, /) -> None:
        run = self.run
        loc = (self.lab_name, self._at(index))
        guard(run, self.lab_name, index, value)
        run.access("write", loc, True)
        old, self.items[index] = self.items[index], value
        if run.current is not None:
            if differs(old, value):
                run.changed(loc)
            run.note("write", loc, show(value))


class Table(WorldMade):
    """A mapping from ints: one watched location a key, and one for the set of keys (``len``, ``iter``)."""

    __slots__ = ("items", "lab_name", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lab_name = run.name("table")
        self.items: dict[int, Any] = {}

    def _read(self, key: Any) -> Any:
        run = self.run
        loc = (self.lab_name, f"[{key}]")
        run.access("read", loc, False)
        value = self.items.get(key)
        run.note("read", loc, show(value))
        return value

    def _write(self, key: int, value: Any, present: bool) -> None:
        """One step: the key's cell, and the set of keys if that changes."""
        run = self.run
        loc = (self.lab_name, f"[{key}]")
        keys = (self.lab_name, "keys")
        sharing = run.sharing
        if (
            sharing is not None
            and run.current is not None
            and sharing.touch(keys, run.current.name, True, run.current.held)
        ):
            # another actor looks at the set of keys without touching this one
            sharing.share(loc)
        run.access("write", loc, True)
        if run.current is not None:
            if (key in self.items) != present:
                run.changed(keys)
                run.changed(loc)
            elif present and differs(self.items[key], value):
                run.changed(loc)
            run.note("write" if present else "pop", loc, show(value))

    def get(self, key: int, /) -> Any:
        return self._read(key)

    def __getitem__(self, key: int, /) -> Any:
        self._read(key)
        return self.items[key]

    def __contains__(self, key: object, /) -> bool:
        self._read(key)
        return key in self.items

    def __setitem__(self, key: int, value: Any, /) -> None:
        guard(self.run, self.lab_name, key, value)
        self._write(key, value, True)
        self.items[key] = value

    @overload
    def pop(self, key: int, /) -> Any: ...
    @overload
    def pop(self, key: int, default: None, /) -> Any | None: ...
    def pop(self, key: int, /, *default: None) -> Any:
        """Raises KeyError without a default."""
        self._write(key, None, False)
        return self.items.pop(key, *default)

    def _read_keys(self, what: str) -> None:
        loc = (self.lab_name, "keys")
        self.run.access("read", loc, False)
        self.run.note(what, loc, "")

    def __iter__(self) -> Iterator[int]:
        self._read_keys("iter")
        return iter(tuple(self.items))

    def __len__(self) -> int:
        self._read_keys("len")
        return len(self.items)
