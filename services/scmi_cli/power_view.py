"""Power domain protocol 0x11 on the command line."""

from __future__ import annotations

from typing import Final

from common.errors import ConfigError
from common.scmi import power
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.view import Attribute, Cell, Domain, Event, Numbered, Record, View, by_agent, plain, told

_STATES = {"on": power.ON, "off": power.OFF}
_NAMES = {state: name for name, state in _STATES.items()}


def _state_cell(state: int) -> Cell:
    return Cell(state, _NAMES.get(state) or f"{state:#010x}")


def _parse_state(text: str) -> int:
    state = _STATES.get(text.lower())
    if state is None:
        try:
            state = int(text, 0)
        except ValueError:
            state = -1
    if not 0 <= state < 1 << 32:
        raise ConfigError("set power_domain state", "", f"{text!r}: on, off or a power state word is wanted")
    return state


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    found = await agent.power.attributes(poll=poll)
    address, length = found.statistics
    value = {"statistics": {"address": address, "length": length} if length else None}
    text = f"{length} bytes of statistics at {address:#x}" if length else "no statistics"
    return {"domains": plain(found.domains), "attributes": Cell(value, text)}


async def _count(agent: ScmiAgent, poll: bool) -> int:
    return (await agent.power.attributes(poll=poll)).domains


_DOMAINS: Final = Numbered(
    _count,
    lambda agent: agent.power.domain_attributes,
    lambda agent: agent.power.name_get,
    power.ATTR_EXTENDED_NAME,
)


async def _state(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    return _state_cell(await agent.power.state_get(domain.id, poll=poll))


async def _set_by(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    bits = {"sync": power.ATTR_SYNC, "async": power.ATTR_ASYNC}
    ways = [name for name, bit in bits.items() if domain.raw.attributes & bit]
    return Cell(ways, ", ".join(ways) or "not by us")


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "state": await told(_state(agent, domain, poll)),
        "set_by": await _set_by(agent, domain, poll),
    }


async def _set_state(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    wanted, *options = words
    if options not in ([], ["async"]):
        raise ConfigError("set power_domain state", "", f"{' '.join(options)!r}: nothing or async is wanted")
    await agent.power.state_set(domain.id, _parse_state(wanted), later=bool(options), poll=poll)
    return await _state(agent, domain, poll)


def _event(event: power.StateEvent, _domain: Domain) -> Record:
    return {"state": _state_cell(event.state), "agent": by_agent(event.agent)}


POWER = View(
    "power_domain", power.PROTOCOL.value, _summary, _DOMAINS.domains, _describe, _DOMAINS.domain,
    attributes=(
        Attribute("state", "on, off, or a power state word", _state, _set_state, "on|off|WORD [async]"),
        Attribute("set_by", "how we may set it: sync, async", _set_by),
    ),
    events=(
        Event(
            "state_changed", power.Notification.POWER_STATE_CHANGED.value, _event,
            lambda domain: bool(domain.raw.attributes & power.ATTR_CHANGED),
        ),
        Event(
            "state_change_requested", power.Notification.POWER_STATE_CHANGE_REQUESTED.value, _event,
            lambda domain: bool(domain.raw.attributes & power.ATTR_CHANGE_REQUESTED),
        ),
    ),
)  # fmt: skip
