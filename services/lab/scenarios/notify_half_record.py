"""``notify-half-record``: header and payload of an event are two writes to the fifo, and the worker reads in between.

Cristian Marussi's queue is written without a lock and read without one. So its worker may find a header whose payload
is not there yet. It must keep that header for its next run, and must not take the payload for a header then.
"""

from __future__ import annotations

from typing import Any, Final

from services.guest_driver.notify_queue import EVENT_HEADER, EventsQueue
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.notify_rig import MAX_PAYLOAD, Classes, Input, Notification, Rig, build, start
from services.lab.world import LabWorld

ONE: Final[Notification] = (1, b"\x11" * 4, 1000)
EMPTY: Final[Notification] = (2, b"", 2000)
THREE: Final[Notification] = (3, b"\x33" * 4, 3000)

#: as many events as a failure needs
PLAIN: Final = Input("two events", ((ONE, THREE),))
NO_PAYLOAD: Final = Input("the first without payload", ((EMPTY, THREE),))
TWO_WRITERS: Final = Input("two interrupts at once", ((ONE,), (THREE,)))
#: what the shipped queue is held to; the first header wraps
INPUTS: Final = (
    Input("one interrupt", ((ONE, EMPTY, THREE),), start=56),
    Input("room for one event", ((ONE, EMPTY, THREE),), size=32, start=24),
    Input("two interrupts at once", ((ONE,), (EMPTY,)), start=56),
)
#: a whole header's worth of payload, that looks like the header of an event 9 without payload
TWIN: Final[Notification] = (4, EVENT_HEADER.pack(9, 0, 9), 4000)
CORRUPT: Final = Input("after a corrupt header", ((TWIN, ONE, THREE),), drain=True)


class NotKept(EventsQueue):
    """A header whose payload is not there yet is forgotten."""

    __slots__ = ()

    def dispatch(self) -> None:
        self.in_flight = None
        super().dispatch()


class EmptyPayload(EventsQueue):
    """As upstream: nothing read means that the payload is not there, also where it has no bytes."""

    __slots__ = ()

    def _payload(self) -> bool:
        assert self.in_flight is not None
        when, size, event = self.in_flight
        payload = self.fifo.get(size)
        if not payload:
            return False
        self.in_flight = None
        if len(payload) != size:
            self._flush()
            return False
        self._deliver(event, payload, when)
        self.stats.delivered += 1
        return True


class Unlocked(EventsQueue):
    """Writers take no turns."""

    __slots__ = ()

    def put(self, event: int, payload: bytes, when: int) -> bool:
        if self.fifo.avail < EVENT_HEADER.size + len(payload):
            self.stats.dropped += 1
            return False
        self.fifo.put(EVENT_HEADER.pack(when, len(payload), event))
        self.fifo.put(payload)
        self.stats.queued += 1
        self._workqueue.queue_work(self.notify_work)
        return True


class FlushUnlocked(EventsQueue):
    """As upstream: the reader empties the fifo whatever the writer is at."""

    __slots__ = ()

    def _flush(self) -> None:
        self.fifo.reset_out()
        self.stats.flushed += 1


class CorruptRig(Rig):
    """``late``: the events whose put began after the flush."""

    __slots__ = ("late",)

    def __init__(self, world: Any, *args: Any) -> None:
        super().__init__(world, *args)
        self.late: Final = world.queue()

    async def send(self, event: int, payload: bytes, when: int) -> bool:
        if self.queue.stats.flushed:
            self.late.append((event, payload, when))
        return await super().send(event, payload, when)


def build_corrupt(queue: type[EventsQueue]) -> Build:
    """A header that no writer makes is in the fifo, and the worker has been told.

    What is promised: nothing that nobody sent is handed over; the events handed over are the last ones sent, among
    them all whose put began after the flush; one flush is enough.
    """

    def setup(world: LabWorld) -> Checks:
        rig: Any = start(world, CORRUPT, Classes(queue=queue, rig=CorruptRig))
        rig.queue.fifo.put(EVENT_HEADER.pack(0, MAX_PAYLOAD + 1, 0))
        rig.wq.queue_work(rig.queue.notify_work)

        def final() -> str | None:
            sent = list(CORRUPT.sent[0])
            got = list(rig.got)
            strange = [e for e in got if e not in sent]
            if strange:
                return f"handed over, and sent by nobody: {strange[0]}"
            if got != sent[len(sent) - len(got) :]:
                return f"handed over {[e[0] for e in got]} of {[e[0] for e in sent]}"
            lost = [e[0] for e in rig.late if e not in got]
            if lost or rig.queue.stats.flushed != 1:
                return f"{rig.queue.stats.flushed} flushes; put after the first and lost: {lost}"
            return None

        return Checks(final=final)

    return setup


_BOUND: Final = Settings(strategy="exhaustive", preemptions=2)

SCENARIO: Final = register(
    Scenario(
        name="notify-half-record",
        thread="PATCH v4 07/13 firmware: arm_scmi: notification dispatch and delivery (L. Luba, C. Marussi, March to "
        "May 2020)",
        about="the worker finds a header whose payload is not written yet",
        variants=(
            Variant(
                "not-kept",
                "fails",
                build((PLAIN,), Classes(NotKept)),
                "the header is forgotten until next time",
                _BOUND,
            ),
            Variant(
                "empty-payload",
                "fails",
                build((NO_PAYLOAD,), Classes(EmptyPayload)),
                "a payload of no bytes counts as not there yet",
                _BOUND,
            ),
            Variant(
                "two-writers",
                "fails",
                build((TWO_WRITERS,), Classes(Unlocked)),
                "two interrupts put without a lock",
                _BOUND,
            ),
            Variant(
                "flush-unlocked",
                "fails",
                build_corrupt(FlushUnlocked),
                "a corrupt header, and the fifo emptied while an event is being put",
                _BOUND,
            ),
            Variant(
                "flush-locked",
                "holds",
                build_corrupt(EventsQueue),
                "as shipped: a corrupt header, and the fifo emptied between two puts",
                _BOUND,
            ),
            Variant("shipped", "holds", build(INPUTS), "the header is kept in flight", _BOUND),
        ),
    )
)
