"""One power domain: what the board says of it and how it is set now; what it needs of those above and below it.

A domain that keeps its context needs a parent that keeps its own. So who turns a domain on turns on what is above it;
and a domain with something on below it is not turned off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from common.errors import RemoteError
from common.scmi.power import CONTEXT_LOST, OFF, ON
from services.scmi_platform.boards.power import PowerDomainSection
from services.scmi_platform.boards.section import U8, U32


class PowerState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What agents set: a power state word."""

    state: U32
    owner: U8


class PowerDomain:
    """``states`` are those that it has; ``owner`` is the agent that set it last, 0 for nobody."""

    __slots__ = ("children", "id", "owner", "parent", "section", "state", "states")

    def __init__(self, number: int, section: PowerDomainSection) -> None:
        self.id: Final = number
        self.section: Final = section
        self.states: Final = frozenset((ON, OFF, *section.states))
        self.parent: PowerDomain | None = None
        self.children: list[PowerDomain] = []
        self.reset()

    def reset(self) -> None:
        """Back to what the board file says."""
        self.state: int = ON if self.section.on else OFF
        self.owner = 0

    @property
    def lost(self) -> bool:
        """Is its context lost?"""
        return bool(self.state & CONTEXT_LOST)

    def refuses(self, state: int) -> bool:
        """Is there something below that ``state`` would take the power from?"""
        return bool(state & CONTEXT_LOST) and any(not child.lost for child in self.children)

    def off_above(self) -> list[PowerDomain]:
        """What must be turned on before this domain can be, in that order."""
        found: list[PowerDomain] = []
        above = self.parent
        while above is not None and above.lost:
            found.insert(0, above)
            above = above.parent
        return found

    def below(self) -> Iterator[PowerDomain]:
        """All domains that hang on this one, those nearest first."""
        waiting = [self]
        while waiting:
            children = waiting.pop(0).children
            yield from children
            waiting += children

    # --- what outlives a restart --------------------------------------------------------------------------------------

    def save(self) -> PowerState | None:
        """What agents set; None where nobody did."""
        return PowerState(self.state, self.owner) if self.owner else None

    def load(self, state: PowerState) -> None:
        """Domains are loaded in any order, so those above and below follow for as long as theirs is not. Raises
        RemoteError for a state that the domain has not; nothing is changed then."""
        if state.state not in self.states:
            raise RemoteError("state", state.state, None, "the power domain has no such state")
        self.state, self.owner = state.state, state.owner
        if self.lost:
            for domain in self.below():
                domain.state = OFF if not domain.lost else domain.state
        else:
            for domain in self.off_above():
                domain.state = ON


def domains_of(sections: list[PowerDomainSection]) -> list[PowerDomain]:
    """The domains of a board, each with what is above and below it."""
    domains = [PowerDomain(number, section) for number, section in enumerate(sections)]
    by_name = {domain.section.name: domain for domain in domains}
    for domain in domains:
        if domain.section.parent:
            domain.parent = by_name[domain.section.parent]
            domain.parent.children.append(domain)
    return domains
