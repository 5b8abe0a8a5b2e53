"""The memory that a front end shares: regions of files, by guest address and by the front end's own address.

Descriptors in a ring hold guest addresses; where a ring itself lies is said in the front end's virtual addresses.
A :class:`SharedMemory` never changes: each change of the table makes another one, so that a ring that is being served
goes on with the table that it holds until it is told of the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.errors import LocalError, MemoryFaultError
from common.memory import GuestMemory

#: Regions that fit in one SET_MEM_TABLE.
MAX_REGIONS: Final = 8
#: Regions of a table that is built with ADD_MEM_REG.
DEFAULT_SLOTS: Final = 32
#: Every address, offset and size of a region is a multiple of it. Real ones are of a page; this is what a descriptor
#: table needs (virtio 1.3 §2.7), so that a ring aligned in the front end's addresses is aligned in all others.
ALIGN: Final = 16

MapFd = Callable[[int, int, int], memoryview]
"""``map_fd(fd, offset, size)``: exactly those bytes of the file, shared and writable; MemoryFaultError if it cannot.
The descriptor may be closed afterwards; the mapping lives as long as the view does."""

_LIMIT: Final = 1 << 64


@dataclass(slots=True, frozen=True)
class SharedRegion:
    """``size`` bytes at ``guest`` and, for the front end, at ``user``; in the file at ``offset``."""

    guest: int
    size: int
    user: int
    offset: int

    def check(self) -> None:
        """Raise MemoryFaultError unless the region is one that can be."""
        if self.size == 0:
            raise MemoryFaultError("region.size", 0, None, "no bytes")
        if self.size % ALIGN:
            raise MemoryFaultError("region.size", self.size, ALIGN, "not a multiple")
        for field, start in (("guest", self.guest), ("user", self.user), ("offset", self.offset)):
            if start % ALIGN:
                raise MemoryFaultError(f"region.{field}", hex(start), ALIGN, "not a multiple")
            if start + self.size > _LIMIT:
                raise MemoryFaultError(f"region.{field}", (hex(start), self.size), hex(_LIMIT), "goes beyond 64 bits")

    def clashes(self, other: SharedRegion) -> bool:
        """Do the two overlap, by guest or by user addresses?"""
        return (self.guest < other.guest + other.size and other.guest < self.guest + self.size) or (
            self.user < other.user + other.size and other.user < self.user + self.size
        )


class SharedMemory:
    """An immutable table of mapped regions; ``SharedMemory()`` is the empty one.

    ``guest`` is what rings and descriptors are read from, by guest address; an access must lie in one region.
    """

    __slots__ = ("_views", "guest", "regions")

    def __init__(self, mapped: tuple[tuple[SharedRegion, memoryview], ...] = ()) -> None:
        self.regions: Final = tuple(region for region, _ in mapped)
        self._views: Final = mapped
        self.guest: Final = GuestMemory()
        for region, view in mapped:
            self.guest.add_region(region.guest, region.size, view)

    def guest_address(self, user: int, length: int) -> int:
        """The guest address of ``length`` bytes at the front end's address ``user``.

        Raises MemoryFaultError unless one region holds them all.
        """
        for region in self.regions:
            offset = user - region.user
            if offset >= 0 and length >= 0 and offset + length <= region.size:
                return region.guest + offset
        raise MemoryFaultError("user address", hex(user), None, f"{length} bytes are in no region")

    def with_region(self, region: SharedRegion, fd: int, map_fd: MapFd, slots: int) -> SharedMemory:
        """This table and ``region``, mapped from ``fd``.

        Raises MemoryFaultError if the region cannot be, clashes with another or is one too many.
        """
        if len(self.regions) >= slots:
            raise MemoryFaultError("regions", len(self.regions) + 1, slots)
        region.check()
        for other in self.regions:
            if region.clashes(other):
                raise MemoryFaultError("region", (hex(region.guest), hex(region.user), region.size), None, "overlaps")
        view = map_fd(fd, region.offset, region.size)
        if view.nbytes != region.size:
            raise LocalError(f"map_fd gave {view.nbytes} bytes of {region.size}")
        return SharedMemory((*self._views, (region, view)))

    def without_region(self, region: SharedRegion) -> SharedMemory:
        """This table less the region of that guest address, user address and size; MemoryFaultError if it has none."""
        kept = tuple(
            (mine, view)
            for mine, view in self._views
            if (mine.guest, mine.user, mine.size) != (region.guest, region.user, region.size)
        )
        if len(kept) == len(self._views):
            raise MemoryFaultError(
                "region", (hex(region.guest), hex(region.user), region.size), None, "not in the table"
            )
        return SharedMemory(kept)
