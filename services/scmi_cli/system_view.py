"""System power protocol 0x12 on the command line: one thing, ``system`` or 0."""

from __future__ import annotations

from typing import Final

from common.errors import ConfigError
from common.scmi import system_power
from common.scmi.system_power import SystemState, state_name
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.view import Attribute, Cell, Domain, Event, Record, View, by_agent, plain, told

_SYSTEM: Final = Domain(0, "system")
_GRACE: Final = {"graceful": True, "forceful": False}


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    return {"domains": plain(0), "attributes": await _optional(agent, _SYSTEM, poll)}


async def _domains(_agent: ScmiAgent, _poll: bool) -> list[Domain]:
    return [_SYSTEM]


async def _domain(_agent: ScmiAgent, number: int, _poll: bool) -> Domain | None:
    return _SYSTEM if number == _SYSTEM.id else None


async def _state(agent: ScmiAgent, _domain: Domain, poll: bool) -> Cell:
    state = await agent.system.state_get(poll=poll)
    return Cell(state, state_name(state))


async def _optional(agent: ScmiAgent, _domain: Domain, poll: bool) -> Cell:
    word = await agent.system.set_attributes(poll=poll)
    found = {
        "warm_reset": bool(word & system_power.SET_WARM_RESET),
        "suspend": bool(word & system_power.SET_SUSPEND),
    }
    return Cell(found, ", ".join(name for name, offered in found.items() if offered) or "-")


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "state": await told(_state(agent, domain, poll)),
        "optional": await told(_optional(agent, domain, poll)),
    }


def _parse_state(text: str) -> int:
    wanted = text.lower().replace("-", "_")
    for state in SystemState:
        if state_name(state) == wanted:
            return state
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        names = ", ".join(map(state_name, SystemState))
        raise ConfigError("set system_power state", "", f"{text!r}: {names} or a vendor's number is wanted")
    return number


async def _set_state(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    wanted, *options = words
    if len(options) > 1 or not _GRACE.keys() >= set(options):
        raise ConfigError("set system_power state", "", f"{' '.join(options)!r}: graceful or forceful is wanted")
    graceful = _GRACE[options[0]] if options else True
    await agent.system.state_set(_parse_state(wanted), graceful=graceful, poll=poll)
    return await _state(agent, domain, poll)


def _event(event: system_power.StateEvent, _domain: Domain) -> Record:
    return {
        "state": Cell(event.state, state_name(event.state)),
        "graceful": Cell(event.graceful, "graceful" if event.graceful else "forceful"),
        "timeout": Cell(event.timeout_ms, f"within {event.timeout_ms} ms" if event.timeout_ms else "-"),
        "agent": by_agent(event.agent),
    }


SYSTEM = View(
    "system_power", system_power.PROTOCOL.value, _summary, _domains, _describe, _domain,
    attributes=(
        Attribute(
            "state", "what was asked for last", _state, _set_state,
            "shutdown|cold_reset|warm_reset|power_up|suspend|NUMBER [graceful|forceful]",
        ),
        Attribute("optional", "which optional states we may ask for", _optional),
    ),
    events=(Event("state", system_power.Notification.SYSTEM_POWER_STATE_NOTIFIER.value, _event),),
)  # fmt: skip
