"""What each command does (IHI 0069 §5.3), with KVM's checks and error kinds.

A handler returns None, or the kind of error for which the command was skipped: a field of
:class:`services.gic_its.stats.ErrorStats`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.lpi import LPI_BASE
from common.world import Table, World
from services.gic_its.delivery import Delivery
from services.gic_its.ordered import added, before, members, removed, size
from services.gic_its.profile import Profile
from services.gic_its.redistributor import Redistributor, intid_limit
from services.gic_its.state import UNMAPPED, Collection, Control, Device, Event
from services.gic_its.stats import CommandStats, ErrorStats
from services.gic_its.tables import Tables

Handler = Callable[[Command], Coroutine[Any, Any, str | None]]


@dataclass(slots=True, frozen=True)
class Limits:
    """What one guest may have mapped at a time; what goes beyond is skipped and counted as ``*_limit``."""

    devices: int = 4096
    collections: int = 1024
    events: int = 65536


def event_key(device: int, event: int) -> int:
    """Key of the flat table of events, the translation cache of the MSI path."""
    return device << 32 | event


class Commands:
    """The command set over one guest's devices, collections and redistributors. The caller serialises."""

    __slots__ = (
        "_collections", "_control", "_delivery", "_devices", "_errors", "_events", "_handlers", "_limits",
        "_profile", "_redistributors", "_stats", "_tables", "_world",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        *,
        profile: Profile,
        control: Control,
        delivery: Delivery,
        tables: Tables,
        redistributors: tuple[Redistributor, ...],
        devices: Table[Device],
        collections: Table[Collection],
        events: Table[Event],
        stats: CommandStats,
        errors: ErrorStats,
        limits: Limits,
    ) -> None:
        self._world: Final = world
        self._profile: Final = profile
        self._control: Final = control
        self._delivery: Final = delivery
        self._tables: Final = tables
        self._redistributors: Final = redistributors
        self._devices: Final = devices
        self._collections: Final = collections
        self._events: Final = events
        self._stats: Final = stats
        self._errors: Final = errors
        self._limits: Final = limits
        self._handlers: Final[dict[int, tuple[str, Handler]]] = {
            spec.op: (f"command_{spec.name.lower()}", getattr(self, f"_{spec.name.lower()}")) for spec in op.COMMANDS
        }

    async def execute(self, command: Command) -> None:
        """Run one command, count it, count why it was skipped."""
        found = self._handlers.get(command.op)
        if found is None:
            self._errors.unknown += 1
            return
        name, handler = found
        stats, errors = self._stats, self._errors
        setattr(stats, name, getattr(stats, name) + 1)
        kind = await handler(command)
        if kind is not None:
            setattr(errors, kind, getattr(errors, kind) + 1)

    # --- devices -------------------------------------------------------------------------------------------------

    async def _mapd(self, c: Command) -> str | None:
        bits = c.size + 1
        place = None
        if c.device < 1 << self._profile.device_bits:
            place = await self._tables.device_entry(c.device)
        if place is None:
            return "mapd_device_oor"
        if c.valid and bits > self._profile.event_bits:
            return "mapd_ittsize_oor"
        known = self._devices.get(c.device)
        if known is not None:
            self._free_device(known)
        elif c.valid and len(self._devices) >= self._limits.devices:
            return "mapd_limit"
        if c.valid:
            device = self._world.new(Device, c.device, place, c.itt, bits)
            self._devices[c.device] = device
            self._control.devices = added(self._control.devices, c.device)
            self._tables.write_device(device)
        return None

    def _free_device(self, device: Device) -> None:
        """Its mappings are gone for good, pending state included; the ITT's memory is the guest's again."""
        self._forget_events(device)
        self._devices.pop(device.device)
        self._control.devices = removed(self._control.devices, device.device)
        self._tables.erase_device(device)

    def free_devices(self) -> None:
        """BASER0.Valid was cleared: forget every device. Their table is gone, so nothing is written."""
        for known in members(self._control.devices):
            self._forget_events(self._devices.pop(known))
        self._control.devices = ()

    def _forget_events(self, device: Device) -> None:
        count = size(device.events)
        for event in members(device.events):
            self._unmap(self._events.pop(event_key(device.device, event)))
        self._control.events -= count
        self._control.work += count

    # --- collections ---------------------------------------------------------------------------------------------

    async def _mapc(self, c: Command) -> str | None:
        if c.valid and c.rdbase >= len(self._redistributors):
            return "mapc_procnum_oor"
        collection = self._collections.get(c.icid)
        if not c.valid:
            if collection is not None:
                self._free_collection(collection)
            return None
        if collection is None:
            refused = await self._make_collection(c.icid)
            if refused is not None:
                return refused
            collection = self._collections[c.icid]
        if collection.vcpu != c.rdbase:
            collection.vcpu = c.rdbase
            self._tables.write_collections(self._control.collections.index(c.icid))
            for event in self._of_collection(c.icid):
                await self._retarget(event, c.rdbase)
        return None

    async def _make_collection(self, icid: int) -> str | None:
        """A new collection, not mapped yet. Returns why there is none: the kind of error."""
        if not await self._tables.collection_fits(icid):
            return "mapc_collection_oor"
        if len(self._collections) >= self._limits.collections:
            return "mapc_limit"
        self._collections[icid] = self._world.new(Collection, icid)
        self._control.collections = (*self._control.collections, icid)
        self._tables.write_collections(len(self._control.collections) - 1)
        return None

    def _free_collection(self, collection: Collection) -> None:
        """Events of the collection lose it: a later MAPC makes a collection of its own."""
        icid = collection.icid
        for event in self._of_collection(icid):
            event.icid = -1
            self._detach(event)
        at = self._control.collections.index(icid)
        self._collections.pop(icid)
        self._control.work += len(self._control.collections)
        self._control.collections = tuple(other for other in self._control.collections if other != icid)
        self._tables.write_collections(at)

    def free_collections(self) -> None:
        """BASER1.Valid was cleared: forget every collection. Their table is gone, so nothing is written."""
        for icid in self._control.collections:
            for event in self._of_collection(icid):
                event.icid = -1
                self._detach(event)
            self._collections.pop(icid)
        self._control.collections = ()

    def _of_collection(self, icid: int) -> Iterator[Event]:
        for known in members(self._control.devices):
            device = self._devices[known]
            self._control.work += size(device.events)
            for event in members(device.events):
                found = self._events[event_key(known, event)]
                if found.icid == icid:
                    yield found

    def _vcpu(self, icid: int) -> int:
        """The PE of a mapped collection, UNMAPPED for any other."""
        collection = self._collections.get(icid)
        return UNMAPPED if collection is None else collection.vcpu

    # --- events --------------------------------------------------------------------------------------------------

    async def _mapti(self, c: Command) -> str | None:
        return await self._map_event(c, c.intid)

    async def _mapi(self, c: Command) -> str | None:
        return await self._map_event(c, c.event)

    async def _map_event(self, c: Command, intid: int) -> str | None:
        device = self._devices.get(c.device)
        if device is None:
            return "mapti_unmapped_device"
        if c.event >= 1 << device.bits:
            return "mapti_id_oor"
        if not LPI_BASE <= intid < intid_limit(self._redistributors):
            return "mapti_physicalid_oor"
        key = event_key(c.device, c.event)
        if key in self._events:
            return None  # an existing mapping is kept
        if self._control.events >= self._limits.events:
            return "mapti_limit"
        if c.icid not in self._collections:
            refused = await self._make_collection(c.icid)
            if refused is not None:
                return refused
        event = self._world.new(Event, c.device, c.event, intid, c.icid)
        self._events[key] = event
        device.events = added(device.events, c.event)
        self._control.events += 1
        self._tables.write_event(device, event, self._previous(device, c.event))
        vcpu = self._vcpu(c.icid)
        if vcpu != UNMAPPED:
            await self._attach(event, vcpu)
        return None

    async def _movi(self, c: Command) -> str | None:
        event = self._events.get(event_key(c.device, c.event))
        if event is None:
            return "movi_unmapped_interrupt"
        vcpu = self._vcpu(c.icid)
        if event.lpi is None or vcpu == UNMAPPED:
            return "movi_unmapped_collection"
        event.icid = c.icid
        device = self._devices[c.device]
        self._tables.write_event(device, event, None)
        await self._retarget(event, vcpu)
        return None

    async def _discard(self, c: Command) -> str | None:
        key = event_key(c.device, c.event)
        event = self._events.get(key)
        if event is None or event.lpi is None:
            return "discard_unmapped_interrupt"
        self._events.pop(key)
        self._unmap(event)
        device = self._devices[c.device]
        device.events = removed(device.events, c.event)
        self._control.events -= 1
        self._tables.erase_event(device, c.event, self._previous(device, c.event))
        return None

    def _previous(self, device: Device, event: int) -> Event | None:
        previous = before(device.events, event)
        return None if previous is None else self._events[event_key(device.device, previous)]

    # --- interrupts ----------------------------------------------------------------------------------------------

    async def _int(self, c: Command) -> str | None:
        event = self._events.get(event_key(c.device, c.event))
        if event is None or event.lpi is None:
            return "int_unmapped_interrupt"
        if not event.lpi.port.enabled:
            return "int_lpis_off"
        self._delivery.set_pending(event.lpi)
        return None

    async def _clear(self, c: Command) -> str | None:
        event = self._events.get(event_key(c.device, c.event))
        if event is None or event.lpi is None:
            return "clear_unmapped_interrupt"
        event.lpi.pending = False
        return None

    async def _inv(self, c: Command) -> str | None:
        event = self._events.get(event_key(c.device, c.event))
        if event is None:
            return "inv_unmapped_interrupt"
        if event.lpi is not None:
            await self._redistributors[event.lpi.port.vcpu].refresh(event.lpi)
        return None

    async def _invall(self, c: Command) -> str | None:
        vcpu = self._vcpu(c.icid)
        if vcpu == UNMAPPED:
            return "invall_unmapped_collection"
        await self._redistributors[vcpu].refresh_all()
        return None

    async def _movall(self, c: Command) -> str | None:
        cpus = len(self._redistributors)
        if c.rdbase >= cpus or c.rdbase2 >= cpus:
            return "movall_procnum_oor"
        if c.rdbase != c.rdbase2:
            source, target = self._redistributors[c.rdbase], self._redistributors[c.rdbase2]
            for lpi in [lpi for lpi in source if lpi.pending]:
                await target.take(lpi)
                source.forget_idle(lpi)
        return None

    async def _sync(self, c: Command) -> str | None:
        return None  # every command has taken effect when the next one starts

    # --- where events lead ---------------------------------------------------------------------------------------

    async def _attach(self, event: Event, vcpu: int) -> None:
        redistributor = self._redistributors[vcpu]
        lpi = redistributor.attach(event)
        if not lpi.configured:
            await redistributor.refresh(lpi)

    def _detach(self, event: Event) -> None:
        lpi = event.lpi
        if lpi is not None:
            redistributor = self._redistributors[lpi.port.vcpu]
            redistributor.detach(event)
            redistributor.forget_idle(lpi)

    def _unmap(self, event: Event) -> None:
        """The event goes for good; its LPI's pending state goes with the last event that leads to it."""
        lpi = event.lpi
        if lpi is not None and len(lpi.events) == 1:
            lpi.pending = False
        self._detach(event)

    async def _retarget(self, event: Event, vcpu: int) -> None:
        """The event leads to ``vcpu`` now; pending state goes along."""
        lpi = event.lpi
        if lpi is not None and lpi.port.vcpu == vcpu:
            return
        was_pending = lpi is not None and lpi.pending
        if lpi is not None and was_pending:
            lpi.pending = False
        self._detach(event)
        await self._attach(event, vcpu)
        if was_pending and event.lpi is not None:
            self._delivery.set_pending(event.lpi)
