"""One performance domain: what the board says of it, its level and its limits now."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import msgspec

from common.errors import RemoteError
from common.scmi.performance import Level, Limits
from services.scmi_platform.boards.performance import Opp, PerformanceDomainSection


class PerformanceState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What agents set. Levels as the board has them, also where agents use indices."""

    level: int
    highest: int
    lowest: int
    level_owner: int
    limits_owner: int


class PerformanceDomain:
    """``level`` is one of ``levels``, which ascend; ``limits`` need not be. ``clock`` is the number of the clock that
    it drives, None for none. The owners are the agents that set level and limits last, 0 for nobody.

    A level's index is its position, counted from 1: in PERFORMANCE_LIMITS_SET a limit of 0 is no level.
    """

    __slots__ = ("clock", "id", "level", "level_owner", "levels", "limits", "limits_owner", "section")

    def __init__(self, number: int, section: PerformanceDomainSection, clocks: dict[str, int]) -> None:
        self.id = number
        self.section = section
        self.levels = [opp.level for opp in section.opps]
        self.clock = clocks[section.clock] if section.clock else None
        self.level = section.level
        self.level_owner = 0
        self.limits = self.widest
        self.limits_owner = 0

    @property
    def widest(self) -> Limits:
        """Limits that allow all levels."""
        return Limits(self.levels[-1], self.levels[0])

    @property
    def frequency(self) -> int:
        """Hz at the level that it is at."""
        return self._opp(self.level).frequency

    def _opp(self, level: int) -> Opp:
        return self.section.opps[bisect_left(self.levels, level)]

    def described(self, position: int) -> Level:
        """The level at this position, from 0 on."""
        opp = self.section.opps[position]
        index = position + 1 if self.section.level_indexing else 0
        return Level(opp.level, opp.power, opp.latency_us, opp.frequency // 1000, index)

    # --- levels and indices -------------------------------------------------------------------------------------------

    def level_of(self, said: int, indexed: bool) -> int | None:
        """The level that an agent means by ``said``; None for an index that there is not."""
        if not indexed:
            return said
        return self.levels[said - 1] if 0 < said <= len(self.levels) else None

    def said(self, level: int, indexed: bool) -> int:
        """What an agent reads for ``level``, which with ``indexed`` is one of the levels."""
        return bisect_left(self.levels, level) + 1 if indexed else level

    def said_limits(self, indexed: bool) -> Limits:
        """What an agent reads for the limits. Those that are not levels were set by agents that know no indices: it
        reads the outermost levels that they allow."""
        highest, lowest = self.limits
        if not indexed:
            return self.limits
        return Limits(bisect_right(self.levels, highest), bisect_left(self.levels, lowest) + 1)

    # --- what limits allow --------------------------------------------------------------------------------------------

    def allows(self, level: int) -> bool:
        """Is this one of the levels, and within the limits?"""
        return self.limits.lowest <= level <= self.limits.highest and level in self.levels

    def possible(self, limits: Limits) -> bool:
        """Do these limits lie within the levels, with at least one level between them?"""
        inside = self.levels[0] <= limits.lowest <= limits.highest <= self.levels[-1]
        return inside and bisect_left(self.levels, limits.lowest) < bisect_right(self.levels, limits.highest)

    def nearest(self, level: int) -> int:
        """This one of the levels, moved as little as the limits ask for."""
        lowest = self.levels[bisect_left(self.levels, self.limits.lowest)]
        highest = self.levels[bisect_right(self.levels, self.limits.highest) - 1]
        return min(max(level, lowest), highest)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    def save(self) -> PerformanceState | None:
        """What agents set; None where nobody did."""
        if not self.level_owner and not self.limits_owner:
            return None
        return PerformanceState(self.level, *self.limits, self.level_owner, self.limits_owner)

    def load(self, state: PerformanceState) -> None:
        """Raises RemoteError for what the board does not allow; nothing is changed then."""
        limits = Limits(state.highest, state.lowest)
        if not self.possible(limits):
            raise RemoteError("limits", tuple(limits), tuple(self.levels), "no level is within them")
        if state.level not in self.levels or not limits.lowest <= state.level <= limits.highest:
            raise RemoteError("level", state.level, tuple(limits), "the domain has no such level within its limits")
        self.level, self.limits = state.level, limits
        self.level_owner, self.limits_owner = state.level_owner, state.limits_owner
