"""Power domain protocol 0x11, versions 0x20000 and 0x30001: layouts (DEN0056E §4.3).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a notification.

There is no delayed response: that an asynchronous change is done is told by POWER_STATE_CHANGED.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, name_of, unpack
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.POWER_DOMAIN
VERSION: Final = 0x30001


class Command(IntEnum):
    """DEN0056E §4.3.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    POWER_DOMAIN_ATTRIBUTES = 0x3
    POWER_STATE_SET = 0x4
    POWER_STATE_GET = 0x5
    POWER_STATE_NOTIFY = 0x6
    POWER_STATE_CHANGE_REQUESTED_NOTIFY = 0x7
    POWER_DOMAIN_NAME_GET = 0x8
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.3.3."""

    POWER_STATE_CHANGED = 0x0
    POWER_STATE_CHANGE_REQUESTED = 0x1


# --- the power state word ---------------------------------------------------------------------------------------------

#: What runs in the domain loses its context.
CONTEXT_LOST: Final = 1 << 30
#: Which of the states of that type (27:0).
STATE_ID: Final = 0x0FFF_FFFF
#: Bits 31 and 29:28 are reserved.
STATE_RESERVED: Final = 0xFFFF_FFFF & ~(CONTEXT_LOST | STATE_ID)
ON: Final = 0
OFF: Final = CONTEXT_LOST

# --- requests ---------------------------------------------------------------------------------------------------------

#: POWER_DOMAIN_ATTRIBUTES, POWER_STATE_GET, POWER_DOMAIN_NAME_GET: domain id.
DOMAIN_ID: Final = U32
#: POWER_STATE_SET: flags, domain id, power state.
STATE_SET: Final = struct.Struct("<III")
#: The only flag: answer at once, change later.
SET_ASYNC: Final = 1 << 0
#: POWER_STATE_NOTIFY, POWER_STATE_CHANGE_REQUESTED_NOTIFY: domain id, notify enable (bit 0).
NOTIFY: Final = struct.Struct("<II")

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: domains (15:0), reserved; address and length (bytes) of shared memory with statistics.
ATTRIBUTES_REPLY: Final = struct.Struct("<HHQI")
#: POWER_DOMAIN_ATTRIBUTES: attributes, 16-byte name.
DOMAIN_ATTRIBUTES_REPLY: Final = struct.Struct("<I16s")
ATTR_CHANGED: Final = 1 << 31
ATTR_ASYNC: Final = 1 << 30
ATTR_SYNC: Final = 1 << 29
ATTR_CHANGE_REQUESTED: Final = 1 << 28
#: Since version 0x30000.
ATTR_EXTENDED_NAME: Final = 1 << 27
#: POWER_STATE_GET.
STATE_REPLY: Final = U32

# --- notifications ----------------------------------------------------------------------------------------------------

#: POWER_STATE_CHANGED, POWER_STATE_CHANGE_REQUESTED: agent that asked, domain id, power state.
STATE_EVENT: Final = struct.Struct("<III")


class Attributes(NamedTuple):
    """``statistics`` is (address, bytes) of the shared memory; no bytes: there is none."""

    domains: int
    statistics: tuple[int, int]


class DomainAttributes(NamedTuple):
    """``attributes`` is the raw word (``ATTR_*``)."""

    attributes: int
    name: str


class StateEvent(NamedTuple):
    """``state`` is a power state word."""

    agent: int
    domain: int
    state: int


def parse_attributes(payload: bytes) -> Attributes:
    domains, _, address, length = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return Attributes(domains, (address, length))


def parse_domain_attributes(payload: bytes) -> DomainAttributes:
    attributes, name = unpack(DOMAIN_ATTRIBUTES_REPLY, payload, "POWER_DOMAIN_ATTRIBUTES")
    return DomainAttributes(attributes, name_of(name))


def parse_state(payload: bytes) -> int:
    (state,) = unpack(STATE_REPLY, payload, "POWER_STATE_GET")
    return int(state)


def parse_state_event(payload: bytes) -> StateEvent:
    """Both notifications."""
    return StateEvent(*unpack(STATE_EVENT, payload, "POWER_STATE_CHANGED"))
