"""Entries of the ITS tables in guest memory, by KVM's save/restore ABI revision 0 (little-endian, 8 bytes each).

IHI 0069 leaves the format to the implementation; this is the one of Documentation/virt/kvm/devices/arm-vgic-its.rst,
so that tables can be compared with and carried to KVM.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from common.gic.fields import Field

ENTRY_SIZE: Final = 8
#: Pages of a two-level table, and the span of a level-1 entry.
PAGE: Final = 64 * 1024

VALID: Final = 1 << 63

DTE_NEXT: Final = Field(62, 49)
DTE_ITT: Final = Field(48, 5, scale=8)
DTE_SIZE: Final = Field(4, 0)

CTE_RDBASE: Final = Field(51, 16)
CTE_ICID: Final = Field(15, 0)
#: RDBase of a collection that is in use by ITEs but not mapped to a PE.
NOT_MAPPED: Final = 0xFFFFFFFF

ITE_NEXT: Final = Field(63, 48)
ITE_INTID: Final = Field(47, 16)
ITE_ICID: Final = Field(15, 0)

L1_ADDR: Final = Field(51, 16, scale=16)

#: ``next`` of DTE and ITE is capped at these distances; 0 says that it is the last entry.
DTE_NEXT_MAX: Final = DTE_NEXT.limit
ITE_NEXT_MAX: Final = ITE_NEXT.limit


class Dte(NamedTuple):
    """Device table entry, indexed by DeviceID. ``itt`` is an address (256-byte aligned), ``bits`` the EventID bits
    (1 to 32), ``next`` the distance to the next DeviceID in use."""

    valid: bool
    itt: int
    bits: int
    next: int

    def pack(self) -> bytes:
        word = 0
        if self.valid:
            word = VALID | DTE_NEXT.put(min(self.next, DTE_NEXT_MAX)) | DTE_ITT.put(self.itt)
            word |= DTE_SIZE.put(self.bits - 1)
        return word.to_bytes(ENTRY_SIZE, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Dte:
        word = int.from_bytes(data, "little")
        return cls(bool(word & VALID), DTE_ITT.get(word), DTE_SIZE.get(word) + 1, DTE_NEXT.get(word))


class Cte(NamedTuple):
    """Collection table entry; the table is a list, the first invalid entry ends it."""

    valid: bool
    rdbase: int
    icid: int

    def pack(self) -> bytes:
        word = VALID | CTE_RDBASE.put(self.rdbase) | CTE_ICID.put(self.icid) if self.valid else 0
        return word.to_bytes(ENTRY_SIZE, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Cte:
        word = int.from_bytes(data, "little")
        return cls(bool(word & VALID), CTE_RDBASE.get(word), CTE_ICID.get(word))


class Ite(NamedTuple):
    """Interrupt translation entry, indexed by EventID; ``intid`` 0 means that it is not valid."""

    intid: int
    icid: int
    next: int

    def pack(self) -> bytes:
        return pack_ite(self.intid, self.icid, self.next) if self.intid else bytes(ENTRY_SIZE)

    @classmethod
    def unpack(cls, data: bytes) -> Ite:
        word = int.from_bytes(data, "little")
        return cls(ITE_INTID.get(word), ITE_ICID.get(word), ITE_NEXT.get(word))


def pack_ite(intid: int, icid: int, after: int) -> bytes:
    """A valid :class:`Ite` without the object: an ITS writes two of them for each event that is mapped."""
    after = min(after, ITE_NEXT_MAX)
    return (after << ITE_NEXT.lsb | intid << ITE_INTID.lsb | icid & ITE_ICID.limit).to_bytes(ENTRY_SIZE, "little")


class L1(NamedTuple):
    """Level-1 entry of a two-level table (IHI 0069 §5.2.2): where a 64 KiB page of the second level lies."""

    valid: bool
    page: int

    def pack(self) -> bytes:
        word = VALID | L1_ADDR.put(self.page) if self.valid else 0
        return word.to_bytes(ENTRY_SIZE, "little")

    @classmethod
    def unpack(cls, data: bytes) -> L1:
        word = int.from_bytes(data, "little")
        return cls(bool(word & VALID), L1_ADDR.get(word))
