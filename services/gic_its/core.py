"""The ITS of one guest: frames, MMIO, translation of MSIs, interrupts (IHI 0069 chapter 5).

One :class:`Its` stands over one guest's memory. The order of things that overlap:

* Commands are run by one runner (:mod:`services.gic_its.queue`), and so are writes to CTLR, CBASER, CWRITER and BASERs.
* MSIs, EOIs and changes that commands make hold the ITS's spinlock, and are never in each other's middle. Where the ITS
  looks its tables up in guest memory, an MSI holds the tables' mutex over its looks, and so does a slice of commands.
* A reset waits for nobody: it changes ``control.generation``, and what is under way ends at its next read
  (:class:`services.gic_its.dma.GuardedDma`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import MappingProxyType
from typing import Any, ClassVar, Final

from common.errors import FrameError
from common.gic.commands import COMMAND_SIZE
from common.gic.registers import (
    BASER_VALID,
    CBASER_VALID,
    CTLR_ENABLED,
    CTLR_QUIESCENT,
    FRAME,
    GICD_CTLR_DS,
    QUEUE_OFFSET,
    baser_moved,
)
from common.registers import RegisterFile
from common.virtio.depth import Depth
from common.world import Table, World
from services.gic_its.baser import TableAt
from services.gic_its.commands import Commands
from services.gic_its.delivery import Deliver, Delivery, Done, order
from services.gic_its.distributor import Distributor
from services.gic_its.dma import Dma, GuardedDma, SupersededError
from services.gic_its.guest_tables import GuestTables
from services.gic_its.held_tables import HeldTables, Limits
from services.gic_its.profile import KVM, Profile
from services.gic_its.queue import CommandQueue
from services.gic_its.redistributor import Redistributor
from services.gic_its.regmap import TRANSLATION_FRAME, its_frame, resets
from services.gic_its.state import PURGE_COLLECTIONS, PURGE_DEVICES, Control, Event
from services.gic_its.stats import CommandStats, ErrorStats, ItsStats
from services.gic_its.tables import TableFaultError, Tables
from services.gic_its.write_through import WriteThrough

#: In the place of a DeviceID: the MSIs of CPUs.
CPU: Final = -1
#: INTID of "nothing is pending" (IHI 0069 §2.2.1).
SPURIOUS: Final = 1023


class Its:
    """ITS, LPI redistributors and the distributor's part in them, of one guest with ``cpus`` vCPUs.

    ``deliver(vcpu, intid, number)`` hands an LPI to the guest; :meth:`eoi` answers it. ``done(device, event, number)``
    confirms an event's MSIs up to ``number``. Neither may call back into the Its.
    """

    __slots__ = (
        "_delivery", "_events", "_files", "_lock", "_world", "commands", "control", "depth",
        "distributor", "dma", "errors", "profile", "queue", "redistributors", "registers", "runs", "stats", "tables",
        "tables_mutex",
    )  # fmt: skip

    #: What runs the commands; the lab tries other ones.
    queue_class: ClassVar[type[CommandQueue]] = CommandQueue

    _world: Final[World]
    profile: Final[Profile]
    stats: Final[ItsStats]
    #: Commands executed and errors, by name.
    commands: Final[CommandStats]
    errors: Final[ErrorStats]
    control: Final[Control]
    _lock: Final[AbstractContextManager[Any]]
    #: Held by whoever looks at tables and changes them: a slice of commands, an MSI that looks, a VMM.
    tables_mutex: Final[AbstractAsyncContextManager[Any]]
    #: Commands in the queue, as CWRITER and CREADR left them.
    depth: Final[Depth]
    dma: Final[GuardedDma]
    _delivery: Final[Delivery]
    distributor: Final[Distributor]
    redistributors: Final[tuple[Redistributor, ...]]
    registers: Final[RegisterFile]
    tables: Final[Tables]
    #: What an MSI need not wait for: the events that the ITS holds.
    _events: Final[Table[Event]]
    runs: Final[Commands]
    queue: Final[CommandQueue]
    _files: Final[Mapping[str, RegisterFile]]

    def __init__(
        self,
        world: World,
        dma: Dma,
        *,
        cpus: int,
        deliver: Deliver,
        done: Done,
        profile: Profile = KVM,
        limits: Limits | None = None,
    ) -> None:
        self._world = world
        self.profile = profile
        self.stats = world.new(ItsStats)
        self.commands = world.new(CommandStats)
        self.errors = world.new(ErrorStats)
        self.control = world.new(Control)
        self._lock = world.spinlock()
        self.tables_mutex = world.mutex()
        self.depth = world.new(Depth)
        self.dma = GuardedDma(dma, self.control)
        self._delivery = Delivery(
            world, self.control, self.stats, deliver, done, cpus, mirrors=not profile.holds_tables
        )
        self.distributor = Distributor(world, profile, self._forward)
        self.redistributors = tuple(
            Redistributor(world, self.dma, self._delivery, self.stats, profile, vcpu, cpus) for vcpu in range(cpus)
        )
        self.registers = RegisterFile(world, its_frame(profile), self, resets(profile))
        self.tables = self._make_tables(world, limits or Limits())
        self._events = self.tables.events if isinstance(self.tables, HeldTables) else world.table()
        self.runs = Commands(
            world, profile=profile, control=self.control, delivery=self._delivery, dma=self.dma, tables=self.tables,
            redistributors=self.redistributors, lock=self._lock,
        )  # fmt: skip
        self.queue = self.queue_class(
            world, profile=profile, control=self.control, registers=self.registers, dma=self.dma, commands=self.runs,
            stats=self.commands, errors=self.errors, lock=self._lock, tables_mutex=self.tables_mutex,
        )  # fmt: skip
        self._files = MappingProxyType({
            "its": self.registers,
            "trans": RegisterFile(world, TRANSLATION_FRAME, self),
            "gicd": self.distributor.registers,
            **{f"gicr{rd.port.vcpu}": rd.registers for rd in self.redistributors},
        })  # fmt: skip

    def _make_tables(self, world: World, limits: Limits) -> Tables:
        profile, registers = self.profile, self.registers
        devices = TableAt(self.dma, registers, 0, 1 << profile.device_bits)
        collections = TableAt(self.dma, registers, 1, 1 << profile.icid_bits)
        if not profile.holds_tables:
            return GuestTables(world, self.dma, devices, collections, len(self.redistributors))
        written = WriteThrough(self.dma, self.control, world.table(), world.table(), collections)
        return HeldTables(
            world, profile=profile, control=self.control, delivery=self._delivery, device_table=devices,
            collection_table=collections, written=written, redistributors=self.redistributors, limits=limits,
        )  # fmt: skip

    # --- MMIO ----------------------------------------------------------------------------------------------------

    def read(self, frame: str, offset: int, size: int) -> int:
        """Read ``size`` bytes; no read waits. Raises FrameError for a frame that does not exist, an offset outside."""
        return self.file(frame, offset, size).read(offset, size)

    def post(self, frame: str, offset: int, size: int, value: int, done: Callable[[], None]) -> None:
        """Write ``size`` bytes; ``done()`` when the write has taken effect, its batch of commands included: perhaps
        before this returns. Raises FrameError like :meth:`read`.
        """
        registers = self.file(frame, offset, size)
        row = registers.map.find(offset, size)
        if row is None or not row.waits:
            if row is not None and row.name == "GITS_TRANSLATER":
                self._cpu_msi(value & (1 << size * 8) - 1, done)
                return
            with self._lock:
                registers.write(offset, size, value)
            done()
        elif registers is self.registers:
            self.queue.post(offset, size, value, done)
            self.depth.seen(self.queued)
        else:
            self._world.spawn(
                f"{frame} write", self._settle(int(frame[4:]), offset, size, value, done, self.control.generation)
            )

    async def mmio_write(self, frame: str, offset: int, size: int, value: int) -> None:
        """:meth:`post`, and wait until it is done."""
        written = self._world.event()
        self.post(frame, offset, size, value, written.set)
        await written.wait()

    async def drain(self) -> None:
        """Wait until the command queue is at rest."""
        rests = self._world.event()
        self.queue.when_at_rest(rests.set)
        await rests.wait()

    async def _settle(
        self, vcpu: int, offset: int, size: int, value: int, done: Callable[[], None], generation: int
    ) -> None:
        """A write to GICR_CTLR: enabling LPIs reads tables, disabling them writes one; never within a command."""
        redistributor = self.redistributors[vcpu]
        async with redistributor.mutex, self.tables_mutex:
            if self.control.generation == generation:
                with self._lock:
                    redistributor.registers.write(offset, size, value)
                try:
                    await redistributor.settle()
                except SupersededError:
                    pass
        done()

    def file(self, frame: str, offset: int, size: int) -> RegisterFile:
        """The register file that an access reaches. Raises FrameError naming what is wrong with the access."""
        found = self._files.get(frame)
        if found is None:
            raise FrameError("mmio.frame", frame[:32], "its, trans, gicd, gicr0 …")
        if size not in (1, 2, 4, 8):
            raise FrameError("mmio.size", size, 8)
        if not 0 <= offset <= FRAME - size:
            raise FrameError("mmio.offset", offset, FRAME - size)
        return found

    # --- MSIs ----------------------------------------------------------------------------------------------------

    def try_msi(self, device: int, event: int, number: int) -> bool:
        """MSI ``number`` of an event that the ITS holds: taken, True. False: ask :meth:`msi`."""
        with self._lock:
            found = self._events.get(device << 32 | event)
            if found is None or not self.control.enabled:
                return False
            lpi = found.lpi
            if lpi is None or not lpi.port.enabled:
                return False
            source = found.source
            if source is None:
                source = found.source = self._delivery.source(device, event)
            self._delivery.msi(source, lpi, number)
            return True

    async def msi(self, device: int, event: int, number: int) -> str:
        """MSI ``number`` of ``event``. Returns "" if it was taken, otherwise why it was dropped: ``disabled`` (the
        ITS), ``unmapped`` (device, event or collection), ``lpis_off`` (at the target), ``fault`` (in a table). A
        dropped one is not confirmed; the device sends it again."""
        return "" if self.try_msi(device, event, number) else await self._look_up_msi(device, event, number)

    async def _look_up_msi(self, device: int, event: int, number: int | None) -> str:
        """:meth:`msi` by the tables. Without a number it is a CPU's, which has an account of its own."""
        stats = self.stats
        if not self.control.enabled:
            stats.disabled += 1
            return "disabled"
        try:
            async with self.tables_mutex:
                found = await self.tables.event(device, event)
                lpi = "unmapped_interrupt" if found is None else await self.runs.route(found)
                if not isinstance(lpi, str):
                    with self._lock:
                        source = self._delivery.source(CPU if number is None else device, event)
                        self._delivery.msi(source, lpi, source.number + 1 if number is None else number)
                        self._store_pending()
                    return ""
        except TableFaultError:
            stats.unreadable_msis += 1
            return "fault"
        except SupersededError:
            stats.disabled += 1
            return "disabled"
        if lpi == "lpis_off":
            stats.lpis_off += 1
            return lpi
        stats.unmapped += 1
        return "unmapped"

    def _cpu_msi(self, event: int, done: Callable[[], None]) -> None:
        """A CPU wrote GITS_TRANSLATER: it has no DeviceID."""
        device = self.profile.cpu_device
        if device is None:
            self.stats.unmapped += 1
            done()
        else:
            self._world.spawn("translater", self._cpu_msi_as(device, event, done))

    async def _cpu_msi_as(self, device: int, event: int, done: Callable[[], None]) -> None:
        await self._look_up_msi(device, event, None)
        done()

    # --- vCPUs ---------------------------------------------------------------------------------------------------

    def eoi(self, vcpu: int, intid: int, number: int) -> None:
        """The vCPU took and ended ``intid``, delivered under ``number``. One that was not delivered is counted."""
        if 0 <= vcpu < len(self.redistributors):
            redistributor = self.redistributors[vcpu]
            lpi = redistributor.find(intid)
            if lpi is not None:
                with self._lock:
                    self._delivery.eoi(lpi, number)
                    redistributor.forget_idle(lpi)
                    self._store_pending()
                return
        self.stats.stray_eois += 1

    def _store_pending(self) -> None:
        """What was raised by command and has been delivered since is not pending in guest memory either. While a
        command is half done it does this at its end. The caller holds the spinlock."""
        if len(self._delivery.dirty) and not (self.control.in_slice or self.control.in_walk):
            self.runs.store_pending()
            self.dma.commit()

    def pending(self, vcpu: int) -> list[int]:
        """INTIDs that are pending at ``vcpu`` and not yet handed to it, in ascending order."""
        return sorted(self._delivery.resting[vcpu])

    def acknowledge(self, vcpu: int) -> tuple[int, int]:
        """A read of ICC_IAR1_EL1 where vCPUs are held: the LPI of the highest priority, then the lowest INTID, and the
        number for its :meth:`eoi`; (SPURIOUS, 0) if none can be taken."""
        redistributor = self.redistributors[vcpu]
        if not (redistributor.port.enabled and self.distributor.forwards):
            return SPURIOUS, 0
        resting = self._delivery.resting[vcpu]
        ready = [lpi for lpi in (resting[intid] for intid in resting) if lpi.enabled]
        if not ready:
            return SPURIOUS, 0
        with self._lock:
            first = min(ready, key=order)
            return first.intid, self._delivery.take(first)

    def hold(self) -> None:
        """The vCPUs cannot take interrupts (they are stopped): raise LPIs, but deliver none."""
        self.control.held = True

    def resume(self) -> None:
        """The vCPUs are back: deliver what came meanwhile."""
        with self._lock:
            self.control.held = False
            self._offer_all()

    def _forward(self) -> None:
        """GICD_CTLR.EnableGrp1 has changed."""
        self.control.forwards = self.distributor.forwards
        if self.control.forwards:
            self._offer_all()

    def _offer_all(self) -> None:
        for resting in self._delivery.resting:
            self._delivery.offer_all([resting[intid] for intid in resting])
        self._store_pending()

    def reset(self) -> None:
        """System reset: registers to their reset values, caches empty, nothing mapped. Guest memory is not touched
        from here on: what was posted lands now, for later it may be somebody else's.

        A batch of commands that is under way stops before its next command.
        """
        self.dma.commit()
        control = self.control
        control.generation += 1
        control.enabled = control.forwards = control.in_slice = control.in_walk = False
        control.purge = 0
        self.tables.drop()
        self._delivery.reset()
        for redistributor in self.redistributors:
            redistributor.reset()
        self.distributor.reset()
        self.registers.reset()
        self.queue.reset()

    # --- hooks of the register table -----------------------------------------------------------------------------

    def read_ctlr(self) -> int:
        get = self.registers.get
        quiescent = self.profile.always_quiescent or get("GITS_CREADR") == get("GITS_CWRITER")
        return (CTLR_ENABLED if self.control.enabled else 0) | (CTLR_QUIESCENT if quiescent else 0)

    def write_ctlr(self, old: int, new: int) -> int | None:
        """Enabling needs a valid BASER0, BASER1 and CBASER where the profile says so; without, the write is refused."""
        if new & CTLR_ENABLED and self.profile.enable_needs_tables:
            get = self.registers.get
            if not (get("GITS_BASER0") & BASER_VALID and get("GITS_BASER1") & BASER_VALID
                    and get("GITS_CBASER") & CBASER_VALID):  # fmt: skip
                self.stats.enables_refused += 1
                return None
        self.control.enabled = bool(new & CTLR_ENABLED)
        return new

    def write_cbaser(self, old: int, new: int) -> int | None:
        """§12.19: fixed while enabled; a write moves CREADR, and in KVM CWRITER, to the start of the queue."""
        if self.control.enabled:
            return None
        self.registers.set("GITS_CREADR", 0)
        if self.profile.cbaser_clears_cwriter:
            self.registers.set("GITS_CWRITER", 0)
        return new

    def write_cwriter(self, old: int, new: int) -> int | None:
        """Past the end of the queue CREADR would never meet it. ≥, not >: the end itself is past it."""
        if new & QUEUE_OFFSET >= self.queue.bytes and self.profile.drops_cwriter_past_queue:
            self.stats.cwriter_dropped += 1
            return None
        return new

    def write_creadr(self, old: int, new: int) -> int | None:
        """QEMU: the guest may move it where there is one Security state."""
        if not self.distributor.registers.get("GICD_CTLR") & GICD_CTLR_DS:
            return None
        self.stats.creadr_writes += 1
        return new

    def write_baser0(self, old: int, new: int) -> int | None:
        if self.control.enabled:
            return None
        if self.control.devices and baser_moved(old, new):
            self.control.purge |= PURGE_DEVICES
        return new

    def write_baser1(self, old: int, new: int) -> int | None:
        if self.control.enabled:
            return None
        if (self.control.collections or self.control.events) and baser_moved(old, new):
            self.control.purge |= PURGE_COLLECTIONS
        return new

    def write_translater(self, old: int, new: int) -> None:
        """:meth:`post` takes it."""

    @property
    def queued(self) -> int:
        """Commands between CREADR and CWRITER."""
        return self.queue.outstanding // COMMAND_SIZE
