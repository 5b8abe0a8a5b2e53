from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.gic.registers import baser_address, baser_with_address


@given(st.integers(0, (1 << 36) - 1))
def test_baser_addresses_of_52_bits(page: int) -> None:
    address = page << 16
    value = baser_with_address(address)
    assert baser_address(value) == address
    assert value & ~(0xFFFF_FFFF_0000 | 0xF000) == 0  # bits 47:16, and 15:12 for 51:48
