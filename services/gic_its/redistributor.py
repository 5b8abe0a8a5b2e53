"""The LPI part of one redistributor: its registers, configuration and pending tables, and its LPIs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from common.errors import MemoryFaultError
from common.gic.lpi import (
    CONFIG_ENABLE,
    CONFIG_PRIORITY,
    LPI_BASE,
    LPI_ID_BITS,
    LPI_LIMIT,
    config_table_size,
    pending_intids,
    pending_table_size,
)
from common.gic.registers import (
    GICR_CTLR_ENABLE_LPIS,
    GICR_TYPER_AFFINITY,
    GICR_TYPER_LAST,
    GICR_TYPER_NUMBER,
    GICR_TYPER_PLPIS,
    PENDBASER_ADDR,
    PENDBASER_PTZ,
    PROPBASER_ADDR,
    PROPBASER_ID_BITS,
)
from common.registers import Register, RegisterFile
from common.world import Table, World
from services.gic_its.delivery import Delivery
from services.gic_its.dma import Dma
from services.gic_its.regmap import REDISTRIBUTOR_FRAME
from services.gic_its.state import NONE, Event, Lpi, RedistState
from services.gic_its.stats import ItsStats

#: LPIs that are taken from the pending table, or configured and offered, before others get their turn at a DMA read.
BATCH: Final = 4096


class Redistributor:
    """Redistributor ``vcpu`` of ``cpus``: what GICR_PROPBASER, PENDBASER and CTLR.EnableLPIs stand for."""

    __slots__ = ("_delivery", "_dma", "_lpis", "_stats", "_world", "mutex", "port", "registers")

    def __init__(
        self, world: World, dma: Dma, delivery: Delivery, stats: ItsStats, vcpu: int, cpus: int, iidr: int
    ) -> None:
        self._world: Final = world
        self._dma: Final = dma
        self._delivery: Final = delivery
        self._stats: Final = stats
        self.port: Final = world.new(RedistState, vcpu)
        self._lpis: Final[Table[Lpi]] = world.table()
        #: Held by whoever switches EnableLPIs until it has taken effect.
        self.mutex: Final = world.mutex()
        affinity = vcpu % 16 | vcpu // 16 << 8  # KVM: sixteen PEs a cluster
        typer = GICR_TYPER_PLPIS | GICR_TYPER_NUMBER.put(vcpu) | GICR_TYPER_AFFINITY.put(affinity)
        if vcpu == cpus - 1:
            typer |= GICR_TYPER_LAST
        self.registers: Final = RegisterFile(world, REDISTRIBUTOR_FRAME, self, {"GICR_TYPER": typer, "GICR_IIDR": iidr})

    # --- registers -----------------------------------------------------------------------------------------------

    def write_ctlr(self, old: int, new: int) -> int:
        if not new & GICR_CTLR_ENABLE_LPIS:
            self.port.enabled = False  # at once; enabling takes effect in settle()
        return new

    def write_table_base(self, old: int, new: int) -> int | None:
        return None if self.registers.get("GICR_CTLR") & GICR_CTLR_ENABLE_LPIS else new

    def read_pendbaser(self) -> int:
        return self.registers.get("GICR_PENDBASER") & ~PENDBASER_PTZ

    async def settle(self, row: Register) -> None:
        """EnableLPIs took 1: read the pending table unless PTZ, then the configuration, then deliver."""
        if self.port.enabled or not self.registers.get("GICR_CTLR") & GICR_CTLR_ENABLE_LPIS:
            return
        self.port.enabled = True
        pendbaser = self.registers.get("GICR_PENDBASER")
        size = pending_table_size(self.id_bits)
        skip = pending_table_size(LPI_BASE.bit_length() - 1)
        if not pendbaser & PENDBASER_PTZ and size > skip:
            await self._read_pending(PENDBASER_ADDR.get(pendbaser), skip, size)
        await self.refresh_all()

    async def _read_pending(self, base: int, start: int, end: int) -> None:
        """The pending table's bytes ``start`` to ``end``; after a fault no more of it."""
        step = BATCH // 8
        for at in range(start, end, step):
            try:
                table = await self._dma.read(base + at, min(step, end - at))
            except MemoryFaultError:
                self._stats.pending_faults += 1
                return
            for intid in pending_intids(table, at * 8):
                self.lpi(intid).pending = True

    @property
    def id_bits(self) -> int:
        """INTID bits that GICR_PROPBASER allows, at most 16."""
        return min(PROPBASER_ID_BITS.get(self.registers.get("GICR_PROPBASER")) + 1, LPI_ID_BITS)

    # --- LPIs ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Lpi]:
        """In the order of their INTIDs."""
        return (self._lpis[intid] for intid in sorted(self._lpis))

    def find(self, intid: int) -> Lpi | None:
        return self._lpis.get(intid)

    def lpi(self, intid: int) -> Lpi:
        """The LPI's state here, made if it is new. ``intid`` is in LPI_BASE … LPI_LIMIT - 1."""
        lpi = self._lpis.get(intid)
        if lpi is None:
            lpi = self._world.new(Lpi, self.port, intid)
            self._lpis[intid] = lpi
        return lpi

    def attach(self, event: Event) -> Lpi:
        """``event`` leads here from now on."""
        lpi = self.lpi(event.intid)
        lpi.events = (*lpi.events, event)
        event.lpi = lpi
        return lpi

    def detach(self, event: Event) -> Lpi | None:
        """``event`` leads nowhere. Returns the LPI that it led to, which may be gone from here."""
        lpi = event.lpi
        if lpi is not None:
            at = lpi.events.index(event)
            lpi.events = lpi.events[:at] + lpi.events[at + 1 :]
            event.lpi = None
        return lpi

    def forget_idle(self, lpi: Lpi) -> None:
        """Drop the state of an LPI that nothing leads to and nothing waits for, so that a guest cannot pile it up."""
        if not lpi.events and not lpi.pending and lpi.out == NONE and self._lpis.get(lpi.intid) is lpi:
            self._lpis.pop(lpi.intid)

    async def refresh(self, lpi: Lpi) -> None:
        """Read the LPI's configuration byte again (INV); a fault leaves it as it was."""
        if not self.port.enabled:
            return  # read when LPIs are enabled
        try:
            data = await self._dma.read(self._config + lpi.intid - LPI_BASE, 1)
        except MemoryFaultError:
            self._stats.config_faults += 1
            return
        _configure(lpi, data[0])
        self._delivery.offer(lpi)

    async def refresh_all(self) -> None:
        """Read the configuration of every LPI here again (INVALL), in one DMA read for each BATCH of them.

        A batch is offered before the next is read: priorities count within it only.
        """
        if not self.port.enabled:
            return  # read when LPIs are enabled
        limit = LPI_BASE + config_table_size(self.id_bits)
        known = [intid for intid in sorted(self._lpis) if intid < limit]
        for at in range(0, len(known), BATCH):
            batch = known[at : at + BATCH]
            first = batch[0]
            try:
                data = await self._dma.read(self._config + first - LPI_BASE, batch[-1] - first + 1)
            except MemoryFaultError:
                self._stats.config_faults += 1
                return
            # some may have been unmapped during the read; those that came meanwhile were configured on their way in
            lpis = [lpi for lpi in map(self._lpis.get, batch) if lpi is not None]
            for lpi in lpis:
                _configure(lpi, data[lpi.intid - first])
            self._delivery.offer_all(lpis)

    async def take(self, lpi: Lpi) -> None:
        """``lpi``, of another redistributor, was pending: it is pending here instead (MOVI, MOVALL, MAPC)."""
        lpi.pending = False
        here = self.lpi(lpi.intid)
        if not here.configured:
            await self.refresh(here)
        self._delivery.set_pending(here)

    def reset(self) -> None:
        """Out of reset: nothing known, nothing enabled, nothing pending. Detached LPIs are left inert."""
        for lpi in self:
            lpi.pending = lpi.enabled = False
            lpi.out = NONE
            lpi.covers = lpi.events = ()
            self._lpis.pop(lpi.intid)
        self.port.enabled = False
        self.registers.reset()

    @property
    def _config(self) -> int:
        return PROPBASER_ADDR.get(self.registers.get("GICR_PROPBASER"))


def _configure(lpi: Lpi, byte: int) -> None:
    lpi.enabled = bool(byte & CONFIG_ENABLE)
    lpi.priority = byte & CONFIG_PRIORITY
    lpi.configured = True


def intid_limit(redistributors: tuple[Redistributor, ...]) -> int:
    """One past the largest INTID of the guest's configuration tables: 2^(PROPBASER.IDbits + 1), 16 bits at most."""
    return min(max(1 << redistributor.id_bits for redistributor in redistributors), LPI_LIMIT)
