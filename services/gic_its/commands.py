"""What each command does (IHI 0069 §5.3). The profile says where implementations differ.

A handler takes the four doublewords of its command. It reads all that it needs, then changes what is to be changed,
holding the ITS's spinlock, so that MSIs see the tables before the command or after it. It returns None, or the kind of
error for which the command was skipped: a field of :class:`services.gic_its.stats.ErrorStats`. A TableFaultError stalls
the queue where the profile says so. INT, CLEAR and DISCARD are skipped where it is the collection's entry that can not
be read, as QEMU does.

Commands that walk over many events do so in batches, and let others have their turn in between (:meth:`_breathe`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Final

from common.gic import commands as op
from common.gic.commands import (
    DW0_DEVICE,
    DW1_EVENT,
    DW1_SIZE,
    DW2_ICID,
    DW2_ITT,
    DW2_VALID,
)
from common.gic.lpi import LPI_BASE
from common.world import Fifo, World
from services.gic_its.config_ahead import ConfigAhead
from services.gic_its.delivery import Delivery
from services.gic_its.dma import Dma, SupersededError
from services.gic_its.profile import Profile
from services.gic_its.redistributor import Redistributor, configure, intid_limit
from services.gic_its.state import PURGE_COLLECTIONS, PURGE_DEVICES, UNMAPPED, Control, Event, Lpi
from services.gic_its.tables import TableFaultError, Tables

Handler = Callable[[int, int, int, int], Coroutine[Any, Any, str | None]]

#: Table entries that commands may walk over before others get their turn.
WORK: Final = 64


class Commands:
    """The command set over one guest's tables and redistributors. The command queue serialises."""

    __slots__ = (
        "_ahead", "_control", "_delivery", "_dma", "_lock", "_profile", "_redistributors", "_tables", "_world", "dirty",
        "handlers",
    )  # fmt: skip

    _world: Final[World]
    _profile: Final[Profile]
    _control: Final[Control]
    _delivery: Final[Delivery]
    _dma: Final[Dma]
    _tables: Final[Tables]
    _redistributors: Final[tuple[Redistributor, ...]]
    _lock: Final[AbstractContextManager[Any]]
    _ahead: Final[ConfigAhead]
    #: LPIs that :meth:`store_pending` is to look at.
    dirty: Final[Fifo[Lpi]]
    #: Opcode → what runs it.
    handlers: Final[Mapping[int, Handler]]

    def __init__(
        self,
        world: World,
        *,
        profile: Profile,
        control: Control,
        delivery: Delivery,
        dma: Dma,
        tables: Tables,
        redistributors: tuple[Redistributor, ...],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._world = world
        self._profile = profile
        self._control = control
        self._delivery = delivery
        self.dirty = delivery.dirty
        self._dma = dma
        self._tables = tables
        self._redistributors = redistributors
        self._lock = lock
        self._ahead = ConfigAhead(world, dma, tables, redistributors)
        self.handlers = MappingProxyType({spec.op: getattr(self, f"_{spec.name.lower()}") for spec in op.COMMANDS})

    async def prepare(self, words: Iterable[tuple[int, int, int, int]]) -> None:
        """A slice of commands is about to run: where the ITS may cache, what they will want to read is read at once."""
        if self._profile.mapti_obeys_id_bits:
            self._control.intid_limit = intid_limit(self._redistributors)
        if self._profile.holds_tables:
            await self._ahead.read(words)

    async def _walk(self, batches: Iterable[list[Event]], change: Callable[[list[Event]], None]) -> None:
        """Change events in batches, so that others may have their turn between two. Raises like :meth:`_breathe`."""
        for batch in batches:
            with self._lock:
                change(batch)
            await self._breathe()

    async def _breathe(self) -> None:
        """In a walk over a table: let others have their turn if it has gone on for long.

        Raises SupersededError if the ITS was reset meanwhile.
        """
        control = self._control
        if control.work > WORK:
            control.work = 0
            generation, within = control.generation, control.in_slice
            control.in_slice, control.in_walk = False, within
            await self._world.turn()
            if control.generation != generation:
                raise SupersededError("the ITS was reset")
            control.in_slice, control.in_walk = within, False

    def _commit(self) -> None:
        """Before a walk, in which others have their turn: what commands before it did takes effect."""
        with self._lock:
            self.store_pending()
        self._dma.commit()

    async def purge(self) -> None:
        """A BASER was written: what its table held is forgotten, in batches. The ITS is disabled.

        Raises SupersededError if it is reset meanwhile.
        """
        control, tables = self._control, self._tables
        what, control.purge = control.purge, 0
        if what & PURGE_DEVICES:
            await self._walk(tables.batches(), tables.forget)
            with self._lock:
                tables.free_devices()
        if what & PURGE_COLLECTIONS:
            await self._walk(tables.batches(), tables.lose)
            with self._lock:
                tables.free_collections()
            await self._walk(tables.lost(), tables.strand)
        self._dma.commit()

    # --- devices and collections -----------------------------------------------------------------------------------

    async def _mapd(self, dw0: int, dw1: int, dw2: int, _dw3: int) -> str | None:
        device, bits, valid = DW0_DEVICE.get(dw0), DW1_SIZE.get(dw1) + 1, bool(DW2_VALID.get(dw2))
        if bits > self._profile.event_bits and (valid or self._profile.mapd_checks_unmap):
            return "mapd_ittsize_oor"
        place = await self._tables.place(device)
        if place is None:
            return "mapd_device_oor"
        self._commit()
        await self._walk(self._tables.batches_in(device), self._tables.forget)
        with self._lock:
            return self._tables.set_device(device, place, DW2_ITT.get(dw2), bits, valid)

    async def _mapc(self, _dw0: int, _dw1: int, dw2: int, _dw3: int) -> str | None:
        icid, rdbase, valid = DW2_ICID.get(dw2), self._profile.mapc_rdbase.get(dw2), bool(DW2_VALID.get(dw2))
        if valid and rdbase >= len(self._redistributors):
            return "mapc_procnum_oor"
        tables = self._tables
        place = await tables.collection_place(icid)
        if isinstance(place, str):
            return place if valid or not self._profile.unmap_forgets else None
        self._commit()
        if valid:
            for batch in tables.batches_of(icid):
                await self._configured(batch, rdbase)
                await self._breathe()
        else:
            await self._walk(tables.batches_of(icid), tables.strand)
        with self._lock:
            tables.set_collection(icid, rdbase, place, valid)
        if valid:
            await self._walk(tables.batches_of(icid), lambda batch: tables.retarget(batch, rdbase))
        return None

    # --- events ----------------------------------------------------------------------------------------------------

    async def _mapti(self, dw0: int, dw1: int, dw2: int, _dw3: int) -> str | None:
        return await self._map_event(dw0, dw1, dw2, dw1 >> 32)

    async def _mapi(self, dw0: int, dw1: int, dw2: int, _dw3: int) -> str | None:
        return await self._map_event(dw0, dw1, dw2, dw1 & 0xFFFFFFFF)

    async def _map_event(self, dw0: int, dw1: int, dw2: int, intid: int) -> str | None:
        event, icid = dw1 & 0xFFFFFFFF, dw2 & 0xFFFF
        tables = self._tables
        device = await tables.device(dw0 >> 32)
        if device is None:
            return "mapti_unmapped_device"
        if event >= 1 << device.bits:
            return "mapti_id_oor"
        if not LPI_BASE <= intid < self._control.intid_limit:
            return "mapti_physicalid_oor"
        fault = await tables.event_fault(device, event, icid)
        if fault is not None:
            return fault or None
        if not self._profile.holds_tables:
            with self._lock:
                tables.set_event(device, event, intid, icid, UNMAPPED)
            return None
        vcpu = await tables.vcpu(icid)
        config = None
        if vcpu != UNMAPPED:
            redistributor = self._redistributors[vcpu]
            known = redistributor.find(intid)
            if (known is None or not known.configured) and redistributor.port.enabled:
                config = await self._ahead.config(redistributor, intid)
        with self._lock:
            lpi = tables.set_event(device, event, intid, icid, vcpu).lpi
            if lpi is not None and config is not None:
                self._configure(lpi, config)
        return None

    async def _movi(self, dw0: int, dw1: int, dw2: int, _dw3: int) -> str | None:
        icid = DW2_ICID.get(dw2)
        event = await self._tables.event(DW0_DEVICE.get(dw0), DW1_EVENT.get(dw1))
        if event is None:
            return "movi_unmapped_interrupt"
        old = await self._vcpu(event)
        if old == UNMAPPED:
            return "movi_unmapped_collection"  # whatever is the matter with the other one
        new = await self._tables.vcpu(icid)
        if new == UNMAPPED:
            return "movi_unmapped_collection"
        with self._lock:
            self._tables.move_event(event, icid, new)
            if event.lpi is None and old != new:
                self._move_pending(event.intid, old, new)
        return None

    async def _discard(self, dw0: int, dw1: int, _dw2: int, _dw3: int) -> str | None:
        event = await self._tables.event(DW0_DEVICE.get(dw0), DW1_EVENT.get(dw1))
        if event is None:
            return "discard_unmapped_interrupt"
        vcpu = await self._vcpu_if_known(event)
        if vcpu == UNMAPPED:
            return "discard_unmapped_interrupt"
        with self._lock:
            self._clear_pending(event.intid, vcpu)
            self._tables.erase_event(event)
        return None

    # --- interrupts ------------------------------------------------------------------------------------------------

    async def _int(self, dw0: int, dw1: int, _dw2: int, _dw3: int) -> str | None:
        event = await self._tables.event(dw0 >> 32, dw1 & 0xFFFFFFFF)
        if event is None:
            return "int_unmapped_interrupt"
        lpi = event.lpi
        if lpi is None or not lpi.port.enabled:
            try:
                found = await self.route(event)
            except TableFaultError:
                return "int_unmapped_interrupt"
            if isinstance(found, str):
                return f"int_{found}"
            lpi = found
        with self._lock:
            self._delivery.set_pending(lpi)
        return None

    async def route(self, event: Event) -> Lpi | str:
        """The LPI that ``event`` makes pending now, with its configuration; or why it makes none:
        ``unmapped_interrupt`` (its collection is not mapped), ``lpis_off`` (at its target, or beyond IDbits there)."""
        vcpu = await self._vcpu(event)
        if vcpu == UNMAPPED:
            return "unmapped_interrupt"
        redistributor = self._redistributors[vcpu]
        if not redistributor.takes(event.intid):
            return "lpis_off"
        if event.lpi is not None:
            return event.lpi
        config = await redistributor.read_config(event.intid)
        with self._lock:
            lpi = redistributor.lpi(event.intid)
            if config is not None:
                configure(lpi, config)
        return lpi

    async def _clear(self, dw0: int, dw1: int, _dw2: int, _dw3: int) -> str | None:
        event = await self._tables.event(DW0_DEVICE.get(dw0), DW1_EVENT.get(dw1))
        if event is None:
            return "clear_unmapped_interrupt"
        vcpu = await self._vcpu_if_known(event)
        if vcpu == UNMAPPED:
            return "clear_unmapped_interrupt"
        with self._lock:
            self._clear_pending(event.intid, vcpu)
        return None

    async def _inv(self, dw0: int, dw1: int, _dw2: int, _dw3: int) -> str | None:
        event = await self._tables.event(DW0_DEVICE.get(dw0), DW1_EVENT.get(dw1))
        if event is None:
            return "inv_unmapped_interrupt"
        vcpu = await self._vcpu(event)
        if vcpu == UNMAPPED or not self._redistributors[vcpu].port.enabled:
            return None  # read when it is mapped, or LPIs are enabled
        redistributor = self._redistributors[vcpu]
        if redistributor.find(event.intid) is None:
            return None  # read when it becomes pending
        config = await self._ahead.config(redistributor, event.intid)
        lpi = redistributor.find(event.intid)
        if config is not None and lpi is not None:
            with self._lock:
                self._configure(lpi, config)
        return None

    async def _invall(self, _dw0: int, _dw1: int, dw2: int, _dw3: int) -> str | None:
        if self._profile.invall_rescans_all:
            for redistributor in self._redistributors:
                await redistributor.refresh_all()
            return None
        vcpu = await self._tables.vcpu(DW2_ICID.get(dw2))
        if vcpu == UNMAPPED:
            return "invall_unmapped_collection"
        await self._redistributors[vcpu].refresh_all()
        return None

    async def _movall(self, _dw0: int, _dw1: int, dw2: int, dw3: int) -> str | None:
        source, target = self._profile.movall_rdbase.get(dw2), self._profile.movall_rdbase.get(dw3)
        cpus = len(self._redistributors)
        if source >= cpus or target >= cpus:
            return "movall_procnum_oor"
        if source != target:
            self._commit()
            for intid in list(self._delivery.resting[source]):
                with self._lock:
                    self._move_pending(intid, source, target)
                self._control.work += 1
                await self._breathe()
        return None

    async def _sync(self, _dw0: int, _dw1: int, _dw2: int, _dw3: int) -> str | None:
        return None  # every command has taken effect when the next one starts

    # --- what they share -------------------------------------------------------------------------------------------

    async def _vcpu(self, event: Event) -> int:
        """The PE that ``event`` leads to, UNMAPPED while its collection is not mapped."""
        return event.lpi.port.vcpu if event.lpi is not None else await self._tables.vcpu(event.icid)

    async def _vcpu_if_known(self, event: Event) -> int:
        """The same for CLEAR and DISCARD: a collection whose entry can not be read is as one that is not mapped."""
        try:
            return await self._vcpu(event)
        except TableFaultError:
            return UNMAPPED

    async def _configured(self, batch: list[Event], vcpu: int) -> None:
        """Events that led nowhere lead to ``vcpu`` soon: the configuration that is not known yet is read."""
        redistributor = self._redistributors[vcpu]
        if not redistributor.port.enabled:
            return
        for event in batch:
            if event.lpi is None:
                known = redistributor.find(event.intid)
                if known is None or not known.configured:
                    config = await self._ahead.config(redistributor, event.intid)
                    if config is not None:
                        configure(redistributor.lpi(event.intid), config)

    def _configure(self, lpi: Lpi, config: int) -> None:
        configure(lpi, config)
        if lpi.pending:
            self._delivery.offer(lpi)

    def _move_pending(self, intid: int, source: int, target: int) -> None:
        """Where ``target`` can not have it, because LPIs are off there or it is beyond IDbits, it stays."""
        lpi = self._redistributors[source].find(intid)
        if lpi is not None and lpi.pending and self._redistributors[target].takes(intid):
            self._delivery.move(lpi, self._redistributors[target].lpi(intid))
            self._redistributors[source].forget_idle(lpi)

    def _clear_pending(self, intid: int, vcpu: int) -> None:
        lpi = self._redistributors[vcpu].find(intid)
        if lpi is not None:
            self._delivery.clear(lpi)
            self._redistributors[vcpu].forget_idle(lpi)

    def store_pending(self) -> None:
        """Bring the pending tables up to date with what commands made pending; posted, not committed.

        The caller holds the spinlock.
        """
        dirty = self.dirty
        changed: dict[tuple[int, int], list[Lpi]] = {}
        while len(dirty):
            lpi = dirty.popleft()
            vcpu = lpi.port.vcpu
            if self._redistributors[vcpu].marks(lpi):
                changed.setdefault((vcpu, lpi.intid >> 3), []).append(lpi)
            else:
                self._redistributors[vcpu].forget_idle(lpi)
        for (vcpu, index), lpis in changed.items():
            self._redistributors[vcpu].store(index)
            for lpi in lpis:
                self._redistributors[vcpu].forget_idle(lpi)
