"""What differs between implementations of the ITS, as data: identification, field sizes, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from common.gic.registers import TYPER_DEVBITS, TYPER_ID_BITS, TYPER_ITT_ENTRY_SIZE, TYPER_PHYSICAL


@dataclass(slots=True, frozen=True)
class Profile:
    """``device_bits`` and ``event_bits`` are widths of DeviceID and EventID, ``icid_bits`` of the collection's ID.

    ``ids`` are the identification registers by offset, GITS_PIDR4 (0xffd0) to GITS_CIDR3 (0xfffc).
    """

    name: str
    iidr: int
    device_bits: int
    event_bits: int
    icid_bits: int
    entry_size: int
    ids: dict[int, int] = field(default_factory=dict)

    @property
    def typer(self) -> int:
        """GITS_TYPER (IHI 0069 §12.19): PTA = 0, HCC = 0, CIL = 0."""
        return (
            TYPER_PHYSICAL
            | TYPER_ITT_ENTRY_SIZE.put(self.entry_size - 1)
            | TYPER_ID_BITS.put(self.event_bits - 1)
            | TYPER_DEVBITS.put(self.device_bits - 1)
        )


#: Linux 6.x, arch/arm64/kvm/vgic/vgic-its.c, save/restore ABI revision 0.
KVM: Final = Profile(
    name="kvm",
    iidr=0x4B00043B,
    device_bits=16,
    event_bits=16,
    icid_bits=16,
    entry_size=8,
    ids={
        0xFFD0: 0x40, 0xFFE0: 0x92, 0xFFE4: 0xB4, 0xFFE8: 0x3B,
        0xFFF0: 0x0D, 0xFFF4: 0xF0, 0xFFF8: 0x05, 0xFFFC: 0xB1,
    },
)  # fmt: skip

PROFILES: Final = {KVM.name: KVM}
