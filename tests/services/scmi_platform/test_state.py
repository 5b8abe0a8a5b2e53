"""What outlives a restart: everything that was set, and nothing that the board does not allow."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.state import AGENTS, PlatformState
from tests.services.scmi_platform.scmi_rig import HERE, SMALL, Rig, words

CLOCK, SENSOR = 0x14, 0x15


def through_msgpack(entries: list[Any]) -> list[Any]:
    found: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(entries))
    return found


def again(rig: Rig) -> Rig:
    """Another platform with the state of ``rig``."""
    other = Rig()
    assert PlatformState(other.platform).restore(through_msgpack(PlatformState(rig.platform).snapshot())) == []
    return other


def test_a_new_platform_has_nothing_to_save() -> None:
    rig = Rig()
    assert PlatformState(rig.platform).snapshot() == []


def test_settings() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x5, words(0, 0, 500, 0))
    rig.ask(CLOCK, 0xD, words(3, 1))
    rig.ask(CLOCK, 0x7, words(1, 1 << 16 | 3, 25))
    other = again(rig)
    assert other.ask(CLOCK, 0x6, words(0)) == words(0, 500, 0)
    assert other.ask(CLOCK, 0xE, words(3)) == words(0, 1)
    assert other.ask(CLOCK, 0xB, words(1, 1)) == words(0, 0, 0, 25)
    assert other.platform.touched == set()
    assert other.ask(0x10, 0xB, words(1, 0)) == words(0)  # and whose it was is known
    assert other.ask(CLOCK, 0x6, words(0)) == words(0, 300, 0)


def test_agents() -> None:
    rig = Rig()
    rig.ask(CLOCK, 0x9, words(0, 1))
    rig.ask(CLOCK, 0x10, words(0x20000))
    rig.ask(0x10, 0x9, words(1, 1, 0), agent=2)
    other = again(rig)
    assert other.ask(CLOCK, 0x6, words(0)) == words(-3)
    assert other.ask(CLOCK, 0xF, words(0)) == words(-1)  # not in version 0x20000
    other.ask(0x10, 0x9, words(1, 1, 1), agent=2)
    other.ask(CLOCK, 0x5, words(0, 0, 500, 0))
    assert [agent for agent, _, _ in other.take()] == [1]


def test_guests_find_their_agents_again() -> None:
    board = Board.load(SMALL)
    agents = Agents(board, lambda: 0.0)
    ids = {guest: agents.allot(guest) for guest in ("a", "b", "c", "d")}
    agents.release("c")
    entries = through_msgpack(PlatformState(agents.platform).snapshot())
    others = Agents(board, lambda: 0.0)
    assert PlatformState(others.platform).restore(entries) == []
    others.restored()
    assert others.allot("new") == ids["c"]
    assert {guest: others.allot(guest) for guest in ("d", "b", "a")} == {key: ids[key] for key in ("d", "b", "a")}
    assert others.platform.agents[ids["d"]].name == "d"


def test_connections_do_not_come_back() -> None:
    agents = Agents(Board.load(SMALL), lambda: 0.0)
    agents.allot("raw:0")
    agents.platform.subscribe(agents.platform.agents[1], CLOCK, 0, 0, True)
    others = Agents(Board.load(SMALL), lambda: 0.0)
    assert PlatformState(others.platform).restore(through_msgpack(PlatformState(agents.platform).snapshot())) == []
    others.restored()
    assert others.allot("a guest") == 1
    assert others.platform.subscriptions(others.platform.agents[1]) == []


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ((CLOCK, "no such clock", {}), "domain"),
        ((CLOCK, 0, {}), "domain"),
        ((0x99, 0, {}), "protocol"),
        ((0x10, 0, {}), "protocol"),
        ((CLOCK, "cpu", {"rate": 1}), "missing required field"),
        ((CLOCK, "cpu", {"rate": 301, "enabled": True, "extended": {}, "parent": None, "owner": 1}), "rate"),
        ((CLOCK, "cpu", {"rate": 300, "enabled": True, "extended": {}, "parent": 7, "owner": 1}), "parent"),
        ((CLOCK, "cpu", {"rate": 300, "enabled": True, "extended": {1: 5}, "parent": None, "owner": 1}), "extended"),
        ((AGENTS, "x", {"name": "", "guest": "", "versions": {}, "denied_devices": [], "subscriptions": []}), "agent"),
        ((AGENTS, 9, {"name": "", "guest": "", "versions": {}, "denied_devices": [], "subscriptions": []}), "agent"),
        ((AGENTS, 1, {"name": "no", "guest": "", "versions": {}, "denied_devices": [], "subscriptions": []}), "agent"),
    ],
)
def test_what_does_not_fit_is_left_out(entry: Any, why: str) -> None:
    rig = Rig()
    good = (CLOCK, "cpu", {"rate": 500, "enabled": True, "extended": {}, "parent": None, "owner": 1})
    state = PlatformState(rig.platform)
    refused = state.restore([entry, *([good] if entry[1] != "cpu" else [])])
    assert len(refused) == 1
    assert why in refused[0]
    assert rig.ask(CLOCK, 0x6, words(0)) == words(0, 500 if entry[1] != "cpu" else 300, 0)


def test_agents_of_any_keys_are_put_in_order() -> None:
    rig = Rig()
    agent = {"name": "new", "guest": "", "versions": {}, "denied_devices": [], "subscriptions": []}
    entries: Any = [(AGENTS, "x", agent), (AGENTS, 4, agent), (AGENTS, 3, agent), (AGENTS, -1, agent)]
    refused = PlatformState(rig.platform).restore(entries)
    assert [why.partition(":")[0] for why in refused] == ["protocol 0x0, -1", "protocol 0x0, 'x'"]
    assert [agent.name for agent in rig.platform.agents.values()][2:] == ["new", "new"]


def test_versions_and_subscriptions_of_protocols_that_are_gone() -> None:
    rig = Rig(HERE / "board_views.toml")
    name = rig.platform.agents[1].name
    state = {
        "name": name,
        "guest": "g",
        "versions": {CLOCK: 0x20000, SENSOR: 0x12345, 0x99: 1},
        "denied_devices": [],
        "subscriptions": [[CLOCK, 0, 2], [CLOCK, 0, 3], [0x99, 0, 0], [0x10, 0, 0]],
    }
    assert PlatformState(rig.platform).restore([(AGENTS, 1, state)]) == []
    assert rig.platform.agents[1].versions == {CLOCK: 0x20000}
    assert rig.platform.subscriptions(rig.platform.agents[1]) == [(0x10, 0, 0), (CLOCK, 0, 2)]


def test_subscriptions_to_what_an_agent_does_not_see() -> None:
    rig = Rig(HERE / "board_views.toml")
    heard = [[CLOCK, 0, domain] for domain in range(3)]
    state = {"name": "some", "guest": "g", "versions": {}, "denied_devices": [], "subscriptions": heard}
    assert PlatformState(rig.platform).restore([(AGENTS, 2, state)]) == []
    assert rig.platform.subscriptions(rig.platform.agents[2]) == [(CLOCK, 0, 0), (CLOCK, 0, 2)]  # it sees c and a


def test_nothing_leaves_before_it_is_saved() -> None:
    rig = Rig()
    seen: list[tuple[int, set[tuple[int, int]]]] = []

    def save(touched: set[tuple[int, int]]) -> bool:
        seen.append((len(rig.sent), set(touched)))
        return True

    rig.platform.save = save
    rig.ask(CLOCK, 0x9, words(0, 1))
    rig.platform.commit()
    rig.ask(CLOCK, 0x5, words(0, 0, 500, 0))  # tells the agent
    assert seen == [(0, {(AGENTS, 1)}), (0, {(CLOCK, 0)})]
    rig.take()
    rig.ask(CLOCK, 0x5, words(1, 0, 600, 0))
    rig.advance(1.0)
    assert seen[2:] == [(0, {(CLOCK, 0)})]
    assert len(rig.sent) == 2  # the notification and the delayed response


def test_what_could_not_be_saved_is_tried_again() -> None:
    rig = Rig()
    answers = [False, True]
    rig.platform.save = lambda touched: answers.pop(0)
    rig.ask(CLOCK, 0x5, words(0, 0, 500, 0))
    rig.platform.commit()
    assert rig.platform.touched == {(CLOCK, 0)}
    rig.platform.commit()
    assert rig.platform.touched == set()
    rig.platform.commit()
