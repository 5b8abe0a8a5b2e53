"""Clock protocol 0x14, versions 0x10000 to 0x30000: layouts (DEN0056E §4.6).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a notification or delayed response. Rates are Hz, latencies µs.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, U64, name_of, unpack, unpack_many
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.CLOCK
VERSION: Final = 0x30000


class Command(IntEnum):
    """DEN0056E §4.6.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    CLOCK_ATTRIBUTES = 0x3
    CLOCK_DESCRIBE_RATES = 0x4
    CLOCK_RATE_SET = 0x5
    CLOCK_RATE_GET = 0x6
    CLOCK_CONFIG_SET = 0x7
    CLOCK_NAME_GET = 0x8
    CLOCK_RATE_NOTIFY = 0x9
    CLOCK_RATE_CHANGE_REQUESTED_NOTIFY = 0xA
    CLOCK_CONFIG_GET = 0xB
    CLOCK_POSSIBLE_PARENTS_GET = 0xC
    CLOCK_PARENT_SET = 0xD
    CLOCK_PARENT_GET = 0xE
    CLOCK_GET_PERMISSIONS = 0xF
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.6, notifications."""

    CLOCK_RATE_CHANGED = 0x0
    CLOCK_RATE_CHANGE_REQUESTED = 0x1


# --- requests ---------------------------------------------------------------------------------------------------------

#: CLOCK_ATTRIBUTES, _RATE_GET, _NAME_GET, _PARENT_GET, _GET_PERMISSIONS: clock id.
CLOCK_ID: Final = U32
#: CLOCK_DESCRIBE_RATES: clock id, index of the first rate wanted.
DESCRIBE_RATES: Final = struct.Struct("<II")
#: CLOCK_RATE_SET: flags, clock id, rate.
RATE_SET: Final = struct.Struct("<IIQ")
RATE_ASYNC: Final = 1 << 0
#: With RATE_ASYNC: no delayed response is wanted.
RATE_IGNORE_DELAYED: Final = 1 << 1
RATE_ROUND_UP: Final = 1 << 2
#: The platform chooses how to round; RATE_ROUND_UP is then ignored.
RATE_ROUND_AUTO: Final = 1 << 3
RATE_FLAGS: Final = 0xF
#: CLOCK_CONFIG_SET: clock id, attributes, extended config value.
CONFIG_SET: Final = struct.Struct("<III")
#: CLOCK_CONFIG_SET before version 0x30000: clock id, attributes (bit 0 enables).
CONFIG_SET_V2: Final = struct.Struct("<II")
#: Attributes 1:0 of CLOCK_CONFIG_SET.
STATE_DISABLE: Final = 0
STATE_ENABLE: Final = 1
STATE_UNCHANGED: Final = 3
STATE_MASK: Final = 0x3
#: Attributes 23:16 of CLOCK_CONFIG_SET: extended config type.
CONFIG_TYPE_SHIFT: Final = 16
CONFIG_SET_MASK: Final = 0x00FF_0003
#: CLOCK_CONFIG_GET: clock id, flags (extended config type in 7:0).
CONFIG_GET: Final = struct.Struct("<II")
#: CLOCK_RATE_NOTIFY, CLOCK_RATE_CHANGE_REQUESTED_NOTIFY: clock id, notify enable (bit 0).
NOTIFY: Final = struct.Struct("<II")
#: CLOCK_POSSIBLE_PARENTS_GET: clock id, parents to skip.
POSSIBLE_PARENTS: Final = struct.Struct("<II")
#: CLOCK_PARENT_SET: clock id, parent clock id.
PARENT_SET: Final = struct.Struct("<II")


class ConfigType(IntEnum):
    """Extended config types; 0x80 to 0xFF belong to vendors."""

    NONE = 0
    DUTY_CYCLE = 1
    """percent"""
    PHASE = 2
    """degrees"""


# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: clocks (15:0), asynchronous rate changes that may be pending (23:16), reserved.
ATTRIBUTES_REPLY: Final = struct.Struct("<HBB")
#: CLOCK_ATTRIBUTES: attributes, 16-byte name, enable latency.
CLOCK_ATTRIBUTES_REPLY: Final = struct.Struct("<I16sI")
#: CLOCK_ATTRIBUTES of version 0x10000: attributes, 16-byte name.
CLOCK_ATTRIBUTES_REPLY_V1: Final = struct.Struct("<I16s")
ATTR_ENABLED: Final = 1 << 0
ATTR_RESTRICTED: Final = 1 << 1
ATTR_EXTENDED_CONFIG: Final = 1 << 27
ATTR_PARENTS: Final = 1 << 28
ATTR_EXTENDED_NAME: Final = 1 << 29
ATTR_RATE_CHANGE_REQUESTED: Final = 1 << 30
ATTR_RATE_CHANGED: Final = 1 << 31
#: CLOCK_DESCRIBE_RATES: flags word (returned 11:0, format 12, remaining 31:16), then 64-bit rates.
RATES_TRIPLET: Final = 1 << 12
#: CLOCK_RATE_GET.
RATE_REPLY: Final = U64
#: CLOCK_CONFIG_GET: attributes (reserved), config (bit 0 enabled), extended config value.
CONFIG_REPLY: Final = struct.Struct("<III")
#: CLOCK_GET_PERMISSIONS: one word.
PERMIT_RATE: Final = 1 << 29
PERMIT_PARENT: Final = 1 << 30
PERMIT_STATE: Final = 1 << 31
PERMIT_ALL: Final = PERMIT_RATE | PERMIT_PARENT | PERMIT_STATE

# --- delayed response, notifications --------------------------------------------------------------------------------

#: CLOCK_RATE_SET_COMPLETE, after its status word: clock id, rate now.
RATE_SET_COMPLETE: Final = struct.Struct("<IQ")
#: CLOCK_RATE_CHANGED, CLOCK_RATE_CHANGE_REQUESTED: agent that asked, clock id, rate.
RATE_EVENT: Final = struct.Struct("<IIQ")


class Attributes(NamedTuple):
    clocks: int
    max_async: int


class ClockAttributes(NamedTuple):
    """``attributes`` is the raw word (``ATTR_*``)."""

    attributes: int
    name: str
    enable_latency: int


class Rates(NamedTuple):
    """One reply of the iteration. With ``triplet`` the rates are (lowest, highest, step) and none remain."""

    triplet: bool
    rates: list[int]
    remaining: int


class Parents(NamedTuple):
    """One reply of the iteration over possible parents."""

    parents: list[int]
    remaining: int


class RateEvent(NamedTuple):
    agent: int
    clock: int
    rate: int


def parse_attributes(payload: bytes) -> Attributes:
    clocks, pending, _ = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return Attributes(clocks, pending)


def parse_clock_attributes(payload: bytes) -> ClockAttributes:
    """Of any version: 0x10000 sends no enable latency, which is then 0."""
    attributes, name = unpack(CLOCK_ATTRIBUTES_REPLY_V1, payload, "CLOCK_ATTRIBUTES")
    if len(payload) == CLOCK_ATTRIBUTES_REPLY_V1.size:
        return ClockAttributes(attributes, name_of(name), 0)
    (latency,) = unpack(U32, payload, "CLOCK_ATTRIBUTES", CLOCK_ATTRIBUTES_REPLY_V1.size)
    return ClockAttributes(attributes, name_of(name), latency)


def build_rates(rates: list[int], remaining: int, triplet: bool) -> bytes:
    """Return values of CLOCK_DESCRIBE_RATES."""
    flags = len(rates) | (RATES_TRIPLET if triplet else 0) | remaining << 16
    return struct.pack(f"<I{len(rates)}Q", flags, *rates)


def parse_rates(payload: bytes) -> Rates:
    (flags,) = unpack(U32, payload, "CLOCK_DESCRIBE_RATES")
    rates = unpack_many(U64, payload, flags & 0xFFF, "CLOCK_DESCRIBE_RATES", 4)
    return Rates(bool(flags & RATES_TRIPLET), [rate for (rate,) in rates], flags >> 16)


def parse_rate(payload: bytes) -> int:
    (rate,) = unpack(RATE_REPLY, payload, "CLOCK_RATE_GET")
    return int(rate)


def parse_config(payload: bytes) -> tuple[bool, int]:
    """(enabled, extended config value)."""
    _, config, value = unpack(CONFIG_REPLY, payload, "CLOCK_CONFIG_GET")
    return bool(config & 1), value


def build_parents(parents: list[int], remaining: int) -> bytes:
    """Return values of CLOCK_POSSIBLE_PARENTS_GET: returned in 7:0, remaining in 31:24, then clock ids."""
    return struct.pack(f"<I{len(parents)}I", len(parents) | remaining << 24, *parents)


def parse_parents(payload: bytes) -> Parents:
    (flags,) = unpack(U32, payload, "CLOCK_POSSIBLE_PARENTS_GET")
    parents = unpack_many(U32, payload, flags & 0xFF, "CLOCK_POSSIBLE_PARENTS_GET", 4)
    return Parents([parent for (parent,) in parents], flags >> 24)


def parse_rate_set_complete(payload: bytes) -> tuple[int, int]:
    """(clock id, rate) of a delayed response, its status word already taken off."""
    clock, rate = unpack(RATE_SET_COMPLETE, payload, "CLOCK_RATE_SET_COMPLETE")
    return clock, rate


def parse_rate_event(payload: bytes) -> RateEvent:
    """Both notifications."""
    return RateEvent(*unpack(RATE_EVENT, payload, "CLOCK_RATE_CHANGED"))
