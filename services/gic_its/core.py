"""The ITS of one guest: frames, command queue, translation (IHI 0069 chapter 5).

One :class:`Its` stands over one guest's memory. The order of things that overlap:

* Whoever writes CTLR, CBASER, CWRITER or a BASER holds the ITS's mutex until the write has taken effect, so batches
  of commands never interleave, and CWRITER merges under the same lock.
* The queue is read in slices of at most :data:`SLICE` bytes. A slice is a DMA read, so MSIs are translated and EOIs
  taken between slices, and between commands that wait for DMA themselves. A slice ends early when its commands have
  walked over :data:`WORK` table entries, so that one guest's MAPC storm does not keep the others waiting.
* A reset does not wait for the mutex: it changes ``control.generation``. A batch that is under way ends at its DMA read
  (:class:`services.gic_its.dma.GuardedDma`), and a write that waited for the mutex is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from common.errors import FrameError, MemoryFaultError
from common.gic.commands import COMMAND_SIZE, decode
from common.gic.registers import (
    BASER_ENTRY_SIZE,
    BASER_PAGE_64K,
    BASER_PAGE_SIZE,
    BASER_TYPE,
    BASER_VALID,
    CBASER_ADDR,
    CBASER_PAGE,
    CBASER_PAGES,
    CBASER_VALID,
    CTLR_ENABLED,
    CTLR_QUIESCENT,
    FRAME,
    TYPE_COLLECTIONS,
    TYPE_DEVICES,
)
from common.registers import Register, RegisterFile
from common.virtio.depth import Depth
from common.world import Table, World
from services.gic_its.commands import Commands, Limits
from services.gic_its.delivery import Deliver, Delivery, Done
from services.gic_its.dma import Dma, GuardedDma, SupersededError
from services.gic_its.profile import KVM, Profile
from services.gic_its.redistributor import Redistributor
from services.gic_its.regmap import ITS_FRAME, TRANSLATION_FRAME
from services.gic_its.state import Collection, Control, Device, Event
from services.gic_its.stats import CommandStats, ErrorStats, ItsStats
from services.gic_its.tables import Tables

#: Bytes of commands read at a time: 128 commands.
SLICE: Final = 4096
#: Table entries that the commands of one slice may walk over before others get their turn.
WORK: Final = 4096


class Frame(Protocol):
    """A register frame: its file, the lock of the writes that wait, and what follows such a write."""

    @property
    def registers(self) -> RegisterFile: ...
    @property
    def mutex(self) -> AbstractAsyncContextManager[Any]: ...
    async def settle(self, row: Register) -> None: ...


class Its:
    """ITS and LPI redistributors of one guest with ``cpus`` vCPUs.

    ``deliver(vcpu, intid, number)`` hands an LPI to the guest; :meth:`eoi` answers it. ``done(device, event, number)``
    confirms an event's MSIs up to ``number``. Neither may call back into the Its.
    """

    __slots__ = (
        "_commands", "_delivery", "_dma", "_events", "_frames", "commands", "control", "depth", "errors", "mutex",
        "profile", "redistributors", "registers", "stats",
    )  # fmt: skip

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
        self.profile: Final = profile
        self.stats: Final = world.new(ItsStats)
        #: Commands executed and errors, by name.
        self.commands: Final = world.new(CommandStats)
        self.errors: Final = world.new(ErrorStats)
        self.control: Final = world.new(Control)
        self.mutex: Final = world.mutex()
        #: Commands in the queue, as CWRITER and CREADR left them.
        self.depth: Final = Depth()
        guarded = GuardedDma(dma, self.control)
        self._dma: Final = guarded
        self._delivery: Final = Delivery(self.control, self.stats, deliver, done)
        self._events: Final[Table[Event]] = world.table()
        devices: Table[Device] = world.table()
        collections: Table[Collection] = world.table()
        self.redistributors: Final = tuple(
            Redistributor(world, guarded, self._delivery, self.stats, vcpu, cpus, profile.iidr) for vcpu in range(cpus)
        )
        self.registers: Final = RegisterFile(world, ITS_FRAME, self, _resets(profile))
        tables = Tables(guarded, self.registers, self.control, devices, collections)
        self._commands: Final = Commands(
            world, profile=profile, control=self.control, delivery=self._delivery, tables=tables,
            redistributors=self.redistributors, devices=devices, collections=collections, events=self._events,
            stats=self.commands, errors=self.errors, limits=limits or Limits(),
        )  # fmt: skip
        self._frames: Final[Mapping[str, Frame]] = {
            "its": self,
            "trans": _Translation(world, self.stats),
            **{f"gicr{rd.port.vcpu}": rd for rd in self.redistributors},
        }

    # --- MMIO ----------------------------------------------------------------------------------------------------

    def read(self, frame: str, offset: int, size: int) -> int:
        """Read ``size`` bytes; no read waits. Raises FrameError for a frame that does not exist, an offset outside."""
        return self.frame(frame, offset, size).registers.read(offset, size)

    async def mmio_read(self, frame: str, offset: int, size: int) -> int:
        """:meth:`read` as the awaitable that guests' drivers expect."""
        return self.read(frame, offset, size)

    async def mmio_write(self, frame: str, offset: int, size: int, value: int) -> None:
        """Write ``size`` bytes; returns when the write has taken effect, a batch of commands included.

        Raises FrameError like :meth:`mmio_read`.
        """
        target = self.frame(frame, offset, size)
        registers = target.registers
        row = registers.map.find(offset, size)
        if row is None or not row.waits:
            registers.write(offset, size, value)
            return
        generation = self.control.generation
        async with target.mutex:
            if self.control.generation != generation:
                return
            written = registers.write(offset, size, value)
            if written is None:
                return
            try:
                await target.settle(written)
            except SupersededError:
                return

    def frame(self, frame: str, offset: int, size: int) -> Frame:
        """The frame that an access reaches. Raises FrameError naming what is wrong with the access."""
        found = self._frames.get(frame)
        if found is None:
            raise FrameError("mmio.frame", frame[:32], "its, trans, gicr0 …")
        if size not in (1, 2, 4, 8):
            raise FrameError("mmio.size", size, 8)
        if not 0 <= offset <= FRAME - size:
            raise FrameError("mmio.offset", offset, FRAME - size)
        return found

    # --- interrupts ----------------------------------------------------------------------------------------------

    def try_msi(self, device: int, event: int, number: int) -> bool:
        """MSI ``number`` of an event that is mapped and known: taken, True. False: ask :meth:`msi`."""
        found = self._events.get(device << 32 | event)
        if found is None or not self.control.enabled:
            return False
        lpi = found.lpi
        if lpi is None or not lpi.port.enabled:
            return False
        self._delivery.msi(found, lpi, number)
        return True

    async def msi(self, device: int, event: int, number: int) -> str:
        """MSI ``number`` of ``event``. Returns "" if it was taken, otherwise why it was dropped: ``disabled`` (the
        ITS), ``unmapped`` (device, event or collection), ``lpis_off`` (at the target). A dropped one is not
        confirmed; the device sends it again."""
        if self.try_msi(device, event, number):
            return ""
        stats = self.stats
        if not self.control.enabled:
            stats.disabled += 1
            return "disabled"
        found = self._events.get(device << 32 | event)
        if found is None or found.lpi is None:
            stats.unmapped += 1
            return "unmapped"
        stats.lpis_off += 1
        return "lpis_off"

    def eoi(self, vcpu: int, intid: int, number: int) -> None:
        """The vCPU took and ended ``intid``, delivered under ``number``. One that was not delivered is counted."""
        if 0 <= vcpu < len(self.redistributors):
            redistributor = self.redistributors[vcpu]
            lpi = redistributor.find(intid)
            if lpi is not None:
                self._delivery.eoi(lpi, number)
                if not lpi.events:
                    redistributor.forget_idle(lpi)
                return
        self.stats.stray_eois += 1

    def pending(self, vcpu: int) -> list[int]:
        """INTIDs that are pending at ``vcpu`` and not yet handed to it, in ascending order."""
        return [lpi.intid for lpi in self.redistributors[vcpu] if lpi.pending]

    def hold(self) -> None:
        """The vCPUs cannot take interrupts (their link is down): raise LPIs, but deliver none."""
        self.control.held = True

    def resume(self) -> None:
        """The vCPUs are back: deliver again what they had not ended, then what came meanwhile."""
        self.control.held = False
        for redistributor in self.redistributors:
            lpis = list(redistributor)
            for lpi in lpis:
                self._delivery.again(lpi)
            self._delivery.offer_all(lpis)

    def reset(self) -> None:
        """System reset: registers to their reset values, caches empty, nothing mapped. Guest memory is not touched.

        A batch of commands that is under way stops before its next command.
        """
        control = self.control
        control.generation += 1
        control.enabled = False
        control.outstanding = 0
        self._commands.free_devices()
        self._commands.free_collections()
        for redistributor in self.redistributors:
            redistributor.reset()
        self.registers.reset()

    # --- hooks of the register table -----------------------------------------------------------------------------

    def read_ctlr(self) -> int:
        quiescent = self.registers.get("GITS_CREADR") == self.registers.get("GITS_CWRITER")
        return (CTLR_ENABLED if self.control.enabled else 0) | (CTLR_QUIESCENT if quiescent else 0)

    def write_ctlr(self, old: int, new: int) -> int | None:
        """Enabling needs a valid BASER0, BASER1 and CBASER; without one the write is refused."""
        if new & CTLR_ENABLED:
            get = self.registers.get
            if not (get("GITS_BASER0") & BASER_VALID and get("GITS_BASER1") & BASER_VALID
                    and get("GITS_CBASER") & CBASER_VALID):  # fmt: skip
                self.stats.enables_refused += 1
                return None
        self.control.enabled = bool(new & CTLR_ENABLED)
        return new

    def write_cbaser(self, old: int, new: int) -> int | None:
        """§12.19: fixed while enabled; a write moves both ends of the queue to its start."""
        if self.control.enabled:
            return None
        self.registers.set("GITS_CREADR", 0)
        self.registers.set("GITS_CWRITER", 0)
        return new

    def write_cwriter(self, old: int, new: int) -> int | None:
        """Past the end of the queue CREADR would never meet it: dropped. ≥, not >: the end itself is past it."""
        if new >= self._queue_size():
            self.stats.cwriter_dropped += 1
            return None
        return new

    def write_baser0(self, old: int, new: int) -> int | None:
        if self.control.enabled:
            return None
        if not new & BASER_VALID:
            self._commands.free_devices()
        return new

    def write_baser1(self, old: int, new: int) -> int | None:
        if self.control.enabled:
            return None
        if not new & BASER_VALID:
            self._commands.free_collections()
        return new

    # --- command queue -------------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Commands between CREADR and CWRITER."""
        size = self._queue_size()
        return (self.registers.get("GITS_CWRITER") - self.registers.get("GITS_CREADR")) % size // COMMAND_SIZE

    def _queue_size(self) -> int:
        return (CBASER_PAGES.get(self.registers.get("GITS_CBASER")) + 1) * CBASER_PAGE

    async def settle(self, row: Register) -> None:
        """Run what is queued: CREADR goes to CWRITER, one command at a time. The caller holds the mutex."""
        control, registers = self.control, self.registers
        base = CBASER_ADDR.get(registers.get("GITS_CBASER"))
        size = self._queue_size()
        end = registers.get("GITS_CWRITER")
        at = registers.get("GITS_CREADR")
        self.depth.seen(self.queued)
        while control.enabled and at != end:
            length = min((end if end > at else size) - at, SLICE)
            data = await self._fetch(base + at, length)
            for offset in range(0, length, COMMAND_SIZE):
                if data is not None:
                    await self._commands.execute(decode(data, offset))
                at += COMMAND_SIZE
                registers.set("GITS_CREADR", 0 if at == size else at)
                if control.work > WORK:
                    break
            control.work = 0
            at = 0 if at == size else at
        self.depth.seen(self.queued)

    async def _fetch(self, addr: int, length: int) -> bytes | None:
        """A slice of the queue; None where it cannot be read: KVM skips such commands and never stalls."""
        try:
            data = await self._dma.read(addr, length)
        except MemoryFaultError:
            self.errors.unreadable += length // COMMAND_SIZE
            return None
        return data


