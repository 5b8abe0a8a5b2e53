from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.gic.fields import Field


def test_places_and_scales() -> None:
    field = Field(51, 8, scale=8)
    assert field.mask == 0x000F_FFFF_FFFF_FF00
    assert field.put(0x4300_0000) == 0x4300_0000
    assert field.get(0xFFF0_0000_4300_0080) == 0x4300_0000


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 63), st.integers(0, 63))
def test_put_is_the_inverse_of_get(word: int, a: int, b: int) -> None:
    field = Field(max(a, b), min(a, b))
    assert field.put(field.get(word)) == word & field.mask
    assert field.get(field.put(word)) == word & field.limit
