"""Who is called for a notification: chains of handlers by protocol, event and source (Linux: ``notifier_block``)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from common.errors import BackpressureError
from common.scmi.header import NOTIFICATION
from common.scmi.names import message_name
from common.world import Table, World
from services.guest_driver.notify_events import ALL_SOURCES, Handler, Notification, source_key

#: Handlers of one source of one event, or of all its sources.
MAX_HANDLERS: Final = 256


class Handlers:
    """``world.new(Handlers, world, log)``. The same handler may be added several times; it is then called as often.

    Handlers are called under the lock of the table: once :meth:`remove` has returned, what it took away is not running
    and will not be called any more.
    """

    __slots__ = ("_chains", "_lock", "_log")

    _chains: Final[Table[tuple[Handler, ...]]]
    _lock: Final[AbstractContextManager[Any]]
    _log: Final[Callable[..., None]]

    def __init__(self, world: World, log: Callable[..., None]) -> None:
        #: source_key → handlers, in the order added
        self._chains = world.table()
        self._lock = world.spinlock()
        self._log = log

    def add(self, key: int, handler: Handler) -> None:
        """Raises BackpressureError beyond MAX_HANDLERS."""
        with self._lock:
            chain = self._chains.get(key) or ()
            if len(chain) >= MAX_HANDLERS:
                raise BackpressureError(f"notifications: {MAX_HANDLERS} handlers of one event and source already")
            self._chains[key] = (*chain, handler)

    def remove(self, key: int, handler: Handler) -> bool:
        """Take the handler away that was added first. False: it is not there."""
        with self._lock:
            chain = self._chains.get(key) or ()
            if handler not in chain:
                return False
            at = chain.index(handler)
            if len(chain) == 1:
                self._chains.pop(key)
            else:
                self._chains[key] = chain[:at] + chain[at + 1 :]
            return True

    def __contains__(self, key: int) -> bool:
        """Does anybody want this source, or (ALL_SOURCES) all of them?"""
        with self._lock:
            return key in self._chains

    def wanted(self) -> list[int]:
        """Keys with a handler, the oldest first."""
        with self._lock:
            return list(self._chains)

    def take(self, key: int) -> tuple[Handler, ...]:
        """Remove the whole chain of ``key``."""
        with self._lock:
            return self._chains.pop(key, None) or ()

    def call(self, notification: Notification) -> tuple[int, int]:
        """Call who wants every source, then who wants this one. Returns how many were called, and how many raised:
        one that raises is logged and does not keep it from the others."""
        protocol, event, source, *_ = notification
        called = failed = 0
        with self._lock:
            for wanted in (ALL_SOURCES, source):
                for handler in self._chains.get(source_key(protocol, event, wanted)) or ():
                    called += 1
                    try:
                        handler(notification)
                    except Exception as error:
                        failed += 1
                        name = message_name(protocol, event, NOTIFICATION)
                        self._log("notification handler failed", notification=name, error=repr(error))
        return called, failed
