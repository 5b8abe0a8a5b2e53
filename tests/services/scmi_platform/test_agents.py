"""Which guest is which agent."""

from __future__ import annotations

import pytest

from common.errors import RemoteError
from common.scmi import header, sensor
from services.scmi_platform import agents as module
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from tests.services.scmi_platform.scmi_rig import SMALL, words


class Channel:
    def __init__(self, p2a: bool = True) -> None:
        self.p2a = p2a
        self.got: list[bytes] = []

    def emit(self, message: bytes) -> bool:
        self.got.append(message)
        return True


@pytest.fixture
def agents() -> Agents:
    return Agents(Board.load(SMALL), lambda: 1.0)


def test_guests_take_the_untrusted_agents_of_the_board_first(agents: Agents) -> None:
    assert agents.allot("vm0") == 1
    assert agents.platform.agents[1].name == "OSPM"
    assert agents.allot("vm1") == 3, "agent 2 is trusted: nobody gets it by chance"
    assert agents.platform.agents[3].name == "vm1"
    assert not agents.platform.agents[3].trusted
    assert agents.allot("BOSS") == 2, "by name"
    assert [agents.allot(name) for name in ("vm0", "vm1", "BOSS")] == [1, 3, 2]


def test_agents_that_the_board_did_not_have_can_be_used(agents: Agents) -> None:
    agents.allot("vm0")
    number = agents.allot("a-guest-with-a-very-long-name")
    request = header.command(0x10, 7, 0, words(0xFFFF_FFFF))
    got = agents.platform.handle(number, request)
    assert got is not None
    assert got[4:] == words(0, number) + b"a-guest-with-a-" + b"\0"


def test_agent_ids_run_out(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AGENTS", 3)
    agents.allot("vm0")
    agents.allot("vm1")
    with pytest.raises(RemoteError, match="guests"):
        agents.allot("vm2")


def test_messages_go_to_the_agents_channel(agents: Agents) -> None:
    first, second = Channel(), Channel(p2a=False)
    subscribe = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_TRIP_POINT_NOTIFY, 0, words(0, 1))
    for name, channel in (("vm0", first), ("vm1", second)):
        agents.attach(agents.allot(name), channel)
    assert agents.platform.handle(1, subscribe) == subscribe[:4] + words(0)
    assert agents.platform.handle(3, subscribe) == subscribe[:4] + words(-1), "no P2A, no notifications"
    agents.platform.notify(sensor.PROTOCOL, 0, 0, b"payload")
    assert [message[4:] for message in first.got] == [b"payload"]
    assert not second.got
    assert agents.platform.p2a(1)
    assert not agents.platform.p2a(2)


def test_a_new_channel_starts_afresh(agents: Agents) -> None:
    agents.attach(agents.allot("vm0"), Channel())
    subscribe = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_TRIP_POINT_NOTIFY, 0, words(0, 1))
    agents.platform.handle(1, subscribe)
    assert agents.platform.subscribed(sensor.PROTOCOL, 0, 0) == {1}
    agents.attach(1, Channel())
    assert agents.platform.subscribed(sensor.PROTOCOL, 0, 0) == set()
