"""Offsets and fields of the registers that LPIs need (IHI 0069 §12.9 distributor, §12.11 redistributor, §12.19 ITS)."""

from __future__ import annotations

from typing import Final

from common.gic.fields import Field

#: Every register frame here is one 64 KiB page.
FRAME: Final = 0x10000

#: The identification registers start here in every frame, §12.1: PIDR4 to PIDR7, PIDR0 to PIDR3, CIDR0 to CIDR3.
PIDR4: Final = 0xFFD0

# --- ITS control frame, §12.19 -----------------------------------------------------------------------------------

GITS_CTLR: Final = 0x0000
GITS_IIDR: Final = 0x0004
GITS_TYPER: Final = 0x0008
GITS_STATUSR: Final = 0x0040
GITS_CBASER: Final = 0x0080
GITS_CWRITER: Final = 0x0088
GITS_CREADR: Final = 0x0090
GITS_BASER: Final = 0x0100
GITS_BASERS: Final = 8

#: Of the translation frame, 64 KiB after the control frame.
GITS_TRANSLATER: Final = 0x0040

CTLR_ENABLED: Final = 1 << 0
CTLR_QUIESCENT: Final = 1 << 31

#: Of GITS_IIDR: KVM's revision of the save/restore ABI.
IIDR_REVISION: Final = Field(15, 12)

TYPER_PHYSICAL: Final = 1 << 0
TYPER_ITT_ENTRY_SIZE: Final = Field(7, 4)
TYPER_ID_BITS: Final = Field(12, 8)
TYPER_DEVBITS: Final = Field(17, 13)
TYPER_PTA: Final = 1 << 19
TYPER_HCC: Final = Field(31, 24)
#: Bits of a collection's ID minus 1, where CIL is set.
TYPER_CIDBITS: Final = Field(35, 32)
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
GICR_STATUSR: Final = 0x0010
GICR_WAKER: Final = 0x0014
GICR_PROPBASER: Final = 0x0070
GICR_PENDBASER: Final = 0x0078

GICR_CTLR_ENABLE_LPIS: Final = 1 << 0
#: "Clear Enable Supported": EnableLPIs may be cleared again.
GICR_CTLR_CES: Final = 1 << 1

GICR_TYPER_PLPIS: Final = 1 << 0
GICR_TYPER_LAST: Final = 1 << 4
GICR_TYPER_NUMBER: Final = Field(23, 8)
#: Which redistributors share an LPI configuration table: 0 all, 1 those of one Aff3.
GICR_TYPER_COMMON_LPI_AFF: Final = Field(25, 24)
GICR_TYPER_AFFINITY: Final = Field(63, 32)

WAKER_PROCESSOR_SLEEP: Final = 1 << 1
WAKER_CHILDREN_ASLEEP: Final = 1 << 2

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

# --- distributor, §12.9 ------------------------------------------------------------------------------------------

GICD_CTLR: Final = 0x0000
GICD_TYPER: Final = 0x0004
GICD_IIDR: Final = 0x0008
GICD_STATUSR: Final = 0x0010

#: GICD_CTLR where there is one Security state (DS = 1). LPIs are of group 1.
GICD_CTLR_GRP0: Final = 1 << 0
GICD_CTLR_GRP1: Final = 1 << 1
GICD_CTLR_ARE: Final = 1 << 4
GICD_CTLR_DS: Final = 1 << 6

#: Interrupt lines / 32 - 1.
GICD_TYPER_IT_LINES: Final = Field(4, 0)
GICD_TYPER_LPIS: Final = 1 << 17
#: INTID bits minus 1.
GICD_TYPER_ID_BITS: Final = Field(23, 19)
GICD_TYPER_A3V: Final = 1 << 24
GICD_TYPER_NO1N: Final = 1 << 25


def baser_address(value: int) -> int:
    """Table address of a BASER with 64 KiB pages."""
    return BASER_ADDR.get(value) | BASER_ADDR_HIGH.get(value) << 48


def baser_moved(old: int, new: int) -> bool:
    """Whether what was in the table of a BASER is not there any more: it is not valid, lies elsewhere, is laid out in
    another way or has fewer pages. What its commands did before is lost then."""
    where = BASER_INDIRECT | BASER_ADDR.mask | BASER_ADDR_HIGH.mask | BASER_PAGE_SIZE.mask
    elsewhere = not old & new & BASER_VALID or (old ^ new) & where != 0
    return elsewhere or BASER_PAGES.get(new) < BASER_PAGES.get(old)


def baser_with_address(address: int) -> int:
    """The address fields of a BASER with 64 KiB pages."""
    return BASER_ADDR.put(address) | BASER_ADDR_HIGH.put(address >> 48)
