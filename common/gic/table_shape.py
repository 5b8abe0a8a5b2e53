"""Where the entries of a table lie: GITS_BASER<n> decoded, flat or with two levels (IHI 0069 §5.2.2, §12.19.1).

For those who read an ITS's tables from outside: a save, a dump. Nothing that a register or an entry says is believed:
IDs end at :data:`ID_LIMIT`, and a page that no memory backs is told, not raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from common.errors import MemoryFaultError
from common.gic.entries import ENTRY_SIZE, VALID
from common.gic.fields import Field
from common.gic.registers import (
    BASER_ENTRY_SIZE,
    BASER_INDIRECT,
    BASER_PAGE_SIZE,
    BASER_PAGES,
    BASER_VALID,
    baser_address,
)

Read = Callable[[int, int], bytes]
"""``(address, length) -> bytes`` of guest memory. Raises MemoryFaultError."""

#: DeviceIDs and collections have at most 16 bits here.
ID_LIMIT: Final = 1 << 16
#: And so have EventIDs.
EVENT_BITS: Final = 16

#: GITS_BASER.Page_Size → bytes; 0b11 is reserved and read as 64 KiB.
PAGE_SIZES: Final = (4096, 16384, 65536, 65536)
_SMALL_ADDR: Final = Field(47, 12, scale=12)
#: Address of a level-1 entry, before the bits below the page size are cut off.
_L1_ADDR: Final = Field(51, 12, scale=12)


class Piece(NamedTuple):
    """Entries of a table that lie one after another: those of IDs ``first`` and up, ``length`` bytes at ``addr``."""

    first: int
    addr: int
    length: int


class Shape(NamedTuple):
    """A table that a BASER describes: ``size`` bytes at ``addr``, with ``indirect`` the first of two levels whose
    second-level pages are ``page`` bytes. ``entry`` is GITS_BASER.Entry_Size in bytes."""

    addr: int
    size: int
    page: int
    entry: int
    indirect: bool

    @property
    def ids(self) -> int:
        """IDs that the table has entries for."""
        held = self.size // ENTRY_SIZE * (self.page // ENTRY_SIZE) if self.indirect else self.size // ENTRY_SIZE
        return min(held, ID_LIMIT)


def shape(baser: int) -> Shape | None:
    """What a GITS_BASER says; None where it is not valid."""
    if not baser & BASER_VALID:
        return None
    page = PAGE_SIZES[BASER_PAGE_SIZE.get(baser)]
    addr = baser_address(baser) if page == PAGE_SIZES[2] else _SMALL_ADDR.get(baser) & -page
    entry = BASER_ENTRY_SIZE.get(baser) + 1
    return Shape(addr, page * (BASER_PAGES.get(baser) + 1), page, entry, bool(baser & BASER_INDIRECT))


def level1(table: Shape) -> Piece:
    """The table that the BASER points to, as far as IDs go. Its entries count by second-level pages."""
    per_entry = table.page // ENTRY_SIZE if table.indirect else 1
    return Piece(0, table.addr, min(table.size, -(-table.ids // per_entry) * ENTRY_SIZE))


def pieces(table: Shape, read: Read, fault: Callable[[int], None]) -> Iterator[Piece]:
    """The entries of ``table`` in pieces of a page at most, by rising IDs: all of a flat table, the valid second-level
    pages of one with two levels. ``fault(address)`` is told of pages of level 1 that cannot be read."""
    first = level1(table)
    if not table.indirect:
        yield from _split(first, table.page)
        return
    per_page = table.page // ENTRY_SIZE
    for part in _split(first, table.page):
        try:
            data = read(part.addr, part.length)
        except MemoryFaultError:
            fault(part.addr)
            continue
        for offset in range(0, part.length, ENTRY_SIZE):
            word = int.from_bytes(data[offset : offset + ENTRY_SIZE], "little")
            if word & VALID:
                index = (part.first + offset // ENTRY_SIZE) * per_page
                yield Piece(index, _L1_ADDR.get(word) & -table.page, table.page)


def _split(piece: Piece, page: int) -> Iterator[Piece]:
    """``piece`` in pages of ``page`` bytes."""
    first, addr, left = piece
    while left:
        length = min(left, page)
        yield Piece(first, addr, length)
        first, addr, left = first + length // ENTRY_SIZE, addr + length, left - length


def used(data: bytes, step: int) -> Iterator[tuple[int, bytes]]:
    """Index and bytes of the entries that are not all zeros."""
    if data.count(0) == len(data):
        return
    for offset in range(0, len(data), step):
        entry = data[offset : offset + step]
        if any(entry):
            yield offset // step, entry
