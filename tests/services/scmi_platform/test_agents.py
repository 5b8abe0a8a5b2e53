"""Which guest is which agent."""

from __future__ import annotations

import pytest

from common.errors import RemoteError
from common.scmi import header, sensor
from common.scmi.status import ProtocolId, Status
from services.scmi_platform import agents as module
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from tests.services.scmi_platform.scmi_rig import HERE, SMALL, words


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


def test_an_agent_that_is_given_back(agents: Agents) -> None:
    assert (agents.allot("vm0"), agents.allot("vm1")) == (1, 3)
    channel = Channel()
    agents.attach(3, channel)
    subscribe = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_TRIP_POINT_NOTIFY, 0, words(0, 1))
    agents.platform.handle(3, subscribe)
    agents.release("vm1")
    assert not agents.platform.subscribed(sensor.PROTOCOL, 0, 0)
    assert not agents.platform.p2a(3)
    assert agents.allot("vm2") == 3
    assert agents.platform.agents[3].name == "vm2"
    assert agents.allot("vm3") == 4
    agents.release("vm0")
    assert agents.allot("vm4") == 1, "the board's own before those that it has not"
    assert agents.platform.agents[1].name == "OSPM"


def test_what_an_agent_holds_is_given_back_with_it() -> None:
    """What it had set stays; what it had to itself is free for others, and not the next guest's of its number."""
    agents = Agents(Board.load(HERE / "board_whole.toml"), clock=lambda: 0.0)
    agents.attach(agents.allot("gone"), Channel())
    assert agents.allot("other") == 3
    saved: set[tuple[int, int]] = set()

    def save(touched: set[tuple[int, int]]) -> bool:
        saved.update(touched)
        return True

    agents.platform.save = save

    def ask(agent: int, protocol: int, message: int, *payload: int) -> int:
        reply = agents.platform.handle(agent, header.command(protocol, message, 0, words(*payload)))
        assert reply is not None
        return int.from_bytes(reply[4:8], "little", signed=True)

    for protocol, message, payload in (
        (ProtocolId.PIN_CONTROL, 0x7, (0, 0)),
        (ProtocolId.PIN_CONTROL, 0x6, (0, 0, 1 << 2, 10, 2)),
        (ProtocolId.POWERCAP, 0xB, (0, 1, 2050, 2150)),
        (ProtocolId.RESET_DOMAIN, 0x4, (0, 2, 0)),
    ):
        assert ask(1, protocol, message, *payload) == 0
    assert ask(3, ProtocolId.PIN_CONTROL, 0x7, 0, 0) == Status.IN_USE
    agents.platform.commit()
    saved.clear()
    agents.release("gone")
    agents.platform.commit()
    assert saved == {(0, 1), (ProtocolId.PIN_CONTROL, 0), (ProtocolId.POWERCAP, 0), (ProtocolId.RESET_DOMAIN, 0)}
    assert agents.platform.protocols[ProtocolId.POWERCAP].save(0) is None
    assert agents.platform.protocols[ProtocolId.RESET_DOMAIN].save(0) is None
    assert agents.platform.protocols[ProtocolId.PIN_CONTROL].save(0).configs[10] == 2
    assert ask(3, ProtocolId.PIN_CONTROL, 0x7, 0, 0) == 0
    assert agents.allot("next") == 1
    assert ask(1, ProtocolId.PIN_CONTROL, 0x7, 0, 0) == Status.IN_USE


def test_a_guest_may_ask_for_an_agent_by_another_name(agents: Agents) -> None:
    assert agents.allot("a", "BOSS") == 2
    assert agents.allot("b", "BOSS") == 1, "somebody has it"
    assert agents.allot("a", "OSPM") == 2, "only the first time"
