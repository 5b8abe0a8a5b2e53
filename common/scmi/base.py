"""Base protocol 0x10, version 0x20001: layouts (DEN0056E §4.2).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word). Commands without a layout here have no parameters.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, name_of, unpack, unpack_many
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.BASE
VERSION: Final = 0x20001


class Command(IntEnum):
    """DEN0056E §4.2.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    BASE_DISCOVER_VENDOR = 0x3
    BASE_DISCOVER_SUB_VENDOR = 0x4
    BASE_DISCOVER_IMPLEMENTATION_VERSION = 0x5
    BASE_DISCOVER_LIST_PROTOCOLS = 0x6
    BASE_DISCOVER_AGENT = 0x7
    BASE_NOTIFY_ERRORS = 0x8
    BASE_SET_DEVICE_PERMISSIONS = 0x9
    BASE_SET_PROTOCOL_PERMISSIONS = 0xA
    BASE_RESET_AGENT_CONFIGURATION = 0xB
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.2.3."""

    BASE_ERROR_EVENT = 0x0


# --- common to all protocols (DEN0056E §4.2.2 for base; the same in §4.3.2 …) ---------------------------------------

#: Reply to PROTOCOL_VERSION: major 31:16, minor 15:0.
VERSION_REPLY: Final = U32
#: Request of PROTOCOL_MESSAGE_ATTRIBUTES: message id. Reply: attributes word, 0 where the message has none.
MESSAGE_ATTRIBUTES: Final = U32
#: Request of NEGOTIATE_PROTOCOL_VERSION: the version that the agent speaks. No return values.
NEGOTIATE: Final = U32

# --- requests ---------------------------------------------------------------------------------------------------------

#: BASE_DISCOVER_LIST_PROTOCOLS: protocols to skip.
LIST_PROTOCOLS: Final = U32
#: BASE_DISCOVER_AGENT: agent id; :data:`SELF` asks for the caller's own.
DISCOVER_AGENT: Final = U32
SELF: Final = 0xFFFF_FFFF
#: BASE_NOTIFY_ERRORS: bit 0 enables.
NOTIFY_ERRORS: Final = U32
#: BASE_SET_DEVICE_PERMISSIONS: agent id, device id, flags.
SET_DEVICE_PERMISSIONS: Final = struct.Struct("<III")
#: BASE_SET_PROTOCOL_PERMISSIONS: agent id, device id, command id (protocol id in 7:0), flags.
SET_PROTOCOL_PERMISSIONS: Final = struct.Struct("<IIII")
#: Flag of both: access allowed (else denied).
ALLOW: Final = 1 << 0
#: BASE_RESET_AGENT_CONFIGURATION: agent id, flags.
RESET_AGENT: Final = struct.Struct("<II")
#: Flag: permissions go back to their defaults too.
RESET_PERMISSIONS: Final = 1 << 0

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: protocols besides base (7:0), agents (15:8), reserved.
ATTRIBUTES_REPLY: Final = struct.Struct("<BBH")
#: BASE_DISCOVER_VENDOR and _SUB_VENDOR: a 16-byte name.
VENDOR_REPLY: Final = struct.Struct("<16s")
#: BASE_DISCOVER_AGENT: agent id, 16-byte name.
AGENT_REPLY: Final = struct.Struct("<I16s")

# --- notification -----------------------------------------------------------------------------------------------------

#: BASE_ERROR_EVENT: agent whose commands failed, error status; then one :data:`ERROR_REPORT` a command.
ERROR_EVENT: Final = struct.Struct("<II")
#: One 64-bit message report: the command's header word, its status.
ERROR_REPORT: Final = struct.Struct("<Ii")
#: Bit of the error status: the platform cannot go on.
FATAL: Final = 1 << 31
#: Mask of the error status: number of reports that follow.
ERROR_COUNT: Final = 0x3FF


class Attributes(NamedTuple):
    protocols: int
    agents: int


class ErrorEvent(NamedTuple):
    """``reports`` holds (header word, status) of each command that failed."""

    agent: int
    fatal: bool
    reports: list[tuple[int, int]]


def parse_attributes(payload: bytes) -> Attributes:
    protocols, agents, _ = unpack(ATTRIBUTES_REPLY, payload, "PROTOCOL_ATTRIBUTES")
    return Attributes(protocols, agents)


def parse_vendor(payload: bytes) -> str:
    (raw,) = unpack(VENDOR_REPLY, payload, "BASE_DISCOVER_VENDOR")
    return name_of(raw)


def build_protocols(protocols: bytes) -> bytes:
    """Return values of BASE_DISCOVER_LIST_PROTOCOLS: the count, then the ids, four a word, padded with zeros."""
    return U32.pack(len(protocols)) + protocols + bytes(-len(protocols) % 4)


def parse_protocols(payload: bytes) -> list[int]:
    """Ids in one BASE_DISCOVER_LIST_PROTOCOLS reply; an empty list ends the iteration."""
    (count,) = unpack(U32, payload, "BASE_DISCOVER_LIST_PROTOCOLS")
    return [one for (one,) in unpack_many(struct.Struct("<B"), payload, count, "BASE_DISCOVER_LIST_PROTOCOLS", 4)]


def parse_agent(payload: bytes) -> tuple[int, str]:
    """(agent id, name)."""
    agent, raw = unpack(AGENT_REPLY, payload, "BASE_DISCOVER_AGENT")
    return agent, name_of(raw)


def build_error_event(agent: int, reports: list[tuple[int, int]], fatal: bool = False) -> bytes:
    """Payload of BASE_ERROR_EVENT; ``reports`` are (header word, status)."""
    status = (FATAL if fatal else 0) | len(reports)
    return ERROR_EVENT.pack(agent, status) + b"".join(ERROR_REPORT.pack(*report) for report in reports)


def parse_error_event(payload: bytes) -> ErrorEvent:
    agent, status = unpack(ERROR_EVENT, payload, "BASE_ERROR_EVENT")
    reports = unpack_many(ERROR_REPORT, payload, status & ERROR_COUNT, "BASE_ERROR_EVENT", ERROR_EVENT.size)
    return ErrorEvent(agent, bool(status & FATAL), [(header, code) for header, code in reports])
