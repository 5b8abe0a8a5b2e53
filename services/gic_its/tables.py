"""The tables in guest memory, written through in KVM's layout (revision 0) as mappings change.

The service's own state is what translates; the tables are there to be looked at, saved and restored. So they are only
ever written, except that a DTE's or CTE's place is probed before use, as KVM does.
"""

from __future__ import annotations

from typing import Final

from common.errors import MemoryFaultError
from common.gic.entries import ENTRY_SIZE, L1, NOT_MAPPED, PAGE, Cte, Dte, Ite
from common.gic.registers import BASER_INDIRECT, BASER_PAGES, baser_address
from common.registers import RegisterFile
from common.world import Table
from services.gic_its.dma import Dma
from services.gic_its.ordered import before, distance
from services.gic_its.state import UNMAPPED, Collection, Control, Device, Event


class Tables:
    """Places of entries, and their bytes."""

    __slots__ = ("_collections", "_control", "_devices", "_dma", "_registers")

    def __init__(
        self,
        dma: Dma,
        registers: RegisterFile,
        control: Control,
        devices: Table[Device],
        collections: Table[Collection],
    ) -> None:
        self._dma: Final = dma
        self._registers: Final = registers
        self._control: Final = control
        self._devices: Final = devices
        self._collections: Final = collections

    async def device_entry(self, device: int) -> int | None:
        """Guest address of the DTE of ``device``; None where the table does not reach (IHI 0069 §5.2.2)."""
        baser = self._registers.get("GITS_BASER0")
        base, pages = baser_address(baser), BASER_PAGES.get(baser) + 1
        offset = device * ENTRY_SIZE
        if baser & BASER_INDIRECT:
            slot = offset // PAGE
            if slot >= pages * PAGE // ENTRY_SIZE:
                return None
            try:
                level1 = L1.unpack(await self._dma.read(base + slot * ENTRY_SIZE, ENTRY_SIZE))
            except MemoryFaultError:
                return None
            if not level1.valid:
                return None
            return await self._visible(level1.page + offset % PAGE)
        if offset >= pages * PAGE:
            return None
        return await self._visible(base + offset)

    async def collection_fits(self, icid: int) -> bool:
        """Whether the collection table is large enough for ``icid`` and lies in guest memory."""
        baser = self._registers.get("GITS_BASER1")
        if icid * ENTRY_SIZE >= self._collection_bytes(baser):
            return False
        return await self._visible(baser_address(baser) + icid * ENTRY_SIZE) is not None

    async def _visible(self, addr: int) -> int | None:
        try:
            await self._dma.read(addr, ENTRY_SIZE)
        except MemoryFaultError:
            return None
        return addr

    @staticmethod
    def _collection_bytes(baser: int) -> int:
        return (BASER_PAGES.get(baser) + 1) * PAGE

    # --- write through -------------------------------------------------------------------------------------------

    def write_device(self, device: Device) -> None:
        """``device`` was mapped (or is mapped still): its entry, and the one before it, which is chained to it."""
        ids = self._control.devices
        entry = Dte(True, device.itt, device.bits, distance(ids, device.device))
        self._dma.write(device.dte, entry.pack())
        self._chain_before(device.device)

    def erase_device(self, device: Device) -> None:
        """``device`` was taken out of ``control.devices``."""
        self._dma.write(device.dte, bytes(ENTRY_SIZE))
        self._chain_before(device.device)

    def _chain_before(self, device: int) -> None:
        ids = self._control.devices
        previous = before(ids, device)
        if previous is not None:
            other = self._devices[previous]
            self._dma.write(other.dte, Dte(True, other.itt, other.bits, distance(ids, previous)).pack())

    def write_event(self, device: Device, event: Event, previous: Event | None) -> None:
        """``event`` was mapped or changed; ``previous`` is the one before it in the ITT."""
        self._write_ite(device, event)
        if previous is not None:
            self._write_ite(device, previous)

    def erase_event(self, device: Device, event: int, previous: Event | None) -> None:
        """``event`` was taken out of ``device.events``."""
        self._dma.write(device.itt + event * ENTRY_SIZE, bytes(ENTRY_SIZE))
        if previous is not None:
            self._write_ite(device, previous)

    def _write_ite(self, device: Device, event: Event) -> None:
        entry = Ite(event.intid, event.icid, distance(device.events, event.event))
        self._dma.write(device.itt + event.event * ENTRY_SIZE, entry.pack())

    def write_collections(self, start: int = 0) -> None:
        """The collection table from its entry ``start`` on, with the invalid entry that ends it."""
        baser = self._registers.get("GITS_BASER1")
        room = self._collection_bytes(baser) // ENTRY_SIZE
        data = bytearray()
        for icid in self._control.collections[start:room]:
            vcpu = self._collections[icid].vcpu
            data += Cte(True, NOT_MAPPED if vcpu == UNMAPPED else vcpu, icid).pack()
        if len(self._control.collections) < room:
            data += bytes(ENTRY_SIZE)
        self._dma.write(baser_address(baser) + start * ENTRY_SIZE, bytes(data))
