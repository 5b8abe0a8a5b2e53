"""Clock protocol 0x14 on the command line."""

from __future__ import annotations

from typing import Final

from common.errors import ConfigError
from common.scmi import clock
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.quantity import hertz, parse_hertz
from services.scmi_cli.view import (
    NOTHING,
    Attribute,
    Cell,
    Domain,
    Event,
    Numbered,
    Record,
    View,
    by_agent,
    choices,
    flag,
    parse_flag,
    plain,
    told,
)

_ROUNDING = {"down": 0, "up": clock.RATE_ROUND_UP, "auto": clock.RATE_ROUND_AUTO}


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    found = await agent.clock.attributes(poll=poll)
    later = Cell({"max_async": found.max_async}, f"{found.max_async} asynchronous rate changes")
    return {"domains": plain(found.clocks), "attributes": later}


async def _count(agent: ScmiAgent, poll: bool) -> int:
    return (await agent.clock.attributes(poll=poll)).clocks


_DOMAINS: Final = Numbered(
    _count,
    lambda agent: agent.clock.clock_attributes,
    lambda agent: agent.clock.name_get,
    clock.ATTR_EXTENDED_NAME,
)


async def _rate(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    rate = await agent.clock.rate_get(domain.id, poll=poll)
    return Cell(rate, hertz(rate))


async def _enabled(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    return flag(await agent.clock.config_get(domain.id, poll=poll))


async def _rates(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    found = await agent.clock.describe_rates(domain.id, poll=poll)
    return choices(found.rates, found.triplet, hertz)


async def _latency(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    micros = domain.raw.enable_latency
    return Cell(micros, f"{micros} µs")


async def _parents(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    if not domain.raw.attributes & clock.ATTR_PARENTS:
        return NOTHING
    parents = await agent.clock.parents(domain.id, poll=poll)
    return Cell(parents, ", ".join(map(str, parents)))


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "enabled": await told(_enabled(agent, domain, poll)),
        "rate": await told(_rate(agent, domain, poll)),
        "rates": await told(_rates(agent, domain, poll)),
        "enable_latency": await _latency(agent, domain, poll),
        "parents": await told(_parents(agent, domain, poll)),
    }


async def _set_rate(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    rate, *options = words
    flags = 0
    for word in options:
        if word not in _ROUNDING and word != "async":
            raise ConfigError("set clock rate", "", f"{word!r}: down, up, auto or async is wanted")
        flags |= _ROUNDING.get(word, 0)
    if len(set(options) & _ROUNDING.keys()) > 1:
        raise ConfigError("set clock rate", "", f"{' '.join(options)!r}: one of down, up and auto is wanted")
    wanted = parse_hertz(rate)
    if "async" in options:
        await agent.clock.rate_set_async(domain.id, wanted, flags=flags)
    else:
        await agent.clock.rate_set(domain.id, wanted, flags=flags, poll=poll)
    return await _rate(agent, domain, poll)


async def _set_enabled(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    await agent.clock.config_set(domain.id, parse_flag(words), poll=poll)
    return await _enabled(agent, domain, poll)


def _rate_changed(event: clock.RateEvent, _domain: Domain) -> Record:
    return {"rate": Cell(event.rate, hertz(event.rate)), "agent": by_agent(event.agent)}


CLOCK = View(
    "clock", clock.PROTOCOL.value, _summary, _DOMAINS.domains, _describe, _DOMAINS.domain,
    attributes=(
        Attribute("rate", "what it runs at", _rate, _set_rate, "HZ [down|up|auto] [async]"),
        Attribute("enabled", "is it on?", _enabled, _set_enabled, "on|off"),
        Attribute("rates", "what it can run at", _rates),
        Attribute("enable_latency", "how long it takes to turn on", _latency),
        Attribute("parents", "clocks that it may be fed from", _parents),
    ),
    events=(
        Event(
            "rate_changed", clock.Notification.CLOCK_RATE_CHANGED.value, _rate_changed,
            lambda domain: bool(domain.raw.attributes & clock.ATTR_RATE_CHANGED),
        ),
    ),
)  # fmt: skip
