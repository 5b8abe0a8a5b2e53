"""The small pieces that every SCMI message is made of: words, names, and unpacking that says what was wrong.

All integers are little endian. A 64-bit value travels as two words, low word first (DEN0056E §4.1), which in little
endian is one 64-bit integer, so the layouts use ``Q`` (unsigned) and ``q`` (two's complement).
"""

from __future__ import annotations

import struct
from typing import Any, Final

from common.errors import ScmiError
from common.scmi.status import Status

U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")

#: Bytes of a name in an attributes or descriptor message, its NUL included.
SHORT_NAME: Final = 16
#: Bytes of a name in a ``*_NAME_GET`` reply, its NUL included.
LONG_NAME: Final = 64
#: Return values of a ``*_NAME_GET``, in every protocol that has one: flags (reserved), 64-byte name.
NAME_REPLY: Final = struct.Struct(f"<I{LONG_NAME}s")


def short_name(text: str) -> bytes:
    """``text`` as 16 bytes: cut to 15, padded with NULs. A cut name sets the *extended name* bit of its attributes."""
    return text.encode("ascii")[: SHORT_NAME - 1].ljust(SHORT_NAME, b"\0")


def long_name(text: str) -> bytes:
    """``text`` as 64 bytes: cut to 63, padded with NULs."""
    return text.encode("ascii")[: LONG_NAME - 1].ljust(LONG_NAME, b"\0")


def is_long(text: str) -> bool:
    """Does ``text`` need the extended name command?"""
    return len(text) >= SHORT_NAME


def name_of(raw: bytes) -> str:
    """The text of a NUL-padded name; bytes outside ASCII become U+FFFD."""
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


def build_name(text: str) -> bytes:
    """Return values of a ``*_NAME_GET``."""
    return NAME_REPLY.pack(0, long_name(text))


def parse_name(payload: bytes, command: str) -> str:
    """The other way; raises like :func:`unpack`."""
    _, raw = unpack(NAME_REPLY, payload, command)
    return name_of(raw)


def unpack(layout: struct.Struct, payload: bytes, command: str, offset: int = 0) -> tuple[Any, ...]:
    """Fields of ``layout`` at ``offset`` of a reply's return values.

    Raises ScmiError (PROTOCOL_ERROR) where the payload is too short: the platform broke the protocol.
    """
    if len(payload) < offset + layout.size:
        raise ScmiError(
            command, Status.PROTOCOL_ERROR, f"{len(payload)} bytes of return values, {offset + layout.size} needed"
        )
    return layout.unpack_from(payload, offset)


def unpack_many(
    layout: struct.Struct, payload: bytes, count: int, command: str, offset: int = 0
) -> list[tuple[Any, ...]]:
    """``count`` consecutive items of ``layout`` from ``offset`` on; raises like :func:`unpack`."""
    need = offset + count * layout.size
    if len(payload) < need:
        raise ScmiError(command, Status.PROTOCOL_ERROR, f"{len(payload)} bytes of return values, {need} needed")
    return list(layout.iter_unpack(payload[offset:need]))


def signed(value: int, bits: int) -> int:
    """The ``bits``-wide field ``value`` as a two's complement number."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value
