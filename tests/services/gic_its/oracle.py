"""An independent model of the ITS: slow, synchronous, written from the specification and from what KVM and QEMU do.

It shares nothing with services.gic_its, so that where both agree, both have understood the same. Registers and the
command queue are here; what the commands do stands in oracle_qemu.py and oracle_kvm.py, pending LPIs in oracle_lpis.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.services.gic_its.oracle_kvm import KvmCommands
from tests.services.gic_its.oracle_lpis import NONE, Redistributor, merge
from tests.services.gic_its.oracle_memory import FaultError, Memory
from tests.services.gic_its.oracle_qemu import QemuCommands, Stall

CTLR, IIDR, TYPER, CBASER, CWRITER, CREADR, BASER = 0x0, 0x4, 0x8, 0x80, 0x88, 0x90, 0x100
TRANSLATER: Final = 0x40
ENABLED, QUIESCENT, VALID, INDIRECT, STALLED = 1, 1 << 31, 1 << 63, 1 << 62, 1
BASERS: Final = (BASER, BASER + 8)
#: Valid, Indirect, address, Page_Size.
PLACE: Final = 3 << 62 | 0xFFFF_FFFF_F300
#: Type and Entry_Size.
BASER_FIXED: Final = 0x7 << 56 | 0x1F << 48
BASER_RESET: Final = {BASER: 1 << 56 | 7 << 48 | 2 << 8, BASER + 8: 4 << 56 | 7 << 48 | 2 << 8}
OFFSET: Final = 0xFFFE0
COMMAND: Final = 32
GROUP1: Final = 1 << 1

#: IIDR, TYPER, and PIDR4 … CIDR3 by offset.
CONSTANTS: Final = {
    "qemu": {IIDR: 0x43B, TYPER: 0x1F_0001_EFB1, 0xFFD0: 0x44, 0xFFE0: 0x94},
    "kvm": {IIDR: 0x4B00_043B, TYPER: 0x1_EF71, 0xFFD0: 0x40, 0xFFE0: 0x92},
}
COMMON_IDS: Final = {0xFFE4: 0xB4, 0xFFE8: 0x3B, 0xFFF0: 0x0D, 0xFFF4: 0xF0, 0xFFF8: 0x05, 0xFFFC: 0xB1}


class Oracle:
    """One ITS, one distributor and ``cpus`` redistributors over their own guest memory.

    ``profile`` is "qemu" or "kvm".
    """

    def __init__(self, cpus: int = 4, profile: str = "qemu") -> None:
        self.profile = profile
        self._kvm = profile == "kvm"
        self._ids = CONSTANTS[profile] | COMMON_IDS
        self.memory = Memory()
        self.redistributors = [Redistributor(self.memory, self._kvm, self._knower(n)) for n in range(cpus)]
        self.registers = {CTLR: 0, CBASER: 0, CWRITER: 0, CREADR: 0, **BASER_RESET}
        self._group1 = 0
        self.commands: KvmCommands | QemuCommands
        if self._kvm:
            self.commands = KvmCommands(self.memory, self.registers, self.redistributors)
        else:
            self.commands = QemuCommands(self.memory, self.registers, self.redistributors)

    def _knower(self, cpu: int) -> Callable[[], set[int]]:
        return lambda: self.commands.known(cpu)

    # --- memory and CPU side -------------------------------------------------------------------------------------

    def mem_read(self, addr: int, length: int) -> bytes:
        return self.memory.read(addr, length)

    def mem_write(self, addr: int, data: bytes) -> None:
        self.memory.write(addr, data)

    def mem_fill(self, addr: int, length: int, byte: int) -> None:
        self.memory.fill(addr, length, byte)

    def pending(self, cpu: int, lpi: int) -> int:
        return int(lpi in self.redistributors[cpu].pending)

    def pending_all(self, cpu: int) -> list[int]:
        return sorted(self.redistributors[cpu].pending)

    def ack(self, cpu: int) -> int:
        """INTID that ``cpu`` takes and ends, 1023 for none."""
        return self.redistributors[cpu].acknowledge() if self._group1 & GROUP1 else NONE

    def msi(self, devid: int, data: int) -> None:
        if self.registers[CTLR] & ENABLED:
            try:
                self.commands.translate(devid, data)
            except Stall:
                return  # an MSI has no queue to stall

    def drain(self) -> None:
        """Commands run within the write that starts them."""

    def close(self) -> None:
        """Nothing is held."""

    def reset(self) -> None:
        """System reset; guest memory stays."""
        self.registers.update({CTLR: 0, CBASER: 0, CWRITER: 0, CREADR: 0, **BASER_RESET})
        self._group1 = 0
        self.commands.reset()
        for redistributor in self.redistributors:
            redistributor.reset()

    def migrate(self) -> None:
        """Save, and go on in a fresh instance: mappings come from the tables in memory, configuration is read anew."""
        self.commands.restore()
        for redistributor in self.redistributors:
            redistributor.refresh_all()

    # --- MMIO ----------------------------------------------------------------------------------------------------

    def mmio_read(self, frame: str, off: int, size: int) -> int:
        if frame == "its":
            return self._read_its(off, size)
        if frame.startswith("gicr"):
            return self.redistributors[int(frame[4:])].read(off, size)
        return self._group1 if (frame, off, size) == ("gicd", 0, 4) else 0

    def mmio_write(self, frame: str, off: int, size: int, value: int) -> None:
        value &= (1 << size * 8) - 1
        if frame == "its":
            self._write_its(off, size, value)
        elif frame.startswith("gicr"):
            self.redistributors[int(frame[4:])].write(off, size, value)
        elif (frame, off, size) == ("gicd", 0, 4):
            self._group1 = value
        elif frame == "trans" and off == TRANSLATER and size in (2, 4) and not self._kvm:
            self.msi(0, value)  # QEMU: a CPU's write has requester ID 0

    def _read_its(self, off: int, size: int) -> int:
        if size == 4 and off in self._ids and off != TYPER:
            return self._ids[off]
        if (off, size) == (CTLR, 4):
            quiet = not self._kvm or self.registers[CREADR] == self.registers[CWRITER]
            return self.registers[CTLR] | (QUIESCENT if quiet else 0)
        register, half = off & ~7, off & 4
        if register < TYPER or not (size == 4 or (size == 8 and not half)):
            return 0
        value = self._ids[TYPER] if register == TYPER else self.registers.get(register, 0)
        return value >> half * 8 & (1 << size * 8) - 1

    def _write_its(self, off: int, size: int, value: int) -> None:
        if (off, size) == (CTLR, 4):
            self._write_ctlr(value)
            return
        register, half = off & ~7, off & 4
        if register < CBASER or register not in self.registers or not (size == 4 or (size == 8 and not half)):
            return
        new = merge(self.registers[register], half, size, value)
        if register == CWRITER:
            self._write_cwriter(new, runs=not half)
        elif register == CREADR:
            if not self._kvm:  # QEMU: where GICD_CTLR.DS = 1, as on this board
                self.registers[CREADR] = new if half else new & ~STALLED
        elif self.registers[CTLR] & ENABLED:
            return
        elif register == CBASER:
            self.registers[CBASER] = new & ~0xF000 if self._kvm else new
            self.registers[CREADR] = 0
            if self._kvm:
                self.registers[CWRITER] = 0
        else:
            self._write_baser(register, new)

    def _write_baser(self, register: int, new: int) -> None:
        new = new & ~BASER_FIXED | BASER_RESET[register] & BASER_FIXED
        if self._kvm:
            new = new & ~(3 << 8) | 2 << 8
            if register == BASERS[1]:
                new &= ~INDIRECT
        old, self.registers[register] = self.registers[register], new
        if not new & VALID or old & PLACE != new & PLACE:
            self.commands.table_gone(register == BASERS[0])
        if new & VALID and register == BASERS[1]:
            self.commands.collections_there()

    def _write_ctlr(self, value: int) -> None:
        on = bool(value & ENABLED)
        needed = (CBASER, *BASERS)
        if self._kvm and on and not all(self.registers[name] & VALID for name in needed):
            return
        self.registers[CTLR] = int(on)
        self._run_queue()

    # --- the command queue ---------------------------------------------------------------------------------------

    def _queue_bytes(self) -> int:
        return ((self.registers[CBASER] & 0xFF) + 1) * 4096

    def _write_cwriter(self, new: int, runs: bool) -> None:
        if self._kvm:
            new &= OFFSET
            if new >= self._queue_bytes():
                return
            self.registers[CWRITER] = new
            self._run_queue()
        else:
            self.registers[CWRITER] = new & ~1  # Retry reads 0
            if runs:
                self._run_queue()

    def _run_queue(self) -> None:
        cbaser, size = self.registers[CBASER], self._queue_bytes()
        if not self.registers[CTLR] & ENABLED or not cbaser & VALID:
            return
        base = cbaser & (1 << 52) - (1 << 12)
        if max(self.registers[CWRITER] & OFFSET, self.registers[CREADR] & OFFSET) >= size:
            return
        while (at := self.registers[CREADR] & OFFSET) != self.registers[CWRITER] & OFFSET:
            try:
                self.commands.run(self._fetch(base + at))
            except Stall:
                self.registers[CREADR] |= STALLED
                return
            self.registers[CREADR] = self.registers[CREADR] & ~OFFSET | (at + COMMAND) % size
            for redistributor in self.redistributors:
                redistributor.settle()

    def _fetch(self, addr: int) -> bytes:
        """A command; where nothing answers it is one that means nothing."""
        try:
            return self.memory.read(addr, COMMAND)
        except FaultError:
            return bytes(COMMAND)
