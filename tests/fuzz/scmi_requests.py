"""Valid requests of every command, for board_whole.toml as its agents ``all`` and ``boss`` see it."""

from __future__ import annotations

from typing import Final

from common.scmi.status import ProtocolId
from services.scmi_platform.protocols.standard import STANDARD

#: What every protocol has: version, attributes, attributes of a message.
GENERIC: Final[dict[int, list[tuple[int, ...]]]] = {0x0: [()], 0x1: [()], 0x2: [(0x3,)]}

#: Words of the payload, by protocol and message id; negative ones in two's complement.
VALID: Final[dict[int, dict[int, list[tuple[int, ...]]]]] = {
    ProtocolId.BASE: {
        0x3: [()],
        0x4: [()],
        0x5: [()],
        0x6: [(0,), (3,)],
        0x7: [(0,), (2,), (-1,)],
        0x8: [(1,), (0,)],
        0x9: [(1, 0, 0), (3, 1, 0), (1, 0, 1), (4, 3, 0)],
        0xA: [(1, 0, 0x14, 0), (3, 1, 0x16, 0), (1, 0, 0x14, 1)],
        0xB: [(1, 0), (2, 0), (3, 1)],
    },
    ProtocolId.POWER_DOMAIN: {
        0x3: [(0,), (1,)],
        0x4: [(0, 1, 0x4000_0000), (1, 1, 0), (0, 1, 0x4000_0001), (1, 1, 1)],
        0x5: [(1,)],
        0x6: [(1, 1), (1, 0)],
        0x7: [(1, 1), (1, 0)],
        0x8: [(1,)],
    },
    ProtocolId.SYSTEM_POWER: {
        0x3: [(1, 0), (1, 1), (1, 2), (0, 0), (1, 0x8000_0005)],
        0x4: [()],
        0x5: [(1,), (0,)],
    },
    ProtocolId.PERFORMANCE: {
        0x3: [(0,), (1,)],
        0x4: [(0, 0), (1, 1)],
        0x5: [(0, 300, 100), (1, 2, 0), (1, 30, 10)],
        0x6: [(0,), (1,)],
        0x7: [(0, 100), (0, 300), (1, 1), (1, 2), (1, 10)],
        0x8: [(0,), (1,)],
        0x9: [(0, 1), (1, 1), (1, 0)],
        0xA: [(0, 1), (1, 1), (0, 0)],
        0xB: [(0, 7)],
        0xC: [(0,)],
    },
    ProtocolId.CLOCK: {
        0x3: [(0,), (2,)],
        0x4: [(0, 0), (1, 0)],
        0x5: [(0, 2, 200, 0), (1, 2, 100, 0), (3, 1, 1200, 0), (4, 1, 1201, 0), (8, 1, 1777, 0), (1, 1, 1000, 0)],
        0x6: [(1,), (2,)],
        0x7: [(1, 0, 0), (1, 1, 0), (1, 1), (2, 0), (1, 1 << 16 | 3, 20)],
        0x8: [(3,)],
        0x9: [(1, 1), (2, 1), (2, 0)],
        0xA: [(1, 1), (2, 1), (2, 0)],
        0xB: [(1, 0), (1, 1)],
        0xC: [(2, 0)],
        0xD: [(2, 0), (2, 1)],
        0xE: [(2,)],
        0xF: [(0,), (3,)],
    },
    ProtocolId.SENSOR: {
        0x3: [(0,), (1,)],
        0x4: [(0, 1), (0, 0)],
        0x5: [(0, 1 << 4 | 3, 60000, 0), (0, 3, 65000, 0)],
        0x6: [(0, 0), (0, 1), (1, 0)],
        0x7: [(1, 0)],
        0x8: [(0, 0), (1, 0)],
        0x9: [(0,), (2,)],
        0xA: [(0, 3), (0, 2 << 16 | 1), (1, 1 << 16 | 29 << 11 | 1), (2, 1)],
        0xB: [(0, 1), (1, 1), (0, 0)],
        0xC: [(1,)],
        0xD: [(1, 0)],
    },
    ProtocolId.RESET_DOMAIN: {
        0x3: [(0,), (1,)],
        0x4: [(0, 1, 0), (0, 5, 0), (0, 2, 0), (0, 0, 0), (0, 1, 0x8000_0007), (1, 1, 0)],
        0x5: [(0, 1), (1, 1), (0, 0)],
        0x6: [(0,)],
    },
    ProtocolId.VOLTAGE: {
        0x3: [(0,), (1,)],
        0x4: [(0, 0), (1, 1)],
        0x5: [(0, 7), (0, 0), (1, 9)],
        0x6: [(0,)],
        0x7: [(0, 0, 950_000), (1, 1, -3_300_000), (1, 1, 5)],
        0x8: [(0,), (1,)],
        0x9: [(0,)],
    },
    ProtocolId.POWERCAP: {
        0x3: [(0,), (1,)],
        0x4: [(0,), (1,)],
        0x5: [(0, 0, 1500), (0, 2, 2500), (0, 3, 3000), (1, 0, 20), (0, 0, 0)],
        0x6: [(0,), (1,)],
        0x7: [(0, 0, 3000), (0, 0, 1000)],
        0x8: [(0,)],
        0x9: [(0,), (1,)],
        0xA: [(0, 1), (1, 1), (0, 0)],
        0xB: [(0, 1, 2050, 2150), (0, 1, 0, 1), (0, 0, 0, 0)],
        0xC: [(0, 4)],
    },
    ProtocolId.PIN_CONTROL: {
        0x3: [(0, 0), (0, 1), (0, 2)],
        0x4: [(0, 1, 0), (0, 2, 0)],
        0x5: [(0, 1 << 18), (0, 2), (1, 1 << 18)],
        0x6: [(0, 0, 1 << 2 | 0, 10, 2), (0, 0, 1 << 10 | 1), (1, 0, 1 << 2, 9, 1)],
        0x7: [(0, 0), (0, 1)],
        0x8: [(0, 0), (0, 1)],
        0x9: [(3, 0)],
        0xA: [(1, 0, 4), (1, 0, 0)],
    },
}

#: They answer NOT_SUPPORTED in the best case: the platform offers no fast channels.
NEVER: Final = frozenset({"PERFORMANCE_DESCRIBE_FASTCHANNEL", "POWERCAP_DESCRIBE_FASTCHANNEL"})


def requests(protocol: int, message: int, newest: int) -> list[bytes]:
    """Payloads of valid requests; ``newest`` is the version to negotiate."""
    found = [(newest,)] if message == 0x10 else GENERIC.get(message) or VALID.get(protocol, {}).get(message, [])
    return [b"".join((word & 0xFFFF_FFFF).to_bytes(4, "little") for word in words) for words in found]


def missing() -> list[str]:
    """Commands of the registry that have no request here."""
    return [
        row.name
        for protocol, (table, _) in STANDARD.protocols.items()
        for row in table.commands.values()
        if not requests(protocol, row.message, 0)
    ]
