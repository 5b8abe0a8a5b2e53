"""The pool of packet buffers: banks come and go, misuse is refused, and a model that keeps sets agrees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.errors import LocalError
from common.memory import GuestMemory
from services.guest_driver.buffers import BufferPool
from tests.common.virtio.ringkit import STATEFUL

SIZE = 64
A, B = 0x1000, 0x2000


@pytest.fixture
def pool() -> BufferPool:
    """A bank of four buffers at A, with room for more."""
    made = BufferPool(GuestMemory(0x4000), SIZE)
    made.add_bank(A, 4 * SIZE + SIZE - 8)
    return made


def test_handed_out_from_the_beginning_of_a_bank(pool: BufferPool) -> None:
    assert pool.free == 4
    assert pool.take_batch(3) == [A, A + SIZE, A + 2 * SIZE]
    assert pool.take() == A + 3 * SIZE
    assert pool.take() is None
    assert pool.take_batch(5) == []
    assert (pool.free, pool.outstanding(A)) == (0, 4)


def test_what_came_back_last_goes_first(pool: BufferPool) -> None:
    addrs = pool.take_batch(4)
    pool.give(addrs[2])
    pool.give_batch([addrs[0], addrs[1]])
    assert pool.take() == addrs[1]
    assert pool.take_batch(0) == []
    assert set(pool.take_batch(9)) == {addrs[0], addrs[2]}


def test_a_new_bank_goes_first_and_whole(pool: BufferPool) -> None:
    old = pool.take_batch(2)
    assert pool.add_bank(B, 2 * SIZE) == 2
    pool.give_batch(old)
    assert pool.take_batch(3) == [B, B + SIZE, A + 2 * SIZE]
    assert pool.banks == [A, B]


def test_views_are_the_memory_of_the_buffers() -> None:
    memory = GuestMemory(0x4000)
    pool = BufferPool(memory, SIZE)
    pool.add_bank(A, 2 * SIZE)
    pool.views[A + SIZE][:3] = b"abc"
    assert memory.read(A + SIZE - 1, 5) == b"\0abc\0"
    assert set(pool.views) == {A, A + SIZE}
    assert len(pool.views[A]) == SIZE
    pool.retire(A)
    assert pool.views == {}


def test_retire(pool: BufferPool) -> None:
    gone: list[int] = []
    addrs = pool.take_batch(3)
    pool.give(addrs[0])
    assert pool.retire(A, lambda: gone.append(A)) == 2
    assert (pool.free, pool.take(), pool.outstanding(A), pool.banks) == (0, None, 2, [])
    assert pool.views[addrs[1]] is not None, "what is outstanding can still be used"
    pool.give(addrs[1])
    assert (pool.free, pool.outstanding(A), gone) == (0, 1, [])
    pool.give_batch([addrs[2]])
    assert (pool.outstanding(A), gone) == (0, [A])
    assert pool.add_bank(A, SIZE) == 1, "the address may be used again"


def test_a_bank_of_which_nothing_is_out_retires_at_once(pool: BufferPool) -> None:
    gone: list[int] = []
    assert pool.retire(A, lambda: gone.append(1)) == 0
    assert gone == [1]
    pool.add_bank(A, SIZE)
    assert pool.retire(A) == 0


def test_exchange(pool: BufferPool) -> None:
    addrs = pool.take_batch(4)
    assert pool.exchange(addrs) is addrs, "the ordinary case costs nothing"
    pool.add_bank(B, 2 * SIZE)
    mixed = pool.exchange(addrs)
    assert mixed[:2] == [B, B + SIZE]
    assert (len(mixed), pool.free) == (4, 2)
    pool.retire(A)
    assert sorted(pool.exchange(mixed)) == [B, B + SIZE], "fewer where there are not enough"
    assert pool.outstanding(A) == 0


def test_who_waits_is_called_once(pool: BufferPool) -> None:
    addrs = pool.take_batch(4)
    calls: list[str] = []
    pool.when_free(lambda: calls.append("a"))
    pool.exchange(addrs)
    assert calls == []
    pool.give(addrs[0])
    assert calls == ["a"]
    pool.give(addrs[1])
    assert calls == ["a"]
    pool.take_batch(4)
    pool.when_free(lambda: calls.append("b"))
    pool.add_bank(B, SIZE)
    assert calls == ["a", "b"]


def test_an_exchange_that_leaves_some_free_wakes_too(pool: BufferPool) -> None:
    addrs = pool.take_batch(4)
    calls: list[int] = []
    pool.add_bank(B, SIZE)
    pool.when_free(lambda: calls.append(pool.free))
    pool.exchange(addrs)
    assert calls == [1]


def test_who_still_has_too_few_waits_again(pool: BufferPool) -> None:
    addrs = pool.take_batch(4)
    mine: list[int] = []

    def need_two() -> None:
        mine.extend(pool.take_batch(2 - len(mine)))
        if len(mine) < 2:
            pool.when_free(need_two)

    need_two()
    pool.give(addrs[0])
    assert len(mine) == 1
    pool.retire(A)
    pool.give(addrs[1])
    assert len(mine) == 1, "a buffer that leaves is none"
    pool.add_bank(B, SIZE)
    assert mine == [addrs[0], B]


@pytest.mark.parametrize(
    ("base", "size", "reason"),
    [
        (B, SIZE - 8, "hold no buffer"),
        (A + 4 * SIZE, SIZE, "overlaps"),  # in the rest behind the last whole buffer
        (A - SIZE, 2 * SIZE, "overlaps"),
        (0x3F00, 0x108, "not in one region"),
    ],
)
def test_banks_that_are_refused(pool: BufferPool, base: int, size: int, reason: str) -> None:
    with pytest.raises(LocalError, match=reason):
        pool.add_bank(base, size)
    assert (pool.free, pool.banks) == (4, [A])


def test_banks_may_touch(pool: BufferPool) -> None:
    pool.add_bank(A - SIZE, SIZE)
    pool.add_bank(A + 5 * SIZE - 8, SIZE)
    assert pool.free == 6


def test_misuse(pool: BufferPool) -> None:
    with pytest.raises(LocalError, match="0 bytes"):
        BufferPool(GuestMemory(), 0)
    with pytest.raises(LocalError, match="no bank"):
        pool.retire(B)
    assert pool.outstanding(B) == 0
    addrs = pool.take_batch(3)
    pool.retire(A)
    with pytest.raises(LocalError, match="no bank"):
        pool.retire(A)
    with pytest.raises(LocalError, match="overlaps"):
        pool.add_bank(A, SIZE)
    pool.give_batch(addrs)


def test_a_buffer_that_is_given_twice(pool: BufferPool) -> None:
    addrs = pool.take_batch(2)
    pool.give_batch([addrs[0], addrs[0]])
    with pytest.raises(LocalError, match="twice"):
        pool.retire(A)
    with pytest.raises(LocalError, match="5 buffers in a pool of 4"):
        pool.give(addrs[1])


def test_a_bank_that_went_does_not_hide_what_is_given_twice(pool: BufferPool) -> None:
    pool.retire(A)
    pool.add_bank(B, SIZE)
    with pytest.raises(LocalError, match="2 buffers in a pool of 1"):
        pool.give(B)


class Pools(RuleBasedStateMachine):
    """Banks of different lengths at eight places, against sets of addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BufferPool(GuestMemory(8 * 0x400), SIZE)
        #: base → addresses of its buffers
        self.banks: dict[int, set[int]] = {}
        self.retiring: dict[int, set[int]] = {}
        self.free: set[int] = set()
        self.fresh: set[int] = set()
        self.out: list[int] = []
        self.gone: list[int] = []
        self.expected_gone: list[int] = []

    @rule(place=st.integers(0, 7), count=st.integers(1, 6))
    def add_bank(self, place: int, count: int) -> None:
        base = place * 0x400
        if base in self.banks or base in self.retiring:
            return
        assert self.pool.add_bank(base, count * SIZE + 8) == count
        self.banks[base] = {base + i * SIZE for i in range(count)}
        self.free |= self.banks[base]
        self.fresh |= self.banks[base]

    @precondition(lambda self: self.banks)
    @rule(data=st.data())
    def retire(self, data: Any) -> None:
        base = data.draw(st.sampled_from(sorted(self.banks)))
        addrs = self.banks.pop(base)
        assert self.pool.retire(base, lambda: self.gone.append(base)) == len(addrs - self.free)
        self.free -= addrs
        self.fresh -= addrs
        self.retiring[base] = addrs
        self.settle()

    @rule(count=st.integers(0, 12))
    def take(self, count: int) -> None:
        self.took(self.pool.take_batch(count), min(count, len(self.free)))

    def took(self, taken: list[int], count: int) -> None:
        assert len(taken) == len(set(taken)) == count
        assert set(taken) <= self.free
        fresh = len(self.fresh & set(taken))
        assert fresh == min(count, len(self.fresh)), "what was never used goes first"
        assert {*taken[:fresh]} <= self.fresh
        self.free -= set(taken)
        self.fresh -= set(taken)
        self.out += taken

    def some(self, data: Any) -> list[int]:
        chosen: list[int] = data.draw(st.lists(st.sampled_from(self.out), unique=True))
        self.out = [addr for addr in self.out if addr not in chosen]
        return chosen

    def back(self, addrs: list[int]) -> None:
        leaving = {addr for bank in self.retiring.values() for addr in bank}
        self.free |= set(addrs) - leaving

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def give(self, data: Any) -> None:
        addrs = self.some(data)
        self.pool.give_batch(addrs)
        self.back(addrs)
        self.settle()

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def exchange(self, data: Any) -> None:
        addrs = self.some(data)
        plain = not self.fresh and not self.retiring
        taken = self.pool.exchange(addrs)
        self.back(addrs)
        self.settle()
        if plain:
            assert taken == addrs
        self.took(taken, min(len(addrs), len(self.free)))

    def settle(self) -> None:
        for base in [base for base, addrs in self.retiring.items() if not addrs & set(self.out)]:
            del self.retiring[base]
            self.expected_gone.append(base)

    @invariant()
    def agrees(self) -> None:
        assert self.pool.free == len(self.free)
        assert self.pool.banks == list(self.banks)
        assert sorted(self.gone) == sorted(self.expected_gone)
        alive = self.banks | self.retiring
        assert set(self.pool.views) == {addr for addrs in alive.values() for addr in addrs}
        for base in range(0, 0x2000, 0x400):
            assert self.pool.outstanding(base) == len(alive.get(base, set()) & set(self.out))


TestPools = Pools.TestCase
TestPools.settings = STATEFUL
