"""Faults on purpose: what is held, for how long, how often, and that everything but *never* comes out in the end."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scmi_platform.faults import BEHIND, BEHIND_SECONDS, COPY_SECONDS, MAX_HELD, FaultPlan, Faults


class Bench:
    """Faults with a clock that the test turns and dice that it throws; ``dice`` empty: nothing is rolled."""

    def __init__(self, *dice: float, **plan: Any) -> None:
        self.now = 10.0
        self.dice = list(dice)
        self.given: list[int] = []
        self.again: list[int] = []
        self.posted: list[bytes] = []
        self.notified: list[bytes] = []
        self.p2a = self.room = True
        self.faults = Faults(FaultPlan(**{"after": 0} | plan), lambda: self.dice.pop(0), lambda: self.now, self)

    def give(self, head: int, reply: bytes) -> None:
        assert reply == bytes([head])
        self.given.append(head)

    def give_again(self, head: int, reply: bytes) -> None:
        assert reply == bytes([head])
        self.again.append(head)

    def hush(self) -> None:
        raise AssertionError

    def post(self, message: bytes) -> bool:
        if self.room:
            self.posted.append(message)
        return self.room

    def notify(self, message: bytes) -> bool:
        if self.room:
            self.notified.append(message)
        return self.room

    def subscribed(self, protocol: int, event: int, domain: int) -> bool:
        return False

    def answer(self, *heads: int) -> None:
        for head in heads:
            self.faults.answer(head, bytes([head]))

    def advance(self, seconds: float) -> bool:
        self.now += seconds
        return self.faults.tick(self.now)


def test_late_answers_come_when_they_are_due_and_in_that_order() -> None:
    bench = Bench(0.0, 0.5, 0.0, 0.25, 0.9, 0.9, late=0.5, late_seconds=2.0)
    bench.answer(1, 2, 3)
    assert bench.given == [3], "1 in a second, 2 in half of one"
    assert (bench.faults.held, bench.faults.stats.late) == (2, 2)
    assert not bench.advance(0.49)
    assert bench.advance(0.02)
    assert bench.given == [3, 2]
    assert bench.advance(0.5)
    assert bench.given == [3, 2, 1]
    assert not bench.advance(9.0)
    assert bench.faults.held == 0


def test_a_response_that_is_held_back_lets_later_ones_pass() -> None:
    bench = Bench(0.9, 0.0, 1.5 / BEHIND, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, late=0.1, reorder=0.5)
    bench.answer(1)
    assert bench.given == []
    bench.answer(2)
    assert bench.given == [2]
    bench.answer(3, 4)
    assert bench.given == [2, 3, 1, 4]
    assert (bench.faults.stats.held_back, bench.faults.stats.overtaken) == (1, 1)


def test_nothing_waits_long_for_later_ones_that_do_not_come() -> None:
    bench = Bench(0.9, 0.0, 0.9, late=0.1, reorder=0.5)
    bench.answer(1)
    assert not bench.advance(BEHIND_SECONDS * 0.9)
    assert bench.advance(BEHIND_SECONDS * 0.2)
    assert bench.given == [1]
    assert (bench.faults.stats.held_back, bench.faults.stats.overtaken) == (1, 0)


def test_what_some_passed_before_it_was_overdue_was_overtaken() -> None:
    bench = Bench(0.9, 0.0, 0.99, 0.9, 0.9, 0.9, 0.9, late=0.1, reorder=0.5)
    bench.answer(1, 2, 3)
    assert (bench.given, bench.faults.held) == ([2, 3], 1)
    assert bench.faults.stats.overtaken == 1, "once, however many pass"
    assert bench.advance(BEHIND_SECONDS * 1.1)
    assert bench.given == [2, 3, 1]
    assert (bench.faults.stats.held_back, bench.faults.stats.overtaken) == (1, 1)


def test_a_late_answer_is_a_later_one_too() -> None:
    bench = Bench(0.0, 0.0, 0.9, 0.0, 0.0, late=0.1, late_seconds=0.02, reorder=0.5)
    bench.answer(1, 2)
    assert bench.advance(0.01)
    assert bench.given == [1, 2]
    assert bench.faults.stats.overtaken == 1


def test_never_stops_at_its_number() -> None:
    bench = Bench(never=3, never_every=1)
    bench.dice = [0.99] * 3 + [0.5] * 100
    bench.answer(*range(10))
    assert bench.given == [3, 4, 5, 6, 7, 8, 9]
    assert (bench.faults.stats.never, bench.faults.held) == (3, 0)


def test_never_every_is_a_mean() -> None:
    bench = Bench(never=100, never_every=4)
    dice = random.Random(1)
    bench.faults = Faults(bench.faults.plan, dice.random, lambda: bench.now, bench)
    bench.answer(*[0] * 200)
    assert 30 < bench.faults.stats.never < 70
    assert bench.faults.stats.never + len(bench.given) == 200


def test_the_first_commands_are_spared() -> None:
    bench = Bench(0.0, 0.0, late=1.0, delayed_twice=1.0, never=1, never_every=1, after=3)
    bench.answer(1, 2, 3)
    assert bench.faults.delayed(b"early")
    assert (bench.given, bench.posted) == ([1, 2, 3], [b"early"])
    bench.answer(4)
    assert bench.faults.stats.never == 1


def test_a_chain_is_used_twice() -> None:
    bench = Bench(double_used=2, after=100)
    bench.answer(5, 6, 7)
    assert (bench.given, bench.again) == ([5, 6, 7], [6])
    assert bench.faults.stats.double_used == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_a_delayed_response_comes_twice(at_once: bool) -> None:
    bench = Bench(0.9, 0.0, 0.0 if at_once else 0.9, 0.5, late=0.1, delayed_twice=0.5)
    bench.answer()
    bench.faults._commands = 1
    assert bench.faults.delayed(b"x")
    assert len(bench.posted) == 1 + at_once
    bench.advance(COPY_SECONDS)
    assert bench.posted == [b"x", b"x"]
    assert bench.faults.stats.delayed_twice == 1


def test_a_late_delayed_response_may_come_twice_too() -> None:
    bench = Bench(0.0, 0.5, 0.0, 0.0, late=0.1, late_seconds=1.0, delayed_twice=0.5)
    bench.faults._commands = 1
    assert bench.faults.delayed(b"x")
    assert not bench.posted
    assert not bench.advance(0.6), "the eventq is flushed by itself"
    assert bench.posted == [b"x", b"x"]
    assert (bench.faults.stats.delayed_late, bench.faults.stats.delayed_twice) == (1, 1)


def test_without_room_a_delayed_response_waits_and_a_copy_is_none() -> None:
    bench = Bench(0.9, 0.0, 0.0, late=0.1, late_seconds=0.0, delayed_twice=0.5)
    bench.faults._commands = 1
    bench.room = False
    assert not bench.faults.delayed(b"the platform keeps it")
    bench.dice = [0.0, 0.5, 0.0, 0.9, 0.5]
    assert bench.faults.delayed(b"late")
    for _ in range(3):
        bench.advance(0.01)
        assert bench.faults.held == 1
    bench.room = True
    bench.advance(0.01)
    assert bench.posted == [b"late"]
    bench.room = False
    bench.advance(COPY_SECONDS)
    assert (bench.faults.held, bench.faults.stats.delayed_twice) == (0, 0)


def test_what_is_late_is_bounded() -> None:
    bench = Bench(late=1.0)
    bench.faults._commands = 1
    bench.dice = [0.5] * 3 * MAX_HELD
    for _ in range(MAX_HELD + 5):
        assert bench.faults.delayed(b"x")
    assert (bench.faults.held, len(bench.posted)) == (MAX_HELD, 5)


def test_a_reset_takes_along_what_is_held_and_begins_anew() -> None:
    bench = Bench(late=0.5, reorder=0.5, never=1, never_every=1)
    bench.dice = [0.0, 0.0, 0.9, 0.9, 0.0, 0.9]
    bench.answer(1, 2, 3)
    assert (bench.faults.stats.never, bench.faults.held) == (1, 2)
    bench.faults.reset()
    assert bench.faults.held == 0
    assert not bench.advance(100.0)
    assert bench.given == []
    bench.dice = [0.0]
    bench.answer(4)
    assert bench.faults.stats.never == 2, "the messages of the driver are whole again, so is the number"


@given(st.integers(0, 1 << 32), st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(1, 80))
def test_every_answer_comes_exactly_once_or_never(seed: int, odds: list[float], count: int) -> None:
    bench = Bench(late=odds[0], reorder=odds[1], delayed_twice=odds[2], never=5, never_every=3, late_seconds=0.3)
    bench.faults = Faults(bench.faults.plan, random.Random(seed).random, lambda: bench.now, bench)
    for head in range(count):
        bench.answer(head)
        assert bench.faults.delayed(bytes([head]))
        bench.advance(0.01)
    bench.advance(1.0)
    bench.advance(1.0)
    assert bench.faults.held == 0
    stats = bench.faults.stats
    assert len(bench.given) == len(set(bench.given)) == count - stats.never
    assert stats.never <= 5
    assert len(bench.posted) == count + stats.delayed_twice
    assert set(bench.posted) == {bytes([head]) for head in range(count)}
