"""What the commands need to know of a protocol: one :class:`View` each, and the list of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from common.errors import ConfigError, ScmiError
from common.scmi.status import ProtocolId, status_name
from services.guest_driver.scmi_agent import ScmiAgent


class Cell(NamedTuple):
    """A value for JSON, and as a person reads it."""

    value: Any
    text: str


Record = dict[str, Cell]


class Domain(NamedTuple):
    """A clock, a sensor …; ``raw`` is what the protocol's view found out about it when it listed them."""

    id: int
    name: str
    raw: Any = None


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something of a domain that can be read, or set from the words that follow its name on the command line.

    ``get(agent, domain, poll)``; ``set(agent, domain, words, poll)`` raises ConfigError for words that ``values`` (the
    usage) does not allow.
    """

    name: str
    about: str
    get: Callable[[ScmiAgent, Domain, bool], Awaitable[Cell]] | None
    set: Callable[[ScmiAgent, Domain, list[str], bool], Awaitable[Cell]] | None = None
    values: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A notification. ``show(report, domain)`` is what it says; ``offered(domain)``: does this domain send it?"""

    name: str
    number: int
    show: Callable[[Any, Domain], Record]
    offered: Callable[[Domain], bool] = field(default=lambda _domain: True)


@dataclass(frozen=True, slots=True)
class View:
    """One protocol. ``domains(agent, poll)`` lists what it manages; ``domain(agent, id, poll)`` is one of these, found
    without the others: it raises the platform's own ScmiError for one that there is not, and is None for one that the
    platform does not list all the same; ``describe(agent, domain, poll)`` says what one wants to know of one of them;
    ``summary(agent, poll)`` its counts."""

    name: str
    protocol: int
    summary: Callable[[ScmiAgent, bool], Awaitable[Record]]
    domains: Callable[[ScmiAgent, bool], Awaitable[list[Domain]]]
    describe: Callable[[ScmiAgent, Domain, bool], Awaitable[Record]]
    domain: Callable[[ScmiAgent, int, bool], Awaitable[Domain | None]]
    attributes: tuple[Attribute, ...] = ()
    events: tuple[Event, ...] = ()

    def attribute(self, name: str, *, settable: bool = False) -> Attribute:
        """By name. Raises ConfigError that lists those that there are."""
        fit = {one.name: one for one in self.attributes if (one.set if settable else one.get) is not None}
        if name not in fit:
            verb = "set" if settable else "get"
            raise ConfigError(f"{verb} {self.name}", "", f"no attribute {name!r}; there is {', '.join(fit) or 'none'}")
        return fit[name]

    def readable(self) -> dict[str, Callable[[ScmiAgent, Domain, bool], Awaitable[Cell]]]:
        """The ``get`` of each attribute that has one. Raises ConfigError where none has."""
        found = {one.name: one.get for one in self.attributes if one.get is not None}
        if not found:
            raise ConfigError(f"get {self.name}", "", f"there is nothing to get; see `describe {self.name}`")
        return found


class About(Protocol):
    """Attributes of a domain, as all protocols of numbered domains have them."""

    @property
    def name(self) -> str: ...

    @property
    def attributes(self) -> int: ...


class NameGet(Protocol):
    async def __call__(self, number: int, /, *, poll: bool) -> str: ...


class AboutGet(Protocol):
    async def __call__(self, number: int, /, *, poll: bool) -> About: ...


