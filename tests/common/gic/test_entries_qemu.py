"""Table entries against hand-made words of QEMU's layout."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.gic.entries_qemu import Cte, Dte, Ite


def word(data: bytes) -> int:
    return int.from_bytes(data, "little")


def test_dte_layout() -> None:
    # valid 0, size 5:1 (bits - 1), ITT 49:6 (address bits 51:8)
    assert word(Dte(True, 0x4300_0000, 8).pack()) == 1 | 7 << 1 | (0x4300_0000 >> 8) << 6
    assert len(Dte(True, 0, 1).pack()) == 8
    assert Dte(False, 0x100, 8).pack() == bytes(8)


def test_cte_layout() -> None:
    # valid 0, RDBase 20:1
    assert word(Cte(True, 3).pack()) == 1 | 3 << 1
    assert Cte(False, 3).pack() == bytes(8)


def test_ite_layout() -> None:
    # valid 0, physical 1, INTID 25:2, ICID 47:32, then 32 bits of doorbell (none: 1023)
    assert word(Ite(True, 8195, 3).pack()) == 3 | 8195 << 2 | 3 << 32 | 0x3FF << 64
    assert Ite(False, 8195, 3).pack() == bytes(12)


def test_a_virtual_interrupt_is_no_physical_one() -> None:
    assert not Ite.unpack((1 | 8195 << 2).to_bytes(12, "little")).valid
    assert not Ite.unpack((2 | 8195 << 2).to_bytes(12, "little")).valid


@given(st.integers(0, (1 << 44) - 1), st.integers(1, 32))
def test_dte_round_trip(itt: int, bits: int) -> None:
    entry = Dte(True, itt << 8, bits)
    assert Dte.unpack(entry.pack()) == entry


@given(st.integers(0, (1 << 20) - 1))
def test_cte_round_trip(rdbase: int) -> None:
    entry = Cte(True, rdbase)
    assert Cte.unpack(entry.pack()) == entry


@given(st.integers(0, (1 << 24) - 1), st.integers(0, 0xFFFF))
def test_ite_round_trip(intid: int, icid: int) -> None:
    entry = Ite(True, intid, icid)
    assert Ite.unpack(entry.pack()) == entry
