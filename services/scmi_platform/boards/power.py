"""Sections ``[[power_domains]]`` and ``[system_power]``. Times are µs, those with ``_ms`` ms."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from common.scmi.power import STATE_RESERVED
from common.scmi.system_power import VENDOR_STATES
from services.scmi_platform.boards.section import U32, Name, Parts, Refuse, Section, check_known, check_parent

VendorState = Annotated[int, Meta(ge=VENDOR_STATES, le=0xFFFF_FFFF)]


class PowerDomainSection(Section, frozen=True, kw_only=True):
    """A domain is on (0) or off (0x40000000) at first; ``states`` are the power states that it has besides, as words.

    ``kind`` says who may set it: ``device`` and ``debug`` every agent, ``core`` and ``cluster`` the trusted ones,
    ``system`` nobody. ``transition_us``: how long an asynchronous change takes.
    """

    name: Name
    parent: str = ""
    kind: Literal["core", "cluster", "device", "debug", "system"] = "device"
    on: bool = True
    states: list[U32] = []
    transition_us: U32 = 0


class SystemPowerSection(Section, frozen=True, kw_only=True):
    """There is a system power protocol, and the system is up.

    ``agents`` may set its state, by name; left out, those that are trusted. ``states``: what there is besides shutdown,
    cold reset and power-up; ``vendor_states`` the vendor's own, as words. ``shutdown_timeout_ms``: what agents are
    told that a graceful shutdown asked for by another may take, 0 for no limit.
    """

    agents: list[str] | None = None
    states: tuple[Literal["warm_reset", "suspend"], ...] = ("warm_reset", "suspend")
    vendor_states: list[VendorState] = []
    shutdown_timeout_ms: U32 = 0


def check_power_domain(key: str, domain: PowerDomainSection, parts: Parts, refuse: Refuse) -> None:
    """The parent is on the board, walking up from a domain ends, and what is on hangs on something that is."""
    for index, state in enumerate(domain.states):
        if state & STATE_RESERVED:
            refuse(f"{key}.states[{index}]", f"{state:#x} has reserved bits: bit 30 and 27:0 make a power state")
    check_parent(key, domain, parts["power_domains"], refuse)
    if domain.on and any(one.name == domain.parent and not one.on for one in parts["power_domains"]):
        refuse(f"{key}.on", f"the parent {domain.parent!r} is off")


def check_system_power(key: str, system: SystemPowerSection, parts: Parts, refuse: Refuse) -> None:
    check_known(f"{key}.agents", system.agents or [], parts["agents"], refuse)