@dataclass(frozen=True, slots=True)
class Numbered:
    """Domains that are numbered from 0 on: :attr:`View.domains` and :attr:`View.domain` of their protocol.

    There are ``count(agent, poll)`` of them. ``about`` and ``name`` are commands of the agent's client: a domain's
    attributes, and its name where they have the bit ``extended``. ``raw(agent, number, about, poll)`` is what the view
    keeps of a domain; without, the attributes.
    """

    count: Callable[[ScmiAgent, bool], Awaitable[int]]
    about: Callable[[ScmiAgent], AboutGet]
    name: Callable[[ScmiAgent], NameGet]
    extended: int
    raw: Callable[[ScmiAgent, int, Any, bool], Awaitable[Any]] | None = None

    async def domains(self, agent: ScmiAgent, poll: bool) -> list[Domain]:
        found = []
        for number in range(await self.count(agent, poll)):
            try:
                about = await self.about(agent)(number, poll=poll)
            except ScmiError:
                continue  # not for this agent
            found.append(await self._named(agent, number, about, poll))
        return found

    async def domain(self, agent: ScmiAgent, number: int, poll: bool) -> Domain | None:
        count = await self.count(agent, poll)
        about = await self.about(agent)(number, poll=poll)
        return await self._named(agent, number, about, poll) if number < count else None

    async def _named(self, agent: ScmiAgent, number: int, about: About, poll: bool) -> Domain:
        name = about.name
        if about.attributes & self.extended:
            name = await self.name(agent)(number, poll=poll)
        return Domain(number, name, about if self.raw is None else await self.raw(agent, number, about, poll))


def protocol_name(number: int) -> str:
    """``clock`` for 0x14; what belongs to a vendor is its number."""
    try:
        return ProtocolId(number).name.lower()
    except ValueError:
        return f"vendor {number:#x}"


async def find(view: View, agent: ScmiAgent, wanted: str, poll: bool) -> Domain:
    """The domain with this number or name; only names are looked up among all. Raises ConfigError for a name that there
    is not, and for a number that there is not what the platform answers: ScmiError."""
    try:
        number = int(wanted, 0)
    except ValueError:
        domains = await view.domains(agent, poll)
        fit = [one for one in domains if one.name.lower() == wanted.lower()]
        if len(fit) == 1:
            return fit[0]
        names = ", ".join(one.name for one in domains)
        why = "is the name of several" if fit else "is not the name of one"
        raise ConfigError(view.name, "", f"{wanted!r} {why}; there is {names}") from None
    if not 0 <= number < 1 << 32:
        raise ConfigError(view.name, "", f"{wanted} is not the number of a {view.name}")
    found = await view.domain(agent, number, poll)
    if found is None:
        raise ConfigError(view.name, "", f"the platform does not list {view.name} {number}")
    return found


async def told(answer: Awaitable[Cell]) -> Cell:
    """A cell of a table: what the platform answers, or the status with which it refuses."""
    try:
        return await answer
    except ScmiError as error:
        name = status_name(error.status)
        return Cell({"status": error.status, "error": name}, name)


def flag(value: bool) -> Cell:
    return Cell(value, "on" if value else "off")


def parse_flag(words: list[str]) -> bool:
    """``on`` or ``off``. Raises ConfigError."""
    said = {"on": True, "off": False}.get(" ".join(words).lower())
    if said is None:
        raise ConfigError("value", "", f"{' '.join(words)!r}: on or off is wanted")
    return said


def yes(value: bool) -> Cell:
    return Cell(value, "yes" if value else "no")


def by_agent(number: int) -> Cell:
    """Who did what a notification tells."""
    return Cell(number, f"by agent {number}")


def choices(values: list[int], triplet: bool, text: Callable[[int], str]) -> Cell:
    """What something can be set to: all values, or with ``triplet`` the lowest, the highest and the step."""
    if not triplet:
        return Cell(values, ", ".join(map(text, values)))
    lowest, highest, step = values
    return span(lowest, highest, step, text)


def span(lowest: int, highest: int, step: int, text: Callable[[int], str]) -> Cell:
    value = {"min": lowest, "max": highest, "step": step}
    return Cell(value, f"{text(lowest)} to {text(highest)} in steps of {text(step)}")


def plain(value: int | str) -> Cell:
    return Cell(value, str(value))


NOTHING: Final = Cell(None, "-")
