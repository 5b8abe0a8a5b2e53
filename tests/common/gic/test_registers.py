from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.gic import registers
from common.gic.fields import Field
from common.gic.registers import baser_address, baser_moved, baser_with_address


@given(st.integers(0, (1 << 36) - 1))
def test_baser_addresses_of_52_bits(page: int) -> None:
    address = page << 16
    value = baser_with_address(address)
    assert baser_address(value) == address
    assert value & ~(0xFFFF_FFFF_0000 | 0xF000) == 0  # bits 47:16, and 15:12 for 51:48


def test_a_table_that_moves() -> None:
    """By Valid [63], Indirect [62], the address [47:12], Page_Size [9:8] and fewer pages in Size [7:0]; by nothing
    else."""
    where = {63, 62, *range(12, 48), 8, 9, 0, 2}
    value = 1 << 63 | 0x1234_0005
    assert {bit for bit in range(64) if baser_moved(value, value ^ 1 << bit)} == where
    assert not baser_moved(value, value)
    assert baser_moved(0, 0)
    assert baser_moved(value ^ 1 << 63, value)


def test_offsets_are_those_of_the_specification() -> None:
    """IHI 0069, tables of §12.8, §12.10 and §12.18."""
    offsets = {
        "GITS_CTLR": 0x0, "GITS_IIDR": 0x4, "GITS_TYPER": 0x8, "GITS_STATUSR": 0x40, "GITS_CBASER": 0x80,
        "GITS_CWRITER": 0x88, "GITS_CREADR": 0x90, "GITS_BASER": 0x100, "GITS_TRANSLATER": 0x40,
        "GICR_CTLR": 0x0, "GICR_IIDR": 0x4, "GICR_TYPER": 0x8, "GICR_STATUSR": 0x10, "GICR_WAKER": 0x14,
        "GICR_PROPBASER": 0x70, "GICR_PENDBASER": 0x78,
        "GICD_CTLR": 0x0, "GICD_TYPER": 0x4, "GICD_IIDR": 0x8, "GICD_STATUSR": 0x10, "PIDR4": 0xFFD0,
    }  # fmt: skip
    assert {name: getattr(registers, name) for name in offsets} == offsets


def test_fields_of_one_register_do_not_overlap() -> None:
    """Fields and single bits whose names share a prefix stand in one register."""
    its = ("TYPER_", "BASER_", "CBASER_", "CTLR_")
    for prefix in (*its, "GICR_TYPER_", "GICR_CTLR_", "WAKER_", "GICD_CTLR_", "GICD_TYPER_"):
        seen = 0
        for name, value in vars(registers).items():
            if not name.startswith(prefix) or name in ("BASER_PAGE_64K", "CBASER_PAGE"):
                continue
            mask = value.mask if isinstance(value, Field) else value
            assert not mask & seen, name
            seen |= mask
