"""The tables in guest memory, written through in KVM's layout (revision 0) as mappings change.

The ITS's own state is what translates; the tables are there to be looked at, saved and restored.
"""

from __future__ import annotations

from typing import Final

from common.gic.entries import ENTRY_SIZE, NOT_MAPPED, Cte, Dte, pack_ite
from common.world import Table
from services.gic_its.baser import TableAt
from services.gic_its.dma import Dma
from services.gic_its.ordered import neighbours
from services.gic_its.state import UNMAPPED, Collection, Control, Device, Event


class WriteThrough:
    """Bytes of the entries of ``devices`` and ``collections``, and of the ITTs."""

    __slots__ = ("_collection_table", "_control", "_dma", "collections", "devices")

    _dma: Final[Dma]
    _control: Final[Control]
    devices: Final[Table[Device]]
    collections: Final[Table[Collection]]
    _collection_table: Final[TableAt]

    def __init__(
        self,
        dma: Dma,
        control: Control,
        devices: Table[Device],
        collections: Table[Collection],
        collection_table: TableAt,
    ) -> None:
        self._dma = dma
        self._control = control
        self.devices = devices
        self.collections = collections
        self._collection_table = collection_table

    def write_device(self, device: Device) -> None:
        """``device`` was mapped (or is mapped still): its entry, and the one before it, which is chained to it."""
        previous, after = neighbours(self._control.devices, device.device)
        self._write_dte(device, after)
        if previous is not None:
            self._write_dte(self.devices[previous], device.device - previous)

    def erase_device(self, device: Device) -> None:
        """``device`` was taken out of ``control.devices``."""
        self._dma.write(device.dte, bytes(ENTRY_SIZE))
        previous, after = neighbours(self._control.devices, device.device)
        if previous is not None:
            self._write_dte(self.devices[previous], device.device - previous + after if after else 0)

    def _write_dte(self, device: Device, after: int) -> None:
        self._dma.write(device.dte, Dte(True, device.itt, device.bits, after).pack())

    def write_event(self, device: Device, event: Event, after: int, previous: Event | None = None) -> None:
        """``event`` was mapped or changed, and the next one is ``after`` further; ``previous``, the one before it in
        the ITT, is to be chained to it."""
        place = device.itt + event.event * ENTRY_SIZE
        entry = pack_ite(event.intid, event.icid, after)
        if previous is not None:
            distance = event.event - previous.event
            before = pack_ite(previous.intid, previous.icid, distance)
            if distance == 1:  # the usual case: one write for both
                place -= ENTRY_SIZE
                entry = before + entry
            else:
                self._dma.write(place - distance * ENTRY_SIZE, before)
        self._dma.write(place, entry)

    def erase_event(self, device: Device, event: int, after: int, previous: Event | None) -> None:
        """``event`` was taken out of ``device.events``."""
        self._dma.write(device.itt + event * ENTRY_SIZE, bytes(ENTRY_SIZE))
        if previous is not None:
            self._write_ite(device, previous, event - previous.event + after if after else 0)

    def _write_ite(self, device: Device, event: Event, after: int) -> None:
        self._dma.write(device.itt + event.event * ENTRY_SIZE, pack_ite(event.intid, event.icid, after))

    def clear_itt(self, device: Device) -> None:
        """The ITT of a device that was just mapped: nothing that it held before is mapped."""
        self._dma.write(device.itt, (1 << device.bits) * ENTRY_SIZE)

    def write_collections(self, start: int = 0) -> None:
        """The collection table from its entry ``start`` on, with the invalid entry that ends it."""
        room = self._collection_table.entries
        data = bytearray()
        for icid in self._control.collections[start:room]:
            vcpu = self.collections[icid].vcpu
            data += Cte(True, NOT_MAPPED if vcpu == UNMAPPED else vcpu, icid).pack()
        if len(self._control.collections) < room:
            data += bytes(ENTRY_SIZE)
        self._dma.write(self._collection_table.base + start * ENTRY_SIZE, bytes(data))
