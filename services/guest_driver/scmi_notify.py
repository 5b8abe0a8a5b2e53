"""Who wants to hear of which notification: callbacks by protocol, event and source."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from common.errors import BackpressureError
from common.scmi.header import PROTOCOL_SHIFT
from common.scmi.status import ProtocolId
from common.world import Table, World

#: Callbacks of one event of one protocol, all sources together.
MAX_CALLBACKS: Final = 256

#: Header, then what nearly every notification begins with: agent, source.
_PREFIX: Final = struct.Struct("<III")
#: Protocols whose events have one source only: the word behind the agent is something else.
_NO_SOURCE: Final = frozenset((ProtocolId.BASE.value, ProtocolId.SYSTEM_POWER.value))


class Notification(NamedTuple):
    """``source`` is the domain that it is about (clock id, sensor id …), 0 where its protocol knows only one."""

    protocol: int
    event: int
    source: int
    payload: bytes


Callback = Callable[[Notification], None]


class Notifications:
    """``world.new(Notifications, world, log)``. Callbacks do not wait; one that raises is logged and skipped."""

    __slots__ = ("_callbacks", "_lock", "_log", "handler_failures", "unhandled")

    _callbacks: Final[Table[tuple[tuple[int | None, Callback], ...]]]
    _lock: Final[AbstractContextManager[Any]]
    _log: Final[Callable[..., None]]

    def __init__(self, world: World, log: Callable[..., None]) -> None:
        #: protocol and event → (source or None for all, callback), in the order registered
        self._callbacks = world.table()
        self._lock = world.spinlock()
        self._log = log
        self.unhandled = 0
        self.handler_failures = 0

    def register(self, protocol: int, event: int, callback: Callback, source: int | None = None) -> None:
        """Raises BackpressureError beyond MAX_CALLBACKS of one event."""
        key = protocol << 8 | event
        with self._lock:
            known = self._callbacks.get(key) or ()
            if len(known) >= MAX_CALLBACKS:
                raise BackpressureError(f"notification {protocol:#x}/{event:#x}: {MAX_CALLBACKS} callbacks already")
            self._callbacks[key] = (*known, (source, callback))

    def unregister(self, protocol: int, event: int, callback: Callback, source: int | None = None) -> bool:
        """Take one registration back. False: there was none."""
        key = protocol << 8 | event
        with self._lock:
            known = self._callbacks.get(key) or ()
            for at, one in enumerate(known):
                if one[0] == source and one[1] == callback:
                    self._callbacks[key] = known[:at] + known[at + 1 :]
                    return True
        return False

    def dispatch(self, word: int, data: bytes) -> bool:
        """Call whoever wants the notification with header ``word`` and whole message ``data``. False: malformed."""
        if len(data) < _PREFIX.size:
            return False
        protocol, event = word >> PROTOCOL_SHIFT & 0xFF, word & 0xFF
        source = 0 if protocol in _NO_SOURCE else _PREFIX.unpack_from(data)[2]
        with self._lock:
            known = self._callbacks.get(protocol << 8 | event) or ()
        called = False
        for wanted, callback in known:
            if wanted is None or wanted == source:
                called = True
                try:
                    callback(Notification(protocol, event, source, data[4:]))
                except Exception as error:
                    # a driver's callback must not stop the channel for everybody else
                    self.handler_failures += 1
                    self._log("notification_handler_failed", protocol=protocol, notification=event, error=repr(error))
        if not called:
            self.unhandled += 1
        return True
