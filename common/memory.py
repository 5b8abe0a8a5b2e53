"""Guest memory, memory maps (IOVA → guest address) and memory keys.

* :class:`GuestMemory`: the bytes, in regions as a machine has its RAM banks and DIMMs.
* :class:`MemoryMap`: what a VMM tells a device (vDPA ``set_map``): ranges of I/O virtual addresses.
* :class:`MemoryKey`: a map frozen with a generation; queue objects hold one, and every address that a descriptor
  names is checked against it.
* :class:`MappedMemory`: guest memory as a device sees it through a key.

All addresses and lengths are in bytes. Cells are little-endian, as virtio 1.3 §1.4 and the GIC want them; the hosts
that we run on are little-endian too, so a native cast is exact.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from common.errors import FaultKind, LocalError, MemoryFaultError
from common.world import Memory, View

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("ringmesh needs a little-endian host: ring views are native casts")

CELL: Final = {"B": 1, "H": 2, "I": 4, "Q": 8}

#: Access rights of a mapped range, as vhost numbers them.
ACCESS_RO: Final = 1
ACCESS_WO: Final = 2
ACCESS_RW: Final = 3

#: Up to so many ranges are looked through one after the other: quicker than a search by halves.
FEW: Final = 8
_IOVA: Final = attrgetter("iova")


@dataclass(slots=True, frozen=True)
class Region:
    """One bank of guest memory: ``size`` bytes at guest address ``base``."""

    base: int
    size: int
    data: memoryview

    @property
    def end(self) -> int:
        return self.base + self.size


class GuestMemory:
    """Byte-exact guest memory in any number of regions.

    An access must lie within one region, as a DMA engine's must lie within one mapping; otherwise it raises
    :class:`MemoryFaultError` and touches nothing.
    """

    __slots__ = ("regions",)

    def __init__(self, size: int = 0, base: int = 0) -> None:
        #: the banks, by address; another tuple after every change
        self.regions: tuple[Region, ...] = ()
        if size:
            self.add_region(base, size)

    def add_region(self, base: int, size: int, buffer: bytearray | memoryview | None = None) -> Region:
        """Plug ``size`` bytes at ``base``; zeroed unless ``buffer`` (a writable buffer, e.g. an mmap) is given.

        Raises LocalError if the range is empty, unaligned to 8 or overlaps a region.
        """
        if size <= 0 or base < 0 or base % 8 or size % 8:
            raise LocalError(f"memory region {base:#x}+{size:#x}: must be positive and a multiple of 8 bytes")
        for region in self.regions:
            if base < region.end and region.base < base + size:
                raise LocalError(f"memory region {base:#x}+{size:#x} overlaps {region.base:#x}+{region.size:#x}")
        data = memoryview(bytearray(size) if buffer is None else buffer).cast("B")
        if data.readonly or data.nbytes < size:
            raise LocalError(f"memory region {base:#x}: buffer of {data.nbytes} bytes is read-only or too small")
        region = Region(base, size, data[:size])
        self.regions = tuple(sorted((*self.regions, region), key=lambda r: r.base))
        return region

    def remove_region(self, base: int) -> None:
        """Unplug the region that starts at ``base``. Views of it that are still held stay readable but are no longer
        guest memory. Raises LocalError if there is none."""
        kept = tuple(r for r in self.regions if r.base != base)
        if len(kept) == len(self.regions):
            raise LocalError(f"no memory region at {base:#x}")
        self.regions = kept

    def _locate(self, addr: int, length: int) -> tuple[memoryview, int]:
        for region in self.regions:
            offset = addr - region.base
            if offset >= 0 and offset + length <= region.size and length >= 0:
                return region.data, offset
        raise MemoryFaultError("addr", hex(addr), None, f"{length} bytes are not in guest memory")

    def check(self, addr: int, length: int) -> None:
        """Raise MemoryFaultError unless all of ``length`` bytes at ``addr`` lie in one region."""
        self._locate(addr, length)

    def view(self, addr: int, count: int, fmt: str, perm: int = ACCESS_RO) -> View:
        """``count`` cells of ``fmt`` at ``addr``: a live view, one store a cell. No map restricts ``perm`` here."""
        width = CELL.get(fmt)
        if width is None:
            raise LocalError(f"view format {fmt!r} is none of {', '.join(CELL)}")
        if addr % width:
            raise LocalError(f"view of {width}-byte cells at {addr:#x}: not aligned")
        data, offset = self._locate(addr, count * width)
        return data[offset : offset + count * width].cast(fmt)  # type: ignore[call-overload, no-any-return]

    def buffer(self, addr: int, length: int) -> memoryview | None:
        """The bytes themselves, writable, for copies in bulk; None where no region holds all of them."""
        for region in self.regions:
            offset = addr - region.base
            if 0 <= offset <= region.size - length and length >= 0:
                return region.data[offset : offset + length]
        return None

    def read(self, addr: int, length: int) -> bytes:
        data, offset = self._locate(addr, length)
        return data[offset : offset + length].tobytes()

    def write(self, addr: int, data: bytes) -> None:
        length = len(data)
        target, offset = self._locate(addr, length)
        target[offset : offset + length] = data

    def fill(self, addr: int, length: int, byte: int) -> None:
        """Set ``length`` bytes at ``addr`` to ``byte``."""
        self.write(addr, bytes([byte]) * length)


@dataclass(slots=True, frozen=True)
class Mapping:
    """``size`` bytes of I/O virtual addresses at ``iova`` stand for guest memory at ``addr``."""

    iova: int
    size: int
    addr: int
    perm: int = ACCESS_RW


@dataclass(slots=True, frozen=True, init=False)
class MemoryMap:
    """An ordered, overlap-free list of mappings; immutable once made. ``MemoryMap()`` maps nothing.

    Raises MemoryFaultError (it comes from a VMM) naming the range that is empty, wraps the address space, has no
    known permission or overlaps another.
    """

    mappings: tuple[Mapping, ...]

    def __init__(self, mappings: Iterable[Mapping] = ()) -> None:
        ordered = tuple(sorted(mappings, key=_IOVA))
        end = 0
        for m in ordered:
            if m.size <= 0 or m.iova < 0 or m.addr < 0 or m.iova + m.size > 1 << 64 or m.addr + m.size > 1 << 64:
                raise MemoryFaultError("map.range", (hex(m.iova), m.size), None, "empty or beyond 64 bits")
            if m.perm not in (ACCESS_RO, ACCESS_WO, ACCESS_RW):
                raise MemoryFaultError("map.perm", m.perm, ACCESS_RW)
            if m.iova < end:
                raise MemoryFaultError("map.range", (hex(m.iova), m.size), None, "overlaps the range before it")
            end = m.iova + m.size
        object.__setattr__(self, "mappings", ordered)

    @classmethod
    def identity(cls, memory: GuestMemory) -> MemoryMap:
        """Every region of ``memory`` at its own guest address: a device without an IOMMU in front."""
        return cls(Mapping(r.base, r.size, r.base) for r in memory.regions)

    def overlapping(self, iova: int, size: int) -> tuple[Mapping, ...]:
        """The mappings that share a byte with the ``size`` bytes (at least one) at ``iova``, by address."""
        first = bisect_right(self.mappings, iova, key=_IOVA)
        if first and (before := self.mappings[first - 1]).iova + before.size > iova:
            first -= 1
        return self.mappings[first : bisect_right(self.mappings, iova + size - 1, key=_IOVA)]

    def covers(self, iova: int, length: int, perm: int) -> bool:
        """Does one mapping hold all of ``length`` bytes at ``iova`` and grant ``perm``: would a key of this map
        translate them?"""
        at = bisect_right(self.mappings, iova, key=_IOVA) - 1
        if at < 0:
            return False
        m = self.mappings[at]
        end = m.iova + m.size
        return iova < end and iova <= iova + length <= end and m.perm & perm == perm


_Range = tuple[int, int, int, int]


@dataclass(slots=True, frozen=True)
class MemoryKey:
    """A memory map with a generation (mlx5: the mkey). Immutable; a change of map makes a new key."""

    map: MemoryMap
    generation: int
    #: (first IOVA, end, what to add for the guest address, permission) by address: here if they are few, or else ...
    _few: tuple[_Range, ...] = field(init=False, repr=False, compare=False)
    #: ... here, and the first IOVAs
    _many: tuple[_Range, ...] = field(init=False, repr=False, compare=False)
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ranges = tuple((m.iova, m.iova + m.size, m.addr - m.iova, m.perm) for m in self.map.mappings)
        few = len(ranges) <= FEW
        object.__setattr__(self, "_few", ranges if few else ())
        object.__setattr__(self, "_many", () if few else ranges)
        object.__setattr__(self, "_starts", () if few else tuple(r[0] for r in ranges))

    def translate(self, iova: int, length: int, perm: int) -> int:
        """Guest address of ``length`` bytes at ``iova``.

        Raises MemoryFaultError unless one mapping covers them all (``unmapped``) and grants ``perm`` (``permission``).
        """
        stop = iova + length
        for start, end, delta, granted in self._few or self._many[(n := bisect_right(self._starts, iova)) - 1 : n]:
            if start <= iova < end and iova <= stop <= end:  # a peer may send a negative length
                if granted & perm == perm:
                    return iova + delta
                raise self._fault(iova, f"{length} bytes grant access {granted}, not {perm}", "permission")
        raise self._fault(iova, f"{length} bytes, access {perm}: in no mapping", "unmapped")

    def _fault(self, iova: int, what: str, kind: FaultKind) -> MemoryFaultError:
        return MemoryFaultError("addr", hex(iova), None, f"{what}, key generation {self.generation}", kind=kind)


_Piece = tuple[int, int, memoryview]
"""First IOVA and end of a mapped piece of one bank, and its bytes."""


@dataclass(slots=True, frozen=True, eq=False)
class MappedMemory:
    """Guest memory seen through a memory key: what a device's DMA engine may reach, by IOVA.

    Copies go straight to the bytes of the mapped banks where ``memory`` shows them (see GuestMemory.buffer). Which
    they are is found out at the first copy and again after a bank was plugged or unplugged: nobody can tell, so this
    counts as immutable. Where memory shows no bytes nothing is kept.
    """

    memory: Memory
    key: MemoryKey
    #: the banks that the other fields were made from
    _regions: tuple[Any, ...] = field(init=False, repr=False, default=())
    #: as in MemoryKey, by direction
    _read_few: tuple[_Piece, ...] = field(init=False, repr=False, default=())
    _read_many: tuple[_Piece, ...] = field(init=False, repr=False, default=())
    _read_starts: tuple[int, ...] = field(init=False, repr=False, default=())
    _write_few: tuple[_Piece, ...] = field(init=False, repr=False, default=())
    _write_many: tuple[_Piece, ...] = field(init=False, repr=False, default=())
    _write_starts: tuple[int, ...] = field(init=False, repr=False, default=())

    def view(self, addr: int, count: int, fmt: str, perm: int = ACCESS_RO) -> View:
        """Live cells; raises MemoryFaultError unless the key grants ``perm`` on all of them."""
        return self.memory.view(self.key.translate(addr, count * CELL[fmt], perm), count, fmt, perm)

    def check(self, addr: int, length: int) -> None:
        self.memory.check(self.key.translate(addr, length, ACCESS_RO), length)

    @property
    def regions(self) -> tuple[Any, ...]:
        return self.memory.regions

    def buffer(self, addr: int, length: int) -> memoryview | None:
        return None

    def read(self, addr: int, length: int) -> bytes:
        if self._regions is not self.memory.regions:
            self._find()
        end = addr + length
        for start, stop, data in (
            self._read_few or self._read_many[(n := bisect_right(self._read_starts, addr)) - 1 : n]
        ):
            if start <= addr < end <= stop:
                return data[addr - start : end - start].tobytes()
        return self.memory.read(self.key.translate(addr, length, ACCESS_RO), length)

    def write(self, addr: int, data: bytes) -> None:
        if self._regions is not self.memory.regions:
            self._find()
        end = addr + len(data)
        for start, stop, bank in (
            self._write_few or self._write_many[(n := bisect_right(self._write_starts, addr)) - 1 : n]
        ):
            if start <= addr and end <= stop:
                bank[addr - start : end - start] = data
                return
        self.memory.write(self.key.translate(addr, len(data), ACCESS_WO), data)

    def _find(self) -> None:
        """Find the pieces of banks that copies may go to as the banks are now."""
        memory = self.memory
        regions = memory.regions
        ends = [r.end for r in regions]
        readable: list[_Piece] = []
        writable: list[_Piece] = []
        for m in self.key.map.mappings:
            for region in regions[bisect_right(ends, m.addr) :]:
                low, high = max(m.addr, region.base), min(m.addr + m.size, region.end)
                if low >= high:
                    break
                data = memory.buffer(low, high - low)
                if data is None:
                    return
                piece = (low - m.addr + m.iova, high - m.addr + m.iova, data)
                if m.perm & ACCESS_RO:
                    readable.append(piece)
                if m.perm & ACCESS_WO:
                    writable.append(piece)
        for way, pieces in (("_read", tuple(readable)), ("_write", tuple(writable))):
            few = len(pieces) <= FEW
            object.__setattr__(self, f"{way}_few", pieces if few else ())
            object.__setattr__(self, f"{way}_many", () if few else pieces)
            object.__setattr__(self, f"{way}_starts", () if few else tuple(p[0] for p in pieces))
        object.__setattr__(self, "_regions", regions)
