"""Several agents with asynchronous operations under way at once: each hears of its own, when it is due."""

from __future__ import annotations

from tests.services.scmi_platform.scmi_rig import HERE, Rig, words

WHOLE = HERE / "board_whole.toml"
CLOCK, SENSOR, VOLTAGE = 0x14, 0x15, 0x17
BUSY = -6
ALL, BOSS, VIEW, FEW = 1, 2, 3, 4


def test_four_agents_at_once() -> None:
    rig = Rig(WHOLE)
    tokens = {}
    for agent, protocol, message, payload in (
        (ALL, CLOCK, 0x5, words(1, 2, 200, 0)),  # clock "c" in 50 ms
        (VIEW, CLOCK, 0x5, words(1, 0, 100, 0)),  # the same clock, which it calls 0, right behind
        (BOSS, VOLTAGE, 0x7, words(1, 1, 5)),  # in 2 ms
        (FEW, SENSOR, 0x6, words(0, 1)),  # in 1 ms
        (VIEW, SENSOR, 0x6, words(1, 1)),  # the same sensor, which it calls 1
    ):
        assert rig.ask(protocol, message, payload, agent=agent) == words(0)
        tokens[agent, protocol] = rig.token
    assert rig.take() == []
    heard = []
    for _ in range(60):
        due = rig.advance(0.001)
        heard += [(agent, head.protocol, head.token, payload[:8]) for agent, head, payload in rig.take()]
    assert heard == [
        (FEW, SENSOR, tokens[FEW, SENSOR], words(0, 0)),
        (VIEW, SENSOR, tokens[VIEW, SENSOR], words(0, 1)),
        (BOSS, VOLTAGE, tokens[BOSS, VOLTAGE], words(0, 1)),
        (ALL, CLOCK, tokens[ALL, CLOCK], words(0, 2)),
        (VIEW, CLOCK, tokens[VIEW, CLOCK], words(0, 0)),
    ]
    assert due is None
    assert rig.ask(CLOCK, 0x6, words(2)) == words(0, 100, 0)  # the later one counts
    assert not any(any(agent.pending.values()) for agent in rig.platform.agents.values())


def test_the_bound_is_of_an_agent_and_a_protocol() -> None:
    rig = Rig(WHOLE)
    for agent in (ALL, BOSS):
        replies = [rig.ask(CLOCK, 0x5, words(1, 1, 1200, 0), agent=agent) for _ in range(9)]
        assert replies == [words(0)] * 8 + [words(BUSY)]
    assert rig.ask(SENSOR, 0x6, words(0, 1)) == words(0)
    rig.advance(1.0)
    assert len(rig.take()) == 17
    assert rig.ask(CLOCK, 0x5, words(1, 1, 1300, 0)) == words(0)


def test_a_reset_ends_those_of_one_agent() -> None:
    rig = Rig(WHOLE)
    for agent in (ALL, FEW):
        rig.ask(CLOCK, 0x5, words(1, 1, 1200, 0), agent=agent)
        rig.ask(SENSOR, 0x6, words(0, 1), agent=agent)
    rig.platform.reset_agent(ALL)
    rig.advance(1.0)
    assert {agent for agent, _, _ in rig.take()} == {FEW}


def test_one_without_room_holds_nobody_up() -> None:
    rig = Rig(WHOLE)
    for agent in (ALL, BOSS, FEW):
        rig.ask(SENSOR, 0x6, words(0, 1), agent=agent)
    rig.refuse_once = BOSS
    rig.advance(0.001)
    assert [agent for agent, _, _ in rig.take()] == [ALL, FEW]
    rig.advance(0.001)
    assert [agent for agent, _, _ in rig.take()] == [BOSS]
