"""The model's commands as KVM carries them out: state inside, written through to memory in KVM's save/restore layout.

Nothing stalls; what is not valid is skipped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from tests.services.gic_its.oracle_lpis import FIRST_LPI, Redistributor
from tests.services.gic_its.oracle_memory import FaultError, Memory

BASER0, BASER1 = 0x100, 0x108
VALID: Final = 1 << 63
INDIRECT: Final = 1 << 62
PAGE: Final = 0x10000
PER_PAGE: Final = PAGE // 8
NOT_MAPPED: Final = 0xFFFF_FFFF
DTE_REACH: Final = (1 << 14) - 1
ITE_REACH: Final = (1 << 16) - 1


@dataclass
class Event:
    """``icid`` is None once the collection table was taken away."""

    intid: int
    icid: int | None


@dataclass
class Device:
    itt: int
    bits: int
    events: dict[int, Event] = field(default_factory=dict)


class KvmCommands:
    """``devices`` by DeviceID; ``collections``: ICID → PE or None, in the order of the list in memory."""

    def __init__(self, memory: Memory, registers: dict[int, int], redistributors: list[Redistributor]) -> None:
        self._memory = memory
        self._registers = registers
        self._redistributors = redistributors
        self.devices: dict[int, Device] = {}
        self.collections: dict[int, int | None] = {}

    def known(self, cpu: int) -> set[int]:
        """LPIs of the events that lead to ``cpu``."""
        here = {icid for icid, target in self.collections.items() if target == cpu}
        return {e.intid for d in self.devices.values() for e in d.events.values() if e.icid in here}

    def reset(self) -> None:
        self.devices.clear()
        self.collections.clear()

    def table_gone(self, devices: bool) -> None:
        """BASER0 or BASER1 is not valid any more, or says that the table is elsewhere."""
        if devices:
            self.devices.clear()
            return
        self.collections.clear()
        for event in self._events():
            event.icid = None

    def collections_there(self) -> None:
        """BASER1 is valid. Events that lost their collection with the table before go to limbo."""
        lost = [event for event in self._events() if event.icid is None]
        if lost:
            self._to_limbo(lost)
            self._write_collections()
            for device in self.devices.values():
                self._write_itt(device)

    def _events(self) -> list[Event]:
        return [event for device in self.devices.values() for event in device.events.values()]

    # --- tables in memory ----------------------------------------------------------------------------------------

    def _base(self, baser: int) -> int:
        value = self._registers[baser]
        return value & 0xFFFF_FFFF_0000 | (value >> 12 & 0xF) << 48

    def _slots(self, baser: int) -> int:
        """Entries of a flat table, or of the first level."""
        return ((self._registers[baser] & 0xFF) + 1) * PER_PAGE

    def _dte_place(self, device: int) -> int | None:
        """None where the table does not reach, or nothing answers."""
        place = self._base(BASER0) + device * 8
        slot = device
        if self._registers[BASER0] & INDIRECT:
            slot = device // PER_PAGE
        if device >= 1 << 16 or slot >= self._slots(BASER0):
            return None
        try:
            if self._registers[BASER0] & INDIRECT:
                level1 = self._memory.word(self._base(BASER0) + slot * 8)
                if not level1 & VALID:
                    return None
                place = (level1 & (1 << 52) - (1 << 16)) + device % PER_PAGE * 8
            self._memory.word(place)
        except FaultError:
            return None
        return place

    def _put(self, place: int, data: bytes) -> None:
        """Write through; where nothing answers the state inside is all there is."""
        try:
            self._memory.write(place, data)
        except FaultError:
            return

    def _write_devices(self) -> None:
        ids = sorted(self.devices)
        for at, device in enumerate(ids):
            ahead = min(ids[at + 1] - device, DTE_REACH) if at + 1 < len(ids) else 0
            known, place = self.devices[device], self._dte_place(device)
            if place is not None:
                word = VALID | ahead << 49 | known.itt >> 8 << 5 | known.bits - 1
                self._put(place, struct.pack("<Q", word))

    def _write_itt(self, device: Device) -> None:
        ids = sorted(device.events)
        for at, event in enumerate(ids):
            ahead = min(ids[at + 1] - event, ITE_REACH) if at + 1 < len(ids) else 0
            known = device.events[event]
            self._put(device.itt + event * 8, struct.pack("<Q", ahead << 48 | known.intid << 16 | (known.icid or 0)))

    def _write_collections(self) -> None:
        table = bytearray()
        for icid, cpu in self.collections.items():
            table += struct.pack("<Q", VALID | (NOT_MAPPED if cpu is None else cpu) << 16 | icid)
        if len(self.collections) < self._slots(BASER1):
            table += bytes(8)
        self._put(self._base(BASER1), bytes(table))

    # --- restore -------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Everything anew from the tables. An inconsistent table is a bug of the writer: AssertionError."""
        self.reset()
        if self._registers[BASER1] & VALID:
            for slot in range(self._slots(BASER1)):
                word = self._memory.word(self._base(BASER1) + slot * 8)
                if not word & VALID:
                    break
                cpu, icid = word >> 16 & 0xFFFFFFFF, word & 0xFFFF
                assert icid not in self.collections
                assert cpu == NOT_MAPPED or cpu < len(self._redistributors)
                self.collections[icid] = None if cpu == NOT_MAPPED else cpu
        if self._registers[BASER0] & VALID:
            self._restore_devices()

    def _restore_devices(self) -> None:
        at = 0
        while at < 1 << 16:
            place = self._dte_place(at)
            word = 0 if place is None else self._memory.word(place)
            if not word & VALID:
                at += PER_PAGE - at % PER_PAGE if place is None else 1
                continue
            device = self.devices[at] = Device((word >> 5 & (1 << 44) - 1) << 8, (word & 0x1F) + 1)
            self._restore_itt(device)
            ahead = word >> 49 & DTE_REACH
            if not ahead:
                return
            at += ahead

    def _restore_itt(self, device: Device) -> None:
        at = 0
        while at < 1 << device.bits:
            word = self._memory.word(device.itt + at * 8)
            intid, icid, ahead = word >> 16 & 0xFFFFFFFF, word & 0xFFFF, word >> 48
            if not intid:
                at += 1
                continue
            assert intid >= FIRST_LPI
            assert at + ahead < 1 << device.bits
            assert icid in self.collections
            device.events[at] = Event(intid, icid)
            if not ahead:
                return
            at += ahead

    # --- commands ------------------------------------------------------------------------------------------------

    def translate(self, device: int, event: int) -> None:
        found, target = self._find(device, event)
        if found is not None and target is not None:
            target.set_pending(found.intid)

    def run(self, command: bytes) -> None:
        """Carry out the 32 bytes."""
        w = struct.unpack("<4Q", command)
        device, event, icid = w[0] >> 32, w[1] & 0xFFFFFFFF, w[2] & 0xFFFF
        cpu, other = w[2] >> 16 & 0xFFFFFFFF, w[3] >> 16 & 0xFFFFFFFF
        match w[0] & 0xFF:
            case 0x01:
                self._movi(device, event, icid)
            case 0x03:
                self.translate(device, event)
            case 0x04:
                self._clear(device, event)
            case 0x08:
                self._mapd(device, (w[1] & 0x1F) + 1, (w[2] >> 8 & (1 << 44) - 1) << 8, bool(w[2] & VALID))
            case 0x09:
                self._mapc(icid, cpu, bool(w[2] & VALID))
            case 0x0A:
                self._mapti(device, event, w[1] >> 32, icid)
            case 0x0B:
                self._mapti(device, event, event, icid)
            case 0x0C:
                self._inv(device, event)
            case 0x0D:
                self._invall(icid)
            case 0x0E:
                self._movall(cpu, other)
            case 0x0F:
                self._discard(device, event)

    def _redistributor(self, icid: int | None) -> Redistributor | None:
        """Where a collection leads; None if it is unknown or not mapped."""
        cpu = None if icid is None else self.collections.get(icid)
        return None if cpu is None else self._redistributors[cpu]

    def _find(self, device: int, event: int) -> tuple[Event | None, Redistributor | None]:
        found = self.devices[device].events.get(event) if device in self.devices else None
        return found, None if found is None else self._redistributor(found.icid)

    def _mapd(self, device: int, bits: int, itt: int, valid: bool) -> None:
        place = self._dte_place(device)
        if place is None or (valid and bits > 16):
            return
        self.devices.pop(device, None)  # its events are gone; what is pending stays pending
        if valid:
            self.devices[device] = Device(itt, bits)
            self._put(itt, bytes(8 << bits))
        else:
            self._put(place, bytes(8))
        self._write_devices()

    def _mapc(self, icid: int, cpu: int, valid: bool) -> None:
        if not valid:
            if icid in self.collections:
                self._drop_collection(icid)
                self._write_collections()
            return
        if cpu >= len(self._redistributors) or not self._make_collection(icid):
            return
        old, new = self._redistributor(icid), self._redistributors[cpu]
        self.collections[icid] = cpu
        for device in self.devices.values():
            for event in device.events.values():
                if event.icid == icid and old is not None:
                    old.move_to(new, event.intid)
        self._write_collections()

    def _make_collection(self, icid: int) -> bool:
        """Whether there is one now, mapped or not."""
        if icid not in self.collections:
            if icid >= self._slots(BASER1):
                return False
            try:
                self._memory.word(self._base(BASER1) + icid * 8)
            except FaultError:
                return False
            self.collections[icid] = None
        return True

    def _drop_collection(self, icid: int) -> None:
        """Its events have no collection from now on, whatever is mapped under this ICID later: they go to limbo.

        (Real KVM can not save such events. A guest that maps the ICID of the limbo itself gets them back.)
        """
        lost = [event for event in self._events() if event.icid == icid]
        if lost:
            self._to_limbo(lost, icid)
        del self.collections[icid]
        for device in self.devices.values():
            self._write_itt(device)

    def _to_limbo(self, lost: list[Event], without: int | None = None) -> None:
        """The last ICID of the table that is not mapped; it is in the table's list, as one in use."""
        for icid in range(self._slots(BASER1) - 1, -1, -1):
            if icid != without and self.collections.get(icid) is None:
                self.collections.setdefault(icid, None)
                for event in lost:
                    event.icid = icid
                return
        raise AssertionError("more collections than a stream can map")

    def _mapti(self, device: int, event: int, intid: int, icid: int) -> None:
        known = self.devices.get(device)
        limit = max(redistributor.limit for redistributor in self._redistributors)
        if known is None or event >= 1 << known.bits or not FIRST_LPI <= intid < limit:
            return
        if event in known.events or not self._make_collection(icid):
            return
        known.events[event] = Event(intid, icid)
        self._write_collections()
        self._write_itt(known)

    def _movi(self, device: int, event: int, icid: int) -> None:
        found, source = self._find(device, event)
        target = self._redistributor(icid)
        if found is None or source is None or target is None:
            return
        source.move_to(target, found.intid)
        found.icid = icid
        self._write_itt(self.devices[device])

    def _clear(self, device: int, event: int) -> None:
        found, target = self._find(device, event)
        if found is not None and target is not None:
            target.clear(found.intid)

    def _discard(self, device: int, event: int) -> None:
        found, target = self._find(device, event)
        if found is None or target is None:
            return
        target.clear(found.intid)
        known = self.devices[device]
        del known.events[event]
        self._put(known.itt + event * 8, bytes(8))
        self._write_itt(known)

    def _inv(self, device: int, event: int) -> None:
        found, target = self._find(device, event)
        if found is not None and target is not None:
            target.refresh(found.intid)

    def _invall(self, icid: int) -> None:
        target = self._redistributor(icid)
        if target is not None:
            target.refresh_all()

    def _movall(self, source: int, target: int) -> None:
        cpus = self._redistributors
        if source < len(cpus) and target < len(cpus):
            for intid in filter(cpus[target].can_have, sorted(cpus[source].pending)):
                cpus[source].move_to(cpus[target], intid)
