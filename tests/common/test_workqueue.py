"""Linux's work queue semantics: pending is cleared before the function runs, nothing queued is missed or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from common.runtime.world import AsyncWorld
from common.workqueue import Work, WorkQueue


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    made = AsyncWorld()
    yield made
    await made.close()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_runs_in_the_order_queued(world: AsyncWorld) -> None:
    queue = world.new(WorkQueue, world)
    ran: list[int] = []
    works = [world.new(Work, world, lambda n=n: ran.append(n)) for n in range(4)]
    assert [queue.queue_work(works[n]) for n in (2, 0, 3, 1)] == [True] * 4
    world.spawn("worker", queue.run())
    await turns()
    assert ran == [2, 0, 3, 1]


async def test_pending_work_is_queued_once(world: AsyncWorld) -> None:
    queue = world.new(WorkQueue, world)
    ran: list[int] = []
    work = world.new(Work, world, lambda: ran.append(1))
    assert queue.queue_work(work)
    assert not queue.queue_work(work)
    world.spawn("worker", queue.run())
    await turns()
    assert ran == [1]
    assert queue.queue_work(work)
    await turns()
    assert ran == [1, 1]


async def test_work_queued_while_it_runs_runs_again(world: AsyncWorld) -> None:
    queue = world.new(WorkQueue, world)
    answers: list[bool] = []

    def function() -> None:
        if len(answers) < 2:
            answers.append(queue.queue_work(work))

    work = world.new(Work, world, function)
    queue.queue_work(work)
    world.spawn("worker", queue.run())
    await turns()
    assert answers == [True, True]
    assert not work.pending.load()


async def test_stop_drains_and_refuses(world: AsyncWorld) -> None:
    queue = world.new(WorkQueue, world)
    ran: list[str] = []
    first = world.new(Work, world, lambda: ran.append("first"))
    late = world.new(Work, world, lambda: ran.append("late"))
    queue.queue_work(first)
    world.spawn("worker", queue.run())
    await queue.stop()
    assert ran == ["first"]
    assert not queue.queue_work(late)
    assert not late.pending.load()
    await turns()
    assert ran == ["first"]
    assert world.actors == 0


async def test_stop_while_the_worker_sleeps(world: AsyncWorld) -> None:
    queue = world.new(WorkQueue, world)
    world.spawn("worker", queue.run())
    await turns()
    async with asyncio.timeout(5):
        await queue.stop()
    await turns()
    assert world.actors == 0
