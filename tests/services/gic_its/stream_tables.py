"""The tables that a stream's guest lays out: page sizes, one level or two, and where an entry of them is then.

Second levels are there for the DeviceIDs and ICIDs that streams name, but for some: an access to one of those goes
nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.services.gic_its import streams
from tests.services.gic_its.case_steps import Adapter

VALID: Final = 1 << 63
INDIRECT: Final = 1 << 62
PAGE_BYTES: Final = (0x1000, 0x4000, 0x10000)
ENTRY: Final = 8
#: Of a table with its second levels, and of each of those.
ROOM: Final = 0x10_0000
LEVEL2: Final = 0x1_0000

DEVICES: Final = (*streams.DEVICE_IDS, *streams.EDGE_IDS, streams.WIDE, streams.OWN_DEVICE)
#: 8192 is one that only hostile streams name.
ICIDS: Final = (*streams.ICIDS, streams.OWN_ICID, 8192)


@dataclass(frozen=True)
class Table:
    """``size`` is Page_Size, ``pages`` are those of the flat table or of the first level. ``gaps``: indexes whose
    second level is not there; ``nowhere``: those whose second level is where there is no memory."""

    base: int
    pages: int
    size: int = 2
    indirect: bool = False
    gaps: tuple[int, ...] = ()
    nowhere: tuple[int, ...] = ()

    @property
    def baser(self) -> int:
        return VALID | (INDIRECT if self.indirect else 0) | self.size << 8 | self.base | self.pages - 1

    def fill(self, adapter: Adapter, indexes: tuple[int, ...]) -> None:
        """Zero, but for the first level, which leads to the second levels of ``indexes``."""
        adapter.mem_fill(self.base, ROOM if self.indirect else self.pages * PAGE_BYTES[self.size], 0)
        if self.indirect:
            pages = {slot: self.base + (at + 1) * LEVEL2 for at, slot in enumerate(self._slots(indexes))}
            for slot, page in (pages | dict.fromkeys(self._of(self.nowhere), streams.NOWHERE)).items():
                if slot * ENTRY < self.pages * PAGE_BYTES[self.size]:
                    adapter.mem_write(self.base + slot * ENTRY, (VALID | page).to_bytes(ENTRY, "little"))

    def place(self, index: int, indexes: tuple[int, ...]) -> int | None:
        """Address of an entry; None where there is none."""
        per_page = PAGE_BYTES[self.size] // ENTRY
        slot = index // per_page if self.indirect else index
        if slot * ENTRY >= self.pages * PAGE_BYTES[self.size]:
            return None
        if not self.indirect:
            return self.base + index * ENTRY
        slots = self._slots(indexes)
        return self.base + (slots.index(slot) + 1) * LEVEL2 + index % per_page * ENTRY if slot in slots else None

    def _slots(self, indexes: tuple[int, ...]) -> list[int]:
        """Slots of the first level that lead to memory."""
        return sorted(self._of(indexes) - self._of(self.gaps) - self._of(self.nowhere))

    def _of(self, indexes: tuple[int, ...]) -> set[int]:
        return {index // (PAGE_BYTES[self.size] // ENTRY) for index in indexes}


@dataclass(frozen=True)
class Shape:
    """Both tables of a guest."""

    devices: Table = Table(streams.DEVICES, 8)
    collections: Table = Table(streams.COLLECTIONS, 1)


FLAT: Final = Shape()

#: By name. Those with other pages than 64 KiB, or two levels of collections, are for the qemu profile.
SHAPES: Final = {
    "flat": FLAT,
    "short": Shape(Table(streams.DEVICES, 1)),
    "two levels": Shape(Table(streams.DEVICES, 1, indirect=True, gaps=(0x2000,))),
    "4K": Shape(Table(streams.DEVICES, 64, 0), Table(streams.COLLECTIONS, 16, 0)),
    "16K": Shape(Table(streams.DEVICES, 32, 1), Table(streams.COLLECTIONS, 1, 1)),
    "4K, two levels": Shape(
        Table(streams.DEVICES, 1, 0, indirect=True, gaps=(0xFFFF,)),
        Table(streams.COLLECTIONS, 1, 0, indirect=True, gaps=(8191,)),
    ),
    "16K, two levels": Shape(
        Table(streams.DEVICES, 1, 1, indirect=True, nowhere=(0x2000,)),
        Table(streams.COLLECTIONS, 1, 1, indirect=True, nowhere=(8191,)),
    ),
    "64K, two levels": Shape(
        Table(streams.DEVICES, 1, indirect=True),
        Table(streams.COLLECTIONS, 1, indirect=True, gaps=(8192,)),
    ),
}
KVM_SHAPES: Final = ("flat", "short", "two levels")
