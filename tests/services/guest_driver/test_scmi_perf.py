"""The performance client against the real platform, sleeping and polling."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ScmiError
from common.scmi import performance
from common.scmi.performance import Level, LevelEvent, LimitsEvent
from common.scmi.status import Status
from services.guest_driver.notify_events import Notification
from tests.services.guest_driver.scmi_loop import Loop, check_waits
from tests.services.scmi_platform.protocols.test_performance import BOARD, CPU, INDEX, LONG


@pytest.fixture
def board() -> Path:
    return BOARD


async def test_every_command(loop: Loop, poll: bool) -> None:
    client = loop.agent.perf

    async def work() -> None:
        assert await client.version(poll=poll) == 0x40000
        assert await client.attributes(poll=poll) == (3, performance.POWER_MILLIWATTS, (0, 0))
        about = await client.domain_attributes(CPU, poll=poll)
        assert about[1:] == (1000, 600_000, 600, "cpu")
        assert await client.name_get(LONG, poll=poll) == "a-domain-that-nobody-may-set"
        await client.limits_set(CPU, 900, 600, poll=poll)
        assert await client.limits_get(CPU, poll=poll) == (900, 600)
        await client.level_set(CPU, 900, poll=poll)
        assert await client.level_get(CPU, poll=poll) == 900
        await client.level_set(INDEX, 4, poll=poll)
        assert await client.level_get(INDEX, poll=poll) == 4
        with pytest.raises(ScmiError) as refused:
            await client.describe_fastchannel(CPU, performance.Command.PERFORMANCE_LEVEL_SET, poll=poll)
        assert refused.value.status == Status.NOT_SUPPORTED

    await loop.run(work())
    check_waits(loop, poll)


async def test_levels_of_both_formats(loop: Loop, poll: bool) -> None:
    client = loop.agent.perf

    async def work() -> None:
        # eleven levels do not fit one message
        assert [one.level for one in await client.describe_levels(LONG, poll=poll)] == list(range(1, 12))
        levels = await client.describe_levels(INDEX, poll=poll)
        assert levels[1] == Level(20, 6, 0, 350_000, 2)
        await client.negotiate(0x20000, poll=poll)
        assert (await client.describe_levels(INDEX, poll=poll))[1] == Level(20, 6, 0)
        assert [one.level for one in await client.describe_levels(LONG, poll=poll)] == list(range(1, 12))

    await loop.run(work())


async def test_notifications(loop: Loop) -> None:
    limits: list[Notification] = []
    levels: list[Notification] = []
    await loop.run(loop.agent.perf.on_limits_changed(limits.append))
    await loop.run(loop.agent.perf.on_level_changed(levels.append, CPU))
    await loop.run(loop.agent.perf.limits_set(CPU, 300, 0))
    await loop.run(loop.agent.perf.level_set(INDEX, 3))
    await loop.ticks(1.0)
    assert [(one.source, one.report) for one in limits] == [(CPU, LimitsEvent(1, CPU, 300, 300))]
    assert [(one.source, one.report) for one in levels] == [(CPU, LevelEvent(1, CPU, 300))]


async def test_notifications_to_iterate_over(loop: Loop) -> None:
    perf = loop.agent.perf

    async def work() -> None:
        async with perf.level_changes(INDEX) as levels, perf.limits_changes() as limits:
            await perf.limits_set(INDEX, 1, 1)
            await loop.ticks(1.0)
            assert (await anext(levels)).report == LevelEvent(1, INDEX, 1)
            assert (await anext(limits)).report == LimitsEvent(1, INDEX, 1, 1)

    await loop.run(work())
