"""What the scenarios on notifications share: interrupts, one worker, and somebody who waits for the events.

Actors: *isr* (or *isr0* and *isr1*, where the platform sends by both queues) puts events; *worker* is the work
queue's; *consumer* waits until every event has been handed over, then stops the work queue. An event that is never
handed over leaves consumer and worker waiting for ever, which the lab calls a deadlock. With ``drain`` the consumer
waits only until every event has been put.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.workqueue import WorkQueue
from common.world import Atomic, Event, Fifo, World
from services.guest_driver.notify_queue import EventsQueue
from services.lab.scenario import Build, Checks
from services.lab.world import LabWorld

Notification = tuple[int, bytes, int]
"""Event id, payload, when (ns)."""

MAX_PAYLOAD: Final = 16


@dataclass(slots=True, frozen=True)
class Input:
    """What happens in a run. ``sent``: the events of each isr, each unlike every other. ``size``: bytes of fifo, of
    which ``start`` have been used before. ``drain``: the consumer waits for the puts, not for the events."""

    name: str
    sent: tuple[tuple[Notification, ...], ...]
    size: int = 64
    start: int = 0
    drain: bool = False


class Rig:
    """One protocol's queue with its worker. ``got``: what was handed over, in that order."""

    __slots__ = ("_drain", "_writers", "all_put", "arrived", "expected", "got", "queue", "world", "wq")

    _drain: Final[bool]
    _writers: Final[Atomic]
    all_put: Final[Event]
    arrived: Final[Event]
    expected: Final[int]
    got: Final[Fifo[Notification]]
    queue: Final[EventsQueue]
    world: Final[World]
    wq: Final[WorkQueue]

    def __init__(self, world: World, given: Input, queue: type[EventsQueue], wq: type[WorkQueue]) -> None:
        self.world = world
        self.expected = sum(map(len, given.sent))
        self.got = world.queue()
        self.arrived = world.event()
        self.all_put = world.event()
        self._writers = world.atomic(len(given.sent))
        self._drain = given.drain
        self.wq = world.new(wq, world)
        self.queue = world.new(queue, world, given.size, MAX_PAYLOAD, self.wq, self.deliver)
        self.queue.fifo.in_ = self.queue.fifo.out = given.start

    def deliver(self, event: int, payload: bytes, when: int) -> None:
        """The protocol's handler, in the worker."""
        self.got.append((event, payload, when))
        if len(self.got) == self.expected:
            self.arrived.set()

    async def send(self, event: int, payload: bytes, when: int) -> bool:
        """What the interrupt does with an event. False: no room."""
        return self.queue.put(event, payload, when)

    async def isr(self, events: Sequence[Notification]) -> None:
        """One interrupt after the other; the platform sends again what found no room."""
        for event, payload, when in events:
            while not await self.send(event, payload, when):
                await self.world.relax()
        if self._writers.add(-1) == 0:
            self.all_put.set()

    async def consume(self) -> None:
        """Who needs every event."""
        await (self.all_put if self._drain else self.arrived).wait()
        await self.wq.stop()


def name_things(world: LabWorld, rig: Rig) -> None:
    """Readable names for ladders."""
    queue: Any = rig.queue
    wq: Any = rig.wq
    for thing, name in (
        (queue, "events"),
        (queue._lock, "events.lock"),
        (queue.fifo, "fifo"),
        (queue.stats, "stats"),
        (queue.notify_work, "notify_work"),
        (queue.notify_work.pending, "PENDING"),
        (wq, "wq"),
        (wq._lock, "wq.lock"),
        (wq._wake, "wq.wake"),
        (wq._stopped, "wq.stopped"),
        (wq._items, "wq.items"),
        (rig.got, "delivered"),
        (rig.arrived, f"all {rig.expected} delivered"),
        (rig.all_put, "all put"),
        (rig._writers, "writers"),
    ):
        world.called(thing, name)
    for at in range(queue.fifo.size):
        world.label(queue.fifo._memory, at, f"fifo at {at}")


@dataclass(slots=True, frozen=True)
class Classes:
    """What a build is made of: the shipping classes, or variants of some of them."""

    queue: type[EventsQueue] = EventsQueue
    wq: type[WorkQueue] = WorkQueue
    rig: type[Rig] = Rig


def start(world: LabWorld, given: Input, classes: Classes) -> Rig:
    """The rig and its actors."""
    rig = world.new(classes.rig, world, given, classes.queue, classes.wq)
    name_things(world, rig)
    for number, events in enumerate(given.sent):
        world.spawn(f"isr{number}" if len(given.sent) > 1 else "isr", rig.isr(events))
    world.spawn("worker", rig.wq.run())
    world.spawn("consumer", rig.consume())
    return rig


def delivered_once(rig: Rig, given: Input) -> str | None:
    """The final check: every event handed over once, unchanged, those of one isr in their order; nothing left."""
    got = list(rig.got)
    for events in given.sent:
        mine = [e for e in got if e in events]
        if mine != list(events):
            return f"sent {[e[0] for e in events]}, handed over {[e[0] for e in mine]}"
    stats, queue = rig.queue.stats, rig.queue
    counts = (len(got), stats.queued, stats.delivered)
    if counts != (rig.expected,) * 3:
        return f"{rig.expected} sent; handed over, counted in, counted out: {counts}"
    left = queue.fifo.in_ - queue.fifo.out
    if stats.flushed or left or queue.in_flight is not None:
        return f"{stats.flushed} flushes, {left} bytes left, in flight {queue.in_flight}"
    return None


def queued_once(rig: Rig) -> str | None:
    """The step check: there is one work item, and it is in the work queue at most once."""
    return "the work item is in the work queue twice" if len(rig.wq._items) > 1 else None


def build(inputs: Sequence[Input], classes: Classes | None = None) -> Build:
    """Every one of ``inputs`` over ``classes``; every event must arrive."""
    made = classes or Classes()

    def setup(world: LabWorld) -> Checks:
        given = inputs[world.choice(len(inputs), "input")]
        rig = start(world, given, made)
        return Checks(final=lambda: delivered_once(rig, given), step=lambda: queued_once(rig))

    return setup
