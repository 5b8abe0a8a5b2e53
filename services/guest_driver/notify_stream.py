"""Notifications as an asynchronous iterator, for scripts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from common.world import Event, Fifo, World
from services.guest_driver.notify_events import Notification

if TYPE_CHECKING:
    from services.guest_driver.scmi_notify import Notifications

#: Notifications that a stream keeps for a reader who is slow.
STREAM_SIZE: Final = 256


class NotificationStream:
    """What :meth:`Notifications.stream` makes::

        async with agent.sensor.trip_points(3) as events:
            async for event in events:
                print(event.source, event.report.rising)

    Entering registers the handler and raises what that raises; leaving takes it back. The iteration ends when the
    agent's notifications end, after what came before. A notification that finds ``size`` unread ones is dropped and
    counted in :attr:`overflow`.
    """

    __slots__ = ("_ended", "_event", "_items", "_lock", "_notifications", "_number", "_protocol", "_size", "_source",
                 "_wake", "overflow")  # fmt: skip

    _event: Final[int]
    _items: Final[Fifo[Notification]]
    _lock: Final[AbstractContextManager[Any]]
    _notifications: Final[Notifications]
    _protocol: Final[int]
    _size: Final[int]
    _source: Final[int | None]
    _wake: Final[Event]

    def __init__(
        self, world: World, notifications: Notifications, protocol: int, event: int, source: int | None, size: int
    ) -> None:
        self._notifications = notifications
        self._protocol = protocol
        self._event = event
        self._source = source
        self._size = size
        self._items = world.queue()
        self._lock = world.spinlock()
        self._wake = world.event()
        self._ended = False
        self._number = 0
        self.overflow = 0

    async def __aenter__(self) -> NotificationStream:
        await self._notifications.register(self._protocol, self._event, self._put, self._source)
        self._number = self._notifications.opened(self)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._notifications.left(self._number)
        self.end()
        await self._notifications.unregister(self._protocol, self._event, self._put, self._source)

    def __aiter__(self) -> NotificationStream:
        return self

    async def __anext__(self) -> Notification:
        while True:
            with self._lock:
                if self._items:
                    return self._items.popleft()
                if self._ended:
                    raise StopAsyncIteration
                # under the lock: a _put() after it sets the event again
                self._wake.clear()
            await self._wake.wait()

    def _put(self, notification: Notification) -> None:
        with self._lock:
            if len(self._items) >= self._size:
                self.overflow += 1
            else:
                self._items.append(notification)
                self._wake.set()

    def end(self) -> None:
        """Nothing comes any more: the iteration ends after what is there."""
        with self._lock:
            self._ended = True
            self._wake.set()
