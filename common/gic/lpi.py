"""LPI configuration and pending tables (IHI 0069 §5.1)."""

from __future__ import annotations

from typing import Final

#: The first LPI; smaller INTIDs are SGIs, PPIs, SPIs and special ones.
LPI_BASE: Final = 8192
#: INTIDs are at most this many bits wide here (KVM: INTERRUPT_ID_BITS_ITS).
LPI_ID_BITS: Final = 16
#: One past the largest INTID.
LPI_LIMIT: Final = 1 << LPI_ID_BITS

CONFIG_ENABLE: Final = 0x01
CONFIG_PRIORITY: Final = 0xFC
#: The configuration byte's bit 1 is RES1.
CONFIG_RES1: Final = 0x02

#: Linux's priority of every LPI.
DEFAULT_PRIORITY: Final = 0xA0


def config_byte(enabled: bool, priority: int = DEFAULT_PRIORITY) -> int:
    """One entry of the LPI configuration table (§5.1.1)."""
    return priority & CONFIG_PRIORITY | CONFIG_RES1 | enabled


def config_table_size(id_bits: int) -> int:
    """Bytes of a configuration table for INTIDs of ``id_bits`` bits; LPI 8192 has byte 0."""
    return max((1 << id_bits) - LPI_BASE, 0)


def pending_table_size(id_bits: int) -> int:
    """Bytes of a pending table for INTIDs of ``id_bits`` bits; bit n is INTID n, so the first 1 KiB holds no LPI."""
    return (1 << id_bits) // 8


def pending_intids(table: bytes, first: int = LPI_BASE) -> list[int]:
    """The INTIDs whose bit is set; byte 0 of ``table`` holds INTIDs ``first`` and up."""
    found: list[int] = []
    if not any(table):  # the usual case, a zeroed table, costs no loop over its bits
        return found
    for index, byte in enumerate(table):
        if byte:
            found.extend(first + index * 8 + bit for bit in range(8) if byte >> bit & 1)
    return found
