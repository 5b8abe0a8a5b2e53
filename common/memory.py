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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from common.errors import LocalError, MemoryFaultError
from common.world import Memory, View

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("ringmesh needs a little-endian host: ring views are native casts")

CELL: Final = {"B": 1, "H": 2, "I": 4, "Q": 8}

#: Access rights of a mapped range, as vhost numbers them.
ACCESS_RO: Final = 1
ACCESS_WO: Final = 2
ACCESS_RW: Final = 3


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


@dataclass(slots=True, frozen=True, order=True)
class Mapping:
    """``size`` bytes of I/O virtual addresses at ``iova`` stand for guest memory at ``addr``."""

    iova: int
    size: int
    addr: int
    perm: int = ACCESS_RW


class MemoryMap:
    """An ordered, overlap-free list of mappings; immutable once made.

    Raises MemoryFaultError (it comes from a VMM) naming the range that is empty, wraps the address space, has no
    known permission or overlaps another.
    """

    __slots__ = ("mappings",)

    def __init__(self, mappings: Iterable[Mapping]) -> None:
        self.mappings: Final = tuple(sorted(mappings))
        end = 0
        for m in self.mappings:
            if m.size <= 0 or m.iova < 0 or m.addr < 0 or m.iova + m.size > 1 << 64 or m.addr + m.size > 1 << 64:
                raise MemoryFaultError("map.range", (hex(m.iova), m.size), None, "empty or beyond 64 bits")
            if m.perm not in (ACCESS_RO, ACCESS_WO, ACCESS_RW):
                raise MemoryFaultError("map.perm", m.perm, ACCESS_RW)
            if m.iova < end:
                raise MemoryFaultError("map.range", (hex(m.iova), m.size), None, "overlaps the range before it")
            end = m.iova + m.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryMap) and self.mappings == other.mappings

    def __hash__(self) -> int:
        return hash(self.mappings)

    @classmethod
    def identity(cls, memory: GuestMemory) -> MemoryMap:
        """Every region of ``memory`` at its own guest address: a device without an IOMMU in front."""
        return cls(Mapping(r.base, r.size, r.base) for r in memory.regions)


class MemoryKey:
    """A memory map with a generation (mlx5: the mkey). Immutable; a change of map makes a new key."""

    __slots__ = ("_ranges", "generation", "map")

    def __init__(self, memory_map: MemoryMap, generation: int) -> None:
        self.map: Final = memory_map
        self.generation: Final = generation
        self._ranges: Final = tuple((m.iova, m.iova + m.size, m.addr - m.iova, m.perm) for m in memory_map.mappings)

    def translate(self, iova: int, length: int, perm: int) -> int:
        """Guest address of ``length`` bytes at ``iova``; raises MemoryFaultError unless one mapping covers them all
        and grants ``perm``."""
        stop = iova + length
        for start, end, delta, granted in self._ranges:
            if start <= iova < end and iova <= stop <= end:  # a peer may send a negative length
                if granted & perm == perm:
                    return iova + delta
                break
        raise MemoryFaultError(
            "addr", hex(iova), None, f"{length} bytes, access {perm}, key generation {self.generation}"
        )


class MappedMemory:
    """Guest memory seen through a memory key: what a device's DMA engine may reach, by IOVA.

    Copies go straight to the bytes of the mapped banks where ``memory`` shows them (see GuestMemory.buffer), as long as
    no bank was plugged or unplugged since.
    """

    __slots__ = ("_banks", "_readable", "_writable", "key", "memory")

    def __init__(self, memory: Memory, key: MemoryKey) -> None:
        self.memory: Final = memory
        self.key: Final = key
        self._banks: Final = memory.regions
        banks = [(m.iova, m.iova + m.size, memory.buffer(m.addr, m.size), m.perm) for m in key.map.mappings]
        self._readable: Final = tuple((lo, hi, b) for lo, hi, b, perm in banks if b is not None and perm & ACCESS_RO)
        self._writable: Final = tuple((lo, hi, b) for lo, hi, b, perm in banks if b is not None and perm & ACCESS_WO)

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
        if self.memory.regions is self._banks:
            end = addr + length
            for start, stop, data in self._readable:
                if start <= addr <= end <= stop:
                    return data[addr - start : end - start].tobytes()
        return self.memory.read(self.key.translate(addr, length, ACCESS_RO), length)

    def write(self, addr: int, data: bytes) -> None:
        if self.memory.regions is self._banks:
            end = addr + len(data)
            for start, stop, bank in self._writable:
                if start <= addr and end <= stop:
                    bank[addr - start : end - start] = data
                    return
        self.memory.write(self.key.translate(addr, len(data), ACCESS_WO), data)
