"""Pin control protocol 0x19 on the command line.

Pins, groups and functions are numbered each from 0 on. Here they are one list: a pin is its number and its name, a
group 0x10000 more and ``group:NAME``, a function 0x20000 more and ``function:NAME``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from common.errors import ConfigError
from common.scmi import pinctrl
from common.scmi.pinctrl import CONFIG_NAMES, Config, Selector, config_name
from services.guest_driver.scmi_agent import ScmiAgent
from services.scmi_cli.view import NOTHING, Attribute, Cell, Domain, Record, View, flag, parse_flag, plain, told, yes

_PREFIX: Final = {Selector.PIN: "", Selector.GROUP: "group:", Selector.FUNCTION: "function:"}
_SHIFT: Final = 16
_CONFIGS: Final = "TYPE=VALUE…"


class _Named(NamedTuple):
    """What a pin, group or function is to the protocol."""

    number: int
    selector: Selector
    about: pinctrl.PinAttributes


async def _summary(agent: ScmiAgent, poll: bool) -> Record:
    found = await agent.pinctrl.attributes(poll=poll)
    text = f"{found.pins} pins, {found.groups} groups, {found.functions} functions"
    return {"domains": plain(sum(found)), "attributes": Cell(found._asdict(), text)}


async def _domains(agent: ScmiAgent, poll: bool) -> list[Domain]:
    counts = await agent.pinctrl.attributes(poll=poll)
    return [
        await _named(agent, number, selector, poll)
        for selector, count in zip(Selector, counts, strict=True)
        for number in range(count)
    ]


async def _domain(agent: ScmiAgent, number: int, poll: bool) -> Domain | None:
    selector = number >> _SHIFT
    if selector > Selector.FUNCTION:
        return None
    return await _named(agent, number & pinctrl.IDENTIFIER_MASK, Selector(selector), poll)


async def _named(agent: ScmiAgent, number: int, selector: Selector, poll: bool) -> Domain:
    about = await agent.pinctrl.pin_attributes(number, selector, poll=poll)
    name = about.name
    if about.attributes & pinctrl.ATTR_EXTENDED_NAME:
        name = await agent.pinctrl.name_get(number, selector, poll=poll)
    return Domain(selector << _SHIFT | number, _PREFIX[selector] + name, _Named(number, selector, about))


async def _function(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    raw: _Named = domain.raw
    if raw.selector == Selector.FUNCTION:
        return NOTHING
    number = await agent.pinctrl.function_get(raw.number, raw.selector, poll=poll)
    if number is None:
        return NOTHING
    found = await _named(agent, number, Selector.FUNCTION, poll)
    return Cell(number, found.name.removeprefix(_PREFIX[Selector.FUNCTION]))


async def _configs(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    raw: _Named = domain.raw
    if raw.selector == Selector.FUNCTION:
        return NOTHING
    found = (await agent.pinctrl.settings_get(raw.number, raw.selector, poll=poll)).configs
    named = {config_name(kind): value for kind, value in found}
    return Cell(named, " ".join(f"{name}={value}" for name, value in named.items()) or NOTHING.text)


async def _members(agent: ScmiAgent, domain: Domain, poll: bool) -> Cell:
    raw: _Named = domain.raw
    if raw.selector == Selector.PIN:
        return NOTHING
    found = await agent.pinctrl.associations(raw.number, raw.selector, poll=poll)
    kind = Selector.PIN if raw.selector == Selector.GROUP or _pin_only(raw) else Selector.GROUP
    names = [(await _named(agent, number, kind, poll)).name for number in found]
    return Cell(found, " ".join(names))


def _pin_only(raw: _Named) -> bool:
    return bool(raw.about.attributes & pinctrl.ATTR_PIN_ONLY)


async def _gpio(_agent: ScmiAgent, domain: Domain, _poll: bool) -> Cell:
    raw: _Named = domain.raw
    if raw.selector != Selector.FUNCTION:
        return NOTHING
    return yes(bool(raw.about.attributes & pinctrl.ATTR_GPIO))


async def _describe(agent: ScmiAgent, domain: Domain, poll: bool) -> Record:
    return {
        "id": plain(domain.id),
        "name": plain(domain.name),
        "function": await told(_function(agent, domain, poll)),
        "configs": await told(_configs(agent, domain, poll)),
        "members": await told(_members(agent, domain, poll)),
        "gpio": await _gpio(agent, domain, poll),
    }


def _settable(domain: Domain, what: str) -> _Named:
    raw: _Named = domain.raw
    if raw.selector == Selector.FUNCTION:
        raise ConfigError(f"set pin_control {what}", "", f"{domain.name!r} is neither a pin nor a group")
    return raw


async def _set_function(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    raw, wanted = _settable(domain, "function"), " ".join(words)
    number = None if wanted == "none" else await _find_function(agent, wanted, poll)
    await agent.pinctrl.function_select(raw.number, number, raw.selector, poll=poll)
    return await _function(agent, domain, poll)


async def _find_function(agent: ScmiAgent, wanted: str, poll: bool) -> int:
    """By number or name. Raises ConfigError that lists those that there are."""
    if wanted.isascii() and wanted.isdigit() and int(wanted) <= pinctrl.IDENTIFIER_MASK:
        return int(wanted)
    count = (await agent.pinctrl.attributes(poll=poll)).functions
    names = [(await _named(agent, number, Selector.FUNCTION, poll)).name for number in range(count)]
    names = [name.removeprefix(_PREFIX[Selector.FUNCTION]) for name in names]
    if wanted not in names:
        raise ConfigError("set pin_control function", "", f"no function {wanted!r}; there is {', '.join(names)}, none")
    return names.index(wanted)


async def _set_configs(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    raw = _settable(domain, "configs")
    await agent.pinctrl.settings_set(raw.number, [_config(word) for word in words], raw.selector, poll=poll)
    return await _configs(agent, domain, poll)


def _config(word: str) -> Config:
    """``drive_strength=8``. Raises ConfigError."""
    name, _, text = word.partition("=")
    kind = CONFIG_NAMES.get(name)
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if kind is None or not 0 <= value < 1 << 32:
        raise ConfigError("set pin_control configs", "", f"{word!r}: TYPE=VALUE such as drive_strength=8 is wanted")
    return kind, value


async def _set_requested(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    raw, wanted = _settable(domain, "requested"), parse_flag(words)
    call = agent.pinctrl.request if wanted else agent.pinctrl.release
    await call(raw.number, raw.selector, poll=poll)
    return flag(wanted)


async def _set_permission(agent: ScmiAgent, domain: Domain, words: list[str], poll: bool) -> Cell:
    raw = _settable(domain, "permission")
    number, *rest = words
    if not (number.isascii() and number.isdigit() and int(number) < 1 << 32) or rest not in (["allow"], ["deny"]):
        raise ConfigError("set pin_control permission", "", f"{' '.join(words)!r}: AGENT allow|deny is wanted")
    other, allow = int(number), rest == ["allow"]
    await agent.pinctrl.set_permissions(other, raw.number, raw.selector, allow=allow, poll=poll)
    return Cell({"agent": other, "allowed": allow}, f"agent {other} {'allowed' if allow else 'denied'}")


PIN_CONTROL = View(
    "pin_control", pinctrl.PROTOCOL.value, _summary, _domains, _describe, _domain,
    attributes=(
        Attribute("function", "what a pin or a group does", _function, _set_function, "NAME|NUMBER|none"),
        Attribute("configs", "how it is driven", _configs, _set_configs, _CONFIGS),
        Attribute("members", "pins of a group, groups or pins of a function", _members),
        Attribute("gpio", "does a function make plain inputs and outputs?", _gpio),
        Attribute("requested", "have it to oneself", None, _set_requested, "on|off"),
        Attribute("permission", "may another agent use it?", None, _set_permission, "AGENT allow|deny"),
    ),
)  # fmt: skip
