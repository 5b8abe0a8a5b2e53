"""The two rows: what they are called, what GITS_TYPER says of them, where they differ."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from services.gic_its.profile import KVM, PROFILES, QEMU

#: GITS_PIDR4 to 7, GITS_PIDR0 to 3, GITS_CIDR0 to 3.
ID_OFFSETS = range(0xFFD0, 0x10000, 4)


def test_profiles_are_found_by_name() -> None:
    assert PROFILES == {"kvm": KVM, "qemu": QEMU}


def test_identification() -> None:
    assert (KVM.iidr, KVM.typer) == (0x4B00043B, 0x1EF71)
    assert (QEMU.iidr, QEMU.typer) == (0x43B, 0x1F0001EFB1)  # seen on QEMU 10.0.2
    components = [0x0D, 0xF0, 0x05, 0xB1]
    assert [KVM.ids.get(at, 0) for at in ID_OFFSETS] == [0x40, 0, 0, 0, 0x92, 0xB4, 0x3B, 0, *components]
    assert [QEMU.ids.get(at, 0) for at in ID_OFFSETS] == [0x44, 0, 0, 0, 0x94, 0xB4, 0x3B, 0, *components]


def test_they_differ_in_every_policy() -> None:
    """A policy that both share would be the architecture's, and would stand in the code."""
    same = {field.name for field in fields(KVM) if getattr(KVM, field.name) == getattr(QEMU, field.name)}
    assert same == {"device_bits", "event_bits", "icid_bits"}


@given(
    device_bits=st.integers(1, 32),
    event_bits=st.integers(1, 32),
    icid_bits=st.integers(1, 16),
    itt_entry=st.integers(1, 16),
    cil=st.booleans(),
)
def test_typer_says_each_width(device_bits: int, event_bits: int, icid_bits: int, itt_entry: int, cil: bool) -> None:
    profile = replace(
        KVM, device_bits=device_bits, event_bits=event_bits, icid_bits=icid_bits, itt_entry=itt_entry, cil=cil
    )
    typer = profile.typer
    assert typer & 0x7 == 1  # Physical, no Virtual
    assert (typer >> 4 & 0xF) + 1 == itt_entry
    assert (typer >> 8 & 0x1F) + 1 == event_bits
    assert (typer >> 13 & 0x1F) + 1 == device_bits
    assert typer >> 18 & 0x3 == 0  # SEIS, PTA
    assert typer >> 24 & 0xFF == 0  # HCC
    assert typer >> 36 == cil
    assert (typer >> 32 & 0xF) == (icid_bits - 1 if cil else 0)
