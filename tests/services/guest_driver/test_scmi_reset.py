"""The reset domain client against the real platform, sleeping and polling."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from common.errors import ScmiError
from common.scmi import reset
from common.scmi.reset import ResetEvent
from common.scmi.status import Status
from services.guest_driver.notify_events import Notification
from tests.services.guest_driver.scmi_loop import Loop, check_waits

BOARD = Path(__file__).parents[1] / "scmi_platform" / "protocols" / "board_reset.toml"
MMC, DOG, UART = range(3)


@pytest.fixture
def board() -> Path:
    return BOARD


def held_by(loop: Loop, domain: int) -> int:
    server: Any = loop.agents.platform.protocols[reset.PROTOCOL]
    return int(server.domains[domain].owner)


async def test_commands(loop: Loop, poll: bool) -> None:
    client = loop.agent.reset

    async def work() -> None:
        assert await client.version(poll=poll) == reset.VERSION
        assert await client.attributes(poll=poll) == 3
        assert await client.domain_attributes(MMC, poll=poll) == (0xC000_0000, 3000, "mmc")
        assert await client.name_get(DOG, poll=poll) == "the-reset-of-the-watchdog"
        await client.pulse(MMC, 0x8000_0007, poll=poll)
        await client.assert_signal(UART, poll=poll)
        assert held_by(loop, UART) == 1
        await client.deassert_signal(UART, poll=poll)
        assert held_by(loop, UART) == 0
        with pytest.raises(ScmiError) as refused:
            await client.pulse(UART, 0x8000_0007, poll=poll)
        assert refused.value.status == Status.INVALID_PARAMETERS

    await loop.run(work())
    check_waits(loop, poll)


async def test_an_asynchronous_reset(loop: Loop) -> None:
    async def work() -> int:
        task = asyncio.get_running_loop().create_task(loop.agent.reset.pulse_async(MMC, 0x8000_0000))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        loop.now += 1.0
        loop.agents.platform.tick(loop.now)
        return await task

    assert await loop.run(work()) == MMC


async def test_notifications(loop: Loop) -> None:
    agent = loop.agent
    heard: list[Notification] = []

    async def work() -> None:
        await agent.reset.on_reset(heard.append, UART)
        async with agent.reset.resets() as resets:
            await agent.reset.pulse(MMC, 0x8000_0007)
            await agent.reset.assert_signal(UART)
            await loop.ticks(0.1)
            events = [(await anext(resets)).report for _ in range(2)]
        assert events == [ResetEvent(1, MMC, 0x8000_0007), ResetEvent(1, UART, 0)]

    await loop.run(work())
    assert [(one.source, one.report) for one in heard] == [(UART, ResetEvent(1, UART, 0))]
