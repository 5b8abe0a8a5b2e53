"""One power zone: what the board says of it, its cap and its averaging interval now, what it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from common.errors import RemoteError
from services.scmi_platform.boards.powercap import PowercapDomainSection, Span
from services.scmi_platform.protocols.sensor_signal import reader

#: Powers are 32 bits.
MAX_POWER: Final = 0xFFFF_FFFF
#: Seconds between two looks at a measurement, where the averaging interval is shorter.
LEAST_PERIOD: Final = 0.01


class PowercapState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What agents set. ``thresholds``: low and high, by agent."""

    cap: int
    pai: int
    cap_owner: int
    pai_owner: int
    thresholds: dict[int, tuple[int, int]]


class Powercap:
    """``parent`` is the number of the zone that it is a part of, None for a root. ``cap`` is 0 for none.

    ``thresholds`` are low and high, by the agent that wants to hear when they are left; ``sides`` says on which side
    (-1 below, 0 within, 1 above) the measurement was at the last look. ``due`` is the time of the next look. The owners
    are the agents that set cap and interval last, 0 for nobody.
    """

    __slots__ = ("_draws", "cap", "cap_owner", "due", "id", "pai", "pai_owner", "parent", "section", "sides",
                 "thresholds")  # fmt: skip

    def __init__(self, number: int, section: PowercapDomainSection, ids: dict[str, int]) -> None:
        self.id = number
        self.section = section
        self.parent = ids[section.parent] if section.parent else None
        self._draws: Callable[[float], int] | None = None
        if section.signal is not None:
            self._draws = reader(section.signal, 0, MAX_POWER)
        self.thresholds: dict[int, tuple[int, int]] = {}
        self.sides: dict[int, int] = {}
        self.due = 0.0
        self.reset_cap()
        self.reset_pai()

    def reset_cap(self) -> None:
        """Back to what the board file says."""
        self.cap = self.section.cap
        self.cap_owner = 0

    def reset_pai(self) -> None:
        """Back to what the board file says."""
        self.pai = self.section.pai
        self.pai_owner = 0

    @property
    def can_set_cap(self) -> bool:
        return self.section.caps.min < self.section.caps.max

    @property
    def can_set_pai(self) -> bool:
        return self.section.pais.min < self.section.pais.max

    @property
    def monitored(self) -> bool:
        return self._draws is not None

    @property
    def period(self) -> float:
        """Seconds between two looks at the measurement: it changes once an interval."""
        return max(self.pai / 1e6, LEAST_PERIOD)

    def power(self, now: float) -> int:
        """What the zone draws ``now`` seconds after the start: the board's signal, held at the cap."""
        assert self._draws is not None
        drawn = self._draws(now)
        return min(drawn, self.cap) if self.cap else drawn

    def watch(self, agent: int, low: int, high: int) -> None:
        """``agent`` wants to hear when the power leaves these thresholds; the next look is as the first."""
        self.thresholds[agent] = (low, high)
        self.sides.pop(agent, None)

    def forget(self, agent: int) -> bool:
        """``agent`` wants nothing any more. False: it did not before."""
        self.sides.pop(agent, None)
        return self.thresholds.pop(agent, None) is not None

    def left(self, agent: int, power: int) -> bool:
        """Has the power left ``agent``'s thresholds since the last look, to a side where it was not?"""
        low, high = self.thresholds.get(agent, (0, MAX_POWER))
        side = -1 if power < low else 1 if power > high else 0
        before, self.sides[agent] = self.sides.get(agent, 0), side
        return bool(side) and side != before

    # --- what outlives a restart --------------------------------------------------------------------------------------

    def save(self) -> PowercapState | None:
        """What agents set; None where nobody did."""
        if not (self.cap_owner or self.pai_owner or self.thresholds):
            return None
        return PowercapState(self.cap, self.pai, self.cap_owner, self.pai_owner, dict(self.thresholds))

    def load(self, state: PowercapState) -> None:
        """Raises RemoteError for what the board does not allow; nothing is changed then."""
        section = self.section
        free = self.can_set_cap and not state.cap
        if not free and state.cap != section.cap and rounded(section.caps, state.cap) != state.cap:
            raise RemoteError("cap", state.cap, (section.caps.min, section.caps.max), "the zone has no such cap")
        if rounded(section.pais, state.pai) != state.pai:
            raise RemoteError("pai", state.pai, (section.pais.min, section.pais.max), "the zone has no such interval")
        for low, high in state.thresholds.values():
            if not 0 <= low <= high <= MAX_POWER:
                raise RemoteError("thresholds", (low, high), MAX_POWER, "low above high, or no power")
        self.cap, self.pai = state.cap, state.pai
        self.cap_owner, self.pai_owner = state.cap_owner, state.pai_owner
        self.thresholds = dict(state.thresholds)


def rounded(span: Span, value: int) -> int | None:
    """``value`` down to a step of ``span``; None where it lies outside."""
    if not span.min <= value <= span.max:
        return None
    return value - (value - span.min) % span.step if span.step else value
