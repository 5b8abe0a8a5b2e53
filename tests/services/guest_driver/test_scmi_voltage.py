"""The voltage client against the real platform, sleeping and polling."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.errors import ScmiError
from common.scmi import voltage
from common.scmi.status import Status
from tests.services.guest_driver.scmi_loop import Loop, check_waits, turns

BOARD = Path(__file__).parents[1] / "scmi_platform" / "protocols" / "board_voltage.toml"
VDD0, VEE, LONG = 0, 1, 2


@pytest.fixture
def board() -> Path:
    return BOARD


async def test_every_command(loop: Loop, poll: bool) -> None:
    client = loop.agent.voltage

    async def work() -> None:
        assert await client.version(poll=poll) == voltage.VERSION
        assert await client.attributes(poll=poll) == 4
        assert await client.domain_attributes(VEE, poll=poll) == (voltage.ATTR_ASYNC_LEVEL_SET, "vee")
        assert await client.describe_levels(VDD0, poll=poll) == (True, [800_000, 1_100_000, 50_000], 0)
        assert await client.describe_levels(LONG, poll=poll) == (False, list(range(-400, 2900, 100)), 0)  # two messages
        await client.config_set(VDD0, voltage.MODE_ON, poll=poll)
        assert await client.config_get(VDD0, poll=poll) == voltage.MODE_ON
        await client.level_set(VEE, -1_000, poll=poll)
        assert await client.level_get(VEE, poll=poll) == -1_000
        assert await client.name_get(LONG, poll=poll) == "a-regulator-with-a-long-name"
        with pytest.raises(ScmiError) as error:
            await client.level_set(VDD0, 1, poll=poll)
        assert error.value.status == Status.INVALID_PARAMETERS

    await loop.run(work())
    check_waits(loop, poll)


async def test_level_set_async(loop: Loop) -> None:
    async def work() -> tuple[int, int]:
        task = asyncio.get_running_loop().create_task(loop.agent.voltage.level_set_async(VEE, -2_000))
        await turns(10)
        await loop.ticks(1.0)
        return await task

    assert await loop.run(work()) == (VEE, -2_000)
    assert await loop.run(loop.agent.voltage.level_get(VEE)) == -2_000
    assert loop.agent.stats.delayed_response_ok == 1
    with pytest.raises(ScmiError) as error:
        await loop.run(loop.agent.voltage.level_set_async(VDD0, 900_000))
    assert error.value.status == Status.NOT_SUPPORTED
