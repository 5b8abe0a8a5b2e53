"""Reset domain protocol 0x16 on the command line."""

from __future__ import annotations

from typing import Final

from common.errors import ConfigError
from common.scmi import reset
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.view import NOTHING, Attribute, Cell, Domain, Event, Numbered, Record, View, by_agent, plain, yes

_USAGE = "pulse|assert|deassert [async] [STATE]"


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    return {"domains": plain(await agent.reset.attributes(poll=poll)), "attributes": NOTHING}


async def _count(agent: ScmiAgent, poll: bool) -> int:
    return await agent.reset.attributes(poll=poll)


_DOMAINS: Final = Numbered(
    _count,
    lambda agent: agent.reset.domain_attributes,
    lambda agent: agent.reset.name_get,
    reset.ATTR_EXTENDED_NAME,
)


async def _latency(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    micros = domain.raw.latency
    return NOTHING if micros == reset.LATENCY_UNKNOWN else Cell(micros, f"{micros} µs")


async def _asynchronous(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    return yes(bool(domain.raw.attributes & reset.ATTR_ASYNC))


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "latency": await _latency(agent, domain, poll),
        "asynchronous": await _asynchronous(agent, domain, poll),
    }


def _parse_state(words: list[str]) -> int:
    try:
        (state,) = (int(word, 0) for word in words) if words else (reset.COLD_RESET,)
    except ValueError:
        state = -1
    if not 0 <= state < 1 << 32:
        raise ConfigError("set reset_domain signal", "", f"{' '.join(words)!r}: {_USAGE} is wanted")
    return state


async def _set_signal(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    signal, *rest = words
    later = rest[:1] == ["async"]
    state = _parse_state(rest[1:] if later else rest)
    client = agent.reset
    calls = {"pulse": client.pulse, "assert": client.assert_signal, "deassert": client.deassert_signal}
    if signal not in calls or (later and signal != "pulse"):
        raise ConfigError("set reset_domain signal", "", f"{' '.join(words)!r}: {_USAGE} is wanted, async with pulse")
    if later:
        await client.pulse_async(domain.id, state)
    else:
        await calls[signal](domain.id, state, poll=poll)
    return plain(signal)


def _issued(event: reset.ResetEvent, _domain: Domain) -> Record:
    text = "cold reset" if event.state == reset.COLD_RESET else f"reset {event.state:#010x}"
    return {"reset": Cell(event.state, text), "agent": by_agent(event.agent)}


RESET = View(
    "reset_domain", reset.PROTOCOL.value, _summary, _DOMAINS.domains, _describe, _DOMAINS.domain,
    attributes=(
        Attribute("signal", "reset it, put it into reset, bring it out", None, _set_signal, _USAGE),
        Attribute("latency", "how long a reset may take", _latency),
        Attribute("asynchronous", "can it be reset asynchronously?", _asynchronous),
    ),
    events=(
        Event(
            "reset_issued", reset.Notification.RESET_ISSUED.value, _issued,
            lambda domain: bool(domain.raw.attributes & reset.ATTR_NOTIFY),
        ),
    ),
)  # fmt: skip
