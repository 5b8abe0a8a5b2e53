"""common.memory: regions, live views, maps and keys."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError, MemoryFaultError
from common.memory import (
    ACCESS_RO,
    ACCESS_RW,
    ACCESS_WO,
    CELL,
    GuestMemory,
    MappedMemory,
    Mapping,
    MemoryKey,
    MemoryMap,
)


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


# --- maps and keys --------------------------------------------------------------------------------------------------


def test_a_map_is_sorted_and_compares_by_its_mappings() -> None:
    a, b = Mapping(0x2000, 16, 0), Mapping(0x1000, 16, 64)
    assert MemoryMap([a, b]).mappings == (b, a)
    assert MemoryMap([a, b]) == MemoryMap([b, a])
    assert hash(MemoryMap([a, b])) == hash(MemoryMap([b, a]))
    assert MemoryMap([a]) != MemoryMap([b])
    assert MemoryMap([a]) != (a,)


@pytest.mark.parametrize(
    ("mappings", "field"),
    [
        ([Mapping(0, 0, 0)], "map.range"),
        ([Mapping(-1, 1, 0)], "map.range"),
        ([Mapping(0, 1, -1)], "map.range"),
        ([Mapping((1 << 64) - 1, 2, 0)], "map.range"),
        ([Mapping(0, 2, (1 << 64) - 1)], "map.range"),
        ([Mapping(0, 16, 0), Mapping(15, 16, 64)], "map.range"),
        ([Mapping(0, 16, 0, 0)], "map.perm"),
        ([Mapping(0, 16, 0, 4)], "map.perm"),
    ],
)
def test_a_bad_map_names_what_is_wrong(mappings: list[Mapping], field: str) -> None:
    with pytest.raises(MemoryFaultError) as caught:
        MemoryMap(mappings)
    assert caught.value.field == field


def test_a_key_translates_within_one_mapping_and_its_rights() -> None:
    key = MemoryKey(MemoryMap([Mapping(0x1000, 16, 0x100, ACCESS_RO), Mapping(0x1010, 16, 0x800, ACCESS_RW)]), 7)
    assert key.generation == 7
    assert key.translate(0x1004, 12, ACCESS_RO) == 0x104
    assert key.translate(0x1010, 16, ACCESS_WO) == 0x800
    for iova, length, perm in ((0x1004, 13, ACCESS_RO), (0x1000, 1, ACCESS_WO), (0xFFF, 1, ACCESS_RO), (0x1020, 1, 1)):
        with pytest.raises(MemoryFaultError, match="key generation 7"):
            key.translate(iova, length, perm)


def test_mapped_memory_is_guest_memory_by_iova() -> None:
    memory = GuestMemory(0x1000)
    mapped = MappedMemory(memory, MemoryKey(MemoryMap([Mapping(0x10000, 64, 0x100, ACCESS_RW)]), 1))
    mapped.write(0x10008, b"ring")
    assert memory.read(0x108, 4) == b"ring"
    assert mapped.read(0x10008, 4) == b"ring"
    mapped.view(0x10000, 2, "H")[1] = 0x1234
    assert memory.read(0x102, 2) == b"\x34\x12"
    mapped.check(0x10000, 64)
    with pytest.raises(MemoryFaultError):
        mapped.check(0x10000, 65)


def test_a_write_only_mapping_cannot_be_read() -> None:
    mapped = MappedMemory(GuestMemory(64), MemoryKey(MemoryMap([Mapping(0, 64, 0, ACCESS_WO)]), 1))
    mapped.write(0, b"x")
    with pytest.raises(MemoryFaultError):
        mapped.read(0, 1)


def test_a_view_needs_the_access_that_it_asks_for() -> None:
    mapped = MappedMemory(
        GuestMemory(64), MemoryKey(MemoryMap([Mapping(0, 16, 0, ACCESS_RO), Mapping(16, 16, 16, ACCESS_WO)]), 1)
    )
    assert len(mapped.view(0, 8, "H")) == len(mapped.view(16, 8, "H", ACCESS_WO)) == 8
    for addr, perm in ((0, ACCESS_WO), (0, ACCESS_RW), (16, ACCESS_RO), (16, ACCESS_RW)):
        with pytest.raises(MemoryFaultError):
            mapped.view(addr, 8, "H", perm)


def test_the_identity_map_covers_every_region() -> None:
    memory = GuestMemory(16, 0x40)
    memory.add_region(0x100, 8)
    assert MemoryMap.identity(memory).mappings == (Mapping(0x40, 16, 0x40), Mapping(0x100, 8, 0x100))


def test_copies_through_a_key_go_straight_to_the_bank() -> None:
    memory = GuestMemory(0x2000, 0x1000)
    mapped = MappedMemory(
        memory, MemoryKey(MemoryMap([Mapping(0x10_0000, 0x1000, 0x1000), Mapping(0x20_0000, 0x1000, 0x2000, 1)]), 1)
    )
    mapped.write(0x10_0FF0, bytes(range(16)))
    assert memory.read(0x1FF0, 16) == mapped.read(0x10_0FF0, 16) == bytes(range(16))
    memory.write(0x2000, b"ro")
    assert mapped.read(0x20_0000, 2) == b"ro"
    for addr, length in ((0x10_0FF1, 16), (0x0F_FFFF, 2), (0x10_0000, -1), (0x30_0000, 1)):
        with pytest.raises(MemoryFaultError):
            mapped.read(addr, length)
    for addr in (0x20_0000, 0x10_0FFF, 0x0F_FFFF):
        with pytest.raises(MemoryFaultError):
            mapped.write(addr, b"xx")
    assert memory.read(0x2000, 2) == b"ro"
    assert mapped.buffer(0x10_0000, 1) is None


def test_a_mapping_over_two_banks_is_reached_in_each() -> None:
    memory = GuestMemory(0x1000, 0x1000)
    memory.add_region(0x2000, 0x1000)
    mapped = MappedMemory(memory, MemoryKey(MemoryMap([Mapping(0, 0x2000, 0x1000)]), 1))
    mapped.write(0x1000, b"second")
    assert mapped.read(0x1000, 6) == memory.read(0x2000, 6) == b"second"
    with pytest.raises(MemoryFaultError):
        mapped.read(0xFFF, 2)
    assert memory.buffer(0x1000, 0x2000) is None
