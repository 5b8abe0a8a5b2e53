"""One reset domain: what the board says of it, and whether agents hold it in reset."""

from __future__ import annotations

from typing import Final

import msgspec

from common.errors import RemoteError
from common.scmi.reset import COLD_RESET
from services.scmi_platform.boards.reset import ResetDomainSection
from services.scmi_platform.boards.section import U8


class ResetState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agent that holds the domain in reset."""

    owner: U8


class ResetDomain:
    """``states`` are the resets that it has; ``owner`` is the agent that asserted the reset signal, 0: nobody did."""

    __slots__ = ("id", "owner", "section", "states")

    def __init__(self, number: int, section: ResetDomainSection) -> None:
        self.id: Final = number
        self.section: Final = section
        self.states: Final = frozenset((COLD_RESET, *section.states))
        self.owner = 0

    def held_by_another(self, agent: int) -> bool:
        return self.owner not in (0, agent)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    def save(self) -> ResetState | None:
        """Who holds it in reset; None where nobody does."""
        return ResetState(self.owner) if self.owner else None

    def load(self, state: ResetState) -> None:
        """Raises RemoteError where no agent can hold the domain in reset; nothing is changed then."""
        if not self.section.explicit:
            raise RemoteError("owner", state.owner, None, "no agent can hold the reset domain in reset")
        self.owner = state.owner
