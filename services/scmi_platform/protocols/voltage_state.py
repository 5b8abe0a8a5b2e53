"""One voltage domain: what the board says of it and how it is set now. Levels are µV."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from common.errors import RemoteError
from common.scmi.voltage import MODE_MASK, MODE_OFF, MODE_ON
from services.scmi_platform.boards.agent import MAX_AGENTS
from services.scmi_platform.boards.section import offers
from services.scmi_platform.boards.voltage import Level, LevelRange, VoltageDomainSection

_MODES: Final[dict[int | str, int]] = {"off": MODE_OFF, "on": MODE_ON}


class VoltageState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What agents set: level in µV, operating mode as the protocol numbers it."""

    level: Level
    mode: Annotated[int, msgspec.Meta(ge=0, le=MODE_MASK)]
    owner: Annotated[int, msgspec.Meta(ge=0, le=MAX_AGENTS)]


class VoltageDomain:
    """``levels`` is the ascending list, or empty where ``triplet`` is (lowest, highest, step). ``modes``: the operating
    modes that it has.

    ``owner`` is the agent that configured the domain last, 0 for nobody.
    """

    __slots__ = ("id", "level", "levels", "mode", "modes", "owner", "section", "triplet")

    def __init__(self, number: int, section: VoltageDomainSection) -> None:
        self.id = number
        self.section = section
        levels = section.levels
        self.triplet = [levels.min, levels.max, levels.step] if isinstance(levels, LevelRange) else None
        self.levels = [] if isinstance(levels, LevelRange) else levels
        self.modes: Final = frozenset((MODE_OFF, MODE_ON, *section.vendor_modes))
        self.reset()

    def reset(self) -> None:
        """Back to what the board file says."""
        mode = self.section.mode
        self.level: int = self.section.level
        self.mode = mode if isinstance(mode, int) else _MODES[mode]
        self.owner = 0

    def supports(self, level: int) -> bool:
        """Is this exactly one of the levels?"""
        return offers(self.section.levels, level)

    def save(self) -> VoltageState | None:
        """What agents set; None where nobody did."""
        return VoltageState(self.level, self.mode, self.owner) if self.owner else None

    def load(self, state: VoltageState) -> None:
        """Raises RemoteError for what the board does not allow; nothing is changed then."""
        if not self.supports(state.level):
            raise RemoteError("level", state.level, None, "the voltage domain has no such level")
        if state.mode not in self.modes:
            raise RemoteError("mode", state.mode, None, "the voltage domain has no such operating mode")
        self.level, self.mode, self.owner = state.level, state.mode, state.owner
