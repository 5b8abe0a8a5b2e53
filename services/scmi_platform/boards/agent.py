"""Sections ``[platform]``, ``[[agents]]`` and ``[[devices]]``: who there is and what belongs together."""

from __future__ import annotations

import re
from typing import Final, Literal

from common.scmi.status import ProtocolId
from services.scmi_platform.boards.section import U32, Name, Parts, Refuse, Section, ShortName, check_listed

#: The agents' count is 8 bits.
MAX_AGENTS: Final = 0xFF

#: What the board calls the domains of each protocol that has any.
KINDS: Final[dict[int, str]] = {
    ProtocolId.POWER_DOMAIN: "power_domains",
    ProtocolId.PERFORMANCE: "performance_domains",
    ProtocolId.CLOCK: "clocks",
    ProtocolId.SENSOR: "sensors",
    ProtocolId.RESET_DOMAIN: "reset_domains",
    ProtocolId.VOLTAGE: "voltage_domains",
    ProtocolId.POWERCAP: "powercap_domains",
}


#: Profiles by name, see :mod:`services.scmi_platform.profile`.
ProfileName = Literal["scmi-2.0", "scmi-3.2"]


class PlatformSection(Section, frozen=True, kw_only=True):
    """``profile`` says which versions of the protocols are reported; ``vendor_protocols`` names Python modules with
    protocols of the user, see :mod:`services.scmi_platform.vendor`."""

    vendor: ShortName
    sub_vendor: ShortName = "ringmesh"
    implementation_version: U32 = 1
    profile: ProfileName = "scmi-3.2"
    vendor_protocols: list[str] = []


class Domains(Section, frozen=True, kw_only=True):
    """Names of domains, by kind; None: of that kind there is nothing to say."""

    clocks: list[str] | None = None
    sensors: list[str] | None = None
    power_domains: list[str] | None = None
    performance_domains: list[str] | None = None
    reset_domains: list[str] | None = None
    voltage_domains: list[str] | None = None
    powercap_domains: list[str] | None = None

    def of(self, protocol: int) -> list[str] | None:
        """The names that this lists for ``protocol``."""
        names: list[str] | None = getattr(self, KINDS[protocol])
        return names


class AgentSection(Section, frozen=True, kw_only=True):
    """``trusted`` agents may set permissions and reset other agents.

    ``protocols``: the ones that this agent is served, by name, a vendor's as ``0x80`` (left out: all of the board).
    ``sees``: its own view of the domains, of each kind listed only these, and numbered as listed.
    """

    name: ShortName
    trusted: bool = False
    protocols: list[str] | None = None
    sees: Domains = Domains()


class DeviceSection(Domains, frozen=True, kw_only=True):
    """A device for BASE_SET_DEVICE_PERMISSIONS: which domains belong to it, by name."""

    name: Name


#: A vendor's protocol, which has no name.
_VENDOR: Final = re.compile("0x[89a-f][0-9a-f]")


def protocol_number(name: str) -> int:
    """The protocol that ``protocols`` of an agent means by ``name``, which was checked."""
    return int(name, 16) if _VENDOR.fullmatch(name) else ProtocolId[name.upper()]


def check_domains(key: str, domains: Domains, parts: Parts, refuse: Refuse) -> None:
    """Every name is on the board, and none is listed twice."""
    for kind in KINDS.values():
        check_listed(f"{key}.{kind}", getattr(domains, kind) or [], parts[kind], refuse)


def check_agent(key: str, agent: AgentSection, parts: Parts, refuse: Refuse) -> None:
    known = {one.name.lower() for one in ProtocolId if one != ProtocolId.BASE}
    for name in agent.protocols or []:
        if name not in known and not _VENDOR.fullmatch(name):
            refuse(f"{key}.protocols", f"{name!r} is none of {', '.join(sorted(known))}, nor a vendor's, 0x80 to 0xff")
    check_domains(f"{key}.sees", agent.sees, parts, refuse)
