"""Sections ``[[performance_domains]]``. Frequencies are Hz (``_khz``: kHz), voltages µV, latencies µs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from common.scmi.performance import MAX_RATE_LIMIT
from services.scmi_platform.boards.clock import ClockSection
from services.scmi_platform.boards.section import (
    U16,
    U32,
    U64,
    Name,
    Parts,
    Refuse,
    Section,
    check_ascending,
    check_known,
    offers,
)

#: "Remaining" of PERFORMANCE_DESCRIBE_LEVELS is 16 bits.
MAX_OPPS: Final = 0xFFFF
#: Hz of an OPP: an indicative frequency is 32 bits of kHz.
MAX_FREQUENCY: Final = 0xFFFF_FFFF * 1000 + 999


class Opp(Section, frozen=True, kw_only=True):
    """An operating point: ``level`` is what the protocol calls it, ``frequency`` and ``voltage`` (µV) what it means.
    ``power`` is its cost in the domain's ``power_unit``."""

    level: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
    frequency: U64 = 0
    voltage: U32 = 0
    power: U32 = 0
    latency_us: U16 = 0


class PerformanceDomainSection(Section, frozen=True, kw_only=True):
    """``level`` is where it starts. ``sustained_khz`` (0: not told) is the frequency of ``sustained_level``.

    ``level_indexing``: agents that speak version 0x40000 name levels by their index. ``can_set_limits`` and
    ``can_set_level``: may any agent? ``rate_limit_us``: how long an agent should wait between two requests (0: not
    told). ``clock``: the clock that runs at the ``frequency`` of the level.
    """

    name: Name
    opps: list[Opp]
    level: U32
    sustained_level: U32
    sustained_khz: U32 = 0
    power_unit: Literal["abstract", "mW", "uW"] = "mW"
    level_indexing: bool = False
    can_set_limits: bool = True
    can_set_level: bool = True
    rate_limit_us: Annotated[int, Meta(ge=0, le=MAX_RATE_LIMIT)] = 0
    clock: str = ""


def check_performance(key: str, domain: PerformanceDomainSection, parts: Parts, refuse: Refuse) -> None:
    if len(domain.opps) > MAX_OPPS:
        refuse(f"{key}.opps", f"{len(domain.opps)} OPPs, at most {MAX_OPPS}")
    levels = [opp.level for opp in domain.opps]
    check_ascending(f"{key}.opps", levels, refuse)
    for name in ("level", "sustained_level"):
        if getattr(domain, name) not in levels:
            refuse(f"{key}.{name}", f"{getattr(domain, name)} is not the level of an OPP")
    unit = parts["performance_domains"][0].power_unit
    if domain.power_unit != unit:
        refuse(f"{key}.power_unit", f"{domain.power_unit}, but the protocol has one for all domains: {unit}")
    for index, opp in enumerate(domain.opps):
        if domain.level_indexing and opp.frequency < 1000:
            refuse(f"{key}.opps[{index}].frequency", "with level_indexing every OPP has one, of 1000 Hz at least")
        if opp.frequency > MAX_FREQUENCY:
            refuse(f"{key}.opps[{index}].frequency", f"{opp.frequency} is above {MAX_FREQUENCY}")
    if domain.clock:
        check_known(f"{key}.clock", [domain.clock], parts["clocks"], refuse)
        _check_clock(key, domain, next(one for one in parts["clocks"] if one.name == domain.clock), refuse)


def _check_clock(key: str, domain: PerformanceDomainSection, clock: ClockSection, refuse: Refuse) -> None:
    """The clock can run as fast as each OPP says, and does so at first."""
    for index, opp in enumerate(domain.opps):
        if not offers(clock.rates, opp.frequency):
            refuse(f"{key}.opps[{index}].frequency", f"{opp.frequency} is no rate of clock {clock.name!r}")
        if opp.level == domain.level and opp.frequency != clock.rate:
            refuse(f"{key}.level", f"{opp.level} is {opp.frequency} Hz, but clock {clock.name!r} is at {clock.rate}")
