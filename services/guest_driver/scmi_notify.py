"""Notifications of the SCMI agent, as Linux's ``arm_scmi/notify.c`` delivers them.

::

    interrupt   rx_callback ─> notify() ─> EventsQueue of the protocol ─┐ queue_work
    worker                                    dispatch() <──────────────┘
                                                 └─> parse ─> handlers of all sources ─> handlers of this source

Protocols register their events as tables, at any time; handlers register for events, of one source or of all. A handler
for a protocol that is not there yet waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, Final

from common.errors import LocalError, RemoteError, RingmeshError
from common.scmi.header import HEADER, NOTIFICATION, PROTOCOL_SHIFT
from common.scmi.names import message_name
from common.workqueue import WorkQueue
from common.world import Table, World
from services.guest_driver.notify_events import (
    ALL_SOURCES,
    Event,
    Handler,
    Notification,
    ProtocolEvents,
    event_key,
    source_key,
)
from services.guest_driver.notify_handlers import Handlers
from services.guest_driver.notify_queue import EVENT_HEADER, Deliver, EventsQueue
from services.guest_driver.notify_sources import Sources
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream

# what became of a message, from notify()
QUEUED: Final = 0
#: no protocol registered such an event
NO_EVENT: Final = 1
#: longer than the event's largest payload
TOO_LONG: Final = 2
#: the protocol's fifo is full
NO_ROOM: Final = 3
#: and from the worker: the payload cannot be parsed
NO_REPORT: Final = 4

_WHAT: Final = {
    NO_EVENT: "unknown notification",
    TOO_LONG: "notification is too long",
    NO_ROOM: "notification dropped: the queue is full",
    NO_REPORT: "notification is malformed",
}


@dataclass(slots=True)
class NotifyStats:
    """What the worker made of the notifications that were queued, and registrations that failed late."""

    #: malformed: there is no report to hand over
    no_report: int = 0
    #: well-formed, and no handler wanted it
    unhandled: int = 0
    #: calls of handlers that raised
    handler_failures: int = 0
    #: handlers that waited for their protocol and could not be enabled when it came
    late_failed: int = 0


class Notifications:
    """``world.new(Notifications, world, log, now_ns)``; :meth:`start` runs the worker.

    ``log(event, **fields)`` hears of each kind of bad notification once, and of handlers and commands that fail;
    ``now_ns()`` is the clock of the notifications' time stamps.
    """

    __slots__ = ("_closed", "_events", "_held", "_lock", "_log", "_mutex", "_now_ns", "_pending", "_protocols",
                 "_source_counts", "_started", "_stream_count", "_streams", "_told", "_world", "handlers", "queues",
                 "sources", "stats", "workqueue")  # fmt: skip

    _world: Final[World]
    _log: Final[Callable[..., None]]
    _now_ns: Final[Callable[[], int]]
    _lock: Final[AbstractContextManager[Any]]
    _mutex: Final[AbstractAsyncContextManager[Any]]
    _protocols: Final[Table[ProtocolEvents]]
    _source_counts: Final[Table[int]]
    _events: Final[Table[Event]]
    _held: Final[Table[tuple[int, ...]]]
    _pending: Final[Handlers]
    _streams: Final[Table[NotificationStream]]
    _told: Final[Table[bool]]
    queues: Final[Table[EventsQueue]]
    handlers: Final[Handlers]
    sources: Final[Sources]
    stats: Final[NotifyStats]
    workqueue: Final[WorkQueue]

    def __init__(self, world: World, log: Callable[..., None], now_ns: Callable[[], int]) -> None:
        self._world = world
        self._log = log
        self._now_ns = now_ns
        #: guards the tables of protocols, handlers that wait for one, and streams
        self._lock = world.spinlock()
        #: held across the commands of a registration: the next one sees what came of them
        self._mutex = world.mutex()
        self._protocols = world.table()
        #: protocol → how many sources, once the platform was asked
        self._source_counts = world.table()
        #: event_key → descriptor
        self._events = world.table()
        #: source_key of registered handlers → the sources that they have a reference of; under the mutex
        self._held = world.table()
        #: handlers whose protocol is not there yet
        self._pending = world.new(Handlers, world, log)
        self._streams = world.table()
        self._stream_count = 0
        #: kinds of bad notifications that were logged
        self._told = world.table()
        #: protocol → its queue
        self.queues = world.table()
        self.handlers = world.new(Handlers, world, log)
        self.sources = world.new(Sources, world, log)
        self.stats = world.new(NotifyStats)
        #: one worker for all protocols (Linux: ``scmi_notify``)
        self.workqueue = world.new(WorkQueue, world)
        self._started = False
        self._closed = False

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Run the worker: what came before is delivered now."""
        self._started = True
        self._world.spawn(f"{name} scmi_notify", self.workqueue.run())

    async def close(self) -> None:
        """Deliver what is queued, then end the worker and every stream. Nobody calls notify() any more."""
        self._closed = True
        if self._started:
            self._started = False
            await self.workqueue.stop()
        with self._lock:
            streams = [self._streams[number] for number in self._streams]
        for stream in streams:
            stream.end()

    # --- protocols ----------------------------------------------------------------------------------------------------

    def register_protocol_events(self, protocol: ProtocolEvents) -> None:
        """The events of one protocol (Linux: ``scmi_register_protocol_events``). Handlers that waited for it are
        enabled by an actor of their own; what fails then is logged and counted (``late_failed``).

        Raises LocalError where the protocol is registered already, or its fifo cannot hold its largest event.
        """
        number, world = protocol.protocol, self._world
        largest = max((event.max_payload for event in protocol.events), default=0)
        if EVENT_HEADER.size + largest > protocol.queue_size:
            raise LocalError(
                f"protocol {number:#x}: queue of {protocol.queue_size} bytes, "
                f"its largest event needs {EVENT_HEADER.size + largest}"
            )
        queue = world.new(EventsQueue, world, protocol.queue_size, largest, self.workqueue, self._deliver_of(number))
        with self._lock:
            if number in self._protocols:
                raise LocalError(f"protocol {number:#x}: its events are registered already")
            self.queues[number] = queue
            for event in protocol.events:
                self._events[event_key(number, event.event)] = event
            self._protocols[number] = protocol
            late = any(_protocol_of(key) == number for key in self._pending.wanted())
        if late:
            world.spawn(f"notifications of {number:#x}", self._late_init(number))

    async def _late_init(self, protocol: int) -> None:
        """Enable the handlers that waited for ``protocol`` (Linux: ``scmi_protocols_late_init``)."""
        async with self._mutex:
            for key in self._pending.wanted():
                if _protocol_of(key) != protocol:
                    continue
                for handler in self._pending.take(key):
                    try:
                        await self._register(protocol, key, handler)
                    except RingmeshError as error:
                        self.stats.late_failed += 1
                        self._log("notification handler dropped", protocol=protocol, error=str(error))

    # --- handlers -----------------------------------------------------------------------------------------------------

    async def register(self, protocol: int, event: int, handler: Handler, source: int | None = None) -> None:
        """Have ``handler`` hear of ``event`` of ``protocol``: of one source (clock, sensor …), or of all.

        The first handler of an event and source has the notification enabled at the platform. With all sources it is
        enough that the platform enables one of them. Where it cannot be enabled the handler is not registered, and
        what the command raised is raised. A handler of a protocol that nobody registered yet waits for it.

        Raises LocalError for an event that the protocol does not have, a source that is not there and a handler that
        is a coroutine function, BackpressureError beyond MAX_HANDLERS.
        """
        key = _key(protocol, event, source)
        if iscoroutinefunction(handler):
            name = message_name(protocol, event, NOTIFICATION)
            raise LocalError(f"{name}: a handler is a plain function; a coroutine reads a stream()")
        async with self._mutex:
            with self._lock:
                waits = protocol not in self._protocols
                if waits:
                    self._pending.add(key, handler)
            if not waits:
                await self._register(protocol, key, handler)

    async def unregister(self, protocol: int, event: int, handler: Handler, source: int | None = None) -> bool:
        """Take one registration back: ``handler`` is not called any more once this has returned. False: there was none.

        The last handler of an event and source has the notification disabled; where the platform does not do that, it
        is logged and counted (``sources.stats.disable_failed``), and what comes is counted as ``unhandled``.
        """
        key = _key(protocol, event, source)
        async with self._mutex:
            if self._pending.remove(key, handler):
                return True
            if not self.handlers.remove(key, handler):
                return False
            if key not in self.handlers:
                descriptor = self._events[event_key(protocol, event)]
                await self.sources.put(protocol, descriptor, self._held.pop(key))
        return True

    async def restore(self) -> None:
        """The platform was reset: enable there what handlers wait for. What fails is logged, counted
        (``sources.stats.restore_failed``) and tried again at the next reset."""
        async with self._mutex:
            await self.sources.restore()

    async def _register(self, protocol: int, key: int, handler: Handler) -> None:
        """Under the mutex; the protocol is registered."""
        event = self._events.get(_event_of(key))
        if event is None:
            raise LocalError(f"protocol {protocol:#x} has no notification {_event_of(key) & 0xFF:#x}")
        # before the command: the platform may notify at once
        self.handlers.add(key, handler)
        if key in self._held:
            return
        try:
            count = await self._sources_of(protocol)
            source = _source_of(key)
            if source != ALL_SOURCES and source >= count:
                name = message_name(protocol, event.event, NOTIFICATION)
                raise LocalError(f"{name}: source {source}, there are {count}")
            wanted = range(count) if source == ALL_SOURCES else (source,)
            self._held[key] = await self.sources.get(protocol, event, wanted)
        except BaseException:
            self.handlers.remove(key, handler)
            raise

    async def _sources_of(self, protocol: int) -> int:
        known = self._source_counts.get(protocol)
        if known is None:
            sources = self._protocols[protocol].sources
            known = sources if isinstance(sources, int) else await sources()
            self._source_counts[protocol] = known
        return known

    # --- streams ------------------------------------------------------------------------------------------------------

    def stream(
        self, protocol: int, event: int, source: int | None = None, *, size: int = STREAM_SIZE
    ) -> NotificationStream:
        """To be entered with ``async with`` and read with ``async for``; ``size`` unread notifications are kept."""
        return self._world.new(NotificationStream, self._world, self, protocol, event, source, size)

    def opened(self, stream: NotificationStream) -> int:
        """``stream`` is to be ended by :meth:`close`. Returns its number, for :meth:`left`."""
        with self._lock:
            self._stream_count += 1
            number = self._stream_count
            self._streams[number] = stream
            closed = self._closed
        if closed:
            stream.end()
        return number

    def left(self, number: int) -> None:
        """Nobody reads that stream any more."""
        with self._lock:
            self._streams.pop(number)

    # --- what comes in ------------------------------------------------------------------------------------------------

    def notify(self, word: int, data: bytes) -> int:
        """From the interrupt, with a notification's header ``word`` and whole message ``data`` (``scmi_notify``).
        Several interrupts may be in here at once. Returns QUEUED, or NO_EVENT, TOO_LONG or NO_ROOM: it was dropped."""
        protocol, number = word >> PROTOCOL_SHIFT & 0xFF, word & 0xFF
        payload = data[HEADER.size :]
        event = self._events.get(event_key(protocol, number))
        if event is None:
            outcome = NO_EVENT
        elif len(payload) > event.max_payload:
            outcome = TOO_LONG
        elif self.queues[protocol].put(number, payload, self._now_ns()):
            return QUEUED
        else:
            outcome = NO_ROOM
        self._tell(outcome, protocol, number, len(payload))
        return outcome

    def _deliver_of(self, protocol: int) -> Deliver:
        """What the queue of ``protocol`` calls for each event."""
        return lambda event, payload, when: self._deliver(protocol, event, payload, when)

    def _deliver(self, protocol: int, number: int, payload: bytes, when: int) -> None:
        """The worker: one event."""
        stats = self.stats
        event = self._events.get(event_key(protocol, number))
        try:
            if event is None:
                raise RemoteError("event", number, None, "the queue's record names no event of the protocol")
            report = event.parse(payload)
            source = event.source_of(report)
        except Exception as error:  # whatever a vendor's parser raises: the worker serves the other protocols too
            stats.no_report += 1
            self._tell(NO_REPORT, protocol, number, len(payload), error=str(error) or repr(error))
            return
        called, failed = self.handlers.call(Notification(protocol, number, source, when, report, payload))
        stats.handler_failures += failed
        if not called:
            stats.unhandled += 1

    def _tell(self, outcome: int, protocol: int, event: int, size: int, **fields: object) -> None:
        """Log the first of its kind; the rest is counted."""
        with self._lock:
            first = outcome not in self._told
            if first:
                self._told[outcome] = True
        if first:
            self._log(_WHAT[outcome], notification=message_name(protocol, event, NOTIFICATION), bytes=size, **fields)


def _key(protocol: int, event: int, source: int | None) -> int:
    """The key of a registration. Raises LocalError where an identifier cannot be one."""
    if not 0 <= protocol <= 0xFF or not 0 <= event <= 0xFF:
        raise LocalError(f"no SCMI notification {protocol:#x}/{event:#x}")
    if source is None:
        return source_key(protocol, event, ALL_SOURCES)
    if not 0 <= source < ALL_SOURCES:
        raise LocalError(f"{message_name(protocol, event, NOTIFICATION)}: no source {source}")
    return source_key(protocol, event, source)


def _source_of(key: int) -> int:
    return key & (2 * ALL_SOURCES - 1)


def _event_of(key: int) -> int:
    """The event_key in a source_key."""
    return key >> 33


def _protocol_of(key: int) -> int:
    return key >> 41
