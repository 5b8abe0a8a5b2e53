"""The pin control client against the real platform, sleeping and polling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ScmiError
from common.scmi import pinctrl
from common.scmi.pinctrl import ConfigType, Selector
from common.scmi.status import Status
from services.guest_driver.scmi_pinctrl import PinctrlClient
from tests.services.guest_driver.scmi_loop import Loop, check_waits

BOARD = Path(__file__).parents[1] / "scmi_platform" / "protocols" / "board_pinctrl.toml"
TX, RX, CTS, LED, LONG, ALL = range(6)
UART, FLOW, WIDE = range(3)
UART0, GPIO, GPIO_LED = range(3)
GROUP, FUNCTION = Selector.GROUP, Selector.FUNCTION


@pytest.fixture
def board() -> Path:
    return BOARD


async def test_every_command(loop: Loop, poll: bool) -> None:
    client = loop.agent.pinctrl

    async def work() -> None:
        assert await client.version(poll=poll) == pinctrl.VERSION
        assert await client.attributes(poll=poll) == (42, 3, 4)
        assert (await client.pin_attributes(TX, poll=poll)).name == "tx"
        found = await client.pin_attributes(GPIO_LED, FUNCTION, poll=poll)
        assert found == (pinctrl.ATTR_GPIO | pinctrl.ATTR_PIN_ONLY | 2, "gpio-led")
        assert await client.name_get(WIDE, GROUP, poll=poll) == "a-bus-that-is-rather-wide"
        assert await client.associations(WIDE, GROUP, poll=poll) == list(range(6, 42))
        assert await client.associations(UART0, FUNCTION, poll=poll) == [UART, FLOW]
        assert await client.setting_get(TX, ConfigType.DRIVE_STRENGTH, poll=poll) == 4
        assert await client.settings_get(UART, GROUP, poll=poll) == (UART0, [(4, 1), (10, 4)], 0)
        await client.settings_set(TX, [(ConfigType.SLEW_RATE, 1), (ConfigType.DRIVE_STRENGTH, 8)], poll=poll)
        assert await client.settings_get(TX, poll=poll) == (UART0, [(4, 1), (10, 8), (20, 1)], 0)
        await client.function_select(UART, GPIO, GROUP, poll=poll)
        assert await client.function_get(RX, poll=poll) == GPIO
        await client.function_select(LED, None, poll=poll)
        assert await client.function_get(LED, poll=poll) is None
        await client.request(UART, GROUP, poll=poll)
        await client.release(TX, poll=poll)
        with pytest.raises(ScmiError) as error:
            await client.set_permissions(2, TX, allow=False, poll=poll)
        assert error.value.status == Status.DENIED

    await loop.run(work())
    check_waits(loop, poll)


async def test_long_lists_take_several_messages(loop: Loop) -> None:
    loop.agents.platform.max_payload = 76
    client = loop.agent.pinctrl
    assert (await loop.run(client.settings_get(ALL))).configs == [*((kind, kind) for kind in range(10)), (255, 10)]
    assert await loop.run(client.associations(WIDE, GROUP)) == list(range(6, 42))


async def test_many_configs_take_several_messages(loop: Loop) -> None:
    client, sent = loop.agent.pinctrl, loop.agent.stats.sent_ok
    await loop.run(client.settings_set(ALL, [(kind, kind + 1) for kind in [*range(10), 255, *range(10)]]))
    assert loop.agent.stats.sent_ok - sent == 2  # 14 a message
    assert (await loop.run(client.settings_get(ALL))).configs == [*((kind, kind + 1) for kind in range(10)), (255, 256)]


async def test_permissions_of_others(loop: Loop) -> None:
    client = loop.agent.pinctrl
    loop.agents.platform.agents[1].trusted = True

    async def work() -> None:
        await client.set_permissions(1, TX, allow=False)
        with pytest.raises(ScmiError) as error:
            await client.request(UART, GROUP)
        assert error.value.status == Status.DENIED
        await client.set_permissions(1, TX, allow=True)
        await client.request(UART, GROUP)

    await loop.run(work())


class Lying:
    """An agent whose platform answers SETTINGS_GET as it is told."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.asked: list[bytes] = []

    async def do_xfer(self, _protocol: int, _message: int, payload: bytes, *, poll: bool) -> bytes:
        self.asked.append(payload)
        return self.replies.pop(0)


async def test_another_config_than_asked_for() -> None:
    for configs in ([(10, 1)], []):
        liar: Any = Lying(pinctrl.build_settings(None, configs, 0))
        with pytest.raises(ScmiError, match="config 20 asked for"):
            await PinctrlClient(liar).setting_get(TX, ConfigType.SLEW_RATE)


async def test_more_configs_than_can_be_skipped() -> None:
    many = [(192, 0)] * 200
    liar: Any = Lying(*(pinctrl.build_settings(None, many[:part], left) for part, left in ((200, 200), (100, 100))))
    with pytest.raises(ScmiError, match="more than 255"):
        await PinctrlClient(liar).settings_get(TX)
    assert [payload[5] for payload in liar.asked] == [0, 200]
