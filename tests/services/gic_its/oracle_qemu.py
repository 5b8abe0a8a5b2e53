"""The model's commands as QEMU carries them out: every look-up goes to guest memory, a fault there stalls the queue."""

from __future__ import annotations

import struct
from typing import Final

from tests.services.gic_its.oracle_lpis import FIRST_LPI, Redistributor
from tests.services.gic_its.oracle_memory import FaultError, Memory

BASER0, BASER1 = 0x100, 0x108
VALID: Final = 1 << 63
INDIRECT: Final = 1 << 62
PAGE_SIZES: Final = (0x1000, 0x4000, 0x10000, 0x10000)
PHYSICAL: Final = 1
NO_DOORBELL: Final = 0x3FF
ITE_BYTES: Final = 12


class Stall(Exception):  # noqa: N818 - a state of the queue, not an error of ours
    """The command could not be carried out for a fault in a table; the queue stops in front of it."""


class SkipError(Exception):
    """The command is not valid; the queue goes on behind it."""


class QemuCommands:
    """No state of its own but what lies in memory."""

    def __init__(self, memory: Memory, registers: dict[int, int], redistributors: list[Redistributor]) -> None:
        self._memory = memory
        self._registers = registers
        self._redistributors = redistributors

    def known(self, cpu: int) -> set[int]:
        return set()

    def reset(self) -> None:
        """The tables stay in guest memory."""

    def restore(self) -> None:
        """The tables came along with guest memory."""

    def table_gone(self, devices: bool) -> None:
        """Its entries can not be reached any more."""

    def collections_there(self) -> None:
        """Nothing waited for them."""

    # --- tables --------------------------------------------------------------------------------------------------

    def _place(self, baser: int, index: int) -> int | None:
        """Address of an entry. None: its second level is not there. Raises SkipError past the end of the table."""
        value = self._registers[baser]
        page = PAGE_SIZES[value >> 8 & 3]
        length = ((value & 0xFF) + 1) * page
        if page == 0x10000:
            base = value & 0xFFFF_FFFF_0000 | (value >> 12 & 0xF) << 48
        else:
            base = value & 0xFFFF_FFFF_F000
        per_page = page // 8
        entries = length // 8 * per_page if value & INDIRECT else length // 8
        if not value & VALID or index >= min(entries, 1 << 16):
            raise SkipError
        if not value & INDIRECT:
            return base + index * 8
        level1 = self._memory.word(base + index // per_page * 8)
        return (level1 & (1 << 51) - 1) + index % per_page * 8 if level1 & VALID else None

    def _entry(self, baser: int, index: int) -> int:
        place = self._place(baser, index)
        return 0 if place is None else self._memory.word(place)

    def _put_entry(self, baser: int, index: int, value: int) -> None:
        place = self._place(baser, index)
        if place is not None:
            self._memory.put_word(place, value)

    def _itt(self, device: int, event: int) -> int:
        """Address of the event's ITE."""
        dte = self._entry(BASER0, device)
        bits = (dte >> 1 & 0x1F) + 1
        if not dte & 1 or event >= 1 << bits:
            raise SkipError
        return (dte >> 6 & (1 << 44) - 1) * 256 + event * ITE_BYTES

    def _ite(self, device: int, event: int) -> tuple[int, int, int]:
        """(address, INTID, ICID) of a mapped event."""
        place = self._itt(device, event)
        low, _ = struct.unpack("<QI", self._memory.read(place, ITE_BYTES))
        if not low & 1 or low >> 1 & 1 != PHYSICAL:
            raise SkipError
        return place, low >> 2 & 0xFFFFFF, low >> 32 & 0xFFFF

    def _put_ite(self, place: int, intid: int, icid: int) -> None:
        self._memory.write(place, struct.pack("<QI", 1 | PHYSICAL << 1 | intid << 2 | icid << 32, NO_DOORBELL))

    def _target(self, icid: int) -> Redistributor:
        cte = self._entry(BASER1, icid)
        cpu = cte >> 1 & 0xFFFF
        if not cte & 1 or cpu >= len(self._redistributors):
            raise SkipError
        return self._redistributors[cpu]

    def _reached(self, icid: int) -> Redistributor:
        """For INT, CLEAR, DISCARD: a collection whose entry can not be read is as one that is not mapped."""
        try:
            return self._target(icid)
        except FaultError:
            raise SkipError from None

    # --- commands ------------------------------------------------------------------------------------------------

    def translate(self, device: int, event: int) -> None:
        try:
            self._interrupt(device, event)
        except SkipError:
            return
        except FaultError:
            raise Stall from None

    def run(self, command: bytes) -> None:
        """Carry out the 32 bytes; raises Stall."""
        w = struct.unpack("<4Q", command)
        device, event, icid = w[0] >> 32, w[1] & 0xFFFFFFFF, w[2] & 0xFFFF
        try:
            match w[0] & 0xFF:
                case 0x01:
                    self._movi(device, event, icid)
                case 0x03:
                    self._interrupt(device, event)
                case 0x04:
                    self._clear(device, event)
                case 0x08:
                    self._mapd(device, w[1] & 0x1F, w[2])
                case 0x09:
                    self._mapc(icid, w[2] >> 16 & 0xFFFF, bool(w[2] & VALID))
                case 0x0A:
                    self._mapti(device, event, w[1] >> 32, icid)
                case 0x0B:
                    self._mapti(device, event, event, icid)
                case 0x0C:
                    self._inv(device, event)
                case 0x0D:
                    for redistributor in self._redistributors:  # whatever the ICID
                        redistributor.refresh_all()
                case 0x0E:
                    self._movall(w[2] >> 16 & (1 << 36) - 1, w[3] >> 16 & (1 << 36) - 1)
                case 0x0F:
                    self._discard(device, event)
        except SkipError:
            return
        except FaultError:
            raise Stall from None

    def _mapd(self, device: int, size: int, word: int) -> None:
        itt = word >> 8 & (1 << 44) - 1
        self._place(BASER0, device)
        if size > 15:
            raise SkipError  # also where it takes the device away
        self._put_entry(BASER0, device, 1 | size << 1 | itt << 6 if word & VALID else 0)

    def _mapc(self, icid: int, cpu: int, valid: bool) -> None:
        self._place(BASER1, icid)
        if valid and cpu >= len(self._redistributors):
            raise SkipError
        self._put_entry(BASER1, icid, 1 | cpu << 1 if valid else 0)

    def _mapti(self, device: int, event: int, intid: int, icid: int) -> None:
        place = self._itt(device, event)
        if icid >= self._collections() or not FIRST_LPI <= intid < 1 << 16:
            raise SkipError
        self._put_ite(place, intid, icid)

    def _collections(self) -> int:
        """How many entries the collection table has; its second levels need not be there."""
        value = self._registers[BASER1]
        if not value & VALID:
            return 0
        page = PAGE_SIZES[value >> 8 & 3]
        entries = ((value & 0xFF) + 1) * page // 8
        return min(entries * (page // 8) if value & INDIRECT else entries, 1 << 16)

    def _movi(self, device: int, event: int, icid: int) -> None:
        place, intid, old = self._ite(device, event)
        source, target = self._target(old), self._target(icid)
        if source.enabled and target.can_have(intid):
            source.move_to(target, intid)
        self._put_ite(place, intid, icid)

    def _interrupt(self, device: int, event: int) -> None:
        _, intid, icid = self._ite(device, event)
        self._reached(icid).set_pending(intid)

    def _clear(self, device: int, event: int) -> int:
        place, intid, icid = self._ite(device, event)
        target = self._reached(icid)
        if target.enabled:
            target.clear(intid)
        return place

    def _discard(self, device: int, event: int) -> None:
        self._memory.write(self._clear(device, event), bytes(ITE_BYTES))

    def _inv(self, device: int, event: int) -> None:
        _, _, icid = self._ite(device, event)
        self._target(icid).refresh_all()  # QEMU looks at all that is pending there

    def _movall(self, source: int, target: int) -> None:
        cpus = self._redistributors
        if source < len(cpus) and target < len(cpus) and cpus[source].enabled:
            for intid in filter(cpus[target].can_have, sorted(cpus[source].pending)):
                cpus[source].move_to(cpus[target], intid)
