"""The register frames as tables (IHI 0069 §12.11 redistributor, §12.19 ITS). Hooks name methods of the owner."""

from __future__ import annotations

from typing import Final

from common.gic.registers import (
    CTLR_ENABLED,
    FRAME,
    GICR_CTLR,
    GICR_CTLR_ENABLE_LPIS,
    GICR_IIDR,
    GICR_PENDBASER,
    GICR_PIDR2,
    GICR_PROPBASER,
    GICR_TYPER,
    GITS_BASER,
    GITS_BASERS,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_CWRITER,
    GITS_IIDR,
    GITS_PIDR4,
    GITS_TRANSLATER,
    GITS_TYPER,
    QUEUE_OFFSET,
)
from common.registers import Access, Register, RegisterMap

_RO: Final = Access.RO
_RW: Final = Access.RW

#: BASER: everything but Type [58:56], Entry_Size [52:48] and the page size, which is 64 KiB for good.
_BASER_MASK: Final = ~(0x7 << 56 | 0x1F << 48 | 0x3 << 8) & (1 << 64) - 1
#: CBASER: all but RES0 [62], [58:56], [52], [9:8], and the address bits 15:12 (forced to 64 KiB).
_CBASER_MASK: Final = ~(1 << 62 | 0x7 << 56 | 1 << 52 | 0xF << 12 | 0x3 << 8) & (1 << 64) - 1
_PROPBASER_MASK: Final = ~(0x1F << 59 | 0xF << 52 | 0x3 << 5) & (1 << 64) - 1
_PENDBASER_MASK: Final = ~(1 << 63 | 0x7 << 59 | 0xF << 52 | 0xF << 12 | 0x7F) & (1 << 64) - 1

_IDS: Final = tuple(
    [f"PIDR{n}" for n in (4, 5, 6, 7, 0, 1, 2, 3)] + [f"CIDR{n}" for n in range(4)],
)


def id_rows(prefix: str) -> list[Register]:
    """The identification registers of any GIC frame, 0xffd0 to 0xfffc."""
    return [
        Register(GITS_PIDR4 + 4 * n, f"{prefix}_{name}", 32, _RO, section="§12.1", doc="identification")
        for n, name in enumerate(_IDS)
    ]


def _baser(n: int) -> Register:
    name, offset = f"GITS_BASER{n}", GITS_BASER + 8 * n
    if n == 0:
        return Register(offset, name, 64, _RW, mask=_BASER_MASK, write="write_baser0", waits=True, section="§12.19",
                        doc="device table")  # fmt: skip
    if n == 1:
        return Register(offset, name, 64, _RW, mask=_BASER_MASK & ~(1 << 62), write="write_baser1", waits=True,
                        section="§12.19", doc="collection table, flat only")  # fmt: skip
    return Register(offset, name, 64, Access.RAZ_WI, section="§12.19", doc="not implemented")


ITS_FRAME: Final = RegisterMap("its", FRAME, [
    Register(GITS_CTLR, "GITS_CTLR", 32, _RW, mask=CTLR_ENABLED, read="read_ctlr", write="write_ctlr", waits=True,
             section="§12.19", doc="Enabled [0], Quiescent [31]"),
    Register(GITS_IIDR, "GITS_IIDR", 32, _RO, section="§12.19", doc="implementer; ABI revision in [15:12]"),
    Register(GITS_TYPER, "GITS_TYPER", 64, _RO, section="§12.19", doc="what the ITS can do"),
    Register(GITS_CBASER, "GITS_CBASER", 64, _RW, mask=_CBASER_MASK, write="write_cbaser", waits=True,
             section="§12.19", doc="command queue; a write sets CREADR and CWRITER to 0"),
    Register(GITS_CWRITER, "GITS_CWRITER", 64, _RW, mask=QUEUE_OFFSET, write="write_cwriter", waits=True,
             section="§12.19", doc="byte offset after the last command; dropped past the queue's end"),
    Register(GITS_CREADR, "GITS_CREADR", 64, _RO, section="§12.19", doc="byte offset of the next command to run"),
    *(_baser(n) for n in range(GITS_BASERS)),
    *id_rows("GITS"),
])  # fmt: skip

TRANSLATION_FRAME: Final = RegisterMap("trans", FRAME, [
    Register(GITS_TRANSLATER, "GITS_TRANSLATER", 32, Access.WO, write="write_translater", sizes=(2, 4),
             section="§12.19", doc="EventID of an MSI; a CPU has no DeviceID, so its writes are dropped"),
])  # fmt: skip

REDISTRIBUTOR_FRAME: Final = RegisterMap("gicr", FRAME, [
    Register(GICR_CTLR, "GICR_CTLR", 32, _RW, mask=GICR_CTLR_ENABLE_LPIS, write="write_ctlr", waits=True,
             section="§12.11", doc="EnableLPIs [0]"),
    Register(GICR_IIDR, "GICR_IIDR", 32, _RO, section="§12.11", doc="implementer"),
    Register(GICR_TYPER, "GICR_TYPER", 64, _RO, section="§12.11",
             doc="PLPIS [0], Last [4], Processor_Number [23:8], Affinity_Value [63:32]"),
    Register(GICR_PROPBASER, "GICR_PROPBASER", 64, _RW, mask=_PROPBASER_MASK, write="write_table_base",
             section="§12.11", doc="LPI configuration table; fixed while LPIs are enabled"),
    Register(GICR_PENDBASER, "GICR_PENDBASER", 64, _RW, mask=_PENDBASER_MASK, read="read_pendbaser",
             write="write_table_base", section="§12.11", doc="LPI pending table; PTZ [62] reads 0"),
    Register(GICR_PIDR2, "GICR_PIDR2", 32, _RO, reset=0x3B, section="§12.1", doc="GICv3"),
])  # fmt: skip
