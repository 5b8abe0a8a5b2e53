"""The services' world: plain objects, asyncio underneath. See :mod:`common.world` for what each name promises.

Nothing here costs a timer or a task per wait. Waits with a time-out and parked polling loops are served by *one*
periodic sweep, which runs only while there is something to sweep.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final, TypeVar, cast

import structlog

from common.memory import GuestMemory
from common.runtime.clock import Clock, monotonic
from common.world import Fence, World

T = TypeVar("T")

#: Seconds between two sweeps while a polling loop is parked in relax(): it looks again at the latest after this.
POLL_SWEEP: Final = 0.002
#: Seconds between two sweeps while there are only waits with a time-out.
WAIT_SWEEP: Final = 0.005


class AsyncAtomic:
    """One thread runs everything, so a plain int is atomic."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def load(self) -> int:
        return self.value

    def store(self, value: int) -> None:
        self.value = value

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    def swap(self, value: int) -> int:
        old = self.value
        self.value = value
        return old


class _NullLock:
    """A section without await cannot be preempted here, so its lock is nothing at all."""

    __slots__ = ()

    # Built-in functions that take anything and return something false: a `with` costs half of what it does when the
    # two are written in Python, and a polled SCMI command takes ten of them.
    __enter__ = "".format
    __exit__ = "".format


_NULL_LOCK: Final = cast(AbstractContextManager[Any], _NullLock())


class AsyncEvent:
    """A flag that tasks wait for; a time-out is a return value, never an exception."""

    __slots__ = ("_set", "_waiters", "_world")

    def __init__(self, world: AsyncWorld) -> None:
        self._world = world
        self._set = False
        self._waiters: list[asyncio.Future[bool]] = []

    def set(self) -> None:
        self._set = True
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(True)

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    async def wait(self, timeout: float | None = None) -> bool:
        if self._set:
            return True
        world = self._world
        expires = 0.0 if timeout is None else world.clock() + timeout
        while True:
            waiter: asyncio.Future[bool] = world.loop.create_future()
            self._waiters.append(waiter)
            if timeout is not None:
                world.expire(waiter, expires)
            try:
                woken = await waiter
            finally:
                if timeout is not None:
                    world.forget(waiter)
                if waiter in self._waiters:  # expired or cancelled: set() has not emptied the list
                    self._waiters.remove(waiter)
            # what counts is the flag now: set and cleared again before this task ran, it waits on
            if self._set or not woken:
                return self._set


class AsyncDeadline:
    """A point of the clock that a polling loop compares with."""

    __slots__ = ("_at", "_clock")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._at = clock() + seconds

    @property
    def expired(self) -> bool:
        return self._clock() >= self._at

    def cancel(self) -> None:
        self._at = float("inf")


class AsyncWorld(World):
    """Plain objects and asyncio. One thread sees its own stores, so the fences are None.

    ``on_failure(name, error)`` hears of every spawned actor that ended with an exception, after it was logged.
    """

    wmb: Fence = None
    rmb: Fence = None
    mb: Fence = None

    def __init__(
        self,
        on_failure: Callable[[str, BaseException], None] | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.clock: Final = clock
        self._on_failure = on_failure
        self._log = structlog.get_logger("world")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._actors: set[asyncio.Task[Any]] = set()
        self._timed: dict[asyncio.Future[bool], float] = {}
        self._parked: list[asyncio.Future[None]] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._fast = False  # the armed sweep comes within POLL_SWEEP

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; the world belongs to the first one that it meets."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def actors(self) -> int:
        """How many spawned actors have not ended."""
        return len(self._actors)

    def new(self, cls: type[T], /, *args: Any, **kwargs: Any) -> T:
        return cls(*args, **kwargs)

    def memory(self, size: int, base: int = 0) -> GuestMemory:
        return GuestMemory(size, base)

    def queue(self) -> deque[Any]:
        return deque()

    def array(self, length: int, fill: Any = None) -> list[Any]:
        return [fill] * length

    def table(self) -> dict[int, Any]:
        return {}

    def atomic(self, value: int = 0) -> AsyncAtomic:
        return AsyncAtomic(value)

    def spinlock(self) -> AbstractContextManager[Any]:
        return _NULL_LOCK

    def mutex(self) -> AbstractAsyncContextManager[Any]:
        return asyncio.Lock()

    def event(self) -> AsyncEvent:
        return AsyncEvent(self)

    def deadline(self, seconds: float) -> AsyncDeadline:
        return AsyncDeadline(self.clock, seconds)

    def spawn(self, name: str, coro: Coroutine[Any, Any, Any], /) -> None:
        task = self.loop.create_task(coro, name=name)
        self._actors.add(task)
        task.add_done_callback(self._ended)

    async def relax(self) -> None:
        """Park until :meth:`stir` or the next sweep: polling burns no CPU and looks again within POLL_SWEEP."""
        loop = self._loop or self.loop
        # A future each: awaiting a shared one, a cancelled poller would cancel it under all the others.
        waiter = loop.create_future()
        self._parked.append(waiter)
        if not self._fast:
            self._arm(POLL_SWEEP)
        await waiter

    async def turn(self) -> None:
        await asyncio.sleep(0)

    def stir(self) -> None:
        """Wake everybody parked in :meth:`relax`: something that they read may have changed."""
        if self._parked:
            parked, self._parked = self._parked, []
            for waiter in parked:
                if not waiter.done():
                    waiter.set_result(None)

    async def close(self) -> None:
        """End the world: cancel every actor that is left and wait until it is gone."""
        for task in self._actors:
            task.cancel()
        if self._actors:
            await asyncio.gather(*self._actors, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
            self._fast = False

    # --- for the waits of this world ----------------------------------------------------------------------------

    def expire(self, waiter: asyncio.Future[bool], at: float) -> None:
        """Resolve ``waiter`` with False at the first sweep from ``at`` (seconds of the clock) on."""
        self._timed[waiter] = at
        if self._sweeper is None:
            self._arm(WAIT_SWEEP)

    def forget(self, waiter: asyncio.Future[bool]) -> None:
        self._timed.pop(waiter, None)

    def _arm(self, seconds: float) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._fast = seconds <= POLL_SWEEP
        self._sweeper = self.loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        self._fast = False
        if self._timed:
            now = self.clock()
            for waiter, at in self._timed.items():
                if at <= now and not waiter.done():
                    waiter.set_result(False)
        polling = bool(self._parked)
        self.stir()
        # Pollers that park again arm a fast sweep themselves; re-arming it here saves them the call.
        if polling:
            self._arm(POLL_SWEEP)
        elif self._timed:
            self._arm(WAIT_SWEEP)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._actors.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._log.error("actor failed", actor=task.get_name(), error=repr(error), exc_info=error)
            if self._on_failure is not None:
                self._on_failure(task.get_name(), error)
