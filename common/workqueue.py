"""Deferred work, with the semantics of Linux's work queues, over a world.

A :class:`Work` item has one pending bit. :meth:`WorkQueue.queue_work` swaps it in, and queues the item only where it
was clear; the worker clears it *before* it calls the function. So a request that comes while the function runs makes
it run once more: nothing that was queued for is ever missed, and an item is never in the queue twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from common.world import Atomic, Event, Fifo, World


class Work:
    """A function to be called by a worker: ``world.new(Work, world, function)``. The function does not wait."""

    __slots__ = ("function", "pending")

    function: Final[Callable[[], None]]
    pending: Final[Atomic]

    def __init__(self, world: World, function: Callable[[], None]) -> None:
        self.function = function
        #: 1 from queue_work() until just before the function is called
        self.pending = world.atomic(0)


class WorkQueue:
    """A queue with one worker: ``world.new(WorkQueue, world)``, then ``world.spawn(name, queue.run())``."""

    __slots__ = ("_items", "_lock", "_stopped", "_wake", "stopping")

    _items: Final[Fifo[Work]]
    _lock: Final[AbstractContextManager[Any]]
    _wake: Final[Event]
    _stopped: Final[Event]

    def __init__(self, world: World) -> None:
        self._items = world.queue()
        self._lock = world.spinlock()
        self._wake = world.event()
        self._stopped = world.event()
        self.stopping = False

    def queue_work(self, work: Work) -> bool:
        """Have ``work`` run once more. False: it was pending already, or the queue is being stopped."""
        if work.pending.swap(1):
            return False
        with self._lock:
            queued = not self.stopping
            if queued:
                self._items.append(work)
                self._wake.set()
        if not queued:
            work.pending.store(0)
        return queued

    async def run(self) -> None:
        """The worker: runs items in the order queued until :meth:`stop`, what was queued before it included."""
        while True:
            with self._lock:
                work = self._items.popleft() if self._items else None
                done = work is None and self.stopping
                if work is None and not done:
                    # under the lock: a queue_work() after it sets the event again
                    self._wake.clear()
            if work is not None:
                work.pending.store(0)
                work.function()
            elif done:
                self._stopped.set()
                return
            else:
                await self._wake.wait()

    async def stop(self) -> None:
        """Refuse further work, let the worker finish what is queued, return when it has ended."""
        with self._lock:
            self.stopping = True
            self._wake.set()
        await self._stopped.wait()
