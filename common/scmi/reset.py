"""Reset domain protocol 0x16, versions 0x10000 and 0x30001: layouts (DEN0056E §4.8).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a notification or delayed response.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, name_of, unpack
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.RESET_DOMAIN
VERSION: Final = 0x30001


class Command(IntEnum):
    """DEN0056E §4.8.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    RESET_DOMAIN_ATTRIBUTES = 0x3
    RESET = 0x4
    RESET_NOTIFY = 0x5
    RESET_DOMAIN_NAME_GET = 0x6
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.8.4."""

    RESET_ISSUED = 0x0


# --- the reset state word ---------------------------------------------------------------------------------------------

#: The one architectural reset: all devices of the domain lose their context.
COLD_RESET: Final = 0
#: Resets with this bit are the platform's own, the lower the id (30:0) the more context is lost.
IMPLEMENTATION_DEFINED: Final = 1 << 31

# --- requests ---------------------------------------------------------------------------------------------------------

#: RESET_DOMAIN_ATTRIBUTES, RESET_DOMAIN_NAME_GET: domain id.
DOMAIN_ID: Final = U32
#: RESET: domain id, flags, reset state.
RESET: Final = struct.Struct("<III")
#: The platform resets the domain and brings it out of reset.
AUTONOMOUS: Final = 1 << 0
#: Without AUTONOMOUS: put the domain into reset, otherwise bring it out.
EXPLICIT_ASSERT: Final = 1 << 1
#: With AUTONOMOUS: answer at once, RESET_COMPLETE follows.
RESET_ASYNC: Final = 1 << 2
RESET_FLAGS: Final = 0x7
#: RESET_NOTIFY: domain id, notify enable (bit 0).
NOTIFY: Final = struct.Struct("<II")

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: domains (15:0), reserved.
ATTRIBUTES_REPLY: Final = struct.Struct("<HH")
#: RESET_DOMAIN_ATTRIBUTES: attributes, longest time that a reset takes (µs), 16-byte name.
DOMAIN_ATTRIBUTES_REPLY: Final = struct.Struct("<II16s")
ATTR_ASYNC: Final = 1 << 31
ATTR_NOTIFY: Final = 1 << 30
#: Since version 0x30000.
ATTR_EXTENDED_NAME: Final = 1 << 29
#: Latency of a platform that does not say.
LATENCY_UNKNOWN: Final = 0xFFFF_FFFF

# --- delayed response, notification -----------------------------------------------------------------------------------

#: RESET_COMPLETE, after its status word: domain id.
RESET_COMPLETE: Final = U32
#: RESET_ISSUED: agent that caused it, domain id, reset state.
RESET_EVENT: Final = struct.Struct("<III")


class DomainAttributes(NamedTuple):
    """``attributes`` is the raw word (``ATTR_*``), ``latency`` µs or LATENCY_UNKNOWN."""

    attributes: int
    latency: int
    name: str


class ResetEvent(NamedTuple):
    """``state`` is a reset state word."""

    agent: int
    domain: int
    state: int


def parse_attributes(payload: bytes) -> int:
    """How many domains there are."""
    return int(unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")[0])


def parse_domain_attributes(payload: bytes) -> DomainAttributes:
    attributes, latency, name = unpack(DOMAIN_ATTRIBUTES_REPLY, payload, "RESET_DOMAIN_ATTRIBUTES")
    return DomainAttributes(attributes, latency, name_of(name))


def parse_reset_complete(payload: bytes) -> int:
    """The domain id of a delayed response, its status word already taken off."""
    return int(unpack(RESET_COMPLETE, payload, "RESET_COMPLETE")[0])


def parse_reset_event(payload: bytes) -> ResetEvent:
    return ResetEvent(*unpack(RESET_EVENT, payload, "RESET_ISSUED"))
