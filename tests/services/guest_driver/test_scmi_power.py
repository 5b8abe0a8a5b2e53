"""The power domain client against the real platform, sleeping and polling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ScmiError
from common.scmi import power
from common.scmi.power import OFF, ON, StateEvent
from common.scmi.status import Status
from services.guest_driver.notify_events import Notification
from tests.services.guest_driver.scmi_loop import Loop, check_waits

BOARD = Path(__file__).parents[1] / "scmi_platform" / "protocols" / "board_power.toml"
CORE, CLUSTER, GPU, ISLAND, SOC = range(5)


@pytest.fixture
def board() -> Path:
    return BOARD


async def test_commands(loop: Loop, poll: bool) -> None:
    client = loop.agent.power

    async def work() -> None:
        assert await client.version(poll=poll) == power.VERSION
        assert await client.attributes(poll=poll) == (5, (0, 0))
        assert await client.domain_attributes(GPU, poll=poll) == (0xF000_0000, "gpu")
        assert await client.name_get(ISLAND, poll=poll) == "island-of-the-graphics"
        assert await client.state_get(GPU, poll=poll) == OFF
        await client.state_set(GPU, ON, poll=poll)
        assert [await client.state_get(one, poll=poll) for one in (GPU, ISLAND)] == [ON, ON]
        with pytest.raises(ScmiError) as refused:
            await client.state_set(CORE, OFF, poll=poll)
        assert refused.value.status == Status.NOT_SUPPORTED

    await loop.run(work())
    check_waits(loop, poll)


async def test_an_asynchronous_change(loop: Loop) -> None:
    client = loop.agent.power
    heard: list[Notification] = []
    await loop.run(client.on_state_changed(heard.append, GPU))
    await loop.run(client.state_set(GPU, ON, later=True))
    assert await loop.run(client.state_get(GPU)) == OFF
    await loop.ticks(1.0)
    assert await loop.run(client.state_get(GPU)) == ON
    assert [(one.source, one.report) for one in heard] == [(GPU, StateEvent(1, GPU, ON))]
    assert loop.agent.stats.delayed_response_ok == 0


async def test_requests_of_another_agent(loop: Loop) -> None:
    client = loop.agent.power
    heard: list[Any] = []
    await loop.run(client.on_state_change_requested(lambda one: heard.append(one.report)))
    await loop.run(client.state_set(GPU, ON))
    await loop.ticks(0.1)
    assert heard == []
    loop.agents.platform.handle(2, _set(GPU, OFF))
    await loop.ticks(0.1)
    assert heard == [StateEvent(2, GPU, OFF)]


def _set(domain: int, state: int) -> bytes:
    word = power.PROTOCOL << 10 | power.Command.POWER_STATE_SET
    return word.to_bytes(4, "little") + power.STATE_SET.pack(0, domain, state)


async def test_notifications_to_iterate_over(loop: Loop) -> None:
    agent = loop.agent

    async def work() -> None:
        async with agent.power.state_changes() as changes, agent.power.state_change_requests(GPU) as requests:
            await agent.power.state_set(GPU, ON)
            loop.agents.platform.handle(2, _set(GPU, OFF))
            await loop.ticks(0.1)
            assert [(await anext(changes)).report for _ in range(3)] == [
                StateEvent(1, ISLAND, ON),
                StateEvent(1, GPU, ON),
                StateEvent(2, GPU, OFF),
            ]
            assert (await anext(requests)).report == StateEvent(2, GPU, OFF)

    await loop.run(work())
    platform = loop.agents.platform
    assert not any(agents for domains in platform._subscribers.values() for agents in domains.values())
