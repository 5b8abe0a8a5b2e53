"""The queue between the interrupt that brings notifications of one protocol and the worker that hands them on.

An event goes into a fifo as two records, header, then payload; :meth:`EventsQueue.put` then queues the work. The
worker's pending bit is cleared before the function runs (:mod:`common.workqueue`), so an event that comes while the
worker finds the fifo empty makes it run once more. A worker that meets a header whose payload is not written yet keeps
it as *in flight* and goes on with it when it runs next: the writer queues the work after the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from common.errors import LocalError
from common.workqueue import Work, WorkQueue
from common.world import World
from services.guest_driver.notify_fifo import EventFifo

#: When it came (ns), bytes of payload, event id (Linux: ``struct scmi_event_header``).
EVENT_HEADER: Final = struct.Struct("<QIB3x")

Deliver = Callable[[int, bytes, int], None]
"""``deliver(event, payload, when)``: called by the worker, ``when`` in ns of the writer's clock."""


@dataclass(slots=True)
class QueueStats:
    """What became of the notifications of one protocol."""

    queued: int = 0
    delivered: int = 0
    #: the fifo had no room
    dropped: int = 0
    #: times that the fifo was emptied because a record was corrupt
    flushed: int = 0


class EventsQueue:
    """``world.new(EventsQueue, world, size, max_payload, workqueue, deliver)``: ``size`` bytes of fifo, a power of
    two; ``max_payload`` bytes in the largest event of the protocol."""

    __slots__ = ("_deliver", "_lock", "_max_payload", "_workqueue", "fifo", "in_flight", "notify_work", "stats")

    _deliver: Final[Deliver]
    _lock: Final[AbstractContextManager[Any]]
    _max_payload: Final[int]
    _workqueue: Final[WorkQueue]
    fifo: Final[EventFifo]
    notify_work: Final[Work]
    stats: Final[QueueStats]

    def __init__(self, world: World, size: int, max_payload: int, workqueue: WorkQueue, deliver: Deliver) -> None:
        self._deliver = deliver
        #: between writers: a platform may send notifications by both queues, whose interrupts run at once
        self._lock = world.spinlock()
        self._max_payload = max_payload
        self._workqueue = workqueue
        self.fifo = world.new(EventFifo, world, size)
        self.notify_work = world.new(Work, world, self.dispatch)
        #: the header that the worker has read and whose payload it has not: (when, bytes, event)
        self.in_flight: tuple[int, int, int] | None = None
        self.stats = world.new(QueueStats)

    def put(self, event: int, payload: bytes, when: int) -> bool:
        """From the interrupt (Linux: ``scmi_notify``). False: no room, the event is dropped and counted. Raises
        LocalError for a payload that is longer than the protocol's longest."""
        if len(payload) > self._max_payload:
            raise LocalError(f"event {event:#x}: {len(payload)} bytes of payload, {self._max_payload} at most")
        stats = self.stats
        with self._lock:
            if self.fifo.avail < EVENT_HEADER.size + len(payload):
                stats.dropped += 1
                return False
            self.fifo.put(EVENT_HEADER.pack(when, len(payload), event))
            self.fifo.put(payload)
            stats.queued += 1
        # whether it was pending already is all one: a worker that has begun has cleared the bit
        self._workqueue.queue_work(self.notify_work)
        return True

    def dispatch(self) -> None:
        """The worker (Linux: ``scmi_events_dispatcher``): hand over what is there."""
        while self._header() and self._payload():
            pass

    def _header(self) -> bool:
        """Have a header in flight. False: there is none."""
        if self.in_flight is not None:
            return True
        raw = self.fifo.get(EVENT_HEADER.size)
        if not raw:
            return False
        when, size, event = EVENT_HEADER.unpack(raw) if len(raw) == EVENT_HEADER.size else (0, -1, 0)
        if not 0 <= size <= self._max_payload:
            self._flush()
            return False
        self.in_flight = (when, size, event)
        return True

    def _payload(self) -> bool:
        """Hand over the event whose header is in flight. False: its payload is not there yet, or corrupt."""
        assert self.in_flight is not None
        when, size, event = self.in_flight
        payload = self.fifo.get(size)
        if size and not payload:
            return False
        self.in_flight = None
        if len(payload) != size:
            self._flush()
            return False
        self._deliver(event, payload, when)
        self.stats.delivered += 1
        return True

    def _flush(self) -> None:
        """What a record is cannot be told any more: begin anew with the next event."""
        # between two events of the writers, or the rest of one would be read as a header
        with self._lock:
            self.fifo.reset_out()
        self.stats.flushed += 1
