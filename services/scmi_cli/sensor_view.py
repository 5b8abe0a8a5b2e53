"""Sensor protocol 0x15 on the command line."""

from __future__ import annotations

from common.errors import ConfigError
from common.scmi import sensor
from common.scmi.sensor import Descriptor, Reading
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.quantity import parse_reading, parse_seconds, reading, seconds, type_name, unit
from services.scmi_cli.view import NOTHING, Attribute, Cell, Domain, Event, Record, View, flag, parse_flag, plain, told

_DIRECTIONS = {"above": sensor.TRIP_POSITIVE, "below": sensor.TRIP_NEGATIVE, "both": sensor.TRIP_BOTH}
_TRIP_USAGE = "N above|below|both VALUE, or N off"


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    found = await agent.sensor.attributes(poll=poll)
    later = Cell({"max_async": found.max_async}, f"{found.max_async} asynchronous readings")
    return {"domains": plain(found.sensors), "attributes": later}


async def _domains(agent: ScmiAgent, poll: bool) -> list[Domain]:
    return [await _named(agent, one, poll) for one in await agent.sensor.discover(poll=poll)]


async def _domain(agent: ScmiAgent, number: int, poll: bool) -> Domain | None:
    if number >= (await agent.sensor.attributes(poll=poll)).sensors:
        await agent.sensor.reading_get(number, poll=poll)  # a sensor that there is not is refused
        return None
    about = await agent.sensor.descriptor(number, poll=poll)
    return None if about is None else await _named(agent, about, poll)


async def _named(agent: ScmiAgent, about: Descriptor, poll: bool) -> Domain:
    name = about.name
    if about.attributes_low & sensor.ATTR_EXTENDED_NAME:
        name = await agent.sensor.name_get(about.id, poll=poll)
    return Domain(about.id, name, about)


def _range(about: Descriptor) -> Cell:
    if about.range is None:
        return NOTHING
    lowest, highest = about.range.lowest, about.range.highest
    text = f"{reading(lowest, about.exponent, about.type)} to {reading(highest, about.exponent, about.type)}"
    return Cell({"min": lowest, "max": highest}, text)


def _unit(about: Descriptor) -> Cell:
    name = unit(about.type) or "1"
    return Cell({"unit": type_name(about.type), "exponent": about.exponent}, f"10^{about.exponent} {name}")


