"""common.runtime.world: what the services' world promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter

import pytest

from common.errors import MemoryFaultError
from common.runtime.clock import ManualClock
from common.runtime.world import POLL_SWEEP, AsyncWorld

GUARD = 10.0


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    world = AsyncWorld()
    yield world
    await world.close()


@dataclass(slots=True)
class _Pair:
    a: int
    b: int = 2


async def test_shared_things_are_plain(world: AsyncWorld) -> None:
    assert world.wmb is None
    assert world.rmb is None
    assert world.mb is None
    assert world.new(_Pair, 1) == _Pair(1, 2)
    assert world.new(_Pair, a=3, b=4) == _Pair(3, 4)
    assert world.array(3, 0) == [0, 0, 0]
    assert world.table() == {}
    queue = world.queue()
    queue.append(1)
    queue.appendleft(0)
    assert list(queue) == [0, 1]
    memory = world.memory(64, 0x1000)
    memory.write(0x1000, b"abc")
    assert memory.read(0x1000, 3) == b"abc"
    with pytest.raises(MemoryFaultError):
        memory.read(0, 1)


async def test_atomics_return_new_after_add_and_old_after_swap(world: AsyncWorld) -> None:
    atomic = world.atomic(5)
    assert atomic.add(-2) == 3
    assert atomic.swap(9) == 3
    assert atomic.load() == 9
    atomic.store(1)
    assert atomic.load() == 1


async def test_a_spinlock_costs_nothing_and_hides_no_exception(world: AsyncWorld) -> None:
    lock = world.spinlock()
    with pytest.raises(KeyError), lock:
        raise KeyError


async def test_a_mutex_is_held_across_an_await(world: AsyncWorld) -> None:
    mutex, order = world.mutex(), []

    async def section(name: str) -> None:
        async with mutex:
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    await asyncio.gather(section("a"), section("b"))
    assert order == ["a", "a", "b", "b"]


async def test_event_wakes_everybody_and_stays_set(world: AsyncWorld) -> None:
    event = world.event()
    waits = [asyncio.create_task(event.wait(t)) for t in (None, GUARD, None)]
    await asyncio.sleep(0)
    event.set()
    assert await asyncio.gather(*waits) == [True, True, True]
    assert event.is_set()
    assert await event.wait(0.0) is True
    event.clear()
    assert not event.is_set()


async def test_an_event_cleared_before_its_waiters_run_is_waited_for_again(world: AsyncWorld) -> None:
    event = world.event()
    waits = [asyncio.create_task(event.wait(timeout)) for timeout in (None, GUARD, 0.02)]
    await asyncio.sleep(0)
    event.set()
    event.clear()
    async with asyncio.timeout(GUARD):
        assert await waits[2] is False, "for what was left of its time"
    assert not waits[0].done()
    assert not waits[1].done()
    event.set()
    async with asyncio.timeout(GUARD):
        assert await asyncio.gather(*waits[:2]) == [True, True]
    assert event._waiters == []
    assert world._timed == {}


async def test_time_outs_are_return_values_served_by_one_sweep(world: AsyncWorld) -> None:
    event = world.event()
    start = perf_counter()
    async with asyncio.timeout(GUARD):
        answers = await asyncio.gather(*(event.wait(0.02) for _ in range(500)))
    assert answers == [False] * 500
    assert perf_counter() - start >= 0.02
    assert world._timed == {}
    assert event._waiters == []
    await asyncio.sleep(0.02)
    assert world._sweeper is None, "the sweep runs only while something waits"


async def test_a_cancelled_wait_leaves_nothing_behind(world: AsyncWorld) -> None:
    event = world.event()
    wait = asyncio.create_task(event.wait(GUARD))
    await asyncio.sleep(0)
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert world._timed == {}
    assert event._waiters == []


async def test_deadline_follows_the_clock_and_can_be_cancelled() -> None:
    clock = ManualClock(100.0)
    world = AsyncWorld(clock=clock)
    first, second = world.deadline(1.0), world.deadline(1.0)
    clock.advance(0.999)
    assert [first.expired, second.expired] == [False, False]
    second.cancel()
    clock.advance(0.001)
    assert [first.expired, second.expired] == [True, False]


async def test_stir_wakes_all_pollers_once(world: AsyncWorld) -> None:
    looks = [0, 0]

    async def poll(which: int) -> None:
        while looks[which] < 3:
            await world.relax()
            looks[which] += 1

    world.spawn("a", poll(0))
    world.spawn("b", poll(1))
    await asyncio.sleep(0)
    world.stir()
    world.stir()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert looks == [1, 1]
    assert world.actors == 2


async def test_a_poller_looks_again_though_nobody_stirs(world: AsyncWorld) -> None:
    start = perf_counter()
    for _ in range(10):
        async with asyncio.timeout(GUARD):
            await world.relax()
    assert perf_counter() - start < 50 * POLL_SWEEP


async def test_a_poller_that_joins_a_slow_sweep_hurries_it(world: AsyncWorld) -> None:
    wait = asyncio.create_task(world.event().wait(GUARD))
    await asyncio.sleep(0)
    fast = [world._fast]
    relaxing = asyncio.create_task(world.relax())
    await asyncio.sleep(0)
    fast.append(world._fast)
    assert fast == [False, True]
    await relaxing
    wait.cancel()


async def test_cancelling_one_poller_leaves_the_others(world: AsyncWorld) -> None:
    one, other = (asyncio.create_task(world.relax()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    world.stir()
    async with asyncio.timeout(GUARD):
        await other
    assert one.cancelled()


async def test_a_failed_actor_is_reported_by_name() -> None:
    failures: list[tuple[str, str]] = []
    world = AsyncWorld(on_failure=lambda name, error: failures.append((name, repr(error))))

    async def broken() -> None:
        raise ValueError("no")

    async def fine() -> None:
        return None

    world.spawn("fine", fine())
    world.spawn("broken", broken())
    await asyncio.sleep(0.01)
    assert failures == [("broken", "ValueError('no')")]
    assert world.actors == 0


async def test_close_ends_actors_that_are_left() -> None:
    failures: list[str] = []
    world = AsyncWorld(on_failure=lambda name, error: failures.append(name))

    async def forever() -> None:
        while True:
            await world.relax()

    world.spawn("forever", forever())
    await asyncio.sleep(0.01)
    await world.close()
    assert (world.actors, failures) == (0, [])
