"""LPI configuration bytes, read for a slice of commands in a few reads instead of one for each.

A command may be given a byte that was read when its slice was fetched: software writes the table before it writes the
command that makes the ITS read it (IHI 0069 §5.1.1), and the slice was fetched after that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from common.errors import MemoryFaultError
from common.gic.commands import DW0_DEVICE, DW1_EVENT, DW1_INTID, INV, MAPI, MAPTI
from common.gic.lpi import LPI_BASE, LPI_LIMIT
from common.world import Array, World
from services.gic_its.dma import Dma
from services.gic_its.redistributor import Redistributor
from services.gic_its.tables import Tables

#: Bytes between two that are wanted that are read along with them.
GAP: Final = 512
#: Reads for one slice; what would take more is read by its command.
READS: Final = 4


class ConfigAhead:
    """Bytes of LPI configuration tables by guest address, for the slice at hand."""

    __slots__ = ("_dma", "_parts", "_redistributors", "_tables")

    _dma: Final[Dma]
    _tables: Final[Tables]
    _redistributors: Final[tuple[Redistributor, ...]]
    #: what was read ahead: guest address and bytes of each part
    _parts: Final[Array[tuple[tuple[int, bytes], ...]]]

    def __init__(self, world: World, dma: Dma, tables: Tables, redistributors: tuple[Redistributor, ...]) -> None:
        self._dma = dma
        self._tables = tables
        self._redistributors = redistributors
        self._parts = world.array(1, ())

    async def read(self, words: Iterable[tuple[int, int, int, int]]) -> None:
        """Fetch what MAPTI, MAPI and INV of this slice will ask for; a part that cannot be read is left out."""
        self._parts[0] = ()
        wanted = await self._wanted(words)
        if len(wanted) < 2:
            return
        base = next((r.config_table for r in self._redistributors if r.port.enabled), None)
        if base is None:
            return
        spans: list[list[int]] = []
        for intid in sorted(wanted):
            if spans and intid - spans[-1][1] <= GAP:
                spans[-1][1] = intid
            else:
                spans.append([intid, intid])
        parts = []
        for first, last in spans[:READS]:
            addr = base + first - LPI_BASE
            try:
                parts.append((addr, await self._dma.read(addr, last - first + 1)))
            except MemoryFaultError:
                continue
        self._parts[0] = tuple(parts)

    async def _wanted(self, words: Iterable[tuple[int, int, int, int]]) -> set[int]:
        wanted = set()
        for dw0, dw1, _, _ in words:
            opcode = dw0 & 0xFF
            if opcode == MAPTI:
                intid = DW1_INTID.get(dw1)
            elif opcode == MAPI:
                intid = DW1_EVENT.get(dw1)
            elif opcode == INV:
                event = await self._tables.event(DW0_DEVICE.get(dw0), DW1_EVENT.get(dw1))
                if event is None:
                    continue
                intid = event.intid
            else:
                continue
            if LPI_BASE <= intid < LPI_LIMIT:
                wanted.add(intid)
        return wanted

    async def config(self, redistributor: Redistributor, intid: int) -> int | None:
        """The configuration byte of ``intid``; None where it cannot be read, which is counted."""
        addr = redistributor.config_table + intid - LPI_BASE
        for first, data in self._parts[0]:
            if first <= addr < first + len(data):
                return data[addr - first]
        return await redistributor.read_config(intid)
