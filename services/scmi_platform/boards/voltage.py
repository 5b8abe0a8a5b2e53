"""Sections ``[[voltage_domains]]``. Levels are µV and may be negative, times µs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from services.scmi_platform.boards.section import U32, Name, Parts, Refuse, Section, check_offered

#: Levels are 32 bits, two's complement.
Level = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
#: Operating modes that the vendor defines: bit 3 is set.
VendorMode = Annotated[int, Meta(ge=0x8, le=0xF)]

#: Levels that "remaining" of VOLTAGE_DESCRIBE_LEVELS, 16 bits, can count.
MAX_LEVELS = 0xFFFF


class LevelRange(Section, frozen=True, kw_only=True):
    min: Level
    max: Level
    step: Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]


class VoltageDomainSection(Section, frozen=True, kw_only=True):
    """One regulator. ``levels``: ascending list, or a range; ``mode``: how it operates at first, ``vendor_modes``: what
    it can do besides off and on. ``restricted``: what no agent may change. ``level_set_us``: how long an asynchronous
    change takes; 0: there is no asynchronous change."""

    name: Name
    levels: list[Level] | LevelRange
    level: Level
    mode: Literal["off", "on"] | VendorMode = "on"
    vendor_modes: list[VendorMode] = []
    restricted: list[Literal["config", "level"]] = []
    level_set_us: U32 = 0


def check_voltage(key: str, domain: VoltageDomainSection, parts: Parts, refuse: Refuse) -> None:
    if isinstance(domain.levels, list) and len(domain.levels) > MAX_LEVELS:
        refuse(f"{key}.levels", f"{len(domain.levels)} levels, at most {MAX_LEVELS}")
    check_offered(key, "level", domain.level, domain.levels, refuse)
    if isinstance(domain.mode, int) and domain.mode not in domain.vendor_modes:
        refuse(f"{key}.mode", f"{domain.mode} is not one of the vendor_modes")
