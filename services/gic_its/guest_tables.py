"""Tables that lie in guest memory only, as QEMU's do: every use is a look, nothing is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from common.gic.entries_qemu import ENTRY_SIZE, ITE_SIZE, Cte, Dte, Ite
from common.world import World
from services.gic_its.baser import TableAt
from services.gic_its.dma import Dma
from services.gic_its.state import UNMAPPED, Device, Event
from services.gic_its.tables import Kind


class GuestTables:
    """Devices, collections and events as guest memory has them. ``cpus`` bounds the PE of a collection.

    A write is posted, so a place is looked at before it is written: memory that is not there is found in time.
    """

    __slots__ = ("_collections", "_cpus", "_devices", "_dma", "_world")

    _world: Final[World]
    _dma: Final[Dma]
    _devices: Final[TableAt]
    _collections: Final[TableAt]
    _cpus: Final[int]

    def __init__(self, world: World, dma: Dma, devices: TableAt, collections: TableAt, cpus: int) -> None:
        self._world = world
        self._dma = dma
        self._devices = devices
        self._collections = collections
        self._cpus = cpus

    async def place(self, device: int) -> int | None:
        place = await self._devices.place(device)
        if place is not None:
            await self._devices.look(place, ENTRY_SIZE)
        return place

    async def device(self, device: int) -> Device | None:
        place = await self._devices.place(device)
        if place is None:
            return None
        entry = Dte.unpack(await self._devices.look(place, ENTRY_SIZE))
        return self._world.new(Device, device, place, entry.itt, entry.bits) if entry.valid else None

    async def event(self, device: int, event: int) -> Event | None:
        found = await self.device(device)
        if found is None or event >= 1 << found.bits:
            return None
        place = found.itt + event * ITE_SIZE
        entry = Ite.unpack(await self._devices.look(place, ITE_SIZE))
        return self._world.new(Event, device, event, entry.intid, entry.icid, place) if entry.valid else None

    async def vcpu(self, icid: int) -> int:
        place = await self._collections.place(icid)
        if place is None:
            return UNMAPPED
        entry = Cte.unpack(await self._collections.look(place, ENTRY_SIZE))
        return entry.rdbase if entry.valid and entry.rdbase < self._cpus else UNMAPPED

    async def collection_place(self, icid: int) -> int | Kind:
        if icid >= self._collections.entries:
            return "mapc_collection_oor"
        place = await self._collections.place(icid)
        if place is None:
            return "mapc_collection_oor"
        await self._collections.look(place, ENTRY_SIZE)
        return place

    async def event_fault(self, device: Device, event: int, icid: int) -> Kind | None:
        if icid >= self._collections.entries:
            return "mapc_collection_oor"
        await self._devices.look(device.itt + event * ITE_SIZE, ITE_SIZE)
        return None

    def set_device(self, device: int, place: int, itt: int, bits: int, valid: bool) -> Kind | None:
        self._dma.write(place, Dte(valid, itt, bits).pack())
        return None

    def set_collection(self, icid: int, vcpu: int, place: int, valid: bool) -> None:
        self._dma.write(place, Cte(valid, vcpu).pack())

    def set_event(self, device: Device, event: int, intid: int, icid: int, vcpu: int) -> Event:
        place = device.itt + event * ITE_SIZE
        made = self._world.new(Event, device.device, event, intid, icid, place)
        self._dma.write(place, Ite(True, intid, icid).pack())
        return made

    def move_event(self, event: Event, icid: int, vcpu: int) -> None:
        self._dma.write(event.place, Ite(True, event.intid, icid).pack())

    def erase_event(self, event: Event) -> None:
        self._dma.write(event.place, bytes(ITE_SIZE))

    # Nothing is held, so there is nothing to walk over, and nothing to forget.

    def batches(self) -> Iterator[list[Event]]:
        return iter(())

    def batches_of(self, icid: int) -> Iterator[list[Event]]:
        return iter(())

    def lost(self) -> Iterator[list[Event]]:
        return iter(())

    def batches_in(self, device: int) -> Iterator[list[Event]]:
        return iter(())

    def retarget(self, batch: list[Event], vcpu: int) -> None: ...

    def strand(self, batch: list[Event]) -> None: ...

    def forget(self, batch: list[Event]) -> None: ...

    def free_devices(self) -> None: ...

    def free_collections(self) -> None: ...

    def lose(self, batch: list[Event]) -> None: ...

    def drop(self) -> None: ...
