"""One clock: what the board says of it and how it is set now."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from common.errors import RemoteError
from common.scmi.clock import PERMIT_PARENT, PERMIT_RATE, PERMIT_STATE, ConfigType
from services.scmi_platform.boards.agent import MAX_AGENTS
from services.scmi_platform.boards.clock import ClockSection, RateRange
from services.scmi_platform.boards.section import U64

_PERMIT: Final = {"rate": PERMIT_RATE, "parent": PERMIT_PARENT, "state": PERMIT_STATE}
_CONFIGS: Final = {"duty_cycle": ConfigType.DUTY_CYCLE, "phase": ConfigType.PHASE}
#: The largest value of each extended config: percent of the period, degrees.
CONFIG_LIMITS: Final[dict[int, int]] = {ConfigType.DUTY_CYCLE: 100, ConfigType.PHASE: 359}


class ClockState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What agents set: rate in Hz, parent by its number on the board; ``owner`` is 0 where nobody configured the clock
    and only what it follows has moved it."""

    rate: U64
    enabled: bool
    extended: dict[int, int]
    parent: int | None
    owner: Annotated[int, Meta(ge=0, le=MAX_AGENTS)]


class Clock:
    """``rates`` is the ascending list, or empty where ``triplet`` is (lowest, highest, step).

    ``owner`` is the agent that configured the clock last, 0 for nobody.
    """

    __slots__ = (
        "enabled",
        "extended",
        "id",
        "owner",
        "parent",
        "parents",
        "permissions",
        "rate",
        "rates",
        "section",
        "triplet",
    )

    def __init__(self, number: int, section: ClockSection, ids: dict[str, int]) -> None:
        self.id = number
        self.section = section
        rates = section.rates
        self.triplet = (rates.min, rates.max, rates.step) if isinstance(rates, RateRange) else None
        self.rates = [] if isinstance(rates, RateRange) else rates
        self.parents = [ids[name] for name in section.parents]
        self.permissions = sum(bit for name, bit in _PERMIT.items() if name not in section.restricted)
        self.reset()

    def reset(self) -> None:
        """Back to what the board file says."""
        section = self.section
        self.rate: int = section.rate
        self.enabled = section.enabled
        self.extended: dict[int, int] = {_CONFIGS[name]: value for name, value in section.extended.items()}
        self.parent = self.parents[section.parents.index(section.parent)] if section.parent else None
        self.owner = 0

    def save(self) -> ClockState | None:
        """How it is set; None where it stands as the board says."""
        if not self.owner and self.rate == self.section.rate:
            return None
        return ClockState(self.rate, self.enabled, dict(self.extended), self.parent, self.owner)

    def load(self, state: ClockState) -> None:
        """Raises RemoteError for what the board does not allow; nothing is changed then."""
        if self.round(state.rate, False, False) != state.rate:
            raise RemoteError("rate", state.rate, None, "the clock has no such rate")
        if state.parent != self.parent and state.parent not in self.parents:
            raise RemoteError("parent", state.parent, None, "not a possible parent")
        if state.extended.keys() != self.extended.keys():
            raise RemoteError("extended", sorted(state.extended), None, "not the configs that the clock has")
        for kind, value in state.extended.items():
            if not 0 <= value <= CONFIG_LIMITS[kind]:
                raise RemoteError(f"extended[{kind}]", value, CONFIG_LIMITS[kind])
        self.rate, self.enabled, self.parent = state.rate, state.enabled, state.parent
        self.extended, self.owner = dict(state.extended), state.owner

    def round(self, rate: int, up: bool, auto: bool) -> int | None:
        """The rate that a request for ``rate`` gives; None where there is none on the wanted side, and where ``rate``
        is not between the lowest and the highest: however it is rounded, such a rate is none of the clock's.

        ``auto`` takes the nearest, the lower one in the middle. A rate that exists is always taken as it is.
        """
        lowest, highest = (self.rates[0], self.rates[-1]) if self.triplet is None else self.triplet[:2]
        if not lowest <= rate <= highest:
            return None
        below, above = self._neighbours(rate)
        if auto:
            return below if above is None or rate - below <= above - rate else above
        return above if up else below

    def _neighbours(self, rate: int) -> tuple[int, int | None]:
        """The largest rate at or below ``rate`` and the smallest at or above, of a rate within the range. None: there
        is none between the last step and the highest rate."""
        if self.triplet is not None:
            lowest, highest, step = self.triplet
            below = lowest + (rate - lowest) // step * step
            above = below if below == rate else below + step
            return below, above if above <= highest else None
        index = bisect_left(self.rates, rate)
        above = self.rates[index]
        return rate if above == rate else self.rates[index - 1], above
