"""Faults by rules, message by message: the engine of :mod:`services.scmi_platform.faults` with a plan's ``rules``."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from common.scmi import header
from services.scmi_platform.faults import BEHIND_SECONDS, MAX_HELD, Faults
from services.scmi_platform.faults_plan import (
    AnyRule,
    Delay,
    FaultPlan,
    Never,
    Reorder,
    Silent,
    Storm,
    Truncate,
    Twice,
    WrongToken,
)
from services.scmi_platform.faults_time import Constant, Uniform

SECOND = Constant(seconds=1.0)
DELAYED = header.HEADER.pack(header.as_delayed(header.pack(0x15, 6, 5))) + b"late"
EVENT = header.notification(0x15, 0, b"event")
OTHER = header.notification(0x13, 1, b"other")


def reply(head: int) -> bytes:
    return header.command(0x14, 6, head, b"ok")


class Bench:
    """Faults with a clock that the test turns, dice that give 0.5, and room on the eventq for ``room`` messages."""

    def __init__(self, *rules: AnyRule, after: int = 0, names: frozenset[str] = frozenset(), **plan: Any) -> None:
        self.now = 10.0
        self.given: list[tuple[int, bytes]] = []
        self.again: list[int] = []
        self.hushed: list[int] = []
        self.events: list[bytes] = []
        self.room = 1 << 30
        self.p2a = True
        self.faults = Faults(FaultPlan(rules=rules, after=after, **plan), lambda: 0.5, lambda: self.now, self, names)
        self.stats = self.faults.stats

    def give(self, head: int, data: bytes) -> None:
        self.given.append((head, data))

    def give_again(self, head: int, data: bytes) -> None:
        self.again.append(head)

    def hush(self) -> None:
        self.hushed.append(self.heads[-1])

    def post(self, message: bytes) -> bool:
        if len(self.events) >= self.room:
            return False
        self.events.append(message)
        return True

    notify = post

    def subscribed(self, protocol: int, event: int, domain: int) -> bool:
        return True

    def answer(self, *heads: int) -> None:
        for head in heads:
            self.faults.answer(head, reply(head))

    @property
    def heads(self) -> list[int]:
        return [head for head, _ in self.given]

    def advance(self, seconds: float) -> bool:
        self.now += seconds
        return self.faults.tick(self.now)


# --- responses --------------------------------------------------------------------------------------------------------


def test_a_delay() -> None:
    bench = Bench(Delay(time=Uniform(low=1.0, high=2.0), count=1))
    bench.answer(1, 2)
    assert (bench.heads, bench.stats.late) == ([2], 1)
    assert not bench.advance(1.4)
    assert bench.advance(0.2)
    assert bench.given == [(2, reply(2)), (1, reply(1))]


def test_overtaken() -> None:
    bench = Bench(Reorder(passing=2, count=1))
    bench.answer(1, 2, 3, 4)
    assert bench.heads == [2, 3, 1, 4]
    assert (bench.stats.held_back, bench.stats.overtaken) == (1, 1)
    bench = Bench(Reorder(count=1))
    bench.answer(1)
    assert bench.advance(BEHIND_SECONDS * 1.1)
    assert bench.heads == [1]


def test_never() -> None:
    bench = Bench(Never(count=2))
    bench.answer(1, 2, 3)
    assert (bench.heads, bench.stats.never, bench.faults.kept, bench.faults.held) == ([3], 2, 2, 0)
    bench.faults.reset()
    assert bench.faults.kept == 0
    bench.answer(4, 5, 6)
    assert bench.heads == [3, 6], "the messages of the driver are whole again, so is the number"


def test_twice() -> None:
    bench = Bench(Twice(count=1))
    bench.answer(1, 2)
    assert (bench.heads, bench.again, bench.stats.double_used) == ([1, 2], [1], 1)


def test_changed() -> None:
    bench = Bench(WrongToken(by=2, count=1), Truncate(length=5, only=("clock",)))
    bench.answer(1, 2)
    assert bench.given == [(1, reply(3)[:5]), (2, reply(2)[:5])]
    assert (bench.stats.wrong_token, bench.stats.truncated) == (1, 2)


def test_rules_come_before_the_plain_settings() -> None:
    bench = Bench(Never(count=1), reorder=1.0)
    bench.answer(1, 2)
    assert (bench.stats.never, bench.stats.held_back) == (1, 1)


def test_the_first_commands_are_spared() -> None:
    bench = Bench(Never(count=9), Never(count=9, of="delayed_response"), Never(count=9, of="notification"), after=2)
    bench.answer(1, 2)
    assert bench.faults.delayed(DELAYED)
    assert bench.faults.notification(EVENT)
    bench.answer(3)
    assert bench.faults.delayed(DELAYED)
    assert bench.faults.notification(EVENT)
    assert bench.heads == [1, 2]
    assert bench.events == [DELAYED, EVENT]
    assert (bench.stats.never, bench.stats.delayed_never, bench.stats.notifications_never) == (1, 1, 1)


def test_rules_of_others() -> None:
    bench = Bench(Never(count=9, agents=("vm1",)), names=frozenset({"vm0", "1"}))
    bench.answer(1)
    assert bench.heads == [1]
    assert bench.faults.done == []


# --- delayed responses ------------------------------------------------------------------------------------------------


def ready(*rules: AnyRule) -> Bench:
    bench = Bench(*rules)
    bench.faults._commands = 1
    return bench


def test_a_delayed_response_late() -> None:
    bench = ready(Delay(of="delayed_response", time=SECOND, count=1))
    assert bench.faults.delayed(DELAYED)
    assert bench.events == []
    assert not bench.advance(1.1), "the eventq is flushed by itself"
    assert (bench.events, bench.stats.delayed_late) == ([DELAYED], 1)


def test_a_delayed_response_never() -> None:
    bench = ready(Never(of="delayed_response", count=1))
    assert bench.faults.delayed(DELAYED)
    assert bench.faults.delayed(DELAYED)
    assert (bench.events, bench.stats.delayed_never, bench.faults.kept) == ([DELAYED], 1, 0)


def test_a_delayed_response_twice() -> None:
    bench = ready(Twice(of="delayed_response", count=1))
    assert bench.faults.delayed(DELAYED)
    assert (bench.events, bench.stats.delayed_twice) == ([DELAYED] * 2, 1)


def test_a_delayed_response_twice_when_there_is_room() -> None:
    bench = ready(Twice(of="delayed_response", count=1))
    bench.room = 0
    assert bench.faults.delayed(DELAYED)
    assert bench.faults.held == 2
    bench.room = 5
    bench.advance(0.01)
    assert (bench.events, bench.stats.delayed_twice, bench.faults.held) == ([DELAYED] * 2, 1, 0)


def test_a_delayed_response_that_was_struck_is_not_given_back() -> None:
    bench = ready(Truncate(of="delayed_response", length=4, count=1))
    bench.room = 0
    assert bench.faults.delayed(DELAYED), "struck once"
    assert not bench.faults.delayed(DELAYED), "untouched: the platform keeps it"
    bench.room = 1
    bench.advance(0.01)
    assert bench.events == [DELAYED[:4]]


def test_what_is_held_is_bounded() -> None:
    bench = ready(Delay(of="delayed_response", time=SECOND), Delay(of="notification", time=SECOND))
    for _ in range(MAX_HELD):
        assert bench.faults.delayed(DELAYED)
    assert bench.faults.delayed(DELAYED)
    assert bench.faults.notification(EVENT)
    assert (bench.faults.held, bench.events) == (MAX_HELD, [DELAYED, EVENT])


# --- notifications ----------------------------------------------------------------------------------------------------


def test_notifications() -> None:
    bench = ready(
        Delay(of="notification", time=SECOND, only=("performance",), count=1),
        Never(of="notification", only=("sensor/trip_point_event",), count=1),
        Twice(of="notification", only=("sensor",), count=1),
    )
    assert all(bench.faults.notification(one) for one in (OTHER, EVENT, EVENT, EVENT))
    assert bench.events == [EVENT] * 3
    bench.advance(1.1)
    assert bench.events == [EVENT] * 3 + [OTHER]
    stats = bench.stats
    assert (stats.notifications_late, stats.notifications_never, stats.notifications_twice) == (1, 1, 1)


def test_a_notification_without_room_is_lost() -> None:
    bench = ready(Twice(of="notification"))
    bench.room = 0
    assert not bench.faults.notification(EVENT)
    assert bench.stats.notifications_twice == 0


# --- another plan, another time ---------------------------------------------------------------------------------------


def test_no_plan_is_nothing_to_do() -> None:
    bench = Bench()
    assert not bench.faults.active
    assert not bench.faults.tick(99.0)
    assert Bench(Twice()).faults.active


def test_another_plan_lets_go_what_is_held() -> None:
    rules = [
        Delay(time=SECOND, only=("clock",)),
        Delay(time=SECOND, of="delayed_response"),
        Delay(time=SECOND, of="notification"),
    ]
    bench = ready(*rules)
    bench.answer(1, 2)
    bench.faults.delayed(DELAYED)
    bench.faults.notification(EVENT)
    assert bench.faults.held == 4
    bench.room = 0
    bench.faults.replace(FaultPlan(), 77)
    assert bench.heads == [1, 2], "in the order in which they were due"
    assert bench.faults.active, "there is something left"
    bench.advance(0.0)
    assert bench.faults.held == 1, "a notification without room is lost, a delayed response is not"
    bench.room = 9
    bench.advance(0.0)
    assert bench.events == [DELAYED]
    assert not bench.faults.active


def test_another_plan_begins_with_what_the_guest_had_sent() -> None:
    bench = Bench()
    bench.faults.replace(FaultPlan(after=100, double_used=102, rules=(Never(count=1),)), 100)
    bench.answer(1, 2, 3)
    assert (bench.heads, bench.again, bench.stats.never) == ([2, 3], [2], 1)


def test_another_plan_knows_what_will_never_be_answered() -> None:
    bench = Bench(Never(count=100))
    bench.answer(*range(100))
    with pytest.raises(RemoteError, match=r"28.*27"):
        bench.faults.check(FaultPlan(never=28), 256)
    bench.faults.check(FaultPlan(never=27), 256)
    bench.faults.reset()
    bench.faults.check(FaultPlan(never=127), 256)


def test_a_queue_may_be_set_up_again_with_the_size_that_it_had() -> None:
    bench = Bench(Never(count=100))
    bench.answer(*range(100))
    bench.faults.check_size(256)
    bench.faults.replace(FaultPlan(after=0, rules=(Never(count=20),)), 100)
    bench.answer(*range(20))
    bench.faults.check_size(256)
    with pytest.raises(RemoteError, match=r"20.*19"):
        bench.faults.check_size(240)
    bench.faults.reset()
    bench.faults.check_size(240)


def test_a_queue_that_stops_is_given_every_response() -> None:
    bench = Bench(
        Delay(time=SECOND, count=1), Reorder(count=1), Delay(time=Constant(seconds=0.01), count=1),
        Delay(time=SECOND, of="notification"), Storm(protocol="sensor", burst=5),
    )  # fmt: skip
    bench.answer(1, 2, 3)
    bench.faults.notification(EVENT)
    bench.faults.release()
    assert bench.heads == [3, 2, 1], "in the order in which they were due"
    assert bench.faults.held == 1
    assert not bench.events


def test_storms_blow_with_the_time() -> None:
    bench = Bench(Storm(protocol="sensor", burst=3))
    assert not bench.advance(0.01)
    assert (len(bench.events), bench.stats.storm) == (3, 3)
    bench.faults.reset()
    bench.advance(0.01)
    assert len(bench.events) == 6, "a guest that begins anew has its own"


def test_how_often_each_rule_struck() -> None:
    bench = Bench(Storm(protocol="sensor", burst=3), Truncate(length=4, count=2), Twice(only=("sensor",)))
    bench.answer(1, 2, 3)
    bench.advance(0.01)
    assert bench.faults.done == [3, 2, 0]


COUNT = st.integers(1, 5)
CHANCE = st.floats(0, 1)
RULES = st.lists(
    st.one_of(
        st.builds(Delay, time=st.builds(Constant, seconds=st.floats(0, 0.3)), probability=CHANCE),
        st.builds(Reorder, passing=st.integers(0, 9), probability=CHANCE),
        st.builds(Never, count=COUNT, probability=CHANCE),
        st.builds(Twice, count=COUNT, probability=CHANCE),
        st.builds(WrongToken, probability=CHANCE),
        st.builds(Truncate, length=st.integers(0, 20), probability=CHANCE),
    ),
    max_size=5,
)


@given(
    st.integers(0, 1 << 32), RULES, st.fixed_dictionaries({}, optional={"late": CHANCE, "reorder": CHANCE}), st.data()
)
def test_every_command_is_answered_exactly_once_unless_a_rule_says_otherwise(
    seed: int, rules: list[AnyRule], plain: dict[str, Any], data: st.DataObject
) -> None:
    bench = Bench()
    plan = FaultPlan(rules=tuple(rules), after=0, late_seconds=0.2, never=3, never_every=5, **plain)
    bench.faults = Faults(plan, random.Random(seed).random, lambda: bench.now, bench)
    count = data.draw(st.integers(1, 60))
    for head in range(count):
        bench.answer(head)
        event = data.draw(st.sampled_from(["", "", "", "tick", "release", "replace"]))
        if event == "tick":
            bench.advance(0.05)
        elif event == "release":
            bench.faults.release()
        elif event == "replace":
            bench.faults.replace(plan, head)
    bench.faults.replace(FaultPlan(), count)
    assert bench.faults.held == 0
    stats = bench.faults.stats
    given_out = Counter(bench.heads)
    assert set(given_out.values()) <= {1}, "never twice but by give_again"
    assert len(given_out) == count - stats.never
    assert len(bench.again) == stats.double_used
    assert set(bench.again) <= set(given_out)
    if not any(isinstance(rule, Twice) for rule in rules):
        assert not bench.again


def test_a_response_without_its_interrupt() -> None:
    bench = Bench(Silent(only=("clock",), count=2))
    bench.answer(1, 2, 3)
    assert bench.heads == [1, 2, 3]
    assert bench.hushed == [1, 2]
    assert bench.stats.silent == 2
