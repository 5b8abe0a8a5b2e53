"""Sections ``[[clocks]]``. Rates are Hz, latencies µs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from services.scmi_platform.boards.section import U32, U64, Name, Parts, Refuse, Section, check_known, check_offered

#: "Remaining" of CLOCK_POSSIBLE_PARENTS_GET is 8 bits.
MAX_PARENTS: Final = 0xFF


class RateRange(Section, frozen=True, kw_only=True):
    min: U64
    max: U64
    step: Annotated[int, Meta(ge=1, le=0x7FFF_FFFF_FFFF_FFFF)]


class ClockSection(Section, frozen=True, kw_only=True):
    """``rates``: ascending list, or a range. ``restricted``: what no agent may change. ``extended``: initial values
    of the extended configs that the clock has. ``rate_set_latency_us``: how long an asynchronous change takes."""

    name: Name
    rates: list[U64] | RateRange
    rate: U64
    enabled: bool = True
    enable_latency_us: U32 = 0
    rate_set_latency_us: U32 = 1000
    parents: list[str] = []
    parent: str = ""
    restricted: list[Literal["state", "parent", "rate"]] = []
    extended: dict[Literal["duty_cycle", "phase"], U32] = {}


def check_clock(key: str, clock: ClockSection, parts: Parts, refuse: Refuse) -> None:
    check_offered(key, "rate", clock.rate, clock.rates, refuse)
    if len(clock.parents) > MAX_PARENTS:
        refuse(f"{key}.parents", f"{len(clock.parents)} parents, at most {MAX_PARENTS}")
    check_known(f"{key}.parents", clock.parents, parts["clocks"], refuse)
    if clock.name in clock.parents:
        refuse(f"{key}.parents", "a clock is not its own parent")
    if bool(clock.parents) != bool(clock.parent) or (clock.parent and clock.parent not in clock.parents):
        refuse(f"{key}.parent", f"{clock.parent!r} is not one of the parents")
    for name, limit in (("duty_cycle", 100), ("phase", 359)):
        if clock.extended.get(name, 0) > limit:  # type: ignore[call-overload]
            refuse(f"{key}.extended.{name}", f"above {limit}")
