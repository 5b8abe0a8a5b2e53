"""Voltage protocol 0x17 on the command line."""

from __future__ import annotations

from typing import Final

from common.errors import ConfigError
from common.scmi import voltage
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.quantity import parse_volts, volts
from services.scmi_cli.view import NOTHING, Attribute, Cell, Domain, Numbered, Record, View, choices, plain, told, yes

_MODES: Final = {voltage.MODE_OFF: "off", voltage.MODE_ON: "on"}
_USAGE: Final = "on|off|MODE"


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    return {"domains": plain(await agent.voltage.attributes(poll=poll)), "attributes": NOTHING}


async def _count(agent: ScmiAgent, poll: bool) -> int:
    return await agent.voltage.attributes(poll=poll)


_DOMAINS: Final = Numbered(
    _count,
    lambda agent: agent.voltage.domain_attributes,
    lambda agent: agent.voltage.name_get,
    voltage.ATTR_EXTENDED_NAME,
)


async def _level(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    level = await agent.voltage.level_get(domain.id, poll=poll)
    return Cell(level, volts(level))


async def _mode(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    mode = await agent.voltage.config_get(domain.id, poll=poll)
    return Cell(mode, _MODES.get(mode, f"mode {mode}"))


async def _levels(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    found = await agent.voltage.describe_levels(domain.id, poll=poll)
    return choices(found.levels, found.triplet, volts)


async def _asynchronous(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    return yes(bool(domain.raw.attributes & voltage.ATTR_ASYNC_LEVEL_SET))


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "mode": await told(_mode(agent, domain, poll)),
        "level": await told(_level(agent, domain, poll)),
        "levels": await told(_levels(agent, domain, poll)),
        "asynchronous": await _asynchronous(agent, domain, poll),
    }


async def _set_level(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    level, *rest = words
    if rest not in ([], ["async"]):
        raise ConfigError("set voltage level", "", f"{' '.join(rest)!r}: async, or nothing, is wanted")
    wanted = parse_volts(level)
    if rest:
        await agent.voltage.level_set_async(domain.id, wanted)
    else:
        await agent.voltage.level_set(domain.id, wanted, poll=poll)
    return await _level(agent, domain, poll)


async def _set_mode(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    text = " ".join(words).lower()
    named = {name: number for number, name in _MODES.items()}
    try:
        mode = named[text] if text in named else int(text, 0)
    except ValueError:
        mode = -1
    if not 0 <= mode <= voltage.MODE_MASK:
        raise ConfigError("set voltage mode", "", f"{text!r}: {_USAGE}, 0 to {voltage.MODE_MASK}, is wanted")
    await agent.voltage.config_set(domain.id, mode, poll=poll)
    return await _mode(agent, domain, poll)


VOLTAGE = View(
    "voltage", voltage.PROTOCOL.value, _summary, _DOMAINS.domains, _describe, _DOMAINS.domain,
    attributes=(
        Attribute("level", "what it is set to", _level, _set_level, "VOLTS [async]"),
        Attribute("mode", "how it operates", _mode, _set_mode, _USAGE),
        Attribute("levels", "what it can be set to", _levels),
        Attribute("asynchronous", "can the level be set asynchronously?", _asynchronous),
    ),
)  # fmt: skip
