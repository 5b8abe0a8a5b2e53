"""The queue between interrupt and worker: against a list, and with records that are broken, half or empty."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.runtime.world import AsyncWorld
from common.workqueue import WorkQueue
from services.guest_driver.notify_queue import EVENT_HEADER, EventsQueue

MAX = 24
Event = tuple[int, bytes, int]


class Bench:
    """A queue whose worker runs when the test says so."""

    def __init__(self, size: int = 256) -> None:
        world = AsyncWorld()
        self.workqueue = world.new(WorkQueue, world)
        self.got: list[Event] = []
        self.queue = world.new(EventsQueue, world, size, MAX, self.workqueue, lambda *event: self.got.append(event))

    @property
    def pending(self) -> bool:
        return self.queue.notify_work.pending.load() == 1

    def work(self) -> None:
        """What the work queue's worker does with one item."""
        self.queue.notify_work.pending.store(0)
        self.queue.dispatch()

    def raw(self, when: int, size: int, event: int) -> None:
        self.queue.fifo.put(EVENT_HEADER.pack(when, size, event))


@given(
    st.lists(
        st.one_of(st.none(), st.tuples(st.integers(0, 255), st.binary(max_size=MAX), st.integers(0, (1 << 64) - 1))),
        max_size=120,
    )
)
def test_against_a_list(steps: list[Event | None]) -> None:
    """None is a run of the worker. What has room is delivered, whole and in order; what has none is dropped."""
    bench, size = Bench(), 256
    there: list[Event] = []
    delivered: list[Event] = []
    dropped = 0
    for step in steps:
        if step is None:
            bench.work()
            delivered += there
            there = []
            continue
        used = sum(EVENT_HEADER.size + len(payload) for _, payload, _ in there)
        fits = used + EVENT_HEADER.size + len(step[1]) <= size
        assert bench.queue.put(*step) == fits
        if fits:
            there.append(step)
            assert bench.pending
        dropped += not fits
        assert bench.got == delivered
    bench.work()
    delivered += there
    assert bench.got == delivered
    stats = bench.queue.stats
    assert (stats.queued, stats.delivered, stats.dropped, stats.flushed) == (len(delivered), len(delivered), dropped, 0)
    assert bench.queue.fifo.avail == size


def test_an_event_without_room_leaves_what_is_there_alone() -> None:
    bench = Bench(64)
    assert bench.queue.put(1, b"a" * MAX, 10)
    assert not bench.queue.put(2, b"b" * 9, 11)
    assert bench.queue.put(3, b"c" * 8, 12)
    bench.work()
    assert bench.got == [(1, b"a" * MAX, 10), (3, b"c" * 8, 12)]
    assert (bench.queue.stats.queued, bench.queue.stats.dropped) == (2, 1)
    assert bench.queue.put(2, b"b" * 9, 13)


def test_an_empty_payload_does_not_hold_up_what_follows() -> None:
    bench = Bench()
    for event in (1, 2):
        bench.queue.put(event, b"", event)
    bench.queue.put(3, b"abc", 3)
    bench.work()
    assert bench.got == [(1, b"", 1), (2, b"", 2), (3, b"abc", 3)]
    assert bench.queue.in_flight is None


def test_a_header_without_its_payload_stays_in_flight() -> None:
    bench = Bench()
    bench.raw(7, 4, 5)  # the interrupt is between its two writes
    bench.work()
    bench.work()
    assert bench.got == []
    assert bench.queue.in_flight == (7, 4, 5)
    bench.queue.fifo.put(b"wxyz")
    bench.queue.put(6, b"next", 8)
    bench.work()
    assert bench.got == [(5, b"wxyz", 7), (6, b"next", 8)]
    assert bench.queue.stats.flushed == 0


@pytest.mark.parametrize("size", [MAX + 1, 0xFFFF_FFFF])
def test_a_size_that_no_event_has_flushes(size: int) -> None:
    bench = Bench()
    bench.raw(1, size, 2)
    bench.queue.put(3, b"lost with it", 4)
    bench.work()
    assert bench.got == []
    assert (bench.queue.stats.flushed, bench.queue.fifo.avail) == (1, 256)
    bench.queue.put(5, b"after", 6)
    bench.work()
    assert bench.got == [(5, b"after", 6)]


def test_a_size_that_is_more_than_what_is_there_flushes() -> None:
    bench = Bench()
    bench.raw(1, 10, 2)
    bench.queue.fifo.put(b"short")
    bench.work()
    assert bench.got == []
    assert bench.queue.in_flight is None
    assert bench.queue.stats.flushed == 1
    bench.queue.put(5, b"after", 6)
    bench.work()
    assert bench.got == [(5, b"after", 6)]


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_end_in_events_a_flush_or_a_header_in_flight(raw: bytes) -> None:
    """Corrupt memory never raises, never hands over more than the largest payload, and never spins."""
    bench = Bench()
    bench.queue.fifo.put(raw)
    bench.work()
    assert all(len(payload) <= MAX for _, payload, _ in bench.got)
    assert bench.queue.fifo.in_ == bench.queue.fifo.out
    stats = bench.queue.stats
    assert stats.delivered == len(bench.got)
    if stats.flushed:
        assert bench.queue.in_flight is None
        bench.queue.put(5, b"after", 6)
        bench.work()
        assert bench.got[-1] == (5, b"after", 6)


@pytest.mark.parametrize("cut", [1, EVENT_HEADER.size - 1])
def test_a_cut_header_flushes(cut: int) -> None:
    bench = Bench()
    bench.queue.fifo.put(bytes(cut))
    bench.work()
    assert (bench.got, bench.queue.in_flight, bench.queue.stats.flushed) == ([], None, 1)


async def test_the_last_event_is_not_left_behind() -> None:
    """It comes when the worker has found the fifo empty and has not returned yet."""
    world = AsyncWorld()
    workqueue = world.new(WorkQueue, world)
    got: list[int] = []
    queue = world.new(EventsQueue, world, 256, MAX, workqueue, lambda event, _payload, _when: got.append(event))
    last = [2]

    def interrupted() -> None:
        queue.dispatch()
        while last:
            queue.put(last.pop(), b"x", 0)

    queue.notify_work.function = interrupted  # type: ignore[misc]
    world.spawn("worker", workqueue.run())
    queue.put(1, b"x", 0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert got == [1, 2]
    await workqueue.stop()
    await world.close()
