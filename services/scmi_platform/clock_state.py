"""One clock: what the board says of it and how it is set now."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from common.scmi.clock import PERMIT_PARENT, PERMIT_RATE, PERMIT_STATE, ConfigType
from services.scmi_platform.board import ClockSection, RateRange

_PERMIT: Final = {"rate": PERMIT_RATE, "parent": PERMIT_PARENT, "state": PERMIT_STATE}
_CONFIGS: Final = {"duty_cycle": ConfigType.DUTY_CYCLE, "phase": ConfigType.PHASE}


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

    def round(self, rate: int, up: bool, auto: bool) -> int | None:
        """The rate that a request for ``rate`` gives; None where there is none on the wanted side.

        ``auto`` takes the nearest, the lower one in the middle. A rate that exists is always taken as it is.
        """
        below, above = self._neighbours(rate)
        if auto:
            if below is None or above is None:
                return above if below is None else below
            return below if rate - below <= above - rate else above
        return above if up else below

    def _neighbours(self, rate: int) -> tuple[int | None, int | None]:
        """The largest rate at or below ``rate`` and the smallest at or above."""
        if self.triplet is not None:
            lowest, highest, step = self.triplet
            top = lowest + (highest - lowest) // step * step
            if rate < lowest:
                return None, lowest
            if rate > top:
                return top, None
            below = lowest + (rate - lowest) // step * step
            return below, below if below == rate else below + step
        index = bisect_left(self.rates, rate)
        above = self.rates[index] if index < len(self.rates) else None
        if above == rate:
            return rate, rate
        return self.rates[index - 1] if index else None, above
