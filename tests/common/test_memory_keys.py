"""common.memory: maps and keys."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MemoryFaultError
from common.memory import ACCESS_RO, ACCESS_RW, ACCESS_WO, FEW, GuestMemory, Mapping, MemoryKey, MemoryMap

#: Looked through, and searched by halves.
COUNTS = [1, 2, FEW, FEW + 1, 64]


def test_a_map_is_sorted_and_compares_by_its_mappings() -> None:
    a, b = Mapping(0x2000, 16, 0), Mapping(0x1000, 16, 64)
    assert MemoryMap([a, b]).mappings == (b, a)
    assert MemoryMap([a, b]) == MemoryMap([b, a])
    assert hash(MemoryMap([a, b])) == hash(MemoryMap([b, a]))
    assert MemoryMap([a]) != MemoryMap([b])
    assert MemoryMap([a]).__eq__((a,)) is NotImplemented
    assert MemoryMap().mappings == ()


def test_maps_and_keys_do_not_change() -> None:
    key = MemoryKey(MemoryMap([Mapping(0, 16, 0)]), 1)
    with pytest.raises(FrozenInstanceError):
        key.generation = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        key.map.mappings = ()  # type: ignore[misc]
    assert key == MemoryKey(MemoryMap([Mapping(0, 16, 0)]), 1)
    assert key != MemoryKey(MemoryMap([Mapping(0, 16, 0)]), 2)


@pytest.mark.parametrize(
    ("mappings", "field"),
    [
        ([Mapping(0, 0, 0)], "map.range"),
        ([Mapping(-1, 1, 0)], "map.range"),
        ([Mapping(0, 1, -1)], "map.range"),
        ([Mapping((1 << 64) - 1, 2, 0)], "map.range"),
        ([Mapping(0, 2, (1 << 64) - 1)], "map.range"),
        ([Mapping(0, 16, 0), Mapping(15, 16, 64)], "map.range"),
        ([Mapping(0, 16, 0), Mapping(0, 16, 0)], "map.range"),
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


@pytest.mark.parametrize("count", COUNTS)
def test_faults_tell_what_they_came_up_against(count: int) -> None:
    mappings = [Mapping(0x100 * i, 0x80, 0x1000 * i, ACCESS_RO) for i in range(count)]
    key = MemoryKey(MemoryMap(mappings), 3)
    last = mappings[-1]
    assert key.translate(last.iova + 0x10, 0x70, ACCESS_RO) == last.addr + 0x10
    for iova, length, perm, kind in (
        (last.iova, 0x80, ACCESS_WO, "permission"),
        (last.iova, 0x80, ACCESS_RW, "permission"),
        (last.iova, 0, ACCESS_WO, "permission"),
        (last.iova, 0x81, ACCESS_WO, "unmapped"),
        (last.iova + 0x80, 0, ACCESS_RO, "unmapped"),
        (last.iova + 0x10, -1, ACCESS_RO, "unmapped"),
        (last.iova - 1, 2, ACCESS_RO, "unmapped"),
        (-1, 1, ACCESS_RO, "unmapped"),
    ):
        with pytest.raises(MemoryFaultError) as caught:
            key.translate(iova, length, perm)
        assert (caught.value.field, caught.value.value, caught.value.kind) == ("addr", hex(iova), kind)
        assert not key.map.covers(iova, length, perm)


def test_an_empty_key_reaches_nothing() -> None:
    with pytest.raises(MemoryFaultError) as caught:
        MemoryKey(MemoryMap(), 1).translate(0, 0, ACCESS_RO)
    assert caught.value.kind == "unmapped"


def test_the_identity_map_covers_every_region() -> None:
    memory = GuestMemory(16, 0x40)
    memory.add_region(0x100, 8)
    assert MemoryMap.identity(memory).mappings == (Mapping(0x40, 16, 0x40), Mapping(0x100, 8, 0x100))


# --- against a map of bytes -------------------------------------------------------------------------------------------

SIZE = 60


@st.composite
def maps(draw: st.DrawFn) -> MemoryMap:
    """Mappings with and without gaps between them."""
    mappings = []
    at = 0
    for gap, size, addr, perm in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 99), st.integers(1, 3)), max_size=14)
    ):
        mappings.append(Mapping(at + gap, size, addr, perm))
        at += gap + size
    return MemoryMap(draw(st.permutations(mappings)))


@given(maps(), st.integers(-1, SIZE), st.integers(-1, 8), st.integers(1, 3))
def test_translation_and_cover_are_those_of_the_bytes(chosen: MemoryMap, iova: int, length: int, perm: int) -> None:
    owner = {m.iova + i: m for m in chosen.mappings for i in range(m.size)}
    m = owner.get(iova)
    inside = m is not None and length >= 0 and all(owner.get(iova + i) is m for i in range(length))
    granted = m is not None and inside and m.perm & perm == perm
    assert chosen.covers(iova, length, perm) == granted
    key = MemoryKey(chosen, 1)
    if m is not None and granted:
        assert key.translate(iova, length, perm) == m.addr + iova - m.iova
        return
    with pytest.raises(MemoryFaultError) as caught:
        key.translate(iova, length, perm)
    assert caught.value.kind == ("permission" if inside else "unmapped")


@given(maps(), st.integers(0, SIZE), st.integers(1, SIZE))
def test_overlapping_mappings_are_those_that_share_a_byte(chosen: MemoryMap, iova: int, size: int) -> None:
    touched = set(range(iova, iova + size))
    assert chosen.overlapping(iova, size) == tuple(
        m for m in chosen.mappings if touched & set(range(m.iova, m.iova + m.size))
    )
