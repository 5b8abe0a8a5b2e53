"""Entries of the ITS tables in guest memory as QEMU lays them out (little-endian).

IHI 0069 leaves the format to the implementation; QEMU's is its own affair, seen in what it writes. Entries of the
device and collection tables have 8 bytes, those of an ITT 12.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from common.gic.fields import Field

ENTRY_SIZE: Final = 8
ITE_SIZE: Final = 12

VALID: Final = 1 << 0

DTE_SIZE: Final = Field(5, 1)
DTE_ITT: Final = Field(49, 6)
#: The ITT field holds the address in units of 256 bytes.
ITT_SHIFT: Final = 8

CTE_RDBASE: Final = Field(20, 1)

ITE_PHYSICAL: Final = 1 << 1
ITE_INTID: Final = Field(25, 2)
ITE_ICID: Final = Field(47, 32)
#: The last four bytes: no doorbell.
NO_DOORBELL: Final = 1023


class Dte(NamedTuple):
    """Device table entry. ``itt`` is an address (256-byte aligned), ``bits`` the EventID bits (1 to 32)."""

    valid: bool
    itt: int
    bits: int

    def pack(self) -> bytes:
        word = 0
        if self.valid:
            word = VALID | DTE_SIZE.put(self.bits - 1) | DTE_ITT.put(self.itt >> ITT_SHIFT)
        return word.to_bytes(ENTRY_SIZE, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Dte:
        word = int.from_bytes(data, "little")
        return cls(bool(word & VALID), DTE_ITT.get(word) << ITT_SHIFT, DTE_SIZE.get(word) + 1)


class Cte(NamedTuple):
    """Collection table entry, indexed by ICID."""

    valid: bool
    rdbase: int

    def pack(self) -> bytes:
        word = VALID | CTE_RDBASE.put(self.rdbase) if self.valid else 0
        return word.to_bytes(ENTRY_SIZE, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Cte:
        word = int.from_bytes(data, "little")
        return cls(bool(word & VALID), CTE_RDBASE.get(word))


class Ite(NamedTuple):
    """Interrupt translation entry, indexed by EventID."""

    valid: bool
    intid: int
    icid: int

    def pack(self) -> bytes:
        if not self.valid:
            return bytes(ITE_SIZE)
        word = VALID | ITE_PHYSICAL | ITE_INTID.put(self.intid) | ITE_ICID.put(self.icid)
        return word.to_bytes(8, "little") + NO_DOORBELL.to_bytes(4, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Ite:
        word = int.from_bytes(data[:8], "little")
        valid = word & (VALID | ITE_PHYSICAL) == VALID | ITE_PHYSICAL
        return cls(valid, ITE_INTID.get(word), ITE_ICID.get(word))
