"""The 32-bit message header, first word of every SCMI message (DEN0056E §4.1).

::

    31    28 27            18 17            10 9    8 7              0
    | rsvd  |     token      |    protocol    | type |   message id   |

Commands and their replies are type 0, delayed responses 2, notifications 3; type 1 is reserved. A reply repeats its
command's header; a delayed response repeats token, protocol and message id.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("<I")

COMMAND: Final = 0
DELAYED_RESPONSE: Final = 2
NOTIFICATION: Final = 3

#: Tokens are 10 bits: so many commands can be told apart at a time.
TOKENS: Final = 1024

TYPE_SHIFT: Final = 8
PROTOCOL_SHIFT: Final = 10
TOKEN_SHIFT: Final = 18
#: Message id, type and protocol: what a message *is*.
KEY_MASK: Final = 0x0003_FFFF
TYPE_MASK: Final = 0x0000_0300
TOKEN_MASK: Final = 0x0FFC_0000
RESERVED_MASK: Final = 0xF000_0000


class Header(NamedTuple):
    """A header taken apart. ``reserved`` is bits 31:28, zero in every well-formed message."""

    message: int
    type: int
    protocol: int
    token: int
    reserved: int = 0


def pack(protocol: int, message: int, token: int = 0, kind: int = COMMAND) -> int:
    """The header word. Raises ValueError where a field does not fit its bits."""
    if not (0 <= message <= 0xFF and 0 <= kind <= 3 and 0 <= protocol <= 0xFF and 0 <= token < TOKENS):
        raise ValueError(f"SCMI header field out of range: {protocol=:#x} {message=:#x} {kind=} {token=}")
    return message | kind << TYPE_SHIFT | protocol << PROTOCOL_SHIFT | token << TOKEN_SHIFT


def unpack(word: int) -> Header:
    """Take a header word apart."""
    return Header(
        word & 0xFF, word >> TYPE_SHIFT & 3, word >> PROTOCOL_SHIFT & 0xFF, word >> TOKEN_SHIFT & 0x3FF, word >> 28
    )


def key(protocol: int, message: int, kind: int = COMMAND) -> int:
    """What a message is without its token: ``header & KEY_MASK``, the key of dispatch tables."""
    return message | kind << TYPE_SHIFT | protocol << PROTOCOL_SHIFT


def command(protocol: int, message: int, token: int = 0, payload: bytes = b"") -> bytes:
    """A whole command message: header and payload."""
    return HEADER.pack(pack(protocol, message, token)) + payload


def notification(protocol: int, message: int, payload: bytes) -> bytes:
    """A whole notification. Its token is 0: nobody answers it."""
    return HEADER.pack(pack(protocol, message, 0, NOTIFICATION)) + payload


def as_delayed(word: int) -> int:
    """The header of the delayed response to the command with header ``word``."""
    return word & (TOKEN_MASK | KEY_MASK) & ~TYPE_MASK | DELAYED_RESPONSE << TYPE_SHIFT
