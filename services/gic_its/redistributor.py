"""The LPI part of one redistributor: its registers, configuration and pending tables, and its LPIs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

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
    PENDBASER_ADDR,
    PENDBASER_PTZ,
    PROPBASER_ADDR,
    PROPBASER_ID_BITS,
    WAKER_CHILDREN_ASLEEP,
    WAKER_PROCESSOR_SLEEP,
)
from common.registers import RegisterFile
from common.world import Table, World
from services.gic_its.delivery import Delivery
from services.gic_its.dma import Dma
from services.gic_its.profile import Profile
from services.gic_its.regmap import redistributor_frame, redistributor_resets
from services.gic_its.state import NONE, Event, Lpi, RedistState
from services.gic_its.stats import ItsStats

#: LPIs that are configured and offered before others get their turn at a DMA read.
BATCH: Final = 512
#: LPIs that the pending tables of a guest's PEs may have pending together, as many as there are INTIDs; then no more
#: of a table is read. (KVM has one LPI of a number in all of a VM.)
MAX_PENDING: Final = LPI_LIMIT
#: Bytes of the pending table that are read at a time.
STEP: Final = 512
#: Bytes of a pending table before the bits of the first LPI.
PENDING_SKIP: Final = LPI_BASE // 8


class Redistributor:
    """Redistributor ``vcpu`` of ``cpus``: what GICR_PROPBASER, PENDBASER and CTLR.EnableLPIs stand for.

    Whoever calls what changes LPIs holds the ITS's spinlock, unless it says otherwise.
    """

    __slots__ = (
        "_delivery",
        "_dma",
        "_lpis",
        "_profile",
        "_propbaser",
        "_stats",
        "_world",
        "mutex",
        "port",
        "registers",
    )

    _world: Final[World]
    _dma: Final[Dma]
    _delivery: Final[Delivery]
    _stats: Final[ItsStats]
    _profile: Final[Profile]
    port: Final[RedistState]
    _lpis: Final[Table[Lpi]]
    #: Held by whoever switches EnableLPIs until it has taken effect.
    mutex: Final[AbstractAsyncContextManager[Any]]
    registers: Final[RegisterFile]
    _propbaser: Final[int]

    def __init__(
        self,
        world: World,
        dma: Dma,
        delivery: Delivery,
        stats: ItsStats,
        profile: Profile,
        vcpu: int,
        cpus: int,
    ) -> None:
        self._world = world
        self._dma = dma
        self._delivery = delivery
        self._stats = stats
        self._profile = profile
        self.port = world.new(RedistState, vcpu)
        self._lpis = world.table()
        self.mutex = world.mutex()
        self.registers = RegisterFile(
            world, redistributor_frame(profile), self, redistributor_resets(profile, vcpu, cpus)
        )
        self._propbaser = self.registers.map.index("GICR_PROPBASER")

    # --- registers -----------------------------------------------------------------------------------------------

    def write_ctlr(self, old: int, new: int) -> int:
        if old & ~new & GICR_CTLR_ENABLE_LPIS:
            self._disable()  # at once; enabling takes effect in settle()
        return new

    def write_table_base(self, old: int, new: int) -> int | None:
        fixed = self.registers.get("GICR_CTLR") & GICR_CTLR_ENABLE_LPIS and not self._profile.loose_redistributor
        return None if fixed else new

    def read_pendbaser(self) -> int:
        return self.registers.get("GICR_PENDBASER") & ~PENDBASER_PTZ

    def write_waker(self, old: int, new: int) -> int:
        """ChildrenAsleep follows ProcessorSleep at once."""
        return WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP if new & WAKER_PROCESSOR_SLEEP else 0

    def _disable(self) -> None:
        """EnableLPIs took 0: the pending state goes back into the table (§6.2), and nothing is pending here."""
        if not self.port.enabled:
            return
        self.write_pending()
        self.port.enabled = False
        resting = self._delivery.resting[self.port.vcpu]
        for lpi in self:
            lpi.stored = False  # the table is software's from here on
        for intid in list(resting):
            lpi = resting[intid]
            self._delivery.drop(lpi)
            self.forget_idle(lpi)
        self._dma.commit()

    async def settle(self, zeroed: bool | None = None) -> None:
        """EnableLPIs took 1: read the pending table (unless PTZ, where the profile obeys it), then the configuration,
        then deliver.

        ``zeroed`` takes the place of PTZ where a VMM restores the register.
        """
        if self.port.enabled or not self.registers.get("GICR_CTLR") & GICR_CTLR_ENABLE_LPIS:
            return
        self.port.enabled = True
        pendbaser = self.registers.get("GICR_PENDBASER")
        size = pending_table_size(self.id_bits)
        if zeroed is None:
            zeroed = self._profile.enable_obeys_ptz and bool(pendbaser & PENDBASER_PTZ)
        if not zeroed and size > PENDING_SKIP:
            await self._read_pending(PENDBASER_ADDR.get(pendbaser), PENDING_SKIP, size)
        await self.refresh_all()

    async def _read_pending(self, base: int, start: int, end: int) -> None:
        """The pending table's bytes ``start`` to ``end``; after a fault no more of it."""
        for at in range(start, end, STEP):
            try:
                table = await self._dma.read(base + at, min(STEP, end - at))
            except MemoryFaultError:
                self._stats.pending_faults += 1
                return
            if sum(map(len, self._delivery.resting)) >= MAX_PENDING:
                self._stats.pending_limit += 1
                return
            for intid in pending_intids(table, at * 8):
                lpi = self.lpi(intid)
                lpi.stored = True
                self._delivery.set_pending(lpi)

    def write_pending(self) -> None:
        """The pending table as it should be (KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES); posted, not committed.

        An LPI that the vCPU holds and has not ended is pending again: who restores this may never see its EOI.
        """
        size = pending_table_size(self.id_bits)
        if not self.port.enabled or size <= PENDING_SKIP:
            return
        table = bytearray(size - PENDING_SKIP)
        for lpi in self:
            lpi.stored = lpi.pending or lpi.out != NONE
            at = lpi.intid // 8 - PENDING_SKIP
            if lpi.stored and at < len(table):
                table[at] |= 1 << lpi.intid % 8
        self._dma.write(self._pending + PENDING_SKIP, bytes(table))

    def marks(self, lpi: Lpi) -> bool:
        """Note whether the LPI's bit of the pending table is to be set: for what no device would raise again, or for
        all that is pending. True if the table has to be written."""
        want = lpi.pending and (lpi.uncounted or self._delivery.mirrors) and self.takes(lpi.intid)
        changed = want != lpi.stored
        lpi.stored = want
        return changed

    def store(self, index: int) -> None:
        """Write byte ``index`` of the pending table as it was noted."""
        byte = 0
        for bit in range(8):
            lpi = self._lpis.get(index * 8 + bit)
            if lpi is not None and lpi.stored:
                byte |= 1 << bit
        self._dma.write(self._pending + index, bytes([byte]))

    @property
    def id_bits(self) -> int:
        """INTID bits that GICR_PROPBASER allows, at most 16."""
        return min((self.registers.values[self._propbaser] & PROPBASER_ID_BITS.mask) + 1, LPI_ID_BITS)

    @property
    def config_table(self) -> int:
        """Guest address of LPI 8192's configuration byte."""
        return PROPBASER_ADDR.get(self.registers.values[self._propbaser])

    @property
    def _pending(self) -> int:
        return PENDBASER_ADDR.get(self.registers.get("GICR_PENDBASER"))

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

    def takes(self, intid: int) -> bool:
        """Whether INTs and MSIs of ``intid`` have an effect here: LPIs are enabled, and it is one within IDbits."""
        return self.port.enabled and LPI_BASE <= intid < 1 << self.id_bits

    def attach(self, event: Event) -> Lpi:
        """``event`` leads here from now on."""
        lpi = self.lpi(event.intid)
        lpi.events += 1
        event.lpi = lpi
        return lpi

    def detach(self, event: Event) -> None:
        """``event`` leads nowhere."""
        lpi = event.lpi
        if lpi is not None:
            lpi.events -= 1
            event.lpi = None
            self.forget_idle(lpi)

    def forget_idle(self, lpi: Lpi) -> None:
        """Drop the state of an LPI that nothing leads to and nothing waits for, so that a guest cannot pile it up."""
        busy = lpi.events or lpi.pending or lpi.out != NONE or lpi.stored
        if not busy and self._lpis.get(lpi.intid) is lpi:
            self._lpis.pop(lpi.intid)

    # --- configuration -------------------------------------------------------------------------------------------

    async def read_config(self, intid: int) -> int | None:
        """The configuration byte; None where it cannot be read, which is counted."""
        try:
            data = await self._dma.read(self.config_table + intid - LPI_BASE, 1)
        except MemoryFaultError:
            self._stats.config_faults += 1
            return None
        return data[0]

    async def refresh_all(self) -> None:
        """Read the configuration of every LPI here again (INVALL), in one DMA read for each BATCH of them.

        A batch is offered before the next is read: priorities count within it only. The caller holds no lock.
        """
        if not self.port.enabled:
            return  # read when LPIs are enabled
        for first, last in self._spans():
            try:
                data = await self._dma.read(self.config_table + first - LPI_BASE, last - first + 1)
            except MemoryFaultError:
                self._stats.config_faults += 1
                continue
            # some may have been unmapped during the read; those that came meanwhile were configured on their way in
            lpis = [lpi for lpi in map(self._lpis.get, range(first, last + 1)) if lpi is not None]
            self._delivery.walked(len(lpis))
            for lpi in lpis:
                configure(lpi, data[lpi.intid - first])
            self._delivery.offer_all(lpi for lpi in lpis if lpi.pending)

    def _spans(self) -> list[tuple[int, int]]:
        """Ranges of INTIDs, first and last, at most BATCH long, that hold all LPIs known here."""
        limit = min(LPI_BASE + config_table_size(self.id_bits), LPI_LIMIT)
        spans: list[tuple[int, int]] = []
        for group in sorted({(intid - LPI_BASE) // BATCH for intid in self._lpis}):
            first = LPI_BASE + group * BATCH
            if first < limit:
                spans.append((first, min(first + BATCH, limit) - 1))
        return spans

    def reset(self) -> None:
        """Out of reset: nothing known, nothing enabled, nothing pending. Detached LPIs are left inert."""
        for lpi in self:
            lpi.pending = lpi.uncounted = lpi.enabled = lpi.stored = False
            lpi.out = NONE
            lpi.covers = ()
            lpi.raised = ()
            self._lpis.pop(lpi.intid)
        self.port.enabled = False
        self.registers.reset()


def configure(lpi: Lpi, byte: int) -> None:
    """Cache an LPI's configuration byte (§5.1.1)."""
    lpi.enabled = bool(byte & CONFIG_ENABLE)
    lpi.priority = byte & CONFIG_PRIORITY
    lpi.configured = True


def intid_limit(redistributors: tuple[Redistributor, ...]) -> int:
    """One past the largest INTID of the guest's configuration tables: 2^(PROPBASER.IDbits + 1), 16 bits at most."""
    return min(max(1 << redistributor.id_bits for redistributor in redistributors), LPI_LIMIT)
