"""What views are made of: flags, cells, attributes and domains by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.errors import ConfigError, ScmiError
from common.scmi.status import Status
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_session import connect
from services.scmi_cli.base_view import BASE
from services.scmi_cli.clock_view import CLOCK
from services.scmi_cli.sensor_view import SENSOR
from services.scmi_cli.view import (
    Cell,
    Domain,
    View,
    by_agent,
    choices,
    find,
    flag,
    parse_flag,
    plain,
    protocol_name,
    span,
    told,
    yes,
)
from tests.services.scmi_cli.conftest import TOKEN


def test_flags() -> None:
    assert (flag(True).text, flag(False).text) == ("on", "off")
    assert parse_flag(["ON"]) is True
    assert parse_flag(["off"]) is False
    for words in ([], ["yes"], ["on", "off"]):
        with pytest.raises(ConfigError, match="on or off"):
            parse_flag(words)


def test_what_something_can_be_set_to() -> None:
    assert choices([1, 5], False, hex) == Cell([1, 5], "0x1, 0x5")
    assert choices([1, 5, 2], True, hex) == span(1, 5, 2, hex)
    assert span(1, 5, 2, hex) == Cell({"min": 1, "max": 5, "step": 2}, "0x1 to 0x5 in steps of 0x2")


def test_cells_of_one_word() -> None:
    assert (yes(True), yes(False)) == (Cell(True, "yes"), Cell(False, "no"))
    assert by_agent(3) == Cell(3, "by agent 3")


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


@pytest.mark.parametrize("view", [CLOCK, SENSOR])
async def test_a_number_is_not_looked_up_among_all(platform: str, view: View) -> None:
    """What is found by its number is what the list has under it, names that are long included."""

    async def none(_agent: ScmiAgent, _poll: bool) -> list[Domain]:
        raise AssertionError("it lists them all")

    alone = replace(view, domains=none)
    async with connect(platform, token=TOKEN) as agent:
        for one in await view.domains(agent, False):
            for poll in (False, True):
                assert await find(alone, agent, str(one.id), poll) == one


async def test_a_clock_that_is_not_for_the_agent_is_left_out(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect(platform, token=TOKEN) as agent:
        attributes = type(agent.clock).clock_attributes

        async def without_0(client: Any, number: int, *, poll: bool = False) -> object:
            return await attributes(client, 99 if number == 0 else number, poll=poll)

        every = [one.id for one in await CLOCK.domains(agent, False)]
        monkeypatch.setattr(type(agent.clock), "clock_attributes", without_0)
        assert [one.id for one in await CLOCK.domains(agent, False)] == every[1:]


async def test_a_number_beyond_those_that_there_are(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform refuses it; one that answers all the same is not believed."""
    async with connect(platform, token=TOKEN) as agent:
        counts = {
            CLOCK: (await agent.clock.attributes()).clocks,
            SENSOR: (await agent.sensor.attributes()).sensors,
        }
        for view, count in counts.items():
            with pytest.raises(ScmiError) as error:
                await find(view, agent, str(count), False)
            assert error.value.status == Status.NOT_FOUND
        with pytest.raises(ConfigError, match="the platform does not list base 1"):
            await find(BASE, agent, "1", False)
        about, read = await agent.clock.clock_attributes(0), await agent.sensor.reading_get(0)

        async def any_clock(*_args: object, **_kwargs: object) -> object:
            return about

        async def any_sensor(*_args: object, **_kwargs: object) -> object:
            return read

        async def none(*_args: object, **_kwargs: object) -> None:
            return None

        monkeypatch.setattr(type(agent.sensor), "descriptor", none)
        with pytest.raises(ConfigError, match="the platform does not list sensor 0"):
            await find(SENSOR, agent, "0", False)
        monkeypatch.setattr(type(agent.clock), "clock_attributes", any_clock)
        monkeypatch.setattr(type(agent.sensor), "reading_get", any_sensor)
        for view, count in counts.items():
            with pytest.raises(ConfigError, match=f"the platform does not list {view.name} {count}"):
                await find(view, agent, str(count), False)
