"""System power protocol 0x12, versions 0x10000 and 0x20000: layouts (DEN0056E §4.4).

Requests are packed with the layout of the command's name; ``parse_*`` takes a reply's return values (what follows the
status word), or the payload of a notification.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from common.scmi.fields import U32, unpack
from common.scmi.status import ProtocolId

PROTOCOL: Final = ProtocolId.SYSTEM_POWER
VERSION: Final = 0x20000


class Command(IntEnum):
    """DEN0056E §4.4.2."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    SYSTEM_POWER_STATE_SET = 0x3
    SYSTEM_POWER_STATE_GET = 0x4
    SYSTEM_POWER_STATE_NOTIFY = 0x5
    NEGOTIATE_PROTOCOL_VERSION = 0x10


class Notification(IntEnum):
    """DEN0056E §4.4.3."""

    SYSTEM_POWER_STATE_NOTIFIER = 0x0


class SystemState(IntEnum):
    """DEN0056E §4.4.2.5. From VENDOR_STATES on they are a vendor's, the others reserved."""

    SHUTDOWN = 0
    COLD_RESET = 1
    WARM_RESET = 2
    POWER_UP = 3
    SUSPEND = 4


_NAMES: Final[dict[int, str]] = {state: state.name.lower() for state in SystemState}

#: First of the states that belong to vendors.
VENDOR_STATES: Final = 0x8000_0000

# --- requests ---------------------------------------------------------------------------------------------------------

#: SYSTEM_POWER_STATE_SET: flags, system state.
STATE_SET: Final = struct.Struct("<II")
#: Graceful: agents are asked. Otherwise forceful: they are told. Ignored with POWER_UP.
GRACEFUL: Final = 1 << 0
#: SYSTEM_POWER_STATE_NOTIFY: notify enable (bit 0).
NOTIFY: Final = U32

# --- replies ----------------------------------------------------------------------------------------------------------

#: PROTOCOL_ATTRIBUTES: reserved.
ATTRIBUTES_REPLY: Final = U32
#: PROTOCOL_MESSAGE_ATTRIBUTES of SYSTEM_POWER_STATE_SET.
SET_WARM_RESET: Final = 1 << 31
SET_SUSPEND: Final = 1 << 30
#: SYSTEM_POWER_STATE_GET.
STATE_REPLY: Final = U32

# --- notifications ----------------------------------------------------------------------------------------------------

#: SYSTEM_POWER_STATE_NOTIFIER of version 0x10000: agent that asked, flags (GRACEFUL), system state.
STATE_EVENT_V1: Final = struct.Struct("<III")
#: Of version 0x20000: the same, and the time-out of a graceful shutdown in ms, 0 for none.
STATE_EVENT: Final = struct.Struct("<IIII")


class StateEvent(NamedTuple):
    """``timeout_ms``: 0 for none, and in version 0x10000."""

    agent: int
    graceful: bool
    state: int
    timeout_ms: int


def state_name(state: int) -> str:
    """``cold_reset`` for 1; a number for what has no name."""
    return _NAMES.get(state) or f"{state:#x}"


def parse_state(payload: bytes) -> int:
    (state,) = unpack(STATE_REPLY, payload, "SYSTEM_POWER_STATE_GET")
    return int(state)


def build_state_event(event: StateEvent) -> bytes:
    return STATE_EVENT.pack(event.agent, GRACEFUL if event.graceful else 0, event.state, event.timeout_ms)


def build_state_event_v1(event: StateEvent) -> bytes:
    """What fits version 0x10000."""
    return build_state_event(event)[: STATE_EVENT_V1.size]


def parse_state_event(payload: bytes) -> StateEvent:
    """Of either version."""
    agent, flags, state = unpack(STATE_EVENT_V1, payload, "SYSTEM_POWER_STATE_NOTIFIER")
    timeout = 0
    if len(payload) > STATE_EVENT_V1.size:
        (timeout,) = unpack(U32, payload, "SYSTEM_POWER_STATE_NOTIFIER", STATE_EVENT_V1.size)
    return StateEvent(agent, bool(flags & GRACEFUL), state, timeout)
