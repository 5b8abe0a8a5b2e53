"""What views are made of: flags, cells, attributes and domains by name."""

from __future__ import annotations

import pytest

from common.errors import ConfigError, ScmiError
from common.scmi.status import Status
from services.guest_driver.scmi_session import connect
from services.scmi_cli.clock_view import CLOCK
from services.scmi_cli.sensor_view import SENSOR
from services.scmi_cli.view import Cell, find, flag, parse_flag, plain, protocol_name, told
from tests.services.scmi_cli.conftest import TOKEN


def test_flags() -> None:
    assert (flag(True).text, flag(False).text) == ("on", "off")
    assert parse_flag(["ON"]) is True
    assert parse_flag(["off"]) is False
    for words in ([], ["yes"], ["on", "off"]):
        with pytest.raises(ConfigError, match="on or off"):
            parse_flag(words)


async def test_a_refusal_is_a_cell_too() -> None:
    async def good() -> Cell:
        return plain(3)

    async def bad() -> Cell:
        raise ScmiError("CLOCK_RATE_GET", Status.DENIED)

    assert await told(good()) == Cell(3, "3")
    assert await told(bad()) == Cell({"status": -3, "error": "DENIED"}, "DENIED")


def test_attributes() -> None:
    assert CLOCK.attribute("rate").name == "rate"
    with pytest.raises(ConfigError, match="there is rate, enabled"):
        CLOCK.attribute("rtae")
    with pytest.raises(ConfigError, match="set clock: no attribute 'rates'; there is rate, enabled"):
        CLOCK.attribute("rates", settable=True)
    with pytest.raises(ConfigError, match="get sensor: no attribute 'trip'"):
        SENSOR.attribute("trip")


def test_protocols_of_vendors() -> None:
    assert protocol_name(0x15) == "sensor"
    assert protocol_name(0x81) == "vendor 0x81"


async def test_domains_by_number_and_name(platform: str) -> None:
    async with connect(platform, token=TOKEN) as agent:
        assert (await find(CLOCK, agent, "0", False)).name == "cpu"
        assert (await find(CLOCK, agent, "0x1", True)).name == "pixel"
        assert (await find(CLOCK, agent, "CPU", False)).id == 0
        long = await find(CLOCK, agent, "a-clock-with-a-rather-long-name", False)
        assert long.id == 2
        with pytest.raises(ConfigError, match="'cup' is not the name of one; there is cpu, pixel"):
            await find(CLOCK, agent, "cup", False)
        with pytest.raises(ScmiError) as error:
            await find(CLOCK, agent, "99", False)
        assert error.value.status == Status.NOT_FOUND
        for number in ("-1", str(1 << 32)):
            with pytest.raises(ConfigError, match="is not the number of a clock"):
                await find(CLOCK, agent, number, False)
