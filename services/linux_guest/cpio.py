"""cpio archives in the *newc* format, which Linux unpacks as its first file system (Documentation/driver-api/early-
userspace/buffer-format in its sources).

Written and read in memory, so that device nodes need no root; sizes are bytes, owners and times are 0, so equal content
gives equal bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from common.errors import RemoteError

MAGIC: Final = b"070701"
#: The name of the entry that ends an archive.
TRAILER: Final = "TRAILER!!!"

#: Fields of a header, eight hexadecimal digits each: inode, mode, uid, gid, links, mtime, size, major and minor number
#: of the device that holds the file, those of the device that it is, size of the name with its NUL, checksum.
_FIELDS: Final = 13
_MODE, _SIZE, _RMAJOR, _RMINOR, _NAME_SIZE = 1, 6, 9, 10, 11
_HEADER: Final = len(MAGIC) + 8 * _FIELDS


@dataclass(frozen=True, slots=True)
class Entry:
    """``name`` without a leading slash; ``mode`` with its type (``stat.S_IFREG | 0o755``); a link's ``data`` is where
    it points; ``device`` is (major, minor) of a device node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(name, stat.S_IFREG | mode, data)


def link(name: str, target: str) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(name, stat.S_IFCHR | mode, b"", (major, minor))


def pack(entries: Iterable[Entry]) -> bytes:
    """A whole archive. A file's directories must come before it."""
    out = bytearray()
    for inode, entry in enumerate((*entries, Entry(TRAILER, 0)), start=1):
        name = entry.name.encode() + b"\0"
        fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        out += MAGIC + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4)
        out += entry.data
        out += bytes(-len(out) % 4)
    return bytes(out)


def unpack(archive: bytes) -> Iterator[Entry]:
    """The entries of one archive. Raises RemoteError where it is cut short or no newc archive."""
    at = 0
    while True:
        head = archive[at : at + _HEADER]
        if head[: len(MAGIC)] != MAGIC:
            raise RemoteError("cpio", head[: len(MAGIC)].decode("latin-1"), MAGIC.decode(), f"no newc header at {at}")
        try:
            fields = [int(head[start : start + 8], 16) for start in range(len(MAGIC), _HEADER, 8)]
        except ValueError:
            raise RemoteError("cpio", at, None, "the header is not hexadecimal or cut short") from None
        name_end = at + _HEADER + fields[_NAME_SIZE]
        start = name_end + -name_end % 4
        end = start + fields[_SIZE]
        if end > len(archive):
            raise RemoteError("cpio", end, len(archive), "an entry is cut short")
        name = archive[at + _HEADER : name_end].rstrip(b"\0").decode("utf-8", "replace")
        if name == TRAILER:
            return
        yield Entry(name, fields[_MODE], archive[start:end], (fields[_RMAJOR], fields[_RMINOR]))
        at = end + -end % 4
