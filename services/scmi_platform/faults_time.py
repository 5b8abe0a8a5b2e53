"""How long something is held on purpose: distributions, each drawn from one number in [0, 1)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Final

import msgspec

#: Longest time that anything can be held, seconds: what is held keeps its memory. Longer draws are cut to it.
MAX_LATE_SECONDS: Final = 3600.0

Held = Annotated[float, msgspec.Meta(ge=0, le=MAX_LATE_SECONDS)]

_NORMAL: Final = NormalDist()
#: The normal distribution has no quantile at 0.
_LEAST: Final = 2.0**-53


class _Distribution(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="distribution"):
    """Root of all: its name stands in ``distribution``."""


class Constant(_Distribution, kw_only=True, frozen=True, tag="constant"):
    """Always ``seconds``."""

    seconds: Held

    def draw(self, _chance: float) -> float:
        return self.seconds


class Uniform(_Distribution, kw_only=True, frozen=True, tag="uniform"):
    """Between ``low`` and ``high`` seconds, each length as likely as another."""

    low: Held = 0.0
    high: Held

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")

    def draw(self, chance: float) -> float:
        return self.low + (self.high - self.low) * chance


class Exponential(_Distribution, kw_only=True, frozen=True, tag="exponential"):
    """``mean`` seconds on average: mostly short, now and then long."""

    mean: Held

    def draw(self, chance: float) -> float:
        return min(-self.mean * math.log1p(-chance), MAX_LATE_SECONDS)


class Lognormal(_Distribution, kw_only=True, frozen=True, tag="lognormal"):
    """Half of them below ``median`` seconds, with a long tail: the logarithm has the standard deviation ``sigma``."""

    median: Held
    sigma: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0

    def draw(self, chance: float) -> float:
        return min(self.median * math.exp(self.sigma * _NORMAL.inv_cdf(max(chance, _LEAST))), MAX_LATE_SECONDS)


Time = Constant | Uniform | Exponential | Lognormal
