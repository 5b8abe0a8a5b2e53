"""Performance domain protocol 0x13, versions 0x20000 to 0x40000: layouts (DEN0056E §4.5).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a notification. Levels are numbers on a scale of the platform's own; in level indexing
mode (since 0x40000) every command and notification that has a level has its index instead. Frequencies are kHz,
latencies and rate limits µs.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.errors import ScmiError
from common.scmi.fields import U32, name_of, unpack, unpack_many
from common.scmi.status import ProtocolId, Status

PROTOCOL: Final = ProtocolId.PERFORMANCE
VERSION: Final = 0x40000


class Command(IntEnum):
    """DEN0056E §4.5.3."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    PERFORMANCE_DOMAIN_ATTRIBUTES = 0x3
    PERFORMANCE_DESCRIBE_LEVELS = 0x4
    PERFORMANCE_LIMITS_SET = 0x5
    PERFORMANCE_LIMITS_GET = 0x6
    PERFORMANCE_LEVEL_SET = 0x7
    PERFORMANCE_LEVEL_GET = 0x8
    PERFORMANCE_NOTIFY_LIMITS = 0x9
    PERFORMANCE_NOTIFY_LEVEL = 0xA
    PERFORMANCE_DESCRIBE_FASTCHANNEL = 0xB
    PERFORMANCE_DOMAIN_NAME_GET = 0xC
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.5, notifications."""

    PERFORMANCE_LIMITS_CHANGED = 0x0
    PERFORMANCE_LEVEL_CHANGED = 0x1


# --- requests ---------------------------------------------------------------------------------------------------------

#: PERFORMANCE_DOMAIN_ATTRIBUTES, _LIMITS_GET, _LEVEL_GET, _DOMAIN_NAME_GET: domain id.
DOMAIN_ID: Final = U32
#: PERFORMANCE_DESCRIBE_LEVELS: domain id, levels to skip.
DESCRIBE_LEVELS: Final = struct.Struct("<II")
#: PERFORMANCE_LIMITS_SET: domain id, highest level, lowest level. Since 0x30000 a limit of 0 stays as it is.
LIMITS_SET: Final = struct.Struct("<III")
#: PERFORMANCE_LEVEL_SET: domain id, level.
LEVEL_SET: Final = struct.Struct("<II")
#: PERFORMANCE_NOTIFY_LIMITS, _NOTIFY_LEVEL: domain id, notify enable (bit 0).
NOTIFY: Final = struct.Struct("<II")
#: PERFORMANCE_DESCRIBE_FASTCHANNEL: domain id, message id.
DESCRIBE_FASTCHANNEL: Final = struct.Struct("<II")

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: domains (15:0), flags (31:16), address and length of the statistics (length 0: there are none).
ATTRIBUTES_REPLY: Final = struct.Struct("<HHQI")
#: Flags: what power costs are counted in; without either on a scale of the platform's own.
POWER_MILLIWATTS: Final = 1 << 0
#: Since 0x30000.
POWER_MICROWATTS: Final = 1 << 1
#: PERFORMANCE_DOMAIN_ATTRIBUTES: attributes, rate limit (19:0), sustained frequency, sustained level, 16-byte name.
DOMAIN_ATTRIBUTES_REPLY: Final = struct.Struct("<IIII16s")
ATTR_SET_LIMITS: Final = 1 << 31
ATTR_SET_LEVEL: Final = 1 << 30
ATTR_LIMITS_NOTIFY: Final = 1 << 29
ATTR_LEVEL_NOTIFY: Final = 1 << 28
ATTR_FASTCHANNEL: Final = 1 << 27
#: Since 0x30000.
ATTR_EXTENDED_NAME: Final = 1 << 26
#: Since 0x40000.
ATTR_LEVEL_INDEXING: Final = 1 << 25
#: µs; the bits above are reserved.
MAX_RATE_LIMIT: Final = (1 << 20) - 1
#: One level of PERFORMANCE_DESCRIBE_LEVELS up to 0x30000: level, power cost, worst latency (15:0), reserved.
LEVEL_V2: Final = struct.Struct("<IIHH")
#: The same in 0x40000, and then: indicative frequency (0: not told), level index (0 without level indexing).
LEVEL: Final = struct.Struct("<IIHHII")
#: PERFORMANCE_LIMITS_GET: highest and lowest level.
LIMITS_REPLY: Final = struct.Struct("<II")
#: PERFORMANCE_LEVEL_GET.
LEVEL_REPLY: Final = U32

# --- notifications ----------------------------------------------------------------------------------------------------

#: PERFORMANCE_LIMITS_CHANGED: agent that changed them (0: the platform), domain id, highest and lowest level.
LIMITS_EVENT: Final = struct.Struct("<IIII")
#: PERFORMANCE_LEVEL_CHANGED: agent that changed it (0: the platform), domain id, level.
LEVEL_EVENT: Final = struct.Struct("<III")


class Attributes(NamedTuple):
    """``flags``: ``POWER_*``. ``statistics``: (address, bytes) of shared memory, (0, 0) for none."""

    domains: int
    flags: int
    statistics: tuple[int, int]


class DomainAttributes(NamedTuple):
    """``attributes`` is the raw word (``ATTR_*``)."""

    attributes: int
    rate_limit_us: int
    sustained_khz: int
    sustained_level: int
    name: str


class Level(NamedTuple):
    """``frequency_khz`` is indicative; it and ``level_index`` are 0 where the platform does not tell."""

    level: int
    power: int
    latency_us: int
    frequency_khz: int = 0
    level_index: int = 0


class Levels(NamedTuple):
    """One reply of the iteration."""

    levels: list[Level]
    remaining: int


class Limits(NamedTuple):
    highest: int
    lowest: int


class LimitsEvent(NamedTuple):
    agent: int
    domain: int
    highest: int
    lowest: int


class LevelEvent(NamedTuple):
    agent: int
    domain: int
    level: int


def parse_attributes(payload: bytes) -> Attributes:
    domains, flags, address, length = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return Attributes(domains, flags, (address, length))


def parse_domain_attributes(payload: bytes) -> DomainAttributes:
    fields = unpack(DOMAIN_ATTRIBUTES_REPLY, payload, "PERFORMANCE_DOMAIN_ATTRIBUTES")
    attributes, rate_limit, sustained_khz, sustained_level, name = fields
    return DomainAttributes(attributes, rate_limit & MAX_RATE_LIMIT, sustained_khz, sustained_level, name_of(name))


def pack_level(level: Level, indexed: bool) -> bytes:
    """One item of PERFORMANCE_DESCRIBE_LEVELS; ``indexed``: as 0x40000 has it."""
    power, latency = level.power, level.latency_us
    if indexed:
        return LEVEL.pack(level.level, power, latency, 0, level.frequency_khz, level.level_index)
    return LEVEL_V2.pack(level.level, power, latency, 0)


def parse_levels(payload: bytes) -> Levels:
    """Either format: which one it is the length tells."""
    command = "PERFORMANCE_DESCRIBE_LEVELS"
    (word,) = unpack(U32, payload, command)
    count, size = word & 0xFFF, len(payload) - U32.size
    layout = LEVEL if size == count * LEVEL.size else LEVEL_V2
    if size != count * layout.size:
        raise ScmiError(command, Status.PROTOCOL_ERROR, f"{size} bytes are not {count} levels")
    items = unpack_many(layout, payload, count, command, U32.size)
    levels = [Level(level, power, latency, *more) for level, power, latency, _, *more in items]
    return Levels(levels, word >> 16)


def parse_limits(payload: bytes) -> Limits:
    return Limits(*unpack(LIMITS_REPLY, payload, "PERFORMANCE_LIMITS_GET"))


def parse_level(payload: bytes) -> int:
    (level,) = unpack(LEVEL_REPLY, payload, "PERFORMANCE_LEVEL_GET")
    return int(level)


def parse_limits_event(payload: bytes) -> LimitsEvent:
    return LimitsEvent(*unpack(LIMITS_EVENT, payload, "PERFORMANCE_LIMITS_CHANGED"))


def parse_level_event(payload: bytes) -> LevelEvent:
    return LevelEvent(*unpack(LEVEL_EVENT, payload, "PERFORMANCE_LEVEL_CHANGED"))
