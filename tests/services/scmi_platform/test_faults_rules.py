"""Which rules strike a message, and what they make of its bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.scmi import header
from services.scmi_platform.faults_plan import (
    KINDS,
    Delay,
    Never,
    Rule,
    Storm,
    Truncate,
    Twice,
    WrongProtocol,
    WrongToken,
)
from services.scmi_platform.faults_rules import Armed, Rules, messages_of, storms_of
from services.scmi_platform.faults_stats import FaultStats
from services.scmi_platform.faults_time import Constant

REPLY = header.command(0x14, 6, 1000, b"12345678")


class Bench:
    """Rules with dice that the test throws; ``dice`` empty: nothing is rolled."""

    def __init__(self, *rules: Rule, dice: tuple[float, ...] = ()) -> None:
        self.stats = FaultStats()
        self.dice = list(dice)
        self.armed = [Armed(rule) for rule in rules]
        self.rules = Rules(self.armed, lambda: self.dice.pop(0), self.stats)

    def strike(self, message: bytes = REPLY, of: Any = "response") -> tuple[header.Header, bytes, Any]:
        sent, fate = self.rules.strike(of, message)
        return header.unpack(int.from_bytes(sent[:4], "little")), sent[4:], fate


def test_nothing_is_struck_without_rules() -> None:
    assert Bench().rules.strike("response", REPLY) == (REPLY, None)
    assert Bench(Twice(of="notification")).rules.strike("response", REPLY)[0] is REPLY


@pytest.mark.parametrize(("token", "by", "wrong"), [(1000, 512, 488), (0, 512, 512), (1023, 1, 0), (1, 1023, 0)])
def test_a_wrong_token(token: int, by: int, wrong: int) -> None:
    bench = Bench(WrongToken(by=by))
    head, rest, fate = bench.strike(header.command(0x14, 6, token, b"1234"))
    assert (head, rest, fate) == (header.Header(6, 0, 0x14, wrong), b"1234", None)
    assert bench.stats.wrong_token == 1


def test_a_wrong_protocol() -> None:
    bench = Bench(WrongProtocol(protocol=0x99))
    assert bench.strike()[0] == header.Header(6, 0, 0x99, 1000)
    bench = Bench(WrongProtocol(message=0xFF))
    assert bench.strike()[0] == header.Header(0xFF, 0, 0x14, 1000)
    bench = Bench(WrongProtocol(message=0, protocol=0))
    assert bench.strike(of="response")[:2] == (header.Header(0, 0, 0, 1000), b"12345678")
    assert bench.stats.wrong_protocol == 1


@pytest.mark.parametrize("length", [0, 3, 4, 8, 12, 100])
def test_truncated(length: int) -> None:
    bench = Bench(Truncate(length=length))
    assert bench.rules.strike("response", REPLY) == (REPLY[:length], None)
    assert bench.stats.truncated == 1


def test_changes_come_on_top_of_each_other_and_of_a_fate() -> None:
    never = Never(count=5)
    bench = Bench(Truncate(length=2), WrongToken(), never, Twice(), WrongProtocol(protocol=1))
    sent, fate = bench.rules.strike("response", REPLY)
    assert len(sent) == 2
    assert fate is never, "the first that decides"
    assert [one.done for one in bench.armed] == [1, 1, 1, 0, 1]


def test_the_message_is_matched_by_the_header_that_it_came_with() -> None:
    bench = Bench(WrongProtocol(protocol=0x15), WrongToken(only=("clock",)), WrongToken(only=("sensor",)))
    bench.strike()
    assert [one.done for one in bench.armed] == [1, 1, 0]


def test_only_some_messages() -> None:
    bench = Bench(WrongToken(only=("clock/rate_set",)))
    assert bench.rules.strike("response", REPLY) == (REPLY, None)
    assert bench.strike(header.command(0x14, 5, 7))[0].token == 519
    assert bench.strike(header.command(0x14, 5, 7), of="notification")[0].token == 7


def test_so_often() -> None:
    bench = Bench(Twice(count=2))
    assert [bench.strike()[2] is not None for _ in range(4)] == [True, True, False, False]
    bench.armed[0].reset()
    assert bench.strike()[2] is not None


def test_by_chance() -> None:
    bench = Bench(Twice(probability=0.25, only=("clock",)), dice=(0.24, 0.25, 0.9))
    assert [bench.strike()[2] is not None for _ in range(3)] == [True, False, False]
    assert bench.dice == []
    bench.strike(header.command(0x15, 6))  # nothing is rolled for what it is not for
    assert bench.armed[0].done == 1


@given(st.data())
def test_any_rules_leave_bytes_that_can_be_sent(data: st.DataObject) -> None:
    some = st.sampled_from(sorted(KINDS))
    rules = data.draw(
        st.lists(
            st.one_of(
                st.builds(WrongToken, of=some, by=st.integers(1, 1023), count=st.integers(0, 2)),
                st.builds(Truncate, of=some, length=st.integers(0, 132)),
                st.builds(WrongProtocol, of=some, protocol=st.integers(0, 255)),
                st.builds(Delay, of=some, time=st.just(Constant(seconds=1.0))),
                st.builds(Twice, of=some),
            ),
            max_size=6,
        )
    )
    bench = Bench(*rules)
    for _ in range(4):
        message = data.draw(st.binary(min_size=4, max_size=132))
        sent, fate = bench.rules.strike(data.draw(some), message)
        assert len(sent) <= len(message)
        assert sent[4:] == message[4 : len(sent)], "only the header is changed"
        assert fate is None or fate in rules
    assert sum(one.done for one in bench.armed) >= bench.stats.wrong_token + bench.stats.truncated


def test_storms_are_not_about_messages() -> None:
    storm, twice = Storm(protocol="sensor", burst=1), Twice()
    assert messages_of((storm, twice)) == [twice]
    assert storms_of((storm, twice)) == [storm]
