"""The powercap client against the real platform, sleeping and polling."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from common.errors import ScmiError
from common.scmi import powercap
from common.scmi.powercap import CapEvent, MeasurementsEvent, PowerUnit, Span
from common.scmi.status import Status
from services.guest_driver.notify_events import Notification
from tests.services.guest_driver.scmi_loop import Loop, check_waits
from tests.services.scmi_platform.protocols.test_powercap import BOARD, CLUSTER, FIXED, SOC


@pytest.fixture
def board() -> Path:
    return BOARD


async def test_every_command(loop: Loop, poll: bool) -> None:
    client = loop.agent.powercap

    async def work() -> None:
        assert await client.version(poll=poll) == 0x20000
        assert await client.attributes(poll=poll) == 3
        about = await client.domain_attributes(CLUSTER, poll=poll)
        assert (about.name, about.unit, about.cap, about.parent) == (
            "cluster",
            PowerUnit.MILLIWATTS,
            Span(10, 20, 5),
            SOC,
        )
        assert await client.name_get(FIXED, poll=poll) == "a-zone-that-is-what-it-is"
        await client.cap_set(CLUSTER, 19, poll=poll)
        assert await client.cap_get(CLUSTER, poll=poll) == 15
        await client.cap_set(CLUSTER, 0, poll=poll)
        assert await client.cap_get(CLUSTER, poll=poll) == 0
        await client.pai_set(SOC, 3000, poll=poll)
        assert await client.pai_get(SOC, poll=poll) == 3000
        assert await client.measurements_get(CLUSTER, poll=poll) == (18, 10**6)
        with pytest.raises(ScmiError) as refused:
            await client.describe_fastchannel(SOC, powercap.Command.POWERCAP_CAP_SET, poll=poll)
        assert refused.value.status == Status.NOT_SUPPORTED

    await loop.run(work())
    check_waits(loop, poll)


async def test_cap_set_async(loop: Loop) -> None:
    async def work() -> tuple[int, int]:
        task = asyncio.get_running_loop().create_task(loop.agent.powercap.cap_set_async(SOC, 1234))
        for _ in range(10):
            await asyncio.sleep(0)
        loop.now += 10.0
        loop.agents.platform.tick(loop.now)
        return await task

    assert await loop.run(work()) == (SOC, 1200)


async def test_cap_changes(loop: Loop) -> None:
    changes: list[Notification] = []
    client = loop.agent.powercap

    async def work() -> None:
        await client.on_cap_changed(changes.append, SOC)
        async with client.cap_changes() as stream:
            await client.cap_set(SOC, 1000)
            await client.cap_set(CLUSTER, 10)
            assert (await anext(stream)).report == CapEvent(1, SOC, 1000, 5000)
            assert (await anext(stream)).report == CapEvent(1, CLUSTER, 10, 10**6)

    await loop.run(work())
    assert [(one.source, one.report) for one in changes] == [(SOC, CapEvent(1, SOC, 1000, 5000))]


def thresholds(loop: Loop, zone: int) -> Any:
    server: Any = loop.agents.platform.protocols[powercap.PROTOCOL]
    return server.domains[zone].thresholds.get(1)


async def test_measurements_outside_thresholds(loop: Loop) -> None:
    changes: list[Notification] = []
    client = loop.agent.powercap
    client.set_thresholds(CLUSTER, 0, 14)
    await loop.run(client.on_measurements_changed(changes.append, CLUSTER))
    assert thresholds(loop, CLUSTER) == (0, 14)
    await loop.ticks(1.0)
    assert [one.report for one in changes] == [MeasurementsEvent(0, CLUSTER, 15)]
    await loop.run(client.notify_measurements(CLUSTER, True, (0, 15)))
    assert thresholds(loop, CLUSTER) == (0, 15)
    await loop.run(client.notify_measurements(CLUSTER, False))
    assert thresholds(loop, CLUSTER) is None


async def test_thresholds_that_nobody_named(loop: Loop) -> None:
    async def work() -> None:
        async with loop.agent.powercap.measurements_changes() as stream:
            assert thresholds(loop, SOC) == (0, 4000), "what it can sustain"
            assert thresholds(loop, CLUSTER) == (0, 20), "its highest cap"
            await loop.ticks(30.0)
            assert (await anext(stream)).report == MeasurementsEvent(0, SOC, 5000)

    await loop.run(work())
    assert thresholds(loop, SOC) is None
