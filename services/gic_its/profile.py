"""What differs between implementations of the ITS, as data: identification, field sizes, table entries, error policy.

Everything else is the architecture's and stands once. The two rows are Linux KVM (arch/arm64/kvm/vgic/vgic-its.c,
save/restore ABI revision 0) and QEMU (hw/intc/arm_gicv3_its.c, 7.2 to 10.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from common.gic.fields import Field
from common.gic.registers import (
    TYPER_CIDBITS,
    TYPER_CIL,
    TYPER_DEVBITS,
    TYPER_ID_BITS,
    TYPER_ITT_ENTRY_SIZE,
    TYPER_PHYSICAL,
)


@dataclass(slots=True, frozen=True)
class Profile:
    """One implementation.

    ``device_bits`` and ``event_bits`` are widths of DeviceID and EventID, ``icid_bits`` of the collection's ID,
    ``itt_entry`` the bytes of an ITT entry. ``ids`` are the identification registers by offset, GITS_PIDR4 (0xffd0) to
    GITS_CIDR3 (0xfffc).
    """

    name: str
    iidr: int
    device_bits: int
    event_bits: int
    icid_bits: int
    itt_entry: int
    ids: Mapping[int, int]
    #: GITS_TYPER.CIL: the width of ICIDs is given in CIDbits, not 16.
    cil: bool
    #: The ITS holds what is mapped and writes it through; otherwise it looks it up in guest memory at every use. What
    #: is held stays as it is when MAPTI maps it again, and MAPC takes pending state along to another PE.
    holds_tables: bool
    #: A fault in a table or an ITT stalls the queue (CREADR.Stalled); otherwise the command is skipped.
    stalls: bool
    #: Enabled stays 0 unless BASER0, BASER1 and CBASER are valid.
    enable_needs_tables: bool
    #: A CWRITER past the queue is dropped; otherwise it is stored and nothing runs.
    drops_cwriter_past_queue: bool
    #: A write of CBASER sets CWRITER to 0, not only CREADR.
    cbaser_clears_cwriter: bool
    #: The guest may write CREADR (QEMU: where GICD_CTLR.DS = 1).
    creadr_writable: bool
    #: Quiescent is always 1; otherwise where CREADR and CWRITER meet.
    always_quiescent: bool
    #: BASERs take every page size, and the collection table may have two levels.
    any_page_size: bool
    #: MAPTI refuses LPIs from 2^(PROPBASER.IDbits + 1) on; otherwise from 65536 on.
    mapti_obeys_id_bits: bool
    #: The bits of RDbase that MAPC and MOVALL look at; the others do not count.
    mapc_rdbase: Field
    movall_rdbase: Field
    #: MAPC with V = 0 takes its events' collection away for good, MAPD with V = 0 its events.
    unmap_forgets: bool
    #: MAPD with V = 0 is refused where its Size is, too.
    mapd_checks_unmap: bool
    #: EnableLPIs reads no pending table where GICR_PENDBASER.PTZ says that it is zero; otherwise it always does.
    enable_obeys_ptz: bool
    #: INVALL reads the configuration of every PE's LPIs again; otherwise of those at its collection's PE.
    invall_rescans_all: bool
    #: A write of GITS_TRANSLATER by a CPU is an MSI of this DeviceID; None: it is dropped.
    cpu_device: int | None
    #: GICR_PROPBASER and GICR_PENDBASER may be written while LPIs are enabled; PTZ reads back.
    loose_redistributor: bool

    @property
    def typer(self) -> int:
        """GITS_TYPER (IHI 0069 §12.19): PTA = 0, HCC = 0."""
        return (
            TYPER_PHYSICAL
            | TYPER_ITT_ENTRY_SIZE.put(self.itt_entry - 1)
            | TYPER_ID_BITS.put(self.event_bits - 1)
            | TYPER_DEVBITS.put(self.device_bits - 1)
            | (TYPER_CIL | TYPER_CIDBITS.put(self.icid_bits - 1) if self.cil else 0)
        )


KVM: Final = Profile(
    name="kvm",
    iidr=0x4B00043B,
    device_bits=16,
    event_bits=16,
    icid_bits=16,
    itt_entry=8,
    ids=MappingProxyType({
        0xFFD0: 0x40, 0xFFE0: 0x92, 0xFFE4: 0xB4, 0xFFE8: 0x3B,
        0xFFF0: 0x0D, 0xFFF4: 0xF0, 0xFFF8: 0x05, 0xFFFC: 0xB1,
    }),
    cil=False,
    holds_tables=True,
    stalls=False,
    enable_needs_tables=True,
    drops_cwriter_past_queue=True,
    cbaser_clears_cwriter=True,
    creadr_writable=False,
    always_quiescent=False,
    any_page_size=False,
    mapti_obeys_id_bits=True,
    mapc_rdbase=Field(47, 16),
    movall_rdbase=Field(47, 16),
    unmap_forgets=True,
    mapd_checks_unmap=False,
    enable_obeys_ptz=True,
    invall_rescans_all=False,
    cpu_device=None,
    loose_redistributor=False,
)  # fmt: skip

QEMU: Final = Profile(
    name="qemu",
    iidr=0x43B,
    device_bits=16,
    event_bits=16,
    icid_bits=16,
    itt_entry=12,
    ids=MappingProxyType({
        0xFFD0: 0x44, 0xFFE0: 0x94, 0xFFE4: 0xB4, 0xFFE8: 0x3B,
        0xFFF0: 0x0D, 0xFFF4: 0xF0, 0xFFF8: 0x05, 0xFFFC: 0xB1,
    }),
    cil=True,
    holds_tables=False,
    stalls=True,
    enable_needs_tables=False,
    drops_cwriter_past_queue=False,
    cbaser_clears_cwriter=False,
    creadr_writable=True,
    always_quiescent=True,
    any_page_size=True,
    mapti_obeys_id_bits=False,
    mapc_rdbase=Field(31, 16),
    movall_rdbase=Field(51, 16),
    unmap_forgets=False,
    mapd_checks_unmap=True,
    enable_obeys_ptz=False,
    invall_rescans_all=True,
    cpu_device=0,
    loose_redistributor=True,
)  # fmt: skip

PROFILES: Final = {profile.name: profile for profile in (KVM, QEMU)}
