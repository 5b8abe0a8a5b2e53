"""Profiles: which release of SCMI the platform shows, that is, which version of each protocol it reports.

A protocol that a profile does not name is not served; vendor protocols always are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.scmi.status import VENDOR_PROTOCOLS, ProtocolId
from services.scmi_platform.registry import ProtocolTable


@dataclass(slots=True, frozen=True)
class Profile:
    """``newest``: the version reported, by protocol. ``negotiates``: is there NEGOTIATE_PROTOCOL_VERSION?"""

    name: str
    newest: dict[int, int]
    negotiates: bool

    def versions(self, table: ProtocolTable) -> tuple[int, ...]:
        """The versions of ``table`` that this profile knows, oldest first; none: it is not served."""
        if table.protocol >= VENDOR_PROTOCOLS:
            return table.versions
        newest = self.newest.get(table.protocol, 0)
        return tuple(version for version in table.versions if version <= newest)


#: SCMI 2.0 (DEN0056B) and 3.2 (DEN0056E).
PROFILES: Final[dict[str, Profile]] = {
    one.name: one
    for one in (
        Profile(
            "scmi-2.0",
            {
                ProtocolId.BASE: 0x20000,
                ProtocolId.POWER_DOMAIN: 0x20000,
                ProtocolId.SYSTEM_POWER: 0x10000,
                ProtocolId.PERFORMANCE: 0x20000,
                ProtocolId.CLOCK: 0x10000,
                ProtocolId.SENSOR: 0x10000,
                ProtocolId.RESET_DOMAIN: 0x10000,
            },
            negotiates=False,
        ),
        Profile(
            "scmi-3.2",
            {
                ProtocolId.BASE: 0x20001,
                ProtocolId.POWER_DOMAIN: 0x30001,
                ProtocolId.SYSTEM_POWER: 0x20000,
                ProtocolId.PERFORMANCE: 0x40000,
                ProtocolId.CLOCK: 0x30000,
                ProtocolId.SENSOR: 0x30001,
                ProtocolId.RESET_DOMAIN: 0x30001,
                ProtocolId.VOLTAGE: 0x20000,
                ProtocolId.POWERCAP: 0x20000,
                ProtocolId.PIN_CONTROL: 0x10000,
            },
            negotiates=True,
        ),
    )
}
