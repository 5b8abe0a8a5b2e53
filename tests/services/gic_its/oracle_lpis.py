"""The model's redistributors: which LPIs are pending where, and which of them a vCPU takes first.

Pending state is the redistributor's. A configuration byte is read when an LPI becomes known (kvm) or pending (qemu)
and again where the architecture lets software ask for it (INV, INVALL, EnableLPIs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tests.services.gic_its.oracle_memory import FaultError, Memory

FIRST_LPI: Final = 8192
NONE: Final = 1023

CTLR, IIDR, TYPER, PROPBASER, PENDBASER, PIDR2 = 0x0, 0x4, 0x8, 0x70, 0x78, 0xFFE8
PTZ: Final = 1 << 62
ADDRESS_4K: Final = (1 << 52) - (1 << 12)
ADDRESS_64K: Final = (1 << 52) - (1 << 16)
#: Bits that KVM keeps 0.
KVM_RES0: Final = {
    PROPBASER: 0x1F << 59 | 0xF << 52 | 0x3 << 5,
    PENDBASER: 1 << 63 | 0x7 << 59 | 0xF << 52 | 0xF << 12 | 0x7F,
}


class Redistributor:
    """RD_base frame of one PE. ``known()`` gives the LPIs whose configuration kvm caches without them being pending."""

    def __init__(self, memory: Memory, kvm: bool, known: Callable[[], Iterable[int]]) -> None:
        self._memory = memory
        self._kvm = kvm
        self._known = known
        self.reset()

    def reset(self) -> None:
        self.enabled = False
        self.registers = {PROPBASER: 0, PENDBASER: 0}
        self.pending: set[int] = set()
        self.config: dict[int, int] = {}

    @property
    def limit(self) -> int:
        """One past the largest INTID: PROPBASER.IDbits + 1 bits, at most 16."""
        return 1 << min((self.registers[PROPBASER] & 0x1F) + 1, 16)

    # --- registers -----------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if (offset, size) == (CTLR, 4):
            return int(self.enabled)
        register, half = offset & ~7, offset & 4
        if register in self.registers and ((size == 8 and not half) or size == 4):
            value = self.registers[register]
            if self._kvm and register == PENDBASER:
                value &= ~PTZ
            return value >> half * 8 & (1 << size * 8) - 1
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (CTLR, 4):
            self._switch(bool(value & 1))
        register, half = offset & ~7, offset & 4
        if register in self.registers and ((size == 8 and not half) or size == 4) and not (self._kvm and self.enabled):
            new = merge(self.registers[register], half, size, value)
            self.registers[register] = new & ~KVM_RES0[register] if self._kvm else new

    def _switch(self, on: bool) -> None:
        if self.enabled and not on:
            self._save_pending()
            self.pending.clear()
        elif on and not self.enabled:
            if not self._kvm or not self.registers[PENDBASER] & PTZ:  # QEMU reads the table in any case
                self._load_pending()
            self.enabled = True
            self.refresh_all()
        self.enabled = on

    def _save_pending(self) -> None:
        """The architecture's way: what is pending lies in the table while LPIs are off."""
        table = bytearray(self.limit // 8)
        for intid in self.pending:
            table[intid // 8] |= 1 << intid % 8
        skip = FIRST_LPI // 8
        try:
            self._memory.write((self.registers[PENDBASER] & ADDRESS_64K) + skip, bytes(table[skip:]))
        except FaultError:
            return

    def _load_pending(self) -> None:
        try:
            table = self._memory.read(self.registers[PENDBASER] & ADDRESS_64K, self.limit // 8)
        except FaultError:
            return
        self.pending = {n for n in range(FIRST_LPI, self.limit) if table[n // 8] >> n % 8 & 1}

    # --- LPIs ----------------------------------------------------------------------------------------------------

    def set_pending(self, intid: int) -> None:
        """INT or MSI. Dropped while LPIs are disabled here, or where the INTID is beyond the tables."""
        if self.can_have(intid):
            self.take(intid)

    def can_have(self, intid: int) -> bool:
        return self.enabled and FIRST_LPI <= intid < self.limit

    def take(self, intid: int) -> None:
        fresh = intid not in self.pending
        self.pending.add(intid)
        if intid not in self.config or (fresh and not self._kvm):
            self.refresh(intid)

    def clear(self, intid: int) -> None:
        self.pending.discard(intid)

    def move_to(self, other: Redistributor, intid: int) -> None:
        if other is not self and intid in self.pending:
            self.clear(intid)
            other.take(intid)

    def refresh(self, intid: int) -> None:
        """Read the configuration byte; after a fault what was known stays."""
        try:
            self.config[intid] = self._memory.read((self.registers[PROPBASER] & ADDRESS_4K) + intid - FIRST_LPI, 1)[0]
        except FaultError:
            self.config.setdefault(intid, 0)

    def refresh_all(self) -> None:
        for intid in self.pending | set(self._known()):
            self.refresh(intid)

    def settle(self) -> None:
        """After a command: what became known here is read, what is known here no more is forgotten."""
        known = self.pending | set(self._known())
        for intid in list(self.config):
            if intid not in known:
                del self.config[intid]
        for intid in known - set(self.config):
            self.refresh(intid)

    def acknowledge(self) -> int:
        """ICC_IAR1_EL1 and the EOI at once: lowest priority value first, then lowest INTID; NONE if there is none."""
        ready = [(self.config.get(n, 0) & 0xFC, n) for n in self.pending if self.config.get(n, 0) & 1]
        if not self.enabled or not ready:
            return NONE
        intid = min(ready)[1]
        self.clear(intid)
        return intid


def merge(old: int, half: int, size: int, value: int) -> int:
    """A 64-bit register after a write of itself or of one half (``half`` is 0 or 4)."""
    mask = (1 << size * 8) - 1 << half * 8
    return old & ~mask | value << half * 8 & mask
