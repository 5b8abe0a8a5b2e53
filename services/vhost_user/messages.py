"""vhost-user on the wire: header, request numbers, feature bits, payload layouts (QEMU's docs/interop/vhost-user).

A message is a header of three u32 (request, flags, bytes of payload) and its payload, in the byte order of the machine
that both ends run on; ringmesh runs on little-endian hosts only. Descriptors travel beside it (SCM_RIGHTS).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from common.errors import FrameError

HEADER: Final = struct.Struct("<3I")
#: Bits 0 and 1 of flags: the version of the protocol.
VERSION: Final = 1
VERSION_MASK: Final = 3
FLAG_REPLY: Final = 1 << 2
FLAG_NEED_REPLY: Final = 1 << 3

#: Feature bit by which a back end says that it has protocol features; never a bit of the device.
F_PROTOCOL_FEATURES: Final = 1 << 30

#: Most bytes of payload that are read; the largest that is understood has 268, but the stream stays in step with
#: requests that are not.
MAX_PAYLOAD: Final = 4096
#: Most descriptors that travel with one message, and regions in one SET_MEM_TABLE.
MAX_FDS: Final = 8
#: Bytes of configuration space that GET_CONFIG and SET_CONFIG reach.
MAX_CONFIG: Final = 256

U64: Final = struct.Struct("<Q")
#: index, num
VRING_STATE: Final = struct.Struct("<2I")
#: index, flags, descriptor table, used ring, available ring, log: in this order
VRING_ADDR: Final = struct.Struct("<2I4Q")
#: regions, padding; then that many REGION
MEM_TABLE: Final = struct.Struct("<2I")
#: guest address, bytes, user address, offset in the file
REGION: Final = struct.Struct("<4Q")
#: padding, then one REGION
MEM_REG: Final = struct.Struct("<Q4Q")
#: offset, bytes, flags; then the bytes
CONFIG: Final = struct.Struct("<3I")

#: Bits 0–7 of SET_VRING_KICK, _CALL and _ERR are the index; this one says that no descriptor comes.
VRING_NOFD: Final = 1 << 8
VRING_INDEX_MASK: Final = 0xFF


class Request(IntEnum):
    """Requests of a front end; those that the table of requests does not have are refused."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class ProtocolFeature(IntFlag):
    """Protocol features that a session can offer."""

    MQ = 1 << 0
    REPLY_ACK = 1 << 3
    CONFIG = 1 << 9
    RESET_DEVICE = 1 << 13
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16


#: What a session offers unless told otherwise.
ALL_PROTOCOL_FEATURES: Final = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.CONFIG
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)


def request_name(request: int) -> str:
    """The request's name, or ``unknown``: a closed set, fit for a label of a metric."""
    try:
        return Request(request).name
    except ValueError:
        return "unknown"


@dataclass(slots=True, frozen=True)
class Header:
    """``request`` (u32), ``flags`` (u32), ``size`` (bytes of payload)."""

    request: int
    flags: int
    size: int

    @property
    def need_reply(self) -> bool:
        return bool(self.flags & FLAG_NEED_REPLY)

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """From HEADER.size bytes. Raises FrameError where nothing after it can be trusted: another version, a reply,
        more payload than MAX_PAYLOAD. Reserved flags are let through, as the specification has it."""
        request, flags, size = HEADER.unpack(data)
        if flags & VERSION_MASK != VERSION:
            raise FrameError("header.version", flags & VERSION_MASK, VERSION)
        if flags & FLAG_REPLY:
            raise FrameError("header.flags", hex(flags), None, "a front end sent a reply")
        if size > MAX_PAYLOAD:
            raise FrameError("header.size", size, MAX_PAYLOAD)
        return cls(request, flags, size)


def reply(request: int, payload: bytes) -> bytes:
    """The reply to ``request``: header and payload."""
    return HEADER.pack(request, VERSION | FLAG_REPLY, len(payload)) + payload
