"""Table entries against hand-made words of KVM's ABI revision 0."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.gic.entries import DTE_NEXT_MAX, ITE_NEXT_MAX, L1, Cte, Dte, Ite


def word(data: bytes) -> int:
    return int.from_bytes(data, "little")


def test_dte_layout() -> None:
    # V 63, next 62:49, ITT_addr 48:5 (address bits 51:8), Size 4:0 (bits - 1)
    assert word(Dte(True, 0x4300_0000, 8, 5).pack()) == 1 << 63 | 5 << 49 | (0x4300_0000 >> 8) << 5 | 7
    assert Dte(False, 0x100, 8, 1).pack() == bytes(8)


def test_cte_layout() -> None:
    # V 63, RDBase 51:16, ICID 15:0
    assert word(Cte(True, 3, 7).pack()) == 1 << 63 | 3 << 16 | 7
    assert word(Cte(True, 0xFFFFFFFF, 1).pack()) == 1 << 63 | 0xFFFFFFFF << 16 | 1
    assert Cte(False, 3, 7).pack() == bytes(8)


def test_ite_layout() -> None:
    # next 63:48, pINTID 47:16 (0 = invalid), ICID 15:0
    assert word(Ite(8195, 3, 1).pack()) == 1 << 48 | 8195 << 16 | 3
    assert Ite(0, 3, 1).pack() == bytes(8)


def test_level_1_layout() -> None:
    assert word(L1(True, 0x4225_0000).pack()) == 1 << 63 | 0x4225_0000
    assert L1(False, 0x4225_0000).pack() == bytes(8)
    assert L1.unpack((1 << 63 | 0x4225_FFFF).to_bytes(8, "little")) == L1(True, 0x4225_0000)


def test_distances_are_capped() -> None:
    assert Dte.unpack(Dte(True, 0, 1, 60000).pack()).next == DTE_NEXT_MAX == (1 << 14) - 1
    assert Ite.unpack(Ite(8192, 0, 70000).pack()).next == ITE_NEXT_MAX == (1 << 16) - 1


@given(st.integers(0, (1 << 44) - 1), st.integers(1, 32), st.integers(0, DTE_NEXT_MAX))
def test_dte_round_trip(itt: int, bits: int, distance: int) -> None:
    entry = Dte(True, itt << 8, bits, distance)
    assert Dte.unpack(entry.pack()) == entry


@given(st.integers(0, (1 << 36) - 1), st.integers(0, 0xFFFF))
def test_cte_round_trip(rdbase: int, icid: int) -> None:
    entry = Cte(True, rdbase, icid)
    assert Cte.unpack(entry.pack()) == entry


@given(st.integers(1, 0xFFFFFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_ite_round_trip(intid: int, icid: int, distance: int) -> None:
    entry = Ite(intid, icid, distance)
    assert Ite.unpack(entry.pack()) == entry
