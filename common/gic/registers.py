"""Offsets and fields of the ITS and redistributor registers that both ends use (IHI 0069 §12.11, §12.19)."""

from __future__ import annotations

from typing import Final

from common.gic.fields import Field

#: Every register frame here is one 64 KiB page.
FRAME: Final = 0x10000

# --- ITS control frame, §12.19 -----------------------------------------------------------------------------------

GITS_CTLR: Final = 0x0000
GITS_IIDR: Final = 0x0004
GITS_TYPER: Final = 0x0008
GITS_CBASER: Final = 0x0080
GITS_CWRITER: Final = 0x0088
GITS_CREADR: Final = 0x0090
GITS_BASER: Final = 0x0100
GITS_BASERS: Final = 8
GITS_PIDR4: Final = 0xFFD0
GITS_PIDR2: Final = 0xFFE8

#: Of the translation frame, 64 KiB after the control frame.
GITS_TRANSLATER: Final = 0x0040

CTLR_ENABLED: Final = 1 << 0
CTLR_QUIESCENT: Final = 1 << 31

TYPER_PHYSICAL: Final = 1 << 0
TYPER_ITT_ENTRY_SIZE: Final = Field(7, 4)
TYPER_ID_BITS: Final = Field(12, 8)
TYPER_DEVBITS: Final = Field(17, 13)
TYPER_PTA: Final = 1 << 19
TYPER_HCC: Final = Field(31, 24)
TYPER_CIL: Final = 1 << 36

BASER_VALID: Final = 1 << 63
BASER_INDIRECT: Final = 1 << 62
BASER_TYPE: Final = Field(58, 56)
BASER_ENTRY_SIZE: Final = Field(52, 48)
#: Address field where pages are 64 KiB: bits 47:16 in place, bits 51:48 in 15:12.
BASER_ADDR: Final = Field(47, 16, scale=16)
BASER_ADDR_HIGH: Final = Field(15, 12)
BASER_PAGE_SIZE: Final = Field(9, 8)
BASER_PAGE_64K: Final = 2
#: Number of pages minus 1.
BASER_PAGES: Final = Field(7, 0)

TYPE_DEVICES: Final = 1
TYPE_COLLECTIONS: Final = 4

CBASER_VALID: Final = 1 << 63
CBASER_ADDR: Final = Field(51, 12, scale=12)
#: Number of 4 KiB pages minus 1.
CBASER_PAGES: Final = Field(7, 0)
CBASER_PAGE: Final = 4096

#: Byte offset of a command in the queue, of CWRITER and CREADR.
QUEUE_OFFSET: Final = 0xFFFE0
CREADR_STALLED: Final = 1 << 0

# --- redistributor, RD_base frame, §12.11 ------------------------------------------------------------------------

GICR_CTLR: Final = 0x0000
GICR_IIDR: Final = 0x0004
GICR_TYPER: Final = 0x0008
GICR_PROPBASER: Final = 0x0070
GICR_PENDBASER: Final = 0x0078
GICR_PIDR2: Final = 0xFFE8

GICR_CTLR_ENABLE_LPIS: Final = 1 << 0

GICR_TYPER_PLPIS: Final = 1 << 0
GICR_TYPER_LAST: Final = 1 << 4
GICR_TYPER_NUMBER: Final = Field(23, 8)
GICR_TYPER_AFFINITY: Final = Field(63, 32)

PROPBASER_ADDR: Final = Field(51, 12, scale=12)
#: INTID bits minus 1.
PROPBASER_ID_BITS: Final = Field(4, 0)
PENDBASER_ADDR: Final = Field(51, 16, scale=16)
#: "Pending table zero": the table holds nothing, so it need not be read at enable.
PENDBASER_PTZ: Final = 1 << 62

#: Inner cacheable write-back, inner shareable: what Linux asks for in BASER, CBASER and CWRITER's attributes.
ATTRIBUTES_ITS: Final = Field(61, 59).put(7) | Field(11, 10).put(1)
#: The same for PROPBASER and PENDBASER, where inner cacheability is in bits 9:7.
ATTRIBUTES_RD: Final = Field(9, 7).put(7) | Field(11, 10).put(1)


def baser_address(value: int) -> int:
    """Table address of a BASER with 64 KiB pages."""
    return BASER_ADDR.get(value) | BASER_ADDR_HIGH.get(value) << 48


def baser_with_address(address: int) -> int:
    """The address fields of a BASER with 64 KiB pages."""
    return BASER_ADDR.put(address) | BASER_ADDR_HIGH.put(address >> 48)
