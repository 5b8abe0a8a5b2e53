"""services.vdpa_nic.address_space: what is proposed, what is in force, and what is refused."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.errors import LocalError, MemoryFaultError
from common.memory import ACCESS_RO, ACCESS_RW, ACCESS_WO, Mapping, MemoryKey, MemoryMap
from common.virtio.vdpa_ops import Refusal
from services.vdpa_nic.address_space import EMPTY, AddressSpaces

TOP = 1 << 64


def spaces(*mappings: Mapping, limit: int = 4) -> AddressSpaces:
    made = AddressSpaces(2, 2, limit)
    made.commit(0, MemoryMap(mappings))
    return made


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.code, caught.value.reason


A, B = Mapping(0x1000, 0x1000, 0x8000), Mapping(0x2000, 0x1000, 0x4000, ACCESS_RO)


def test_nothing_is_mapped_at_first_and_nothing_counts_before_it_is_in_force() -> None:
    made = AddressSpaces(2, 2, 4)
    assert made.in_force(0) == made.in_force(1) == EMPTY
    proposed = made.set_map(1, [(0x1000, 16, 0, ACCESS_RW)])
    assert proposed == MemoryMap([Mapping(0x1000, 16, 0)])
    assert made.in_force(1) == EMPTY
    made.commit(1, proposed)
    assert made.in_force(1) is proposed
    assert made.in_force(0) == EMPTY


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_there_is_one_of_each_at_least(counts: tuple[int, int, int]) -> None:
    with pytest.raises(LocalError, match="at least one"):
        AddressSpaces(*counts)


def test_groups_use_the_first_address_space_until_somebody_says_otherwise() -> None:
    made = AddressSpaces(2, 3, 1)
    assert [made.asid_of(g) for g in range(3)] == [0, 0, 0]
    made.set_group_asid(1, 1)
    made.set_group_asid(2, 1)
    assert [made.asid_of(g) for g in range(3)] == [0, 1, 1]
    made.set_group_asid(1, 0)
    assert [made.asid_of(g) for g in range(3)] == [0, 0, 1]
    made.set_group_asid(1, 1)
    made.commit(1, MemoryMap([A]))
    made.reset_groups()
    assert [made.asid_of(g) for g in range(3)] == [0, 0, 0]
    assert made.in_force(1) == MemoryMap([A])


@pytest.mark.parametrize("asid", [-1, 2])
def test_unknown_address_spaces(asid: int) -> None:
    made = AddressSpaces(2, 3, 1)
    for call in (
        lambda: made.in_force(asid),
        lambda: made.set_group_asid(0, asid),
        lambda: made.set_map(asid, []),
        lambda: made.dma_map(asid, 0, 16, 0, ACCESS_RW),
        lambda: made.dma_unmap(asid, 0, 16),
        lambda: made.reset_map(asid),
        lambda: made.commit(asid, EMPTY),
    ):
        assert refusal(call) == (errno.EINVAL, f"asid {asid}: limit 1")
    assert [made.asid_of(g) for g in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("group", [-1, 3])
def test_unknown_groups(group: int) -> None:
    made = AddressSpaces(2, 3, 1)
    said = (errno.EINVAL, f"group {group}: limit 2")
    assert refusal(lambda: made.asid_of(group)) == said
    assert refusal(lambda: made.set_group_asid(group, 1)) == said
    assert [made.asid_of(g) for g in range(3)] == [0, 0, 0]


def test_set_map_replaces_all() -> None:
    made = spaces(A)
    assert made.set_map(0, [(0x2000, 0x1000, 0x4000, ACCESS_RO)]) == MemoryMap([B])
    assert made.set_map(0, []) == EMPTY
    assert made.set_map(0, [(0x1000, 0x1000, 0x8000, ACCESS_RW)]) is None
    assert made.set_map(1, []) is None


def test_set_map_refuses_what_can_be_no_map() -> None:
    made = spaces(A, limit=2)
    code, reason = refusal(lambda: made.set_map(0, [(i * 16, 16, 0, ACCESS_RW) for i in range(3)]))
    assert (code, reason) == (errno.E2BIG, "ranges 3: limit 2")
    assert made.set_map(0, [(i * 16, 16, 0, ACCESS_RW) for i in range(2)]) is not None
    for ranges, word in (
        ([(0, 16, 0, ACCESS_RW), (8, 16, 0, ACCESS_RW)], "overlaps"),
        ([(0, 0, 0, ACCESS_RW)], "empty"),
        ([(TOP - 8, 16, 0, ACCESS_RW)], "64 bits"),
        ([(0, 16, 0, 4)], "map.perm = 4"),
    ):
        code, reason = refusal(lambda ranges=ranges: made.set_map(0, ranges))  # type: ignore[misc]
        assert code == errno.EINVAL
        assert word in reason
    assert made.in_force(0) == MemoryMap([A])


def test_dma_map_adds_one_range() -> None:
    made = spaces(A)
    assert made.dma_map(0, 0x2000, 0x1000, 0x4000, ACCESS_RO) == MemoryMap([A, B])
    assert made.dma_map(0, 0, 0x1000, 0x8000, ACCESS_WO) == MemoryMap([Mapping(0, 0x1000, 0x8000, ACCESS_WO), A])
    assert made.dma_map(0, 0x1000, 0x1000, 0x8000, ACCESS_RW) is None
    assert made.dma_map(0, TOP - 16, 16, TOP - 16, ACCESS_RW) is not None


@pytest.mark.parametrize(
    "call",
    [
        (0x1000, 0x1000, 0x8000, ACCESS_RO),
        (0x1000, 0x1000, 0x9000, ACCESS_RW),
        (0x1000, 0x800, 0x8000, ACCESS_RW),
        (0x0800, 0x801, 0x8000, ACCESS_RW),
        (0x1FFF, 0x1000, 0x8000, ACCESS_RW),
        (0x1400, 0x10, 0x8400, ACCESS_RW),
        (0, TOP, 0, ACCESS_RW),
    ],
)
def test_dma_map_of_bytes_that_are_mapped(call: tuple[int, int, int, int]) -> None:
    made = spaces(A)
    code, reason = refusal(lambda: made.dma_map(0, *call))
    assert code == errno.EEXIST
    assert reason == f"iova {call[0]:#x}, {call[1]} bytes: overlaps 4096 bytes at 0x1000, which is mapped"


def test_dma_map_has_a_limit_of_ranges() -> None:
    made = spaces(A, B, limit=2)
    assert refusal(lambda: made.dma_map(0, 0, 16, 0, ACCESS_RW)) == (errno.ENOSPC, "ranges 3: limit 2")
    assert made.dma_map(0, A.iova, A.size, A.addr, A.perm) is None
    assert refusal(lambda: made.dma_map(0, A.iova, 16, A.addr, A.perm))[0] == errno.EEXIST


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ((0, 0, 0, ACCESS_RW), "size 0: limit 1, at least"),
        ((0, -1, 0, ACCESS_RW), "size -1: limit 1, at least"),
        ((TOP - 16, 17, 0, ACCESS_RW), "iova 0xfffffffffffffff0, 17 bytes: limit 0x10000000000000000"),
        ((-1, 16, 0, ACCESS_RW), "iova -0x1, 16 bytes: limit 0x10000000000000000"),
        ((0, 17, TOP - 16, ACCESS_RW), "addr 0xfffffffffffffff0, 17 bytes: limit 0x10000000000000000"),
        ((0, 16, 0, 0), "perm 0: limit 3, at least 1"),
        ((0, 16, 0, 4), "perm 4: limit 3, at least 1"),
    ],
)
def test_dma_map_says_what_is_wrong(call: tuple[int, int, int, int], reason: str) -> None:
    assert refusal(lambda: spaces().dma_map(0, *call)) == (errno.EINVAL, reason)


def test_dma_unmap_takes_whole_mappings_away() -> None:
    made = spaces(A, B, Mapping(0x9000, 16, 0))
    assert made.dma_unmap(0, 0x1000, 0x2000) == MemoryMap([Mapping(0x9000, 16, 0)])
    assert made.dma_unmap(0, 0x0FFF, 0x1001) == MemoryMap([B, Mapping(0x9000, 16, 0)])
    assert made.dma_unmap(0, 0, TOP) == EMPTY
    assert made.dma_unmap(0, 0x3000, 0x6000) is None
    assert made.dma_unmap(0, 0, 0x1000) is None
    assert refusal(lambda: made.dma_unmap(0, 0, 0)) == (errno.EINVAL, "size 0: limit 1, at least")
    assert refusal(lambda: made.dma_unmap(0, 1, TOP))[0] == errno.EINVAL


@pytest.mark.parametrize(
    ("iova", "size", "cut"),
    [
        (0x1000, 0x0FFF, 0x1000),
        (0x1001, 0x0FFF, 0x1000),
        (0x1800, 1, 0x1000),
        (0x0, 0x2800, 0x2000),
        (0x1800, 0x1800, 0x1000),
    ],
)
def test_dma_unmap_cuts_no_mapping(iova: int, size: int, cut: int) -> None:
    code, reason = refusal(lambda: spaces(A, B).dma_unmap(0, iova, size))
    assert (code, reason) == (
        errno.EINVAL,
        f"iova {iova:#x}, {size} bytes: cuts 4096 bytes at {cut:#x}, unmap all of it or none",
    )


def test_reset_map_leaves_nothing() -> None:
    made = spaces(A, B)
    assert made.reset_map(0) == EMPTY
    assert made.reset_map(1) is None
    assert made.in_force(0) == MemoryMap([A, B])


# --- any sequence of operations against a map of bytes ----------------------------------------------------------------

SIZE = 12
LIMIT = 3
asids = st.integers(0, 1)
places = st.integers(0, SIZE - 1)
sizes = st.integers(1, 5)
perms = st.sampled_from([ACCESS_RO, ACCESS_WO, ACCESS_RW])
Bytes = dict[int, tuple[tuple[int, int], int, int]]
"""IOVA → the (start, size) of its mapping, guest address, permission."""


def bytes_of(iova: int, size: int, addr: int, perm: int) -> Bytes:
    return {iova + i: ((iova, size), addr + i, perm) for i in range(size)}


class Model(RuleBasedStateMachine):
    """Both address spaces as dictionaries of bytes; what is proposed is committed or dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.real = AddressSpaces(2, 2, LIMIT)
        self.model: list[Bytes] = [{}, {}]
        self.pending: tuple[int, MemoryMap, Bytes] | None = None

    def propose(self, asid: int, wanted: Bytes | int, call: Callable[[], MemoryMap | None]) -> None:
        if isinstance(wanted, int):
            assert refusal(call)[0] == wanted
            return
        proposed = call()
        assert (proposed is None) == (wanted == self.model[asid])
        if proposed is not None:
            self.pending = (asid, proposed, wanted)

    @precondition(lambda self: self.pending is None)
    @rule(asid=asids, ranges=st.lists(st.tuples(places, sizes, places, perms), max_size=LIMIT + 1))
    def set_map(self, asid: int, ranges: list[tuple[int, int, int, int]]) -> None:
        wanted: Bytes | int = {}
        for r in ranges:
            more = bytes_of(*r)
            assert isinstance(wanted, dict)
            if len(ranges) > LIMIT or wanted.keys() & more.keys():
                wanted = errno.E2BIG if len(ranges) > LIMIT else errno.EINVAL
                break
            wanted |= more
        self.propose(asid, wanted, lambda: self.real.set_map(asid, ranges))

    @precondition(lambda self: self.pending is None)
    @rule(asid=asids, iova=places, size=sizes, addr=places, perm=perms)
    def dma_map(self, asid: int, iova: int, size: int, addr: int, perm: int) -> None:
        held, more = self.model[asid], bytes_of(iova, size, addr, perm)
        wanted: Bytes | int = held | more
        if not more.items() <= held.items():
            if held.keys() & more.keys():
                wanted = errno.EEXIST
            elif len({name for name, _, _ in held.values()}) == LIMIT:
                wanted = errno.ENOSPC
        self.propose(asid, wanted, lambda: self.real.dma_map(asid, iova, size, addr, perm))

    @precondition(lambda self: self.pending is None)
    @rule(asid=asids, iova=places, size=st.integers(1, SIZE))
    def dma_unmap(self, asid: int, iova: int, size: int) -> None:
        held = self.model[asid]
        gone = {name for at, (name, _, _) in held.items() if iova <= at < iova + size}
        wanted: Bytes | int = {at: byte for at, byte in held.items() if byte[0] not in gone}
        if any(start < iova or start + length > iova + size for start, length in gone):
            wanted = errno.EINVAL
        self.propose(asid, wanted, lambda: self.real.dma_unmap(asid, iova, size))

    @precondition(lambda self: self.pending is None)
    @rule(asid=asids)
    def reset_map(self, asid: int) -> None:
        self.propose(asid, {}, lambda: self.real.reset_map(asid))

    @precondition(lambda self: self.pending is not None)
    @rule(commit=st.booleans())
    def decide(self, commit: bool) -> None:
        assert self.pending is not None
        asid, proposed, wanted = self.pending
        if commit:
            self.real.commit(asid, proposed)
            self.model[asid] = wanted
        self.pending = None

    @rule(asid=asids, iova=st.integers(-1, SIZE + 5), length=st.integers(-1, 6), perm=perms)
    def translate(self, asid: int, iova: int, length: int, perm: int) -> None:
        stands, held = self.real.in_force(asid), self.model[asid]
        key = MemoryKey(stands, 1)
        touched = {held.get(iova + i, (None, 0, 0))[0] for i in range(max(length, 1))}
        inside = length >= 0 and len(touched) == 1 and touched != {None}
        granted = inside and held[iova][2] & perm == perm
        assert stands.covers(iova, length, perm) == granted
        if granted:
            assert key.translate(iova, length, perm) == held[iova][1]
        else:
            with pytest.raises(MemoryFaultError) as caught:
                key.translate(iova, length, perm)
            assert caught.value.kind == ("permission" if inside else "unmapped")

    @invariant()
    def maps_are_as_the_model_says(self) -> None:
        for asid, held in enumerate(self.model):
            found: Bytes = {}
            for m in self.real.in_force(asid).mappings:
                found |= bytes_of(m.iova, m.size, m.addr, m.perm)
            assert found == held


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase
