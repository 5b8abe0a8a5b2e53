"""Notifications to iterate over: order, bounds, and how a stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from common.errors import ScmiError
from services.guest_driver.notify_stream import NotificationStream
from tests.services.guest_driver.notify_bench import SOME, VENDOR, Bench, payload
from tests.services.guest_driver.scmi_loop import turns


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    made.notifications.register_protocol_events(made.events())
    made.notifications.start("test")
    yield made
    await made.notifications.close()
    await made.world.close()


async def read(stream: NotificationStream) -> list[int]:
    return [notification.source async for notification in stream]


async def test_what_comes_is_read_in_order_and_leaving_disables(bench: Bench) -> None:
    async with bench.notifications.stream(VENDOR, SOME) as stream:
        assert len(bench.on) == 4
        for source in (3, 1, 2):
            bench.come(SOME, payload(source))
        got = []
        async for notification in stream:
            got.append(notification.report)
            if len(got) == 3:
                break
        assert got == [3, 1, 2]
        waiting = asyncio.get_running_loop().create_task(anext(stream))
        await turns()
        assert not waiting.done()
        bench.come(SOME, payload(0))
        assert (await waiting).source == 0
    assert bench.on == set()
    bench.come(SOME, payload(1))
    await turns()
    assert bench.notifications.stats.unhandled == 1
    assert await read(stream) == []


async def test_a_slow_reader_loses_the_newest(bench: Bench) -> None:
    async with bench.notifications.stream(VENDOR, SOME, size=2) as stream:
        for source in range(4):
            bench.come(SOME, payload(source))
        await turns()
        assert stream.overflow == 2
        assert [(await anext(stream)).source for _ in range(2)] == [0, 1]
        bench.come(SOME, payload(2))
        assert (await anext(stream)).source == 2


async def test_it_ends_with_the_agent_after_what_came(bench: Bench) -> None:
    async with bench.notifications.stream(VENDOR, SOME, 1) as stream:
        reader = asyncio.get_running_loop().create_task(read(stream))
        await turns()
        bench.come(SOME, payload(1))
        bench.come(SOME, payload(2))
        await bench.notifications.close()
        assert await reader == [1]
    async with bench.notifications.stream(VENDOR, SOME) as late:
        assert await read(late) == [], "one that comes too late ends at once"


async def test_one_that_cannot_be_enabled_is_not_entered(bench: Bench) -> None:
    bench.refuse(SOME, 1)
    with pytest.raises(ScmiError):
        async with bench.notifications.stream(VENDOR, SOME, 1):
            raise AssertionError("entered")
    assert not list(bench.notifications.handlers.wanted())


async def test_two_streams_of_one_event_share_it(bench: Bench) -> None:
    async with bench.notifications.stream(VENDOR, SOME, 1) as one:
        async with bench.notifications.stream(VENDOR, SOME, 1) as two:
            bench.come(SOME, payload(1))
            assert (await anext(one)).source == (await anext(two)).source == 1
        assert bench.on == {(SOME, 1)}
    assert bench.commands == [(SOME, 1, True), (SOME, 1, False)]
