"""Where the areas lie (virtio 1.3 §2.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError, MemoryFaultError
from common.memory import GuestMemory
from common.virtio.split_layout import SplitLayout, SplitViews, need_event
from tests.common.virtio.ringkit import PROFILE


@pytest.mark.parametrize(
    ("size", "desc", "driver", "device"),
    [(1, 16, 8, 14), (2, 32, 10, 22), (256, 4096, 518, 2054), (32768, 524288, 65542, 262150)],
)
def test_sizes(size: int, desc: int, driver: int, device: int) -> None:
    assert SplitLayout.sizes(size) == (desc, driver, device)


@pytest.mark.parametrize("size", [0, -1, 3, 6, 65536, 32767])
def test_sizes_that_are_refused(size: int) -> None:
    with pytest.raises(LocalError, match="power of two"):
        SplitLayout(size, 0, 0, 0)


@pytest.mark.parametrize(
    ("areas", "name"),
    [((8, 0, 0), "desc"), ((0, 1, 0), "driver"), ((0, 0, 2), "device"), ((-16, 0, 0), "desc"), ((0, 0, -4), "device")],
)
def test_alignment(areas: tuple[int, int, int], name: str) -> None:
    with pytest.raises(LocalError, match=name):
        SplitLayout(4, *areas)


@PROFILE
@given(order=st.integers(0, 15), page=st.integers(0, 64))
def test_packed_at_never_overlaps(order: int, page: int) -> None:
    size, base = 1 << order, 16 * page
    layout = SplitLayout.packed_at(base, size)
    desc, driver, device = SplitLayout.sizes(size)
    assert layout.desc == base
    assert layout.driver >= layout.desc + desc
    assert layout.device >= layout.driver + driver
    assert layout.driver % 64 == 0
    assert layout.device % 64 == 0
    assert layout.end == layout.device + device


@PROFILE
@given(order=st.integers(0, 15))
def test_views_end_exactly_where_the_areas_end(order: int) -> None:
    size = 1 << order
    layout = SplitLayout.packed_at(64, size)
    memory = GuestMemory((layout.end + 7) & ~7)
    views = SplitViews(memory, layout)
    views.addr[2 * size - 2] = 0x0102030405060708  # addr of the last descriptor
    views.length[4 * size - 2] = 0x11121314  # len
    views.half[8 * size - 2] = 0x2122  # flags
    views.half[8 * size - 1] = 0x3132  # next
    assert memory.read(layout.desc + 16 * (size - 1), 16) == bytes.fromhex("0807060504030201 14131211 2221 3231")
    views.avail[size + 1] = 0x4142  # ring[size - 1]
    views.avail[size + 2] = 0x5152  # used_event
    assert memory.read(layout.driver + 4 + 2 * (size - 1), 4) == bytes.fromhex("4241 5251")
    views.used_ring[2 * size - 2] = 0x61626364  # id of the last element
    views.used_ring[2 * size - 1] = 0x71727374  # len
    views.avail_event[0] = 0x8182
    assert memory.read(layout.device + 4 + 8 * (size - 1), 10) == bytes.fromhex("64636261 74737271 8281")


def test_views_outside_memory() -> None:
    layout = SplitLayout.packed_at(0, 64)
    with pytest.raises(MemoryFaultError):
        SplitViews(GuestMemory(layout.end - 7 & ~7), layout)


@PROFILE
@given(event=st.integers(0, 65535), old=st.integers(0, 65535), moved=st.integers(0, 65535))
def test_need_event_is_whether_the_index_passed(event: int, old: int, moved: int) -> None:
    passed = {(old + i) & 0xFFFF for i in range(moved)} if moved < 300 else None
    wanted = event in passed if passed is not None else (event - old) & 0xFFFF < moved
    assert need_event(event, (old + moved) & 0xFFFF, old) is wanted
