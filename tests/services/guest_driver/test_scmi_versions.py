"""The clients against platforms of older versions: clock 0x10000 and 0x20000, sensor 0x10000."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest

from common.errors import ScmiError
from common.scmi import clock, sensor
from common.scmi.status import Status
from tests.services.guest_driver.scmi_loop import Loop, turns

T = TypeVar("T")


@pytest.fixture
async def old() -> AsyncIterator[Loop]:
    """The platform of SCMI 2.0."""
    loop = Loop(profile="scmi-2.0")
    await loop.start()
    yield loop
    await loop.world.close()


async def later(loop: Loop, work: Coroutine[Any, Any, T]) -> T:
    """The result of a command with a delayed response, which comes a second later."""
    task = asyncio.create_task(work)
    await turns()
    loop.settle()
    await turns()
    await loop.ticks(1.0)
    return await task


@pytest.mark.parametrize("poll", [False, True])
async def test_clock_version_one(old: Loop, poll: bool) -> None:
    client = old.agent.clock

    async def work() -> None:
        assert await client.version(poll=poll) == 0x10000
        assert await client.clock_attributes(0, poll=poll) == (clock.ATTR_ENABLED, "cpu", 0)
        for on in (True, False):
            await client.config_set(1, on, poll=poll)
            assert await client.config_get(1, poll=poll) is on
        assert (await client.describe_rates(0, poll=poll)).rates == list(range(100, 1800, 100))
        await client.rate_set(0, 800, poll=poll)
        assert await client.rate_get(0, poll=poll) == 800
        for command in (client.name_get, client.parents):
            with pytest.raises(ScmiError) as raised:
                await command(2, poll=poll)
            assert raised.value.status == Status.NOT_SUPPORTED

    await old.run(work())


async def test_clock_version_one_in_time(old: Loop) -> None:
    assert await later(old, old.agent.clock.rate_set_async(0, 900)) == (0, 900)
    assert await old.run(old.agent.clock.rate_get(0)) == 900


async def test_clock_version_two_by_negotiation() -> None:
    loop = Loop()
    await loop.start()
    client = loop.agent.clock
    await loop.run(client.negotiate(0x20000))
    before = loop.agent.stats.sent_ok
    await loop.run(client.config_set(1, True))
    assert loop.agent.stats.sent_ok - before == 1, "nobody asks for a version that was negotiated"
    assert await loop.run(client.config_get(1))
    with pytest.raises(ScmiError):
        await loop.run(client.negotiate(0x50000))
    assert await loop.run(client.spoken()) == 0x20000
    assert await loop.run(client.version()) == 0x30000
    # the platform that comes after a reset knows nothing of it
    loop.agents.platform.reset_agent(1)
    loop.agent.platform_reset()
    await loop.run(client.config_set(1, False))
    assert not await loop.run(client.config_get(1))
    await loop.world.close()


@pytest.mark.parametrize("poll", [False, True])
async def test_sensor_version_one(old: Loop, poll: bool) -> None:
    client = old.agent.sensor

    async def work() -> None:
        found = await client.discover(poll=poll)
        assert [(one.id, one.name, one.exponent, one.axes, one.range) for one in found] == [
            (0, "temp", -3, 0, None),
            (1, "accelerometer-o", -2, 0, None),
            (2, "plain", 0, 0, None),
        ]
        assert await client.reading_get(0, poll=poll) == [sensor.Reading(50000, 0)]
        assert await client.reading_get(1, poll=poll) == [sensor.Reading(-5, 0)]
        await client.trip_point_config(0, 1, 80000, poll=poll)
        await client.notify_trip_points(0, True, poll=poll)
        with pytest.raises(ScmiError) as raised:
            await client.config_get(0, poll=poll)
        assert raised.value.status == Status.NOT_SUPPORTED

    await old.run(work())


async def test_sensor_version_one_in_time(old: Loop) -> None:
    assert await later(old, old.agent.sensor.reading_get_async(0)) == [sensor.Reading(50000, 0)]
