"""Files of a front end, mapped; and which descriptors may be events. All that a session asks of the system.

A file that shrinks under its mapping is met in three ways, of which the first is enough for QEMU:

1. A memfd is sealed against shrinking: by whoever made it (QEMU), or here, if it lets itself be sealed.
2. A file that cannot be sealed is looked at again before each batch: :meth:`Mapper.still_whole`.
3. Between that look and an access it may shrink still: :mod:`services.vhost_user.sigbus` then keeps the process alive.

What is left: a file of huge pages of which the pool has no more, or on a file system that the front end itself serves
(FUSE), can make an access wait or fail as any page fault can; the third way covers a failure, nothing a wait.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import stat
import weakref
from typing import Final

from common.errors import MemoryFaultError, RemoteError
from services.vhost_user.sigbus import Guarded

#: Largest page that a file may be made of, bytes.
_MAX_BLOCK: Final = 1 << 30


class _Mapping(mmap.mmap):
    """A mapping that knows what must stay of its file; ``guard`` only if it may shrink."""

    needed: int
    guard: Guarded | None


class Mapper:
    """Maps files, and knows which of its mappings (those still in use) may lose their bytes."""

    __slots__ = ("_loose",)

    def __init__(self) -> None:
        self._loose: Final[weakref.WeakSet[_Mapping]] = weakref.WeakSet()

    def map(self, fd: int, offset: int, size: int) -> memoryview:
        """``size`` bytes at ``offset`` of the file, shared and writable, for as long as the view (or a part of it)
        lives. The caller keeps ``fd``.

        Raises MemoryFaultError unless ``fd`` is a regular file that is long enough and may be written.
        """
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise MemoryFaultError("region.fd", stat.filemode(mode), None, "not a regular file")
        sealed = _sealed(fd)
        # its length counts from when it can shrink no more
        info = os.fstat(fd)
        if offset + size > info.st_size:
            raise MemoryFaultError("region.size", (hex(offset), size), info.st_size, "the file is shorter")
        block = _block(info.st_blksize)
        start = offset - offset % block
        end = min(-(-(offset + size) // block) * block, info.st_size)
        try:
            mapping = _Mapping(fd, end - start, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=start)
        except (OSError, ValueError, OverflowError) as error:
            raise MemoryFaultError("region.fd", (hex(offset), size), None, f"cannot be mapped: {error}") from error
        mapping.needed = offset + size
        mapping.guard = None
        if not sealed:
            address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
            length = -(-(end - start) // block) * block
            mapping.guard = Guarded(address, length, block)
            # runs before the memory is unmapped
            weakref.finalize(mapping, mapping.guard.forget)
            self._loose.add(mapping)
        return memoryview(mapping)[offset - start : offset - start + size]

    def still_whole(self) -> bool:
        """Was every mapped file always as long as it was needed? One fstat for each that could not be sealed. One that
        was seen shorter is lost, though it may have grown since."""
        for mapping in self._loose:
            if mapping.guard is not None and mapping.size() < mapping.needed:
                mapping.guard.lost = True
        return not any(mapping.guard is not None and mapping.guard.lost for mapping in self._loose)


def _sealed(fd: int) -> bool:
    """Can the file not shrink? Seals it where that is possible."""
    try:
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except OSError:
        # no memfd, or one that may not be sealed any more
        return False
    return True


def _block(preferred: int) -> int:
    """The page of a file's mappings: huge where its file system says so, as mapping and unmapping go by whole pages."""
    if mmap.PAGESIZE < preferred <= _MAX_BLOCK and not preferred & (preferred - 1):
        return preferred
    return mmap.PAGESIZE


def check_event(fd: int) -> None:
    """Raise RemoteError unless ``fd`` is an eventfd; make it non-blocking.

    Anything else (a pipe that fills up, a file that cannot be waited for) would stop or break an event loop.
    """
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if kind != "anon_inode:[eventfd]":
        raise RemoteError("event", kind.partition(":")[0], None, "not an eventfd")
    os.set_blocking(fd, False)
