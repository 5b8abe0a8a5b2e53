"""Voltage protocol 0x17, version 0x20000: layouts (DEN0056E §4.9).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a delayed response. Levels are µV, 32 bits two's complement: rails may be negative.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, name_of, unpack, unpack_many
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.VOLTAGE
VERSION: Final = 0x20000


class Command(IntEnum):
    """DEN0056E §4.9.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    VOLTAGE_DOMAIN_ATTRIBUTES = 0x3
    VOLTAGE_DESCRIBE_LEVELS = 0x4
    VOLTAGE_CONFIG_SET = 0x5
    VOLTAGE_CONFIG_GET = 0x6
    VOLTAGE_LEVEL_SET = 0x7
    VOLTAGE_LEVEL_GET = 0x8
    VOLTAGE_DOMAIN_NAME_GET = 0x9
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """There are none."""


S32: Final = struct.Struct("<i")

# --- requests ---------------------------------------------------------------------------------------------------------

#: VOLTAGE_DOMAIN_ATTRIBUTES, _CONFIG_GET, _LEVEL_GET, _DOMAIN_NAME_GET: domain id.
DOMAIN_ID: Final = U32
#: VOLTAGE_DESCRIBE_LEVELS: domain id, index of the first level wanted.
DESCRIBE_LEVELS: Final = struct.Struct("<II")
#: VOLTAGE_CONFIG_SET: domain id, config (operating mode in 3:0, the rest reserved).
CONFIG_SET: Final = struct.Struct("<II")
MODE_MASK: Final = 0xF
#: Operating modes: bit 3 says that the other three bits are the vendor's to define.
MODE_OFF: Final = 0x0
MODE_ON: Final = 0x7
MODE_VENDOR: Final = 0x8
#: VOLTAGE_LEVEL_SET: domain id, flags, level.
LEVEL_SET: Final = struct.Struct("<IIi")
LEVEL_ASYNC: Final = 1 << 0

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: domains (15:0), reserved.
ATTRIBUTES_REPLY: Final = struct.Struct("<HH")
#: VOLTAGE_DOMAIN_ATTRIBUTES: attributes, 16-byte name. Version 0x10000 has no attributes: the word is zero.
DOMAIN_ATTRIBUTES_REPLY: Final = struct.Struct("<I16s")
ATTR_EXTENDED_NAME: Final = 1 << 30
ATTR_ASYNC_LEVEL_SET: Final = 1 << 31
#: VOLTAGE_DESCRIBE_LEVELS: flags word (returned 11:0, format 12, remaining 31:16), then levels.
LEVELS_TRIPLET: Final = 1 << 12
#: VOLTAGE_CONFIG_GET: config, as VOLTAGE_CONFIG_SET's.
CONFIG_REPLY: Final = U32
#: VOLTAGE_LEVEL_GET.
LEVEL_REPLY: Final = S32

# --- delayed response -------------------------------------------------------------------------------------------------

#: VOLTAGE_LEVEL_SET_COMPLETE, after its status word: domain id, level now.
LEVEL_SET_COMPLETE: Final = struct.Struct("<Ii")


class DomainAttributes(NamedTuple):
    """``attributes`` is the raw word (``ATTR_*``)."""

    attributes: int
    name: str


class Levels(NamedTuple):
    """One reply of the iteration. With ``triplet`` the levels are (lowest, highest, step) and none remain."""

    triplet: bool
    levels: list[int]
    remaining: int


def parse_attributes(payload: bytes) -> int:
    """How many domains there are."""
    domains, _ = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return int(domains)


def parse_domain_attributes(payload: bytes) -> DomainAttributes:
    attributes, name = unpack(DOMAIN_ATTRIBUTES_REPLY, payload, "VOLTAGE_DOMAIN_ATTRIBUTES")
    return DomainAttributes(attributes, name_of(name))


def build_levels(levels: list[int], remaining: int, triplet: bool) -> bytes:
    """Return values of VOLTAGE_DESCRIBE_LEVELS."""
    flags = len(levels) | (LEVELS_TRIPLET if triplet else 0) | remaining << 16
    return struct.pack(f"<I{len(levels)}i", flags, *levels)


def parse_levels(payload: bytes) -> Levels:
    (flags,) = unpack(U32, payload, "VOLTAGE_DESCRIBE_LEVELS")
    levels = unpack_many(S32, payload, flags & 0xFFF, "VOLTAGE_DESCRIBE_LEVELS", 4)
    return Levels(bool(flags & LEVELS_TRIPLET), [level for (level,) in levels], flags >> 16)


def parse_config(payload: bytes) -> int:
    """The operating mode."""
    (config,) = unpack(CONFIG_REPLY, payload, "VOLTAGE_CONFIG_GET")
    return int(config) & MODE_MASK


def parse_level(payload: bytes) -> int:
    (level,) = unpack(LEVEL_REPLY, payload, "VOLTAGE_LEVEL_GET")
    return int(level)


def parse_level_set_complete(payload: bytes) -> tuple[int, int]:
    """(domain id, level) of a delayed response, its status word already taken off."""
    domain, level = unpack(LEVEL_SET_COMPLETE, payload, "VOLTAGE_LEVEL_SET_COMPLETE")
    return domain, level
