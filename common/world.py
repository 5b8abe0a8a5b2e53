"""What an algorithm is handed: its *world*.

Every algorithm (ring halves, SCMI transport, command queues, workers) stands once. It takes a :class:`World` and
uses nothing else to touch memory that it shares, to order its stores, to lock or to wait. The services hand in
:class:`common.runtime.world.AsyncWorld` (plain objects, asyncio underneath), the lab an explorer's world in which
the same names are watched. Two rules:

1. What waits is ``async def``; what does not is a plain function. An algorithm awaits only what its world handed in.
2. Whatever two actors share is made by the world: ring views, message objects, lists, counters, flags.

Fences are *attributes that may be None*: a world in which one thread sees its own stores hands in ``None``, and an
algorithm asks ``if world.wmb is not None: world.wmb()``. That test is all that the services pay for the barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar, overload

T = TypeVar("T")

Fence = Callable[[], None] | None


class View(Protocol):
    """Indexable fixed-width cells of shared memory: ``memoryview.cast`` in the services, watched in the lab.

    Cells are little-endian unsigned integers of one width. One store is one aligned access: never torn.
    Slices are not part of the interface.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Fifo(Protocol[T]):
    """A shared list of the world: what ``collections.deque`` offers of append, appendleft, popleft, remove, len, in."""

    def append(self, item: T, /) -> None: ...
    def appendleft(self, item: T, /) -> None: ...
    def popleft(self) -> T: ...
    def remove(self, item: T, /) -> None: ...
    def __len__(self) -> int: ...
    def __contains__(self, item: object, /) -> bool: ...
    def __iter__(self) -> Iterator[T]: ...


class Array(Protocol[T]):
    """A shared array of fixed length, one watched cell an element."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> T: ...
    def __setitem__(self, index: int, value: T, /) -> None: ...


class Table(Protocol[T]):
    """A shared mapping from ints (tokens, INTIDs …) to world-made objects or immutable values."""

    def get(self, key: int, /) -> T | None: ...
    @overload
    def pop(self, key: int, /) -> T: ...
    @overload
    def pop(self, key: int, default: None, /) -> T | None: ...
    def __getitem__(self, key: int, /) -> T: ...
    def __setitem__(self, key: int, value: T, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __iter__(self) -> Iterator[int]:
        """The keys, in the order in which they were put in."""
        ...

    def __len__(self) -> int: ...


class Atomic(Protocol):
    """An integer with read-modify-write operations, each one step, with acquire and release order."""

    def load(self) -> int: ...
    def store(self, value: int) -> None: ...
    def add(self, n: int) -> int:
        """Add ``n``; returns the *new* value."""
        ...

    def swap(self, value: int) -> int:
        """Store ``value``; returns the *old* value."""
        ...


class Event(Protocol):
    """A flag that actors wait for (Linux: ``struct completion`` with complete_all)."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until set. With ``timeout`` (seconds) False means that it expired first; never raises.

        In the lab a time-out is an event that *may* fire, whatever its length; only an infinite one never does.
        """
        ...


class Deadline(Protocol):
    """A point in time that a polling loop looks at. In the lab a one-step actor that *may* make it expire."""

    @property
    def expired(self) -> bool: ...
    def cancel(self) -> None: ...


class Memory(Protocol):
    """Guest memory as algorithms see it; :class:`common.memory.GuestMemory` has the full interface."""

    @property
    def regions(self) -> tuple[Any, ...]:
        """The banks that are plugged in; another tuple after every change."""
        ...

    def view(self, addr: int, count: int, fmt: str, perm: int = 1) -> View:
        """``count`` cells of format ``fmt`` (``B``, ``H``, ``I`` or ``Q``) at guest address ``addr``.

        ``perm`` is the access that a memory map in between must grant (1 read, 2 write, 3 both). Raises
        MemoryFaultError if any byte is outside memory; LocalError if ``addr`` is not aligned to the cell.
        """
        ...

    def check(self, addr: int, length: int) -> None:
        """Raise MemoryFaultError unless ``length`` bytes at ``addr`` all lie in memory."""
        ...

    def buffer(self, addr: int, length: int) -> memoryview | None:
        """The bytes themselves, for copies in bulk; None where accesses must go through read() and write()."""
        ...

    def read(self, addr: int, length: int) -> bytes:
        """Copy ``length`` bytes out (bulk payload; no preemption point inside)."""
        ...

    def write(self, addr: int, data: bytes) -> None:
        """Copy ``data`` in (bulk payload; no preemption point inside)."""
        ...


class World(Protocol):
    """The factory of everything that algorithms share or wait for."""

    wmb: Fence
    rmb: Fence
    mb: Fence

    def new(self, cls: type[T], /, *args: Any, **kwargs: Any) -> T:
        """Make a shared object. ``cls`` must have ``__slots__``; the lab makes a watched subclass of it.

        Values stored in its fields must be immutable or world-made. A field that the class annotates ``Final`` is
        set in ``__init__`` and never again: reading it is no preemption point, and the lab refuses a later store.
        Only an annotation in the body of the class (or of a base) counts: ``self.x: Final = …`` leaves no trace that
        the lab could see, so such a field is watched like any other.
        """
        ...

    def memory(self, size: int, base: int = 0) -> Memory:
        """Zeroed guest memory of ``size`` bytes at guest address ``base``."""
        ...

    def queue(self) -> Fifo[Any]: ...
    def array(self, length: int, fill: Any = None) -> Array[Any]: ...
    def table(self) -> Table[Any]: ...
    def atomic(self, value: int = 0) -> Atomic: ...
    def spinlock(self) -> AbstractContextManager[Any]:
        """A lock for sections that do not await; not recursive."""
        ...

    def mutex(self) -> AbstractAsyncContextManager[Any]:
        """A lock that may be held across an await: ``async with``."""
        ...

    def event(self) -> Event: ...
    def deadline(self, seconds: float) -> Deadline: ...
    def spawn(self, name: str, coro: Coroutine[Any, Any, Any], /) -> None:
        """Start an actor. It runs to its end and is never cancelled by an algorithm."""
        ...

    async def relax(self) -> None:
        """In a polling loop: let others run until something that this loop read may have changed."""
        ...

    async def turn(self) -> None:
        """In work that goes on for long: let all others who are ready have their turn."""
        ...
