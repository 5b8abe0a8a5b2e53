"""The byte fifo against a model: a bytes object that grows at one end and shrinks at the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common.errors import LocalError
from common.runtime.world import AsyncWorld
from services.guest_driver.notify_fifo import EventFifo


def make(size: int) -> EventFifo:
    world = AsyncWorld()
    return world.new(EventFifo, world, size)


@pytest.mark.parametrize("size", [0, -8, 3, 12, 4095])
def test_the_size_is_a_power_of_two(size: int) -> None:
    with pytest.raises(LocalError, match="power of two"):
        make(size)


def test_what_does_not_fit_is_refused_whole() -> None:
    fifo = make(8)
    fifo.put(b"abcde")
    with pytest.raises(LocalError, match="4 bytes, 3 free"):
        fifo.put(b"fghi")
    fifo.put(b"fgh")
    assert fifo.avail == 0
    assert fifo.get(100) == b"abcdefgh"
    assert fifo.get(1) == b""


@given(st.lists(st.integers(1, 8), min_size=40, max_size=80))
def test_bytes_come_out_as_they_went_in_through_many_wraps(sizes: list[int]) -> None:
    fifo, number = make(8), 0
    for size in sizes:
        data = bytes((number + n) % 251 for n in range(size))
        number += size
        fifo.put(data)
        assert (fifo.get(size // 2) + fifo.get(8)) == data
    assert fifo.in_ == fifo.out == number
    assert fifo.avail == 8


def test_reset_drops_what_is_there_and_no_more() -> None:
    fifo = make(16)
    fifo.put(b"x" * 12)
    fifo.get(5)
    assert fifo.reset_out() == 7
    assert fifo.avail == 16
    fifo.put(b"y" * 16)  # over the end
    assert fifo.get(16) == b"y" * 16


class Against(RuleBasedStateMachine):
    """Any order of puts, gets and resets."""

    @initialize(power=st.integers(3, 6))
    def made(self, power: int) -> None:
        self.fifo = make(1 << power)
        self.model = b""

    @rule(data=st.binary(max_size=70))
    def put(self, data: bytes) -> None:
        if len(data) > self.fifo.size - len(self.model):
            with pytest.raises(LocalError):
                self.fifo.put(data)
        else:
            self.fifo.put(data)
            self.model += data

    @rule(count=st.integers(0, 70))
    def get(self, count: int) -> None:
        assert self.fifo.get(count) == self.model[:count]
        self.model = self.model[count:]

    @rule()
    def reset(self) -> None:
        assert self.fifo.reset_out() == len(self.model)
        self.model = b""

    @invariant()
    def adds_up(self) -> None:
        assert self.fifo.avail == self.fifo.size - len(self.model)


TestAgainst = Against.TestCase
