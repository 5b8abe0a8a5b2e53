"""Notification storms over one agent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.scmi import header
from services.scmi_platform.faults_plan import Storm
from services.scmi_platform.faults_stats import FaultStats
from services.scmi_platform.faults_storm import MAX_AT_ONCE, Blowing, message_of
from tests.services.scmi_platform.scmi_rig import words


class Agent:
    def __init__(self, **storm: Any) -> None:
        self.now = 50.0
        self.p2a = True
        self.wants = {(0x15, 0, 3)}
        self.room = 1 << 30
        self.got: list[bytes] = []
        self.stats = FaultStats()
        fields: dict[str, Any] = {"protocol": "sensor", "domain": 3} | storm
        self.storm = Blowing(Storm(**fields), self.stats)

    def subscribed(self, protocol: int, event: int, domain: int) -> bool:
        return (protocol, event, domain) in self.wants

    def notify(self, message: bytes) -> bool:
        if len(self.got) >= self.room:
            return False
        self.got.append(message)
        return True

    def advance(self, seconds: float) -> int:
        """Notifications that came meanwhile."""
        before = len(self.got)
        self.now += seconds
        self.storm.tick(self.now, self)
        return len(self.got) - before


@pytest.mark.parametrize(
    ("storm", "protocol", "event", "payload"),
    [
        ({"protocol": "sensor", "event": "trip_point_event", "domain": 3}, 0x15, 0, words(0, 3, 0)),
        ({"protocol": 0x13, "event": 1, "domain": 1}, 0x13, 1, words(0, 1, 0)),
        ({"protocol": "0x99", "event": 7, "domain": 9}, 0x99, 7, words(0, 9)),
        ({"protocol": "system", "event": 0, "payload": "0102"}, 0x12, 0, b"\1\2"),
    ],
)
def test_what_it_sends(storm: dict[str, Any], protocol: int, event: int, payload: bytes) -> None:
    assert message_of(Storm(burst=1, **storm)) == header.notification(protocol, event, payload)


def test_a_burst_comes_once() -> None:
    agent = Agent(burst=1000)
    assert [agent.advance(0.01) for _ in range(3)] == [1000, 0, 0]
    assert (agent.stats.storm, agent.stats.storm_dropped, agent.storm.done) == (1000, 0, 1000)
    assert set(agent.got) == {header.notification(0x15, 0, words(0, 3, 0))}


def test_a_rate() -> None:
    agent = Agent(per_second=100.0)
    assert agent.advance(5.0) == 0, "it begins now"
    assert [agent.advance(0.005) for _ in range(4)] == [0, 1, 0, 1]
    assert agent.advance(1.0) == 100


def test_what_it_owes_is_bounded() -> None:
    agent = Agent(per_second=1000.0)
    agent.advance(0)
    assert agent.advance(100.0) == MAX_AT_ONCE
    assert agent.advance(0.0105) == 10, "the rest is forgotten"


def test_so_many_in_all() -> None:
    agent = Agent(per_second=100.0, burst=5, count=7)
    assert agent.advance(0) == 5
    assert agent.advance(1.0) == 2
    assert agent.advance(1.0) == 0
    agent.storm.reset()
    assert agent.advance(0) == 5


@pytest.mark.parametrize("lacks", ["p2a", "wants"])
def test_it_waits_for_the_agent(lacks: str) -> None:
    agent = Agent(burst=3, per_second=10.0)
    had = getattr(agent, lacks)
    setattr(agent, lacks, type(had)())
    assert agent.advance(10.0) == 0
    setattr(agent, lacks, had)
    assert agent.advance(10.0) == 3, "the time before counts for nothing"
    assert agent.advance(1.0) == 10
    setattr(agent, lacks, type(had)())
    assert agent.advance(10.0) == 0
    setattr(agent, lacks, had)
    assert agent.advance(10.0) == 0


def test_unasked() -> None:
    agent = Agent(burst=3, unasked=True)
    agent.wants.clear()
    assert agent.advance(0) == 3


def test_without_room_the_rest_is_lost() -> None:
    agent = Agent(burst=10)
    agent.room = 4
    assert agent.advance(0) == 4
    assert (agent.stats.storm, agent.stats.storm_dropped, agent.storm.done) == (4, 6, 10)


@given(st.lists(st.floats(0, 0.5), max_size=40), st.floats(0.1, 1000), st.integers(0, 50), st.integers(0, 100))
def test_every_one_is_counted(steps: list[float], rate: float, burst: int, count: int) -> None:
    agent = Agent(per_second=rate, burst=burst, count=count)
    agent.room = 60
    for step in steps:
        agent.advance(step)
    assert agent.stats.storm == len(agent.got)
    assert agent.stats.storm + agent.stats.storm_dropped == agent.storm.done
    assert agent.storm.done <= burst + sum(steps) * rate + 1
    assert not count or agent.storm.done <= count
