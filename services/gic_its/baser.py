"""Where the entries of a table lie, by its BASER (IHI 0069 §5.2.2, §12.19): page size, one level or two."""

from __future__ import annotations

from typing import Final

from common.errors import MemoryFaultError
from common.gic.entries import ENTRY_SIZE, L1
from common.gic.fields import Field
from common.gic.registers import (
    BASER_ADDR,
    BASER_ADDR_HIGH,
    BASER_INDIRECT,
    BASER_PAGE_SIZE,
    BASER_PAGES,
    BASER_VALID,
)
from common.registers import RegisterFile
from services.gic_its.dma import Dma
from services.gic_its.tables import TableFaultError

#: Page_Size → bytes; 3 is reserved and treated as 64 KiB.
PAGE_SIZES: Final = (4096, 16384, 65536, 65536)
#: Address fields of pages smaller than 64 KiB, whose upper bits have no place of their own.
_ADDR: Final = (Field(47, 12, scale=12), Field(47, 14, scale=14))


class TableAt:
    """The table of BASER ``n``, with at most ``limit`` entries of 8 bytes."""

    __slots__ = ("_dma", "_limit", "_name", "_registers")

    _dma: Final[Dma]
    _registers: Final[RegisterFile]
    _name: Final[str]
    _limit: Final[int]

    def __init__(self, dma: Dma, registers: RegisterFile, n: int, limit: int) -> None:
        self._dma = dma
        self._registers = registers
        self._name = f"GITS_BASER{n}"
        self._limit = limit

    @property
    def entries(self) -> int:
        """How many entries the table has room for; 0 while it is not valid."""
        baser = self._registers.get(self._name)
        if not baser & BASER_VALID:
            return 0
        page = PAGE_SIZES[BASER_PAGE_SIZE.get(baser)]
        size = (BASER_PAGES.get(baser) + 1) * page
        entries = size // ENTRY_SIZE
        if baser & BASER_INDIRECT:
            entries *= page // ENTRY_SIZE
        return min(entries, self._limit)

    @property
    def base(self) -> int:
        """Guest address of the table, of its first level where there are two."""
        baser = self._registers.get(self._name)
        size = BASER_PAGE_SIZE.get(baser)
        if size < len(_ADDR):
            return _ADDR[size].get(baser)
        return BASER_ADDR.get(baser) | BASER_ADDR_HIGH.get(baser) << 48

    async def place(self, index: int) -> int | None:
        """Guest address of entry ``index``; None past the end, and where the first level has no page for it.

        Raises TableFaultError where the first level does not lie in guest memory.
        """
        if index >= self.entries:
            return None
        baser = self._registers.get(self._name)
        base = self.base
        if not baser & BASER_INDIRECT:
            return base + index * ENTRY_SIZE
        per_page = PAGE_SIZES[BASER_PAGE_SIZE.get(baser)] // ENTRY_SIZE
        level1 = L1.unpack(await self.look(base + index // per_page * ENTRY_SIZE, ENTRY_SIZE))
        return level1.page + index % per_page * ENTRY_SIZE if level1.valid else None

    async def look(self, addr: int, length: int) -> bytes:
        """``length`` bytes of an entry. Raises TableFaultError where they are not in guest memory."""
        try:
            return await self._dma.read(addr, length)
        except MemoryFaultError:
            raise TableFaultError(f"no memory at {addr:#x}") from None
