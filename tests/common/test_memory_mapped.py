"""common.memory: guest memory through a key, also while banks come and go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MemoryFaultError
from common.memory import (
    ACCESS_RO,
    ACCESS_RW,
    ACCESS_WO,
    FEW,
    GuestMemory,
    MappedMemory,
    Mapping,
    MemoryKey,
    MemoryMap,
)


def mapped(memory: GuestMemory, *mappings: Mapping) -> MappedMemory:
    return MappedMemory(memory, MemoryKey(MemoryMap(mappings), 1))


class Watching(GuestMemory):
    """Counts the accesses that did not go straight to the bytes."""

    def __init__(self, size: int = 0, base: int = 0) -> None:
        super().__init__(size, base)
        self.slow = 0

    def read(self, addr: int, length: int) -> bytes:
        self.slow += 1
        return super().read(addr, length)

    def write(self, addr: int, data: bytes) -> None:
        self.slow += 1
        super().write(addr, data)


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


def test_copies_through_a_key_go_straight_to_the_bank() -> None:
    memory = GuestMemory(0x2000, 0x1000)
    mapped = MappedMemory(
        memory, MemoryKey(MemoryMap([Mapping(0x10_0000, 0x1000, 0x1000), Mapping(0x20_0000, 0x1000, 0x2000, 1)]), 1)
    )
    mapped.write(0x10_0FF0, bytes(range(16)))
    assert memory.read(0x1FF0, 16) == mapped.read(0x10_0FF0, 16) == bytes(range(16))
    memory.write(0x2000, b"ro")
    assert mapped.read(0x20_0000, 2) == b"ro"
    for addr, length in ((0x10_0FF1, 16), (0x10_1000, 0), (0x0F_FFFF, 2), (0x10_0000, -1), (0x30_0000, 1)):
        with pytest.raises(MemoryFaultError):
            mapped.read(addr, length)
    for addr in (0x20_0000, 0x10_0FFF, 0x0F_FFFF):
        with pytest.raises(MemoryFaultError):
            mapped.write(addr, b"xx")
    assert memory.read(0x2000, 2) == b"ro"
    assert mapped.buffer(0x10_0000, 1) is None
    assert mapped.regions is memory.regions


def test_a_mapping_over_two_banks_is_reached_in_each() -> None:
    memory = GuestMemory(0x1000, 0x1000)
    memory.add_region(0x2000, 0x1000)
    mapped = MappedMemory(memory, MemoryKey(MemoryMap([Mapping(0, 0x2000, 0x1000)]), 1))
    mapped.write(0x1000, b"second")
    assert mapped.read(0x1000, 6) == memory.read(0x2000, 6) == b"second"
    with pytest.raises(MemoryFaultError):
        mapped.read(0xFFF, 2)
    assert memory.buffer(0x1000, 0x2000) is None


# --- banks that come and go -------------------------------------------------------------------------------------------

A, B, C = 0x1_0000, 0x2_0000, 0x3_0000


@pytest.mark.parametrize("others", [0, FEW])
def test_copies_stay_straight_when_other_banks_come_and_go(others: int) -> None:
    memory = Watching(0x1000, A)
    far = [Mapping(0x10_0000 + i * 0x2000, 0x1000, A) for i in range(others)]
    seen = mapped(memory, Mapping(0, 0x1000, A), Mapping(0x1000, 0x1000, B), *far)
    seen.write(0x10, b"one")
    memory.add_region(C, 0x1000)
    seen.write(0x20, b"two")
    memory.remove_region(C)
    assert (seen.read(0x10, 3), seen.read(0x20, 3)) == (b"one", b"two")
    memory.add_region(B, 0x1000)
    seen.write(0x1FFD, b"new")
    assert seen.read(0x1FFD, 3) == b"new"
    assert memory.slow == 0
    assert memory.read(B + 0xFFD, 3) == b"new"


@pytest.mark.parametrize("others", [0, FEW])
def test_an_unplugged_bank_faults_and_is_not_touched(others: int) -> None:
    memory = GuestMemory(0x1000, A)
    bank = memory.add_region(B, 0x1000)
    far = [Mapping(0x10_0000 + i * 0x2000, 0x1000, A) for i in range(others)]
    seen = mapped(memory, Mapping(0, 0x1000, A), Mapping(0x1000, 0x1000, B), *far)
    seen.write(0x1000, b"here")
    assert seen.read(0x1000, 4) == b"here"
    memory.remove_region(B)
    for access in (
        lambda: seen.read(0x1000, 4),
        lambda: seen.write(0x1000, b"gone"),
        lambda: seen.view(0x1000, 1, "I"),
        lambda: seen.check(0x1000, 4),
    ):
        with pytest.raises(MemoryFaultError) as caught:
            access()
        assert caught.value.kind == "unmapped"
    assert bank.data[:4].tobytes() == b"here"
    seen.write(0, b"still")
    assert seen.read(0, 5) == b"still"
    memory.add_region(B, 0x1000)
    assert seen.read(0x1000, 4) == bytes(4)


def test_memory_without_a_bank_faults() -> None:
    seen = mapped(GuestMemory(), Mapping(0, 16, 0))
    with pytest.raises(MemoryFaultError):
        seen.read(0, 1)
    with pytest.raises(MemoryFaultError):
        seen.write(0, b"x")


def test_a_mapping_wider_than_memory_is_reached_straight_where_there_are_banks() -> None:
    memory = Watching(0x1000, A)
    memory.add_region(A + 0x1000, 0x1000)
    seen = mapped(memory, Mapping(0, 1 << 64, 0))
    seen.write(A + 0xFF0, bytes(range(16)))
    seen.write(A + 0x1000, b"second")
    assert (seen.read(A + 0xFF0, 16), seen.read(A + 0x1000, 6)) == (bytes(range(16)), b"second")
    assert memory.slow == 0
    for addr, length in ((A + 0xFFF, 2), (A - 1, 2), (A + 0x1FFF, 2)):
        with pytest.raises(MemoryFaultError):
            seen.read(addr, length)
        with pytest.raises(MemoryFaultError):
            seen.write(addr, bytes(length))


def test_faults_through_a_key_tell_permission_from_nothing_there() -> None:
    seen = mapped(GuestMemory(64), Mapping(0, 16, 0, ACCESS_RO), Mapping(16, 16, 16, ACCESS_WO))
    for access, kind in (
        (lambda: seen.write(0, b"x"), "permission"),
        (lambda: seen.read(16, 1), "permission"),
        (lambda: seen.read(15, 2), "unmapped"),
        (lambda: seen.write(32, b"x"), "unmapped"),
    ):
        with pytest.raises(MemoryFaultError) as caught:
            access()
        assert caught.value.kind == kind


# --- against a map of bytes -------------------------------------------------------------------------------------------

BANK = 8
steps = st.one_of(
    st.tuples(st.just("plug"), st.integers(0, 3), st.just(b"")),
    st.tuples(st.just("read"), st.integers(-1, 40), st.integers(-1, 9)),
    st.tuples(st.just("write"), st.integers(-1, 40), st.binary(min_size=1, max_size=9)),
)
ranges = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(0, 30), st.integers(1, 3)), min_size=1, max_size=12
)


@given(ranges, st.lists(steps, max_size=30))
def test_any_copies_while_banks_come_and_go(
    chosen: list[tuple[int, int, int, int]], todo: list[tuple[str, int, int | bytes]]
) -> None:
    mappings = []
    at = 0
    for gap, size, addr, perm in chosen:
        mappings.append(Mapping(at + gap, size, addr, perm))
        at += gap + size
    owner = {m.iova + i: m for m in mappings for i in range(m.size)}
    memory = GuestMemory()
    seen = mapped(memory, *mappings)
    banks: dict[int, bytearray] = {}

    def reach(iova: int, length: int, perm: int) -> tuple[bytearray, int] | None:
        m = owner.get(iova)
        if m is None or length < 0 or not m.perm & perm or any(owner.get(iova + i) is not m for i in range(length)):
            return None
        bank, offset = divmod(m.addr + iova - m.iova, BANK)
        if length == 0 and offset == 0 and bank not in banks:  # nothing just behind a bank is in it
            bank, offset = bank - 1, BANK
        return (banks[bank], offset) if bank in banks and offset + length <= BANK else None

    for what, where, arg in todo:
        if what == "plug":
            if where in banks:
                del banks[where]
                memory.remove_region(where * BANK)
            else:
                banks[where] = bytearray(BANK)
                memory.add_region(where * BANK, BANK)
            continue
        length = len(arg) if isinstance(arg, bytes) else arg
        found = reach(where, length, ACCESS_WO if what == "write" else ACCESS_RO)
        if found is None:
            with pytest.raises(MemoryFaultError):
                seen.write(where, arg) if isinstance(arg, bytes) else seen.read(where, arg)
        elif isinstance(arg, bytes):
            found[0][found[1] : found[1] + length] = arg
            seen.write(where, arg)
        else:
            assert seen.read(where, arg) == found[0][found[1] : found[1] + length]
    assert {r.base // BANK: r.data.tobytes() for r in memory.regions} == {n: bytes(b) for n, b in banks.items()}
