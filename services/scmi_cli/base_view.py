"""Base protocol 0x10 on the command line: who the platform is, who may talk to it, what went wrong."""

from __future__ import annotations

from typing import Final

from common.errors import ScmiError
from common.scmi import base
from common.scmi.names import message_name
from common.scmi.status import status_name
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.view import Cell, Domain, Event, Record, View, plain

_PLATFORM: Final = Domain(0, "platform")


async def platform(agent: ScmiAgent, poll: bool) -> Record:
    """Vendor, sub-vendor, implementation version, the agents by id, and which of them we are."""
    attributes = await agent.base.attributes(poll=poll)
    version = await agent.base.implementation_version(poll=poll)
    own, name = await agent.base.discover_agent(poll=poll)
    agents = {}
    for number in range(attributes.agents + 1):
        try:
            agents[number] = (await agent.base.discover_agent(number, poll=poll))[1]
        except ScmiError:
            continue  # an id without an agent
    return {
        "vendor": plain(await agent.base.vendor(poll=poll)),
        "sub_vendor": plain(await agent.base.sub_vendor(poll=poll)),
        "implementation_version": Cell(version, f"{version:#010x}"),
        "agents": Cell(
            [{"id": number, "name": who} for number, who in agents.items()],
            ", ".join(f"{number} {who}" for number, who in agents.items()),
        ),
        "this_agent": Cell({"id": own, "name": name}, f"{own} {name}"),
    }


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    found = await agent.base.attributes(poll=poll)
    value = {"protocols": found.protocols, "agents": found.agents}
    return {"domains": plain(0), "attributes": Cell(value, f"{found.protocols} protocols, {found.agents} agents")}


async def _domains(_agent: ScmiAgent, _poll: bool) -> list[Domain]:
    return [_PLATFORM]


async def _describe(agent: ScmiAgent, _domain: Domain, poll: bool) -> Record:
    return await platform(agent, poll)


def _error(event: base.ErrorEvent, _domain: Domain) -> Record:
    reports = [
        (message_name(word >> 10 & 0xFF, word & 0xFF, word >> 8 & 3), status_name(status))
        for word, status in event.reports
    ]
    return {
        "agent": plain(event.agent),
        "fatal": Cell(event.fatal, "fatal" if event.fatal else "not fatal"),
        "reports": Cell(reports, "; ".join(": ".join(one) for one in reports)),
    }


async def _domain(_agent: ScmiAgent, number: int, _poll: bool) -> Domain | None:
    return _PLATFORM if number == _PLATFORM.id else None


BASE = View(
    "base", base.PROTOCOL.value, _summary, _domains, _describe, _domain,
    events=(Event("error", base.Notification.BASE_ERROR_EVENT.value, _error),),
)  # fmt: skip
