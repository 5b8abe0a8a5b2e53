"""The state file: a journal of entries (see :mod:`services.scmi_platform.state`), the later one wins.

======  =======  ==================================================================
offset  type     what
======  =======  ==================================================================
0       u32      bytes of the body, little endian
4       u32      CRC-32 of the body (ISO-HDLC, as zlib has it)
8       u32      CRC-32 of the eight bytes before: a wrong length must not pass for a file cut off
12      bytes    the body, msgpack
======  =======  ==================================================================

The first record says what the file is: ``["ringmesh scmi state", 1]``; each later one is ``[protocol, key, state]``. A
file that ends within a record is one whose writer was killed: that record was never answered for, so it is dropped. So
are zeros at the end, which a loss of power leaves where a file system had made room for bytes that never came. A record
that is whole but wrong means that the file cannot be believed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from common.errors import RemoteError
from services.scmi_platform.state import Entry, Key

_HEAD: Final = struct.Struct("<III")
_LENGTH_AND_CRC: Final = struct.Struct("<II")
#: Largest body, bytes: far above what a domain or an agent takes.
MAX_BODY: Final = 1 << 20
#: So many zeros at the end of a file are none of a record's.
ZEROS: Final = 256
MAGIC: Final = ["ringmesh scmi state", 1]

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_any: Final = msgspec.msgpack.Decoder().decode
_decode_entry: Final = msgspec.msgpack.Decoder(tuple[int, Key, Any]).decode


def _record(body: bytes) -> bytes:
    head = _LENGTH_AND_CRC.pack(len(body), zlib.crc32(body))
    return head + zlib.crc32(head).to_bytes(4, "little") + body


#: What every file begins with.
HEADER: Final = _record(_encode(MAGIC))


def records(entries: Iterable[Entry]) -> bytes:
    """``entries`` as they are appended to the file."""
    return b"".join([_record(_encode(entry)) for entry in entries])


def read(data: bytes) -> tuple[list[Entry], int]:
    """The last entry of each (protocol, key) in a whole file, and how many bytes of a torn record its end has.

    Raises RemoteError for a file that is none of ours or was damaged.
    """
    entries: dict[tuple[int, Key], Entry] = {}
    written = len(data.rstrip(b"\0"))
    if len(data) - written < ZEROS:
        written = len(data)
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            break
        size, crc, check = _HEAD.unpack_from(data, at)
        if zlib.crc32(data[at : at + _LENGTH_AND_CRC.size]) != check:
            if at + _HEAD.size > written:
                break
            raise RemoteError("state.head", hex(check), None, f"at byte {at}")
        if size > MAX_BODY:
            raise RemoteError("state.length", size, MAX_BODY, f"at byte {at}")
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(body) < size:
            break
        if zlib.crc32(body) != crc:
            if at + _HEAD.size + size > written:
                break
            raise RemoteError("state.crc", hex(crc), None, f"at byte {at}")
        try:
            if not at:
                _check_magic(_decode_any(body))
            else:
                entry = _decode_entry(body)
                entries[entry[0], entry[1]] = entry
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteError("state.record", None, None, f"at byte {at}: {error}") from None
        at += _HEAD.size + size
    if data and not at:
        raise RemoteError("state.header", data[:16].hex(), None, "not a state file")
    return [entry for entry in entries.values() if entry[2] is not None], len(data) - at


def _check_magic(found: Any) -> None:
    if found != MAGIC:
        raise RemoteError("state.header", str(found)[:64], str(MAGIC))