class _Translation:
    """The frame with GITS_TRANSLATER. Devices raise MSIs by message; a CPU's write has no DeviceID."""

    __slots__ = ("_stats", "mutex", "registers")

    def __init__(self, world: World, stats: ItsStats) -> None:
        self._stats: Final = stats
        self.mutex: Final = world.mutex()
        self.registers: Final = RegisterFile(world, TRANSLATION_FRAME, self)

    def write_translater(self, old: int, new: int) -> None:
        self._stats.unmapped += 1

    async def settle(self, row: Register) -> None:  # pragma: no cover - no row of this frame waits
        return None


def _resets(profile: Profile) -> dict[str, int]:
    """Reset values that depend on the profile, by register name."""
    size = BASER_ENTRY_SIZE.put(profile.entry_size - 1) | BASER_PAGE_SIZE.put(BASER_PAGE_64K)
    resets = {row.name: profile.ids.get(row.offset, 0) for row in ITS_FRAME if row.offset >= 0xFFD0}
    resets["GITS_IIDR"] = profile.iidr
    resets["GITS_TYPER"] = profile.typer
    resets["GITS_BASER0"] = size | BASER_TYPE.put(TYPE_DEVICES)
    resets["GITS_BASER1"] = size | BASER_TYPE.put(TYPE_COLLECTIONS)
    return resets
