"""Sections ``[[reset_domains]]``. Times are µs."""

from __future__ import annotations

from common.scmi.reset import IMPLEMENTATION_DEFINED
from services.scmi_platform.boards.section import U32, Name, Parts, Refuse, Section


class ResetDomainSection(Section, frozen=True, kw_only=True):
    """``reset_us``: the latency that agents are told, and how long an asynchronous reset takes.

    ``asynchronous``: may be reset so; ``explicit``: agents may assert and deassert the reset signal themselves.
    ``states``: the platform's own resets that the domain has besides the cold one, as words with bit 31 set.
    """

    name: Name
    reset_us: U32 = 1000
    asynchronous: bool = True
    explicit: bool = True
    states: list[U32] = []


def check_reset_domain(key: str, domain: ResetDomainSection, parts: Parts, refuse: Refuse) -> None:
    for index, state in enumerate(domain.states):
        if not state & IMPLEMENTATION_DEFINED:
            refuse(f"{key}.states[{index}]", f"{state:#x} is architectural: the platform's own have bit 31 set")