async def _intervals(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    found = await agent.sensor.update_intervals(domain.id, poll=poll)
    texts = [seconds(one) for one in found.intervals]
    value = [{"mantissa": mantissa, "exponent": exponent} for mantissa, exponent in found.intervals]
    if found.segmented and len(texts) == 3:
        return Cell(value, f"{texts[0]} to {texts[1]} in steps of {texts[2]}")
    return Cell(value, ", ".join(texts))


async def _axes(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    if not domain.raw.axes:
        return NOTHING
    axes = await agent.sensor.axes(domain.id, poll=poll)
    value = [{"id": one.id, "name": one.name, **_unit(one).value, "range": _range(one).value} for one in axes]
    return Cell(value, ", ".join(one.name for one in axes))


async def _config(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    word = await agent.sensor.config_get(domain.id, poll=poll)
    every = sensor.parse_interval(word >> sensor.CONFIG_INTERVAL_SHIFT)
    value = {
        "enabled": bool(word & sensor.CONFIG_ENABLE),
        "timestamps": bool(word & sensor.CONFIG_TIMESTAMP),
        "interval": {"mantissa": every[0], "exponent": every[1]},
    }
    stamps = "with timestamps" if value["timestamps"] else "no timestamps"
    return Cell(value, f"{'on' if value['enabled'] else 'off'}, every {seconds(every)}, {stamps}")


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    about: Descriptor = domain.raw
    low = about.attributes_low
    can = [
        name
        for bit, name in (
            (sensor.ATTR_TIMESTAMP, "timestamps"),
            (sensor.ATTR_ASYNC, "asynchronous"),
            (sensor.ATTR_UPDATE_NOTIFY, "updates"),
        )
        if low & bit
    ]
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "type": plain(type_name(about.type)),
        "unit": _unit(about),
        "range": _range(about),
        "intervals": await told(_intervals(agent, domain, poll)),
        "trip_points": plain(low & sensor.ATTR_TRIP_POINTS),
        "axes": await told(_axes(agent, domain, poll)),
        "can": Cell(can, ", ".join(can) or "-"),
        "config": await told(_config(agent, domain, poll)),
    }


def _readings(found: list[Reading], domain: Domain) -> Cell:
    about: Descriptor = domain.raw
    value = [{"value": one.value, "timestamp": one.timestamp, **_unit(about).value} for one in found]
    return Cell(value, ", ".join(reading(one.value, about.exponent, about.type) for one in found))


async def _reading(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    return _readings(await agent.sensor.reading_get(domain.id, poll=poll), domain)


async def _reading_later(agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    return _readings(await agent.sensor.reading_get_async(domain.id), domain)


async def _change(agent: ScmiAgent, domain: Domain, bit: int, on: bool, poll: bool) -> Cell:
    """One bit of the config word; an interval of zero leaves the interval as it is."""
    word = await agent.sensor.config_get(domain.id, poll=poll) & (sensor.CONFIG_ENABLE | sensor.CONFIG_TIMESTAMP)
    await agent.sensor.config_set(domain.id, word | bit if on else word & ~bit, poll=poll)
    return await _config(agent, domain, poll)


async def _set_enabled(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    return flag((await _change(agent, domain, sensor.CONFIG_ENABLE, parse_flag(words), poll)).value["enabled"])


async def _set_timestamps(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    return flag((await _change(agent, domain, sensor.CONFIG_TIMESTAMP, parse_flag(words), poll)).value["timestamps"])


async def _set_interval(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    every = sensor.interval(*parse_seconds("".join(words)))
    now = (await _change(agent, domain, every << sensor.CONFIG_INTERVAL_SHIFT, True, poll)).value["interval"]
    return Cell(now, seconds((now["mantissa"], now["exponent"])))


async def _set_trip(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    about: Descriptor = domain.raw
    if not words[0].isdecimal() or len(words) < 2 or int(words[0]) > 0xFF:
        raise ConfigError("set sensor trip", "", f"{_TRIP_USAGE} is wanted")
    number, way, *value = words
    if way == "off" and not value:
        await agent.sensor.trip_point_config(domain.id, int(number), 0, sensor.TRIP_DISABLED, poll=poll)
        return Cell({"trip_point": int(number), "direction": "off"}, f"{number} off")
    if way not in _DIRECTIONS or len(value) != 1:
        raise ConfigError("set sensor trip", "", f"{_TRIP_USAGE} is wanted")
    at = parse_reading(value[0], about.exponent, about.type)
    await agent.sensor.trip_point_config(domain.id, int(number), at, _DIRECTIONS[way], poll=poll)
    text = f"{number} {way} {reading(at, about.exponent, about.type)}"
    return Cell({"trip_point": int(number), "direction": way, "value": at}, text)


def _tripped(event: sensor.TripEvent, _domain: Domain) -> Record:
    way = "rising" if event.rising else "falling"
    return {"trip_point": Cell(event.trip_point, f"trip point {event.trip_point}"), "direction": plain(way)}


def _updated(event: sensor.UpdateEvent, domain: Domain) -> Record:
    return {"readings": _readings(event.readings, domain)}


SENSOR = View(
    "sensor", sensor.PROTOCOL.value, _summary, _domains, _describe, _domain,
    attributes=(
        Attribute("reading", "what it shows now", _reading),
        Attribute("reading_async", "the same, by a delayed response", _reading_later),
        Attribute("config", "is it on, how often it looks, timestamps", _config),
        Attribute("intervals", "how often it can look", _intervals),
        Attribute("axes", "its axes", _axes),
        Attribute("enabled", "sample or not", None, _set_enabled, "on|off"),
        Attribute("timestamps", "readings bear a time", None, _set_timestamps, "on|off"),
        Attribute("interval", "how often it looks", None, _set_interval, "SECONDS"),
        Attribute("trip", "have SENSOR_TRIP_POINT_EVENT sent where it is crossed", None, _set_trip, _TRIP_USAGE),
    ),
    events=(
        Event(
            "trip_point", sensor.Notification.SENSOR_TRIP_POINT_EVENT.value, _tripped,
            lambda domain: bool(domain.raw.attributes_low & sensor.ATTR_TRIP_POINTS),
        ),
        Event(
            "update", sensor.Notification.SENSOR_UPDATE.value, _updated,
            lambda domain: bool(domain.raw.attributes_low & sensor.ATTR_UPDATE_NOTIFY),
        ),
    ),
)  # fmt: skip
