"""Powercap protocol 0x18 on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.errors import ConfigError
from common.scmi import powercap
from common.scmi.powercap import DomainAttributes, PowerUnit, Span
from common.scmi.sensor_types import SENSOR_TYPES
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.quantity import parse_reading, reading, seconds
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
    span,
    told,
)

_WATTS: Final = SENSOR_TYPES["watts"]
#: Powers of ten that a unit is of a watt; the abstract scale has none.
_EXPONENTS: Final[dict[int, int]] = {PowerUnit.MICROWATTS: -6, PowerUnit.MILLIWATTS: -3}
_NAMES: Final[dict[int, str]] = {PowerUnit.MICROWATTS: "µW", PowerUnit.MILLIWATTS: "mW"}
_MICROS: Final = {"s": 1_000_000, "ms": 1000, "us": 1, "": 1}
_MAX: Final = 0xFFFF_FFFF


def _power(value: int, about: DomainAttributes) -> str:
    exponent = _EXPONENTS.get(about.unit)
    return str(value) if exponent is None else reading(value, exponent, _WATTS)


def _parse_power(text: str, about: DomainAttributes) -> int:
    """A bare number is in the domain's unit, one with ``W`` is converted. Raises ConfigError."""
    if about.unit in _EXPONENTS:
        value = parse_reading(text, _EXPONENTS[about.unit], _WATTS)
    else:
        value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= _MAX:
        raise ConfigError("power", "", f"{text!r} is not a power from 0 to {_power(_MAX, about)}")
    return value


def _parse_pai(text: str) -> int:
    """µs from ``5000``, ``5ms`` or ``2s``. Raises ConfigError."""
    number = text.rstrip("mus")
    scale = _MICROS.get(text[len(number) :])
    value = int(number) * scale if number.isdecimal() and scale else 0
    if not 0 < value <= _MAX:
        raise ConfigError("pai", "", f"{text!r} is not an interval such as 5000 (µs), 5ms or 2s")
    return value


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    return {"domains": plain(await agent.powercap.attributes(poll=poll)), "attributes": NOTHING}


async def _count(agent: ScmiAgent, poll: bool) -> int:
    return await agent.powercap.attributes(poll=poll)


_DOMAINS: Final = Numbered(
    _count,
    lambda agent: agent.powercap.domain_attributes,
    lambda agent: agent.powercap.name_get,
    powercap.ATTR_EXTENDED_NAME,
)


def _cap_cell(cap: int, about: DomainAttributes) -> Cell:
    return Cell(cap, _power(cap, about) if cap else "off")


def _pai_cell(pai: int) -> Cell:
    return Cell(pai, seconds((pai, -6)))


async def _cap(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    return _cap_cell(await agent.powercap.cap_get(domain.id, poll=poll), domain.raw)


async def _pai(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    return _pai_cell(await agent.powercap.pai_get(domain.id, poll=poll))


async def _measured(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    if not domain.raw.attributes & powercap.ATTR_MONITORING:
        return NOTHING
    found = await agent.powercap.measurements_get(domain.id, poll=poll)
    text = f"{_power(found.power, domain.raw)} over {seconds((found.pai, -6))}"
    return Cell({"power": found.power, "pai": found.pai}, text)


def _fixed_or_span(found: Span, text: Callable[[int], str]) -> Cell:
    cell = span(*found, text)
    return cell._replace(text=text(found.lowest)) if found.lowest == found.highest else cell


async def _caps(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    return _fixed_or_span(domain.raw.cap, lambda power: _power(power, domain.raw))


async def _pais(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    return _fixed_or_span(domain.raw.pai, lambda micros: seconds((micros, -6)))


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    about: DomainAttributes = domain.raw
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "parent": NOTHING if about.parent is None else plain(about.parent),
        "unit": plain(_NAMES.get(about.unit, "abstract")),
        "cap": await told(_cap(agent, domain, poll)),
        "caps": await _caps(agent, domain, poll),
        "pai": await told(_pai(agent, domain, poll)),
        "pais": await _pais(agent, domain, poll),
        "measured": await told(_measured(agent, domain, poll)),
        "sustainable": Cell(about.sustainable, _power(about.sustainable, about)) if about.sustainable else NOTHING,
    }


async def _set_cap(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    wanted, *options = words
    if options not in ([], ["async"]):
        raise ConfigError("set powercap cap", "", f"{' '.join(options)!r}: nothing or async is wanted")
    cap = 0 if wanted.lower() == "off" else _parse_power(wanted, domain.raw)
    if options:
        await agent.powercap.cap_set_async(domain.id, cap)
    else:
        await agent.powercap.cap_set(domain.id, cap, poll=poll)
    return await _cap(agent, domain, poll)


async def _set_pai(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    await agent.powercap.pai_set(domain.id, _parse_pai("".join(words)), poll=poll)
    return await _pai(agent, domain, poll)


def _cap_changed(event: powercap.CapEvent, domain: Domain) -> Record:
    return {"cap": _cap_cell(event.cap, domain.raw), "pai": _pai_cell(event.pai), "agent": by_agent(event.agent)}


def _measurements_changed(event: powercap.MeasurementsEvent, domain: Domain) -> Record:
    return {"power": Cell(event.power, _power(event.power, domain.raw))}


POWERCAP = View(
    "powercap", powercap.PROTOCOL.value, _summary, _DOMAINS.domains, _describe, _DOMAINS.domain,
    attributes=(
        Attribute("cap", "the power that it is held at", _cap, _set_cap, "WATTS|off [async]"),
        Attribute("pai", "what power is averaged over", _pai, _set_pai, "MICROSECONDS|5ms|2s"),
        Attribute("measured", "what it draws", _measured),
        Attribute("caps", "what the cap can be", _caps),
        Attribute("pais", "what the averaging interval can be", _pais),
    ),
    events=(
        Event(
            "cap_changed", powercap.Notification.POWERCAP_CAP_CHANGED.value, _cap_changed,
            lambda domain: bool(domain.raw.attributes & powercap.ATTR_CAP_NOTIFY),
        ),
        Event(
            "measurements_changed", powercap.Notification.POWERCAP_MEASUREMENTS_CHANGED.value, _measurements_changed,
            lambda domain: bool(domain.raw.attributes & powercap.ATTR_MEASUREMENTS_NOTIFY),
        ),
    ),
)  # fmt: skip
