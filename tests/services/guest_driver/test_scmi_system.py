"""The system power client against the real platform, sleeping and polling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ScmiError
from common.scmi import system_power
from common.scmi.status import Status
from common.scmi.system_power import StateEvent, SystemState
from services.guest_driver.notify_events import Notification
from tests.services.guest_driver.scmi_loop import Loop, check_waits

BOARD = Path(__file__).parents[1] / "scmi_platform" / "protocols" / "board_power.toml"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A board on which the guest's agent may set the state."""
    path = tmp_path / "board.toml"
    path.write_text(BOARD.read_text().replace('agents = ["PSCI"]', 'agents = ["OSPM"]'))
    return path


async def test_commands(loop: Loop, poll: bool) -> None:
    client = loop.agent.system
    seen: list[StateEvent] = []
    server: Any = loop.agents.platform.protocols[system_power.PROTOCOL]
    server.on_request = seen.append

    async def work() -> None:
        assert await client.version(poll=poll) == system_power.VERSION
        assert await client.set_attributes(poll=poll) == system_power.SET_WARM_RESET
        assert await client.state_get(poll=poll) == SystemState.POWER_UP
        await client.state_set(SystemState.WARM_RESET, graceful=False, poll=poll)
        await client.state_set(SystemState.SHUTDOWN, poll=poll)
        assert await client.state_get(poll=poll) == SystemState.SHUTDOWN
        with pytest.raises(ScmiError) as refused:
            await client.state_set(SystemState.SUSPEND, poll=poll)
        assert refused.value.status == Status.NOT_SUPPORTED

    await loop.run(work())
    assert [(one.state, one.graceful) for one in seen] == [(2, False), (0, True)]
    check_waits(loop, poll)


@pytest.mark.parametrize("version", [0x10000, 0x20000])
async def test_notifications(loop: Loop, version: int) -> None:
    agent = loop.agent
    heard: list[Notification] = []
    server: Any = loop.agents.platform.protocols[system_power.PROTOCOL]
    event = StateEvent(0, True, SystemState.SHUTDOWN, 700 if version == 0x20000 else 0)

    async def work() -> None:
        await agent.system.negotiate(version)
        await agent.system.on_state(heard.append)
        async with agent.system.states() as states:
            server.request(SystemState.SHUTDOWN, timeout_ms=700)
            await loop.ticks(0.1)
            assert (await anext(states)).report == event

    await loop.run(work())
    assert [(one.source, one.report) for one in heard] == [(0, event)]
