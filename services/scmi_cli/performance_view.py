"""Performance domain protocol 0x13 on the command line: levels by their values, whatever the platform calls them."""

from __future__ import annotations

from typing import Final, NamedTuple

from common.errors import ConfigError, ScmiError
from common.scmi import performance
from common.scmi.performance import DomainAttributes, Level
from common.scmi.status import Status
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
    plain,
    told,
)

_UNITS: Final = {performance.POWER_MILLIWATTS: "mW", performance.POWER_MICROWATTS: "µW"}
_ABSTRACT: Final = "abstract"


class _About(NamedTuple):
    """``levels`` are there where they are needed to read what the platform says: with level indexing."""

    attributes: DomainAttributes
    levels: list[Level]

    @property
    def indexed(self) -> bool:
        return bool(self.attributes.attributes & performance.ATTR_LEVEL_INDEXING)

    def level(self, said: int) -> int:
        """The level that the platform means by ``said``. Raises ScmiError for an index that it did not describe."""
        if not self.indexed:
            return said
        for one in self.levels:
            if one.level_index == said:
                return one.level
        raise ScmiError("PERFORMANCE_DESCRIBE_LEVELS", Status.PROTOCOL_ERROR, f"no level has the index {said}")

    def say(self, level: int) -> int:
        """What the platform calls ``level``; 0 is 0, which in limits stands for "as it is". Raises ConfigError where
        only described levels have a name."""
        if not self.indexed or not level:
            return level
        for one in self.levels:
            if one.level == level:
                return one.level_index
        raise ConfigError("level", "", f"{level} is not one of {', '.join(str(one.level) for one in self.levels)}")

    def hertz(self, level: int) -> int:
        """The frequency of ``level`` as Linux works it out, 0 where it cannot."""
        for one in self.levels:
            if one.level == level and one.frequency_khz:
                return one.frequency_khz * 1000
        about = self.attributes
        return level * about.sustained_khz * 1000 // about.sustained_level if about.sustained_level else 0

    def text(self, level: int) -> str:
        rate = self.hertz(level)
        return f"{level} ({hertz(rate)})" if rate else str(level)


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    found = await agent.perf.attributes(poll=poll)
    unit = _UNITS.get(found.flags, _ABSTRACT)
    return {"domains": plain(found.domains), "attributes": Cell({"power_unit": unit}, f"power in {unit}")}


async def _count(agent: ScmiAgent, poll: bool) -> int:
    return (await agent.perf.attributes(poll=poll)).domains


async def _raw(agent: ScmiAgent, number: int, about: DomainAttributes, poll: bool) -> _About:
    indexed = about.attributes & performance.ATTR_LEVEL_INDEXING
    return _About(about, await agent.perf.describe_levels(number, poll=poll) if indexed else [])


_DOMAINS: Final = Numbered(
    _count,
    lambda agent: agent.perf.domain_attributes,
    lambda agent: agent.perf.name_get,
    performance.ATTR_EXTENDED_NAME,
    _raw,
)


async def _level(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    level = domain.raw.level(await agent.perf.level_get(domain.id, poll=poll))
    return Cell(level, domain.raw.text(level))


def _limits_cell(limits: performance.Limits | performance.LimitsEvent, about: _About) -> Cell:
    lowest, highest = about.level(limits.lowest), about.level(limits.highest)
    return Cell({"min": lowest, "max": highest}, f"{about.text(lowest)} to {about.text(highest)}")


async def _limits(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    return _limits_cell(await agent.perf.limits_get(domain.id, poll=poll), domain.raw)


async def _levels(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    found = await agent.perf.describe_levels(domain.id, poll=poll)
    about = domain.raw._replace(levels=found)
    value = [
        {"level": one.level, "hertz": about.hertz(one.level), "power": one.power, "latency": one.latency_us}
        for one in found
    ]
    return Cell(value, ", ".join(about.text(one.level) for one in found))


async def _sustained(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    level = domain.raw.attributes.sustained_level
    return Cell(level, domain.raw.text(level))


async def _rate_limit(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    micros = domain.raw.attributes.rate_limit_us
    return Cell(micros, f"{micros} µs") if micros else NOTHING


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    word = domain.raw.attributes.attributes
    bits = {"limits": performance.ATTR_SET_LIMITS, "level": performance.ATTR_SET_LEVEL}
    can = [name for name, bit in bits.items() if word & bit]
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "level": await told(_level(agent, domain, poll)),
        "limits": await told(_limits(agent, domain, poll)),
        "levels": await told(_levels(agent, domain, poll)),
        "sustained": await _sustained(agent, domain, poll),
        "rate_limit": await _rate_limit(agent, domain, poll),
        "can_set": Cell(can, ", ".join(can) or "-"),
    }


async def _parse_level(agent: ScmiAgent, domain: Domain, text: str, poll: bool) -> int:
    """A bare number is a level, one with a unit the frequency of one."""
    if text.isdecimal() and int(text) < 1 << 32:
        return int(text)
    rate = parse_hertz(text)
    found = await agent.perf.describe_levels(domain.id, poll=poll)
    about = domain.raw._replace(levels=found)
    for one in found:
        if about.hertz(one.level) == rate:
            return one.level
    raise ConfigError(
        "level", "", f"{text!r} is not the frequency of {', '.join(about.text(one.level) for one in found)}"
    )


async def _set_level(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    if len(words) != 1:
        raise ConfigError("set performance level", "", f"{' '.join(words)!r}: one level is wanted")
    level = await _parse_level(agent, domain, words[0], poll)
    await agent.perf.level_set(domain.id, domain.raw.say(level), poll=poll)
    return await _level(agent, domain, poll)


async def _set_limits(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    if len(words) != 2:
        raise ConfigError("set performance limits", "", f"{' '.join(words)!r}: the lowest and the highest are wanted")
    lowest, highest = [domain.raw.say(await _parse_level(agent, domain, word, poll)) for word in words]
    await agent.perf.limits_set(domain.id, highest, lowest, poll=poll)
    return await _limits(agent, domain, poll)


def _level_changed(event: performance.LevelEvent, domain: Domain) -> Record:
    level = domain.raw.level(event.level)
    return {"level": Cell(level, domain.raw.text(level)), "agent": by_agent(event.agent)}


def _limits_changed(event: performance.LimitsEvent, domain: Domain) -> Record:
    return {"limits": _limits_cell(event, domain.raw), "agent": by_agent(event.agent)}


PERFORMANCE = View(
    "performance", performance.PROTOCOL.value, _summary, _DOMAINS.domains, _describe, _DOMAINS.domain,
    attributes=(
        Attribute("level", "what it performs at", _level, _set_level, "LEVEL|HZ"),
        Attribute("limits", "lowest and highest level allowed", _limits, _set_limits, "LEVEL|HZ LEVEL|HZ"),
        Attribute("levels", "what it can perform at", _levels),
        Attribute("sustained", "the level that it can sustain", _sustained),
        Attribute("rate_limit", "how long to wait between two requests", _rate_limit),
    ),
    events=(
        Event(
            "limits_changed", performance.Notification.PERFORMANCE_LIMITS_CHANGED.value, _limits_changed,
            lambda domain: bool(domain.raw.attributes.attributes & performance.ATTR_LIMITS_NOTIFY),
        ),
        Event(
            "level_changed", performance.Notification.PERFORMANCE_LEVEL_CHANGED.value, _level_changed,
            lambda domain: bool(domain.raw.attributes.attributes & performance.ATTR_LEVEL_NOTIFY),
        ),
    ),
)  # fmt: skip
