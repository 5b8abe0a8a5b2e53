"""Agents with views and protocols of their own (board_views.toml: what each sees)."""

from __future__ import annotations

from pathlib import Path

from tests.services.scmi_platform.scmi_rig import HERE, Rig, words

VIEWS = HERE / "board_views.toml"
ALL, SOME, CLOCKS = 1, 2, 3
CLOCK, SENSOR = 0x14, 0x15
NOT_SUPPORTED, DENIED, NOT_FOUND = -1, -3, -4


def test_what_an_agent_discovers() -> None:
    rig = Rig(VIEWS)
    counts = [rig.ask(CLOCK, 0x1, agent=agent)[4:6] for agent in (ALL, SOME, CLOCKS)]
    assert counts == [b"\3\0", b"\2\0", b"\3\0"]
    names = [rig.ask(CLOCK, 0x3, words(number), agent=SOME)[8:12].rstrip(b"\0") for number in range(2)]
    assert names == [b"c", b"a"]  # in the order of its view
    assert rig.ask(CLOCK, 0x3, words(2), agent=SOME) == words(NOT_FOUND)
    descriptors = rig.ask(SENSOR, 0x3, words(0), agent=SOME)
    assert descriptors[4:12] == words(1, 0)  # one sensor, which it calls 0
    assert b"second" in descriptors


def test_protocols_of_an_agent() -> None:
    rig = Rig(VIEWS)
    assert rig.ask(0x10, 0x6, words(0), agent=ALL) == words(0, 2) + bytes((CLOCK, SENSOR, 0, 0))
    assert rig.ask(0x10, 0x6, words(0), agent=CLOCKS) == words(0, 1) + bytes((CLOCK, 0, 0, 0))
    assert rig.ask(0x10, 0x1, agent=CLOCKS)[4:5] == b"\1"
    assert rig.ask(SENSOR, 0x0, agent=CLOCKS) == words(NOT_SUPPORTED)


def test_one_clock_by_two_numbers() -> None:
    rig = Rig(VIEWS)
    assert rig.ask(CLOCK, 0x5, words(0, 0, 200, 0), agent=SOME) == words(0)
    assert rig.ask(CLOCK, 0x6, words(2), agent=ALL) == words(0, 200, 0)
    assert rig.ask(CLOCK, 0x6, words(0), agent=ALL) == words(0, 100, 0)


def test_notifications_carry_the_number_of_who_reads_them() -> None:
    rig = Rig(VIEWS)
    for agent, number in ((ALL, 2), (SOME, 0)):
        assert rig.ask(CLOCK, 0x9, words(number, 1), agent=agent) == words(0)
    rig.ask(CLOCK, 0x5, words(0, 2, 200, 0), agent=CLOCKS)
    assert [(agent, payload) for agent, _, payload in rig.take()] == [
        (ALL, words(CLOCKS, 2, 200, 0)),
        (SOME, words(CLOCKS, 0, 200, 0)),
    ]


def test_delayed_responses_carry_the_number_of_the_request() -> None:
    rig = Rig(VIEWS)
    assert rig.ask(CLOCK, 0x5, words(1, 0, 200, 0), agent=SOME) == words(0)
    rig.advance(1.0)
    assert [payload for _, _, payload in rig.take()] == [words(0, 0, 200, 0)]
    assert rig.ask(SENSOR, 0x6, words(0, 1), agent=SOME) == words(0)
    rig.advance(1.0)
    assert [payload[:8] for _, _, payload in rig.take()] == [words(0, 0)]


def test_parents_that_an_agent_sees() -> None:
    rig = Rig(VIEWS)
    assert rig.ask(CLOCK, 0xC, words(2, 0), agent=ALL) == words(0, 2, 0, 1)
    assert rig.ask(CLOCK, 0xC, words(0, 0), agent=SOME) == words(0, 1, 1)  # of a and b it sees a, as 1
    assert rig.ask(CLOCK, 0xE, words(0), agent=SOME) == words(NOT_FOUND)  # its parent is b
    assert rig.ask(CLOCK, 0xD, words(0, 1), agent=SOME) == words(0)
    assert rig.ask(CLOCK, 0xE, words(2), agent=ALL) == words(0, 0)


def test_permissions_are_of_the_board() -> None:
    rig = Rig(VIEWS)
    assert rig.ask(0x10, 0x9, words(SOME, 0, 0), agent=ALL) == words(0)  # device "c"
    assert rig.ask(CLOCK, 0x6, words(0), agent=SOME) == words(DENIED)
    assert rig.ask(CLOCK, 0x6, words(1), agent=SOME)[:4] == words(0)


def test_an_agent_that_sees_none_of_a_kind_is_not_served_the_protocol(tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    board.write_text(VIEWS.read_text().replace('clocks = ["c", "a"], ', "clocks = [], "))
    rig = Rig(board)
    assert rig.ask(0x10, 0x6, words(0), agent=SOME) == words(0, 1) + bytes((SENSOR, 0, 0, 0))
    assert rig.ask(CLOCK, 0x0, agent=SOME) == words(NOT_SUPPORTED)
    assert rig.ask(CLOCK, 0x0, agent=ALL)[:4] == words(0)


def test_a_clock_none_of_whose_parents_is_seen_has_none(tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    board.write_text(VIEWS.read_text().replace('clocks = ["c", "a"], ', 'clocks = ["c"], '))
    rig = Rig(board)
    assert rig.ask(CLOCK, 0x3, words(2))[4:8] == words(0xD000_0001)  # both notifications, parents (28), enabled
    assert rig.ask(CLOCK, 0x3, words(0), agent=SOME)[4:8] == words(0xC000_0001)
    assert rig.ask(CLOCK, 0xC, words(0, 0), agent=SOME) == words(NOT_SUPPORTED)
