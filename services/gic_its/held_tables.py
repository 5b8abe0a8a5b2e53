"""Tables that the ITS holds itself, as KVM's does; every change is written through to guest memory.

Looks do not wait for memory, but for a probe whether a DTE's or CTE's place is there. A guest has at most what
:class:`Limits` allows; what goes beyond is skipped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from common.gic.entries import ENTRY_SIZE
from common.world import Table, World
from services.gic_its.baser import TableAt
from services.gic_its.delivery import Delivery
from services.gic_its.ordered import added, members, neighbours, removed, without
from services.gic_its.profile import Profile
from services.gic_its.redistributor import Redistributor
from services.gic_its.state import NO_COLLECTION, UNMAPPED, Collection, Control, Device, Event
from services.gic_its.tables import Kind, TableFaultError, event_key
from services.gic_its.write_through import WriteThrough

#: Events that a command changes before others may have their turn.
WALK: Final = 32


@dataclass(slots=True, frozen=True)
class Limits:
    """What one guest may have mapped at a time; what goes beyond is skipped and counted as ``*_limit``."""

    devices: int = 4096
    collections: int = 1024
    events: int = 65536


class HeldTables:
    """Devices, collections and events of one guest. The command queue is the only writer."""

    __slots__ = (
        "_collections", "_control", "_delivery", "_profile", "_redistributors", "_world", "_written",
        "collection_table", "device_table", "devices", "events", "limits",
    )  # fmt: skip

    _world: Final[World]
    _profile: Final[Profile]
    _control: Final[Control]
    _delivery: Final[Delivery]
    device_table: Final[TableAt]
    collection_table: Final[TableAt]
    _written: Final[WriteThrough]
    _redistributors: Final[tuple[Redistributor, ...]]
    limits: Final[Limits]
    devices: Final[Table[Device]]
    _collections: Final[Table[Collection]]
    #: (DeviceID, EventID) → event: the translation cache of the MSI path.
    events: Final[Table[Event]]

    def __init__(
        self,
        world: World,
        *,
        profile: Profile,
        control: Control,
        delivery: Delivery,
        device_table: TableAt,
        collection_table: TableAt,
        written: WriteThrough,
        redistributors: tuple[Redistributor, ...],
        limits: Limits,
    ) -> None:
        self._world = world
        self._profile = profile
        self._control = control
        self._delivery = delivery
        self.device_table = device_table
        self.collection_table = collection_table
        self._written = written
        self._redistributors = redistributors
        self.limits = limits
        self.devices = written.devices
        self._collections = written.collections
        self.events = world.table()

    # --- looks ---------------------------------------------------------------------------------------------------

    async def place(self, device: int) -> int | None:
        try:
            place = await self.device_table.place(device)
            if place is not None:
                await self.device_table.look(place, ENTRY_SIZE)
        except TableFaultError:
            return None  # KVM: as if the table did not reach
        return place

    async def device(self, device: int) -> Device | None:
        return self.devices.get(device)

    async def event(self, device: int, event: int) -> Event | None:
        return self.events.get(device << 32 | event)

    async def vcpu(self, icid: int) -> int:
        collection = self._collections.get(icid)
        return UNMAPPED if collection is None else collection.vcpu

    async def collection_place(self, icid: int) -> int | Kind:
        """KVM's table is a list: a known collection needs no further room."""
        if icid in self._collections:
            return 0
        if len(self._collections) >= self.limits.collections:
            return "mapc_limit"
        try:
            place = await self.collection_table.place(icid)
            if place is None:
                return "mapc_collection_oor"
            await self.collection_table.look(place, ENTRY_SIZE)
        except TableFaultError:
            return "mapc_collection_oor"
        return place

    async def event_fault(self, device: Device, event: int, icid: int) -> Kind | None:
        if event_key(device.device, event) in self.events:
            return ""  # an existing mapping is kept
        if self._control.events >= self.limits.events:
            return "mapti_limit"
        if icid in self._collections:
            return None
        place = await self.collection_place(icid)
        return place if isinstance(place, str) else None

    def batches_of(self, icid: int) -> Iterator[list[Event]]:
        for batch in self.batches():
            yield [event for event in batch if event.icid == icid]

    def batches(self) -> Iterator[list[Event]]:
        for known in members(self._control.devices):
            self._control.work += 1
            yield from self._batches(self.devices[known])

    def lost(self) -> Iterator[list[Event]]:
        return self.batches_of(NO_COLLECTION) if self.collection_table.entries else iter(())

    def batches_in(self, device: int) -> Iterator[list[Event]]:
        known = self.devices.get(device)
        return iter(()) if known is None else self._batches(known)

    def _batches(self, device: Device) -> Iterator[list[Event]]:
        """The events of a device, in ascending order, at most WALK at a time; what was walked over is counted."""
        for group in device.events:
            for at in range(0, len(group), WALK):
                run = group[at : at + WALK]
                self._control.work += len(run)
                yield [self.events[event_key(device.device, event)] for event in run]

    # --- changes: devices ------------------------------------------------------------------------------------------

    def set_device(self, device: int, place: int, itt: int, bits: int, valid: bool) -> Kind | None:
        known = self.devices.get(device)
        if known is None and valid and len(self.devices) >= self.limits.devices:
            return "mapd_limit"
        if known is not None:
            self.devices.pop(device)
            self._control.devices = removed(self._control.devices, device)
            self._written.erase_device(known)
        if valid:
            made = self.add_device(device, place, itt, bits)
            self._written.write_device(made)
            self._written.clear_itt(made)
        return None

    def add_device(self, device: int, place: int, itt: int, bits: int) -> Device:
        """A device that is in the table already (restore): nothing is written."""
        made = self._world.new(Device, device, place, itt, bits)
        self.devices[device] = made
        self._control.devices = added(self._control.devices, device)
        return made

    def free_devices(self) -> None:
        for known in list(self.devices):
            self.devices.pop(known)
        self._control.devices = ()

    def forget(self, batch: list[Event]) -> None:
        device = self.devices[batch[0].device]
        for event in batch:
            self._detach(self.events.pop(event_key(event.device, event.event)))
        device.events = without(device.events, [event.event for event in batch])
        self._control.events -= len(batch)

    # --- changes: collections --------------------------------------------------------------------------------------

    def set_collection(self, icid: int, vcpu: int, place: int, valid: bool) -> None:
        collection = self._collections.get(icid)
        if not valid:
            if collection is not None:
                self._free_collection(collection)
            return
        if collection is None:
            collection = self.add_collection(icid)
        elif collection.vcpu == vcpu:
            return
        collection.vcpu = vcpu
        self._written.write_collections(self._control.collections.index(icid))

    def add_collection(self, icid: int, vcpu: int = UNMAPPED) -> Collection:
        """A collection at the end of the list; the caller writes it."""
        made = self._collections[icid] = self._world.new(Collection, icid, vcpu)
        self._control.collections = (*self._control.collections, icid)
        return made

    def _free_collection(self, collection: Collection) -> None:
        icid = collection.icid
        at = self._control.collections.index(icid)
        self._collections.pop(icid)
        self._control.work += len(self._control.collections)
        self._control.collections = tuple(other for other in self._control.collections if other != icid)
        self._written.write_collections(at)

    def strand(self, batch: list[Event]) -> None:
        limbo = self._limbo(batch[0].icid) if batch else NO_COLLECTION
        for event in batch:
            event.icid = limbo
            self._detach(event)
            self._write(event)

    def _limbo(self, icid: int) -> int:
        """The collection of events that lost theirs: the last of the table that is not mapped. It is in use and not
        mapped, as KVM's ABI has it, so that such events can be saved. A guest that maps this very ICID has them
        back there: Linux counts its ICIDs from 0, one for each CPU."""
        for other in range(self.collection_table.entries - 1, -1, -1):
            self._control.work += 1
            known = self._collections.get(other)
            if known is None:
                self.add_collection(other)
                self._written.write_collections(len(self._control.collections) - 1)
                return other
            if known.vcpu == UNMAPPED and other != icid:
                return other
        return icid

    def lose(self, batch: list[Event]) -> None:
        for event in batch:
            event.icid = NO_COLLECTION
            self._detach(event)

    def free_collections(self) -> None:
        for icid in self._control.collections:
            self._collections.pop(icid)
        self._control.collections = ()

    # --- changes: events -------------------------------------------------------------------------------------------

    def set_event(self, device: Device, event: int, intid: int, icid: int, vcpu: int) -> Event:
        if icid not in self._collections:
            self.add_collection(icid)
            self._written.write_collections(len(self._control.collections) - 1)
        previous, after = self._neighbours(device, event)
        made = self.add_event(device, event, intid, icid, vcpu)
        self._written.write_event(device, made, after, previous)
        return made

    def add_event(self, device: Device, event: int, intid: int, icid: int, vcpu: int) -> Event:
        """An event that is in its ITT already (restore): nothing is written."""
        made = self._world.new(Event, device.device, event, intid, icid)
        self.events[device.device << 32 | event] = made
        device.events = added(device.events, event)
        self._control.events += 1
        if vcpu != UNMAPPED:
            self._redistributors[vcpu].attach(made)
        return made

    def move_event(self, event: Event, icid: int, vcpu: int) -> None:
        event.icid = icid
        self._write(event)
        self._retarget(event, vcpu)

    def erase_event(self, event: Event) -> None:
        self.events.pop(event_key(event.device, event.event))
        self._detach(event)
        device = self.devices[event.device]
        device.events = removed(device.events, event.event)
        self._control.events -= 1
        previous, after = self._neighbours(device, event.event)
        self._written.erase_event(device, event.event, after, previous)

    def _neighbours(self, device: Device, event: int) -> tuple[Event | None, int]:
        """The event before ``event``, and how far the one after it is; 0 if there is none."""
        previous, after = neighbours(device.events, event)
        return None if previous is None else self.events[event_key(device.device, previous)], after

    def _write(self, event: Event) -> None:
        device = self.devices[event.device]
        self._written.write_event(device, event, neighbours(device.events, event.event)[1])

    def _detach(self, event: Event) -> None:
        if event.lpi is not None:
            self._redistributors[event.lpi.port.vcpu].detach(event)

    def retarget(self, batch: list[Event], vcpu: int) -> None:
        for event in batch:
            self._retarget(event, vcpu)

    def _retarget(self, event: Event, vcpu: int) -> None:
        """The event leads to ``vcpu`` now, with the configuration that it had; pending state goes along."""
        old = event.lpi
        if old is not None and old.port.vcpu == vcpu:
            return
        redistributor = self._redistributors[vcpu]
        if old is not None:
            lpi = redistributor.lpi(event.intid)
            if not lpi.configured:
                lpi.enabled, lpi.priority, lpi.configured = old.enabled, old.priority, old.configured
            self._delivery.move(old, lpi)
            self._detach(event)
        redistributor.attach(event)

    def write_all(self) -> None:
        """Every entry, as it should be in guest memory already."""
        for known in members(self._control.devices):
            device = self.devices[known]
            self._written.write_device(device)
            for batch in self._batches(device):
                for event in batch:
                    self._write(event)
        self._written.write_collections()

    def reset(self) -> None:
        """Nothing is mapped; nothing is written. What is pending stays so."""
        for batch in list(self.batches()):
            self.forget(batch)
        self.free_devices()
        self.free_collections()

    def drop(self) -> None:
        for key in list(self.events):
            self.events.pop(key)
        self._control.events = 0
        self.free_devices()
        self.free_collections()
