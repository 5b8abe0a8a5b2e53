"""The bump allocator of guest memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError
from common.virtio.split_layout import SplitLayout
from services.guest_driver.layout import Layout


@given(
    base=st.integers(0, 1 << 20),
    wanted=st.lists(st.tuples(st.integers(1, 3000), st.sampled_from([1, 2, 16, 64, 4096]))),
)
def test_areas_are_aligned_inside_and_apart(base: int, wanted: list[tuple[int, int]]) -> None:
    layout = Layout(base, 1 << 15)
    end = base
    for size, align in wanted:
        used = layout.used
        try:
            addr = layout.alloc(size, align)
        except LocalError:
            assert layout.used == used, "a refusal costs nothing"
            assert -(-end // align) * align + size > layout.end
            continue
        assert addr % align == 0
        assert end <= addr < end + align
        end = addr + size
        assert end <= layout.end
        assert layout.used == end - base


@given(size=st.integers(0, 10).map(lambda power: 1 << power), before=st.integers(0, 5000))
def test_a_ring_is_three_aligned_areas_and_nothing_else_is_in_them(size: int, before: int) -> None:
    layout = Layout(0x4000_0000, 1 << 20)
    layout.alloc(before, 1)
    ring = layout.ring(size)
    desc, driver, device = SplitLayout.sizes(size)
    assert ring.size == size
    assert ring.desc % 4096 == 0
    assert ring.desc >= layout.base + before
    assert ring.desc + desc <= ring.driver
    assert ring.driver + driver <= ring.device
    assert ring.device + device <= layout.alloc(1, 1)


def test_to_the_last_byte() -> None:
    layout = Layout(0x1000, 128)
    assert layout.alloc(64) == 0x1000
    assert layout.alloc(64) == 0x1040
    with pytest.raises(LocalError, match="1 bytes wanted, 0 left"):
        layout.alloc(1)
