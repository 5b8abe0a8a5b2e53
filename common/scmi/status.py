"""Status codes (DEN0056E §4.1.4) and the identifiers of the standard protocols (DEN0056E §4.1)."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

STATUS: Final = struct.Struct("<i")


class Status(IntEnum):
    """First word of every reply and delayed response: signed 32 bits. With anything but SUCCESS nothing follows."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    DENIED = -3
    NOT_FOUND = -4
    OUT_OF_RANGE = -5
    BUSY = -6
    COMMS_ERROR = -7
    GENERIC_ERROR = -8
    HARDWARE_ERROR = -9
    PROTOCOL_ERROR = -10
    IN_USE = -11


def status_name(status: int) -> str:
    """``DENIED`` for −3; ``STATUS(-128)`` for a value that the specification leaves to vendors."""
    try:
        return Status(status).name
    except ValueError:
        return f"STATUS({status})"


#: Each status as its four bytes.
STATUS_BYTES: Final[dict[Status, bytes]] = {status: STATUS.pack(status) for status in Status}


class ProtocolId(IntEnum):
    """Standard protocols; 0x80 and up belong to vendors."""

    BASE = 0x10
    POWER_DOMAIN = 0x11
    SYSTEM_POWER = 0x12
    PERFORMANCE = 0x13
    CLOCK = 0x14
    SENSOR = 0x15
    RESET_DOMAIN = 0x16
    VOLTAGE = 0x17
    POWERCAP = 0x18
    PIN_CONTROL = 0x19


#: First protocol id that belongs to vendors.
VENDOR_PROTOCOLS: Final = 0x80


class Common(IntEnum):
    """Message ids that mean the same in every protocol."""

    PROTOCOL_VERSION = 0x0
    PROTOCOL_ATTRIBUTES = 0x1
    PROTOCOL_MESSAGE_ATTRIBUTES = 0x2
    NEGOTIATE_PROTOCOL_VERSION = 0x10
