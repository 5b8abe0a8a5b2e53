"""What the vCPUs wrote to the ITS, the redistributors and the distributor: the VMM restores an ITS that lost it.

A write is recorded when it is sent, for a write whose answer a lost link took along counts as done; CREADR comes with
the ITS's commits. So at any time guest memory, these registers and CREADR are one consistent state of the ITS.

What the ITS does not take is not recorded either: CBASER and BASERs while it is enabled, PROPBASER and PENDBASER while
LPIs are; QEMU takes these, and can be enabled without tables: GITS_TYPER tells whose the ITS is. A CWRITER is one
implementation's to drop and another's to store, and so is what a write of CBASER does to it: these are said again in
the order of the guest, and the ITS decides as it did before.
"""

from __future__ import annotations

from typing import Final

from common.gic.registers import (
    BASER_PAGE_SIZE,
    BASER_VALID,
    CBASER_PAGE,
    CBASER_PAGES,
    CBASER_VALID,
    CREADR_STALLED,
    CTLR_ENABLED,
    GICD_CTLR,
    GICR_CTLR,
    GICR_CTLR_ENABLE_LPIS,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GICR_WAKER,
    GITS_BASER,
    GITS_BASERS,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_CWRITER,
    GITS_IIDR,
    GITS_TYPER,
    PENDBASER_PTZ,
    QUEUE_OFFSET,
    TYPER_CIL,
    baser_moved,
)
from common.gic.saved import DIST_REGISTERS, ITS_REGISTERS, REDIST_REGISTERS, SavedIts
from common.gic.vmm_ops import (
    CTRL_RESET,
    RESTORE_TABLES,
    RUN_VCPUS,
    SET_DIST_REG,
    SET_ITS_REG,
    SET_REDIST_REG,
    STOP_VCPUS,
)

VmmCall = tuple[str, tuple[int, ...]]
"""An operation of :mod:`common.gic.vmm_ops` with its arguments."""

_BASERS: Final = tuple(GITS_BASER + 8 * n for n in range(GITS_BASERS))
#: Device table and collection table; the other BASERs hold nothing.
_TABLES: Final = _BASERS[:2]

#: Registers of a redistributor in the order of their restore.
_REDISTRIBUTOR: Final = ("GICR_WAKER", "GICR_PROPBASER", "GICR_PENDBASER", "GICR_CTLR")

#: Kind of frame → offset → bytes of the register.
_REGISTERS: Final[dict[str, dict[int, int]]] = {
    "gicd": {GICD_CTLR: 4},
    "gicr": {GICR_CTLR: 4, GICR_WAKER: 4, GICR_PROPBASER: 8, GICR_PENDBASER: 8},
    "its": {GITS_CTLR: 4, GITS_CBASER: 8, GITS_CWRITER: 8, **dict.fromkeys(_BASERS, 8)},
}


