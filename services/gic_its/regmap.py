"""The register frames as tables, by profile (IHI 0069 §12.9 distributor, §12.11 redistributor, §12.19 ITS).

Hooks name methods of the owner:

* ITS: ``read_ctlr``, ``write_ctlr``, ``write_cbaser``, ``write_cwriter``, ``write_baser0``, ``write_baser1``; where the
  guest may write CREADR, ``write_creadr``.
* Translation frame: ``write_translater``.
* Redistributor: ``write_ctlr``; where the tables are fixed while LPIs are enabled, ``write_table_base`` and
  ``read_pendbaser``; otherwise ``write_waker``.
* Distributor: ``write_ctlr``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from common.errors import LocalError
from common.gic.registers import (
    BASER_ENTRY_SIZE,
    BASER_INDIRECT,
    BASER_PAGE_64K,
    BASER_PAGE_SIZE,
    BASER_TYPE,
    CTLR_ENABLED,
    CTLR_QUIESCENT,
    FRAME,
    GICD_CTLR,
    GICD_CTLR_ARE,
    GICD_CTLR_DS,
    GICD_CTLR_GRP0,
    GICD_CTLR_GRP1,
    GICD_IIDR,
    GICD_STATUSR,
    GICD_TYPER,
    GICD_TYPER_A3V,
    GICD_TYPER_ID_BITS,
    GICD_TYPER_IT_LINES,
    GICD_TYPER_LPIS,
    GICD_TYPER_NO1N,
    GICR_CTLR,
    GICR_CTLR_CES,
    GICR_CTLR_ENABLE_LPIS,
    GICR_IIDR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GICR_STATUSR,
    GICR_TYPER,
    GICR_TYPER_AFFINITY,
    GICR_TYPER_COMMON_LPI_AFF,
    GICR_TYPER_LAST,
    GICR_TYPER_NUMBER,
    GICR_TYPER_PLPIS,
    GICR_WAKER,
    GITS_BASER,
    GITS_BASERS,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_CWRITER,
    GITS_IIDR,
    GITS_STATUSR,
    GITS_TRANSLATER,
    GITS_TYPER,
    PIDR4,
    QUEUE_OFFSET,
    TYPE_COLLECTIONS,
    TYPE_DEVICES,
    WAKER_CHILDREN_ASLEEP,
    WAKER_PROCESSOR_SLEEP,
)
from common.registers import Access, Register, RegisterMap
from services.gic_its.profile import KVM, QEMU, Profile

_RO: Final = Access.RO
_RW: Final = Access.RW
_RAZ_WI: Final = Access.RAZ_WI
_ONES: Final = (1 << 64) - 1

#: BASER: everything but Type [58:56] and Entry_Size [52:48].
_BASER_MASK: Final = _ONES & ~(BASER_TYPE.mask | BASER_ENTRY_SIZE.mask)
#: CBASER: all but RES0 [62], [58:56], [52], [9:8], and the address bits 15:12 (forced to 64 KiB).
_CBASER_MASK: Final = _ONES & ~(1 << 62 | 0x7 << 56 | 1 << 52 | 0xF << 12 | 0x3 << 8)
_PROPBASER_MASK: Final = _ONES & ~(0x1F << 59 | 0xF << 52 | 0x3 << 5)
_PENDBASER_MASK: Final = _ONES & ~(1 << 63 | 0x7 << 59 | 0xF << 52 | 0xF << 12 | 0x7F)
#: CWRITER and CREADR where every bit is stored: all but Retry and Stalled.
_QUEUE_ALL: Final = _ONES & ~1

#: Bytes of an entry as GITS_BASER0 and GITS_BASER1 give it, the same in both profiles.
_TABLE_ENTRY: Final = 8

#: The identification registers in the order of their offsets, 0xffd0 to 0xfffc.
_IDS: Final = tuple([f"PIDR{n}" for n in (4, 5, 6, 7, 0, 1, 2, 3)] + [f"CIDR{n}" for n in range(4)])
_PIDR0: Final = _IDS.index("PIDR0")


@dataclass(slots=True, frozen=True)
class Gic:
    """What an implementation's distributor and redistributors hold, beside the ITS that a Profile describes.

    ``gicd_ctlr`` are the bits of GICD_CTLR that software may write, ``gicr_ctlr`` those of GICR_CTLR that read 1,
    ``gicr_typer`` those of GICR_TYPER that are the same at every PE. ``gicd_pidr0`` and ``gicr_pidr0`` stand where the
    other identification registers are the ITS's; with ``bare_ids`` PIDR2 is the only one that is not 0.
    """

    gicd_ctlr: int
    gicd_typer: int
    gicd_iidr: int
    gicd_statusr: int
    gicr_ctlr: int
    gicr_typer: int
    gicd_pidr0: int
    gicr_pidr0: int
    bare_ids: bool
    #: GICR_WAKER: ChildrenAsleep follows ProcessorSleep; otherwise RAZ/WI.
    sleeps: bool


_LPIS_OF_16_BITS: Final = GICD_TYPER_LPIS | GICD_TYPER_ID_BITS.put(15)

#: By Profile.name. KVM: 256 lines, and implementation revision 2 in GICD_IIDR, since revision 3 promises GICR_INVLPIR
#: and GICR_INVALLR. QEMU: as the machine ``virt`` of 10.0.2 has it, with 288 lines.
GICS: Final = {
    KVM.name: Gic(
        gicd_ctlr=GICD_CTLR_GRP1,
        gicd_typer=_LPIS_OF_16_BITS | GICD_TYPER_IT_LINES.put(7),
        gicd_iidr=0x4B00243B,
        gicd_statusr=0xFFFFFFFF,
        gicr_ctlr=0,
        gicr_typer=GICR_TYPER_PLPIS,
        gicd_pidr0=0,
        gicr_pidr0=0,
        bare_ids=True,
        sleeps=False,
    ),
    QEMU.name: Gic(
        gicd_ctlr=GICD_CTLR_GRP1 | GICD_CTLR_GRP0,
        gicd_typer=_LPIS_OF_16_BITS | GICD_TYPER_A3V | GICD_TYPER_NO1N | GICD_TYPER_IT_LINES.put(8),
        gicd_iidr=0x43B,
        gicd_statusr=0,
        gicr_ctlr=GICR_CTLR_CES,
        gicr_typer=GICR_TYPER_PLPIS | GICR_TYPER_COMMON_LPI_AFF.put(1),
        gicd_pidr0=0x92,
        gicr_pidr0=0x93,
        bare_ids=False,
        sleeps=True,
    ),
}


def gic(profile: Profile) -> Gic:
    """The distributor and redistributors that belong to ``profile``; LocalError where its name has none."""
    found = GICS.get(profile.name)
    if found is None:
        raise LocalError(f"profile {profile.name!r} is none of {', '.join(GICS)}")
    return found


# --- frames ------------------------------------------------------------------------------------------------------


def its_frame(profile: Profile) -> RegisterMap:
    """GITS_*: the control frame of the ITS."""
    return _its_frame(
        profile.any_page_size, profile.drops_cwriter_past_queue, profile.cbaser_clears_cwriter, profile.creadr_writable
    )


def redistributor_frame(profile: Profile) -> RegisterMap:
    """GICR_*: the RD_base frame of one redistributor."""
    return _redistributor_frame(profile.loose_redistributor, gic(profile).sleeps)


def distributor_frame(profile: Profile) -> RegisterMap:
    """GICD_*: the part of the distributor that LPIs need; the registers of SPIs are RAZ/WI."""
    return _distributor_frame(gic(profile).gicd_ctlr)


TRANSLATION_FRAME: Final = RegisterMap("trans", FRAME, [
    Register(GITS_TRANSLATER, "GITS_TRANSLATER", 32, Access.WO, write="write_translater", sizes=(2, 4),
             low_only=True, section="§12.19",
             doc="EventID of an MSI; a CPU's write is one of DeviceID 0 in qemu, and dropped in kvm"),
])  # fmt: skip


@cache
def _its_frame(any_page_size: bool, drops_cwriter: bool, clears_cwriter: bool, creadr_writable: bool) -> RegisterMap:
    return RegisterMap("its", FRAME, [
        Register(GITS_CTLR, "GITS_CTLR", 32, _RW, reset=CTLR_QUIESCENT, mask=CTLR_ENABLED, read="read_ctlr",
                 write="write_ctlr", waits=True, section="§12.19",
                 doc="Enabled [0]: commands run and MSIs are translated; Quiescent [31]"),
        Register(GITS_IIDR, "GITS_IIDR", 32, _RO, section="§12.19", doc="implementer; kvm: ABI revision in [15:12]"),
        Register(GITS_TYPER, "GITS_TYPER", 64, _RO, section="§12.19",
                 doc="Physical [0], ITT_entry_size [7:4], ID_bits [12:8], Devbits [17:13], CIDbits [35:32], CIL [36]"),
        Register(GITS_STATUSR, "GITS_STATUSR", 32, _RAZ_WI, section="§12.19", doc="not implemented"),
        Register(GITS_CBASER, "GITS_CBASER", 64, _RW, mask=_ONES if any_page_size else _CBASER_MASK,
                 write="write_cbaser", waits=True, section="§12.19",
                 doc=f"command queue; a write sets CREADR {'and CWRITER ' if clears_cwriter else ''}to 0, "
                     "and is dropped while Enabled"),
        _cwriter(drops_cwriter),
        _creadr(creadr_writable),
        *(_baser(n, any_page_size) for n in range(GITS_BASERS)),
        *_id_rows("GITS"),
    ])  # fmt: skip


def _cwriter(drops: bool) -> Register:
    what = "byte offset after the last command; a write runs what is queued; past the queue's end "
    return Register(
        GITS_CWRITER,
        "GITS_CWRITER",
        64,
        _RW,
        mask=QUEUE_OFFSET if drops else _QUEUE_ALL,
        write="write_cwriter",
        waits=True,
        section="§12.19",
        doc=what + ("it is dropped" if drops else "it is stored and runs nothing; Retry [0] reads 0"),
    )


def _creadr(writable: bool) -> Register:
    what = "byte offset of the next command, Stalled [0]"
    if not writable:
        return Register(GITS_CREADR, "GITS_CREADR", 64, _RO, section="§12.19", doc=what)
    return Register(GITS_CREADR, "GITS_CREADR", 64, _RW, mask=_QUEUE_ALL, write="write_creadr", waits=True,
                    section="§12.19", doc=f"{what}; a write moves it")  # fmt: skip


def _baser(n: int, any_page_size: bool) -> Register:
    name, offset = f"GITS_BASER{n}", GITS_BASER + 8 * n
    mask = _BASER_MASK if any_page_size else _BASER_MASK & ~BASER_PAGE_SIZE.mask
    if n == 0:
        return Register(offset, name, 64, _RW, mask=mask, write="write_baser0", waits=True, section="§12.19",
                        doc="device table, flat or of two levels; a write is dropped while Enabled")  # fmt: skip
    if n == 1:
        if not any_page_size:
            mask &= ~BASER_INDIRECT
        levels = "flat or of two levels" if any_page_size else "flat"
        return Register(offset, name, 64, _RW, mask=mask, write="write_baser1", waits=True, section="§12.19",
                        doc=f"collection table, {levels}; a write is dropped while Enabled")  # fmt: skip
    return Register(offset, name, 64, _RAZ_WI, section="§12.19", doc="not implemented")


@cache
def _redistributor_frame(loose: bool, sleeps: bool) -> RegisterMap:
    if sleeps:
        waker = Register(GICR_WAKER, "GICR_WAKER", 32, _RW, reset=WAKER_CHILDREN_ASLEEP | WAKER_PROCESSOR_SLEEP,
                         mask=WAKER_PROCESSOR_SLEEP, write="write_waker", section="§12.11",
                         doc="ProcessorSleep [1], which ChildrenAsleep [2] follows at once")  # fmt: skip
    else:
        waker = Register(GICR_WAKER, "GICR_WAKER", 32, _RAZ_WI, section="§12.11", doc="always awake")
    if loose:
        tables = (
            Register(GICR_PROPBASER, "GICR_PROPBASER", 64, _RW, section="§12.11", doc="LPI configuration table"),
            Register(GICR_PENDBASER, "GICR_PENDBASER", 64, _RW, section="§12.11", doc="LPI pending table, PTZ [62]"),
        )
    else:
        tables = (
            Register(GICR_PROPBASER, "GICR_PROPBASER", 64, _RW, mask=_PROPBASER_MASK, write="write_table_base",
                     section="§12.11", doc="LPI configuration table; a write is dropped while LPIs are enabled"),
            Register(GICR_PENDBASER, "GICR_PENDBASER", 64, _RW, mask=_PENDBASER_MASK, read="read_pendbaser",
                     write="write_table_base", section="§12.11",
                     doc="LPI pending table, PTZ [62] reads 0; a write is dropped while LPIs are enabled"),
        )  # fmt: skip
    return RegisterMap("gicr", FRAME, [
        Register(GICR_CTLR, "GICR_CTLR", 32, _RW, mask=GICR_CTLR_ENABLE_LPIS, write="write_ctlr", waits=True,
                 section="§12.11", doc="EnableLPIs [0], CES [1]; a write of 1 reads the pending table unless PTZ"),
        Register(GICR_IIDR, "GICR_IIDR", 32, _RO, section="§12.11", doc="implementer"),
        Register(GICR_TYPER, "GICR_TYPER", 64, _RO, section="§12.11",
                 doc="PLPIS [0], Last [4], Processor_Number [23:8], CommonLPIAff [25:24], Affinity_Value [63:32]"),
        Register(GICR_STATUSR, "GICR_STATUSR", 32, _RAZ_WI, section="§12.11", doc="not implemented"),
        waker,
        *tables,
        *_id_rows("GICR"),
    ])  # fmt: skip


@cache
def _distributor_frame(writable: int) -> RegisterMap:
    return RegisterMap("gicd", FRAME, [
        Register(GICD_CTLR, "GICD_CTLR", 32, _RW, reset=GICD_CTLR_ARE | GICD_CTLR_DS, mask=writable, write="write_ctlr",
                 section="§12.9", doc="EnableGrp1 [1] lets LPIs through to the vCPUs; ARE [4] and DS [6] read 1"),
        Register(GICD_TYPER, "GICD_TYPER", 32, _RO, section="§12.9",
                 doc="ITLinesNumber [4:0], LPIS [17], IDbits [23:19], A3V [24], No1N [25]"),
        Register(GICD_IIDR, "GICD_IIDR", 32, _RO, section="§12.9", doc="implementer; kvm: revision in [15:12]"),
        Register(GICD_STATUSR, "GICD_STATUSR", 32, _RO, section="§12.9", doc="not implemented; kvm reads all ones"),
        *_id_rows("GICD"),
    ])  # fmt: skip


def _id_rows(prefix: str) -> list[Register]:
    return [
        Register(PIDR4 + 4 * n, f"{prefix}_{name}", 32, _RO, section="§12.1", doc="identification")
        for n, name in enumerate(_IDS)
    ]


# --- reset values ------------------------------------------------------------------------------------------------


def resets(profile: Profile) -> dict[str, int]:
    """Reset values of the ITS frame that depend on the profile, by register name."""
    table = BASER_ENTRY_SIZE.put(_TABLE_ENTRY - 1) | BASER_PAGE_SIZE.put(BASER_PAGE_64K)
    return {
        "GITS_IIDR": profile.iidr,
        "GITS_TYPER": profile.typer,
        "GITS_BASER0": table | BASER_TYPE.put(TYPE_DEVICES),
        "GITS_BASER1": table | BASER_TYPE.put(TYPE_COLLECTIONS),
        **{f"GITS_{name}": profile.ids.get(PIDR4 + 4 * n, 0) for n, name in enumerate(_IDS)},
    }


def redistributor_resets(profile: Profile, vcpu: int, cpus: int) -> dict[str, int]:
    """Reset values of the redistributor of ``vcpu``, the last one where it is ``cpus`` - 1, by register name."""
    model = gic(profile)
    affinity = vcpu % 16 | vcpu // 16 << 8  # Aff0 counts sixteen PEs, in KVM as on QEMU's machine
    typer = model.gicr_typer | GICR_TYPER_NUMBER.put(vcpu) | GICR_TYPER_AFFINITY.put(affinity)
    if vcpu == cpus - 1:
        typer |= GICR_TYPER_LAST
    return {
        "GICR_CTLR": model.gicr_ctlr,
        "GICR_IIDR": profile.iidr,
        "GICR_TYPER": typer,
        **_ids("GICR", profile, model, model.gicr_pidr0),
    }


def distributor_resets(profile: Profile) -> dict[str, int]:
    """Reset values of the distributor, by register name."""
    model = gic(profile)
    return {
        "GICD_TYPER": model.gicd_typer,
        "GICD_IIDR": model.gicd_iidr,
        "GICD_STATUSR": model.gicd_statusr,
        **_ids("GICD", profile, model, model.gicd_pidr0),
    }


def _ids(prefix: str, profile: Profile, model: Gic, pidr0: int) -> dict[str, int]:
    values = [profile.ids.get(PIDR4 + 4 * n, 0) for n in range(len(_IDS))]
    values[_PIDR0] = pidr0
    return {
        f"{prefix}_{name}": value
        for name, value in zip(_IDS, values, strict=True)
        if name == "PIDR2" or not model.bare_ids
    }
