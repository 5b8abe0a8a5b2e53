"""common.memory: regions and live views. Maps and keys: test_memory_keys.py; through a key: test_memory_mapped.py."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError, MemoryFaultError
from common.memory import CELL, GuestMemory


def test_bytes_go_in_and_come_out_zeroed_at_first() -> None:
    memory = GuestMemory(64, 0x1000)
    assert memory.read(0x1000, 64) == bytes(64)
    memory.write(0x1003, b"abc")
    memory.fill(0x1020, 4, 0xFF)
    assert memory.read(0x1000, 8) == b"\0\0\0abc\0\0"
    assert memory.read(0x1020, 5) == b"\xff\xff\xff\xff\0"
    assert memory.read(0x1040, 0) == b""


@pytest.mark.parametrize("fmt", CELL)
def test_views_are_live_little_endian_cells(fmt: str) -> None:
    memory = GuestMemory(64)
    width = CELL[fmt]
    view = memory.view(8, 4, fmt)
    assert len(view) == 4
    view[1] = (1 << 8 * width) - 2
    assert memory.read(8 + width, width) == b"\xfe" + b"\xff" * (width - 1)
    memory.write(8, b"\x01" + bytes(width - 1))
    assert view[0] == 1
    with pytest.raises((ValueError, TypeError)):
        view[0] = 1 << 8 * width


@pytest.mark.parametrize(
    ("addr", "length"), [(0xFFF, 1), (0x1040, 1), (0x103F, 2), (0x1000, 65), (0x1000, -1), (-1, 1), (1 << 64, 1)]
)
def test_accesses_outside_fault_and_touch_nothing(addr: int, length: int) -> None:
    memory = GuestMemory(64, 0x1000)
    with pytest.raises(MemoryFaultError) as caught:
        memory.check(addr, length)
    assert (caught.value.field, caught.value.value) == ("addr", hex(addr))
    with pytest.raises(MemoryFaultError):
        memory.read(addr, length)
    if length > 0:
        with pytest.raises(MemoryFaultError):
            memory.write(addr, b"\xff" * length)
    assert memory.read(0x1000, 64) == bytes(64)


def test_views_must_be_of_a_known_format_aligned_and_inside() -> None:
    memory = GuestMemory(64)
    with pytest.raises(LocalError, match="is none of"):
        memory.view(0, 1, "L")
    with pytest.raises(LocalError, match="not aligned"):
        memory.view(2, 1, "I")
    with pytest.raises(MemoryFaultError):
        memory.view(56, 2, "Q")


def test_regions_are_plugged_and_unplugged() -> None:
    memory = GuestMemory(64, 0x1000)
    memory.add_region(0x100, 16)
    assert [(r.base, r.end) for r in memory.regions] == [(0x100, 0x110), (0x1000, 0x1040)]
    view = memory.view(0x100, 1, "I")
    memory.remove_region(0x100)
    assert view[0] == 0
    with pytest.raises(MemoryFaultError):
        memory.read(0x100, 1)
    with pytest.raises(LocalError, match="no memory region"):
        memory.remove_region(0x100)


def test_an_access_must_lie_within_one_region() -> None:
    memory = GuestMemory(16, 0)
    memory.add_region(16, 16)
    memory.check(8, 8)
    with pytest.raises(MemoryFaultError):
        memory.check(8, 16)


@pytest.mark.parametrize(("base", "size"), [(0, 0), (0, -8), (-8, 8), (4, 8), (0, 12)])
def test_regions_are_positive_and_aligned(base: int, size: int) -> None:
    with pytest.raises(LocalError, match="multiple of 8"):
        GuestMemory().add_region(base, size)


@pytest.mark.parametrize(("base", "size"), [(0, 24), (24, 8), (16, 16), (0, 100 * 8), (16, 8)])
def test_regions_do_not_overlap(base: int, size: int) -> None:
    memory = GuestMemory(16, 16)
    with pytest.raises(LocalError, match="overlaps"):
        memory.add_region(base, size)
    assert len(memory.regions) == 1


def test_a_region_may_stand_on_a_buffer_that_others_share() -> None:
    with mmap.mmap(-1, 4096) as shared:
        memory = GuestMemory()
        region = memory.add_region(0x8000, 4096, memoryview(shared))
        memory.view(0x8000, 1, "I")[0] = 0x01020304
        assert shared[:4] == b"\x04\x03\x02\x01"
        region.data.release()
        del memory, region


@pytest.mark.parametrize("buffer", [bytearray(8), memoryview(bytes(16))])
def test_a_buffer_must_be_large_enough_and_writable(buffer: bytearray | memoryview) -> None:
    with pytest.raises(LocalError, match="read-only or too small"):
        GuestMemory().add_region(0, 16, buffer)


@given(st.lists(st.tuples(st.integers(0, 63), st.binary(max_size=16)), max_size=20))
def test_memory_behaves_like_a_bytearray(writes: list[tuple[int, bytes]]) -> None:
    memory, model = GuestMemory(64), bytearray(64)
    for addr, data in writes:
        if addr + len(data) <= 64:
            memory.write(addr, data)
            model[addr : addr + len(data)] = data
        else:
            with pytest.raises(MemoryFaultError):
                memory.write(addr, data)
    assert memory.read(0, 64) == model


def test_bytes_for_bulk_copies_are_those_of_one_region() -> None:
    memory = GuestMemory(16, 0x10)
    memory.add_region(0x20, 16)
    found = memory.buffer(0x18, 8)
    assert found is not None
    found[:2] = b"ab"
    assert memory.read(0x18, 3) == b"ab\0"
    assert (memory.buffer(0x18, 16), memory.buffer(0x18, -1), memory.buffer(0xF, 1)) == (None, None, None)