class ItsShadow:
    """The shadow of one guest's ITS. Frames are named as on the wire: ``its``, ``gicd``, ``gicr0`` …."""

    __slots__ = ("_creadr", "_cwriter", "_early", "_enabled", "_iidr", "_moving", "_powered", "_regs", "_restoring",
                 "_tables", "typer")  # fmt: skip

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """The ITS is as after a reset."""
        #: (frame, offset) → value; of what was written
        self._regs: dict[tuple[str, int], int] = {}
        self._creadr = 0
        #: writes of CBASER that the ITS has not answered: the commits that still come are of the old queue
        self._moving = 0
        #: the ITS is not what this says yet: CREADR is what it is to be, not what the ITS says
        self._restoring = False
        #: the last CWRITER before CBASER was written
        self._early: int | None = None
        #: CWRITER since then: the last one inside the queue, the last one if that was outside
        self._cwriter: tuple[int, ...] = ()
        #: enabled; in KVM with tables and queue
        self._enabled = False
        #: the tables that are programmed were in use
        self._tables = False
        #: redistributors that had LPIs enabled since PENDBASER was written
        self._powered: set[str] = set()
        #: of a saved ITS: its implementation and the revision of its tables
        self._iidr: int | None = None
        #: GITS_TYPER as the guest read it: what it makes of its tables depends on it
        self.typer: int | None = None

    @property
    def programmed(self) -> bool:
        """Is there something to restore?"""
        return bool(self._regs)

    @property
    def loose(self) -> bool:
        """Is it QEMU's? Unless the guest has seen so it is KVM's, which knows no limit to a collection's ID."""
        return self.typer is not None and bool(self.typer & TYPER_CIL)

    @staticmethod
    def holds(frame: str) -> bool:
        """Is a write to this frame here for good? What is not is a write of GITS_TRANSLATER."""
        return _kind(frame) in _REGISTERS

    # --- what vCPUs and ITS say -------------------------------------------------------------------------------------

    def written(self, frame: str, offset: int, size: int, value: int) -> None:
        """A vCPU's write of ``size`` bytes is on its way."""
        at = _register(frame, offset, size)
        if at is None or self._ignored(frame, at):
            return
        shift, mask = (offset - at) * 8, (1 << size * 8) - 1
        self._put(frame, at, self._get(frame, at) & ~(mask << shift) | (value & mask) << shift)

    def done(self, frame: str, offset: int) -> None:
        """The ITS has answered a write."""
        if frame == "its" and offset & ~7 == GITS_CBASER and self._moving:
            self._moving -= 1

    def read(self, frame: str, offset: int, size: int, value: int) -> None:
        """The ITS has answered a read."""
        if (frame, offset, size) == ("its", GITS_TYPER, 8):
            self.typer = value

    def lost(self) -> None:
        """The link is down: nothing is on its way any more, and the next ITS is as after a reset."""
        self._moving = 0
        self._restoring = self.programmed

    def restoring(self) -> None:
        """The VMM begins to make the ITS what this says: commits are of one that is not, and has CREADR elsewhere."""
        self._restoring = True

    def restored(self) -> None:
        """The ITS has CREADR from here; it moves when the ITS is enabled, with which a restore ends."""
        self._restoring = False

    def committed(self, creadr: int) -> None:
        """CREADR as the ITS said it with a commit."""
        if not self._moving and not self._restoring:
            self._creadr = creadr & (QUEUE_OFFSET | CREADR_STALLED)

    def load(self, saved: SavedIts) -> None:
        """Be the shadow of a saved ITS, whose tables are in guest memory."""
        self.clear()
        self.typer = saved.its["GITS_TYPER"]
        for name, value in saved.dist.items():
            self._put("gicd", DIST_REGISTERS[name], value)
        for vcpu, redist in enumerate(saved.redists):
            for name in _REDISTRIBUTOR:
                self._put(f"gicr{vcpu}", REDIST_REGISTERS[name], redist[name])
        its = {ITS_REGISTERS[name]: value for name, value in saved.its.items()}
        for offset in (GITS_CBASER, GITS_CWRITER, *_BASERS, GITS_CTLR):
            self._put("its", offset, its[offset])
        self._moving = 0
        self._creadr = its[GITS_CREADR] & (QUEUE_OFFSET | CREADR_STALLED)
        self._iidr = its[GITS_IIDR]
        self._tables = self._usable()

    # --- what the VMM says to the ITS --------------------------------------------------------------------------------

    def restore_calls(self) -> list[VmmCall]:
        """What a VMM does to make an ITS what this one was, in KVM's order: distributor, redistributors, the ITS's
        registers, its tables, CTLR last. vCPUs are stopped first and run afterwards."""
        calls: list[VmmCall] = [(STOP_VCPUS, ()), (CTRL_RESET, ())]
        if ("gicd", GICD_CTLR) in self._regs:
            calls.append((SET_DIST_REG, (GICD_CTLR, self._get("gicd", GICD_CTLR))))
        frames = {frame for frame, _ in self._regs if _kind(frame) == "gicr"}
        for frame in sorted(frames, key=lambda frame: int(frame[4:])):
            calls += self._redistributor(frame)
        calls += self._its()
        calls.append((RUN_VCPUS, ()))
        return calls

    def _redistributor(self, frame: str) -> list[VmmCall]:
        vcpu = int(frame[4:])
        calls: list[VmmCall] = []
        for offset in (REDIST_REGISTERS[name] for name in _REDISTRIBUTOR):
            if (frame, offset) in self._regs:
                value = self._get(frame, offset)
                if offset == GICR_PENDBASER and frame in self._powered and not self.loose:
                    # the table may hold something by now; to QEMU, where it reads back, the bit says nothing
                    value &= ~PENDBASER_PTZ
                calls.append((SET_REDIST_REG, (vcpu, offset, value)))
        return calls

    def _its(self) -> list[VmmCall]:
        values: list[tuple[int, int]] = []
        if self._iidr is not None:
            values.append((GITS_IIDR, self._iidr))
        if self._early is not None:
            values.append((GITS_CWRITER, self._early))
        if ("its", GITS_CBASER) in self._regs:
            values.append((GITS_CBASER, self._get("its", GITS_CBASER)))
        values += [(GITS_CWRITER, value) for value in self._cwriter]
        if ("its", GITS_CBASER) in self._regs or self._creadr:
            values.append((GITS_CREADR, self._creadr))
        values += [(offset, self._get("its", offset)) for offset in _BASERS if ("its", offset) in self._regs]
        calls: list[VmmCall] = [(SET_ITS_REG, value) for value in values]
        if self._tables and self._usable():
            calls.append((RESTORE_TABLES, ()))
        if ("its", GITS_CTLR) in self._regs:
            ctlr = self._get("its", GITS_CTLR)
            if not self._enabled and self._usable():
                ctlr &= ~CTLR_ENABLED  # it was refused before the tables were there
            calls.append((SET_ITS_REG, (GITS_CTLR, ctlr)))
        return calls

    # --- registers ----------------------------------------------------------------------------------------------------

    def _get(self, frame: str, offset: int) -> int:
        return self._regs.get((frame, offset), 0)

    def _put(self, frame: str, offset: int, value: int) -> None:
        old = self._get(frame, offset)
        self._regs[frame, offset] = value
        if frame == "its":
            self._put_its(offset, value)
            if offset in _TABLES and self._moved(old, value):
                self._tables = False
        elif frame != "gicd":
            if offset == GICR_PENDBASER:
                self._powered.discard(frame)
            if self._get(frame, GICR_CTLR) & GICR_CTLR_ENABLE_LPIS:
                self._powered.add(frame)

    def _put_its(self, offset: int, value: int) -> None:
        if offset == GITS_CTLR:
            self._enabled = bool(value & CTLR_ENABLED) and (self.loose or self._usable())
            self._tables = self._tables or self._enabled
        elif offset == GITS_CBASER:
            self._moving += 1
            self._creadr = 0
            if self._cwriter:
                self._early, self._cwriter = self._cwriter[-1], ()
        elif offset == GITS_CWRITER:
            inside = value & QUEUE_OFFSET < (CBASER_PAGES.get(self._get("its", GITS_CBASER)) + 1) * CBASER_PAGE
            self._cwriter = (value,) if inside else (*self._cwriter[:1], value)

    def _ignored(self, frame: str, offset: int) -> bool:
        if frame == "its":
            return self._enabled and offset not in (GITS_CTLR, GITS_CWRITER)
        on = self._get(frame, GICR_CTLR) & GICR_CTLR_ENABLE_LPIS
        return bool(on) and offset in (GICR_PROPBASER, GICR_PENDBASER) and not self.loose

    def _moved(self, old: int, new: int) -> bool:
        if not self.loose:
            new = new & ~BASER_PAGE_SIZE.mask | old & BASER_PAGE_SIZE.mask  # always 64 KiB, whatever is written
        return baser_moved(old, new)

    def _usable(self) -> bool:
        """Are queue, device table and collection table valid?"""
        return bool(self._get("its", GITS_CBASER) & CBASER_VALID) and all(
            self._get("its", offset) & BASER_VALID for offset in _TABLES
        )


def _kind(frame: str) -> str:
    return "gicr" if frame.startswith("gicr") else frame


def _register(frame: str, offset: int, size: int) -> int | None:
    """The offset of the register that an access of ``size`` bytes is to; None where there is none to be kept. Halves
    of 64-bit registers may be accessed, two 32-bit registers together may not."""
    registers = _REGISTERS.get(_kind(frame), {})
    if size == 4 and registers.get(offset) != 4 and offset % 4 == 0:
        return offset & ~7 if registers.get(offset & ~7) == 8 else None
    return offset if registers.get(offset) == size else None
