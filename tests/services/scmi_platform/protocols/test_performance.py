"""Performance domain protocol, byte for byte (DEN0056E §4.5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import RemoteError
from services.scmi_platform.board import Board
from services.scmi_platform.protocols.performance_state import PerformanceState
from tests.services.scmi_platform.scmi_rig import HERE, Rig, words

BOARD = HERE / "protocols" / "board_performance.toml"
PERF, CLOCK = 0x13, 0x14
CPU, INDEX, LONG, NONE = 0, 1, 2, 3
OSPM, BOSS, VIEW = 1, 2, 3
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, OUT_OF_RANGE, PROTOCOL_ERROR = -1, -2, -3, -4, -5, -10
LONG_NAME = b"a-domain-that-nobody-may-set"


def rig(p2a: bool = True, version: int = 0x40000) -> Rig:
    made = Rig(BOARD, p2a=p2a)
    if version != 0x40000:
        assert made.ask(PERF, 0x10, words(version)) == words(0)
    return made


SUCCESS = [
    (0x0, b"", words(0, 0x40000)),  # PROTOCOL_VERSION
    # PROTOCOL_ATTRIBUTES: 3 domains (15:0), milliwatts (16); no statistics: address low, high, length
    (0x1, b"", words(0, 0x0001_0003, 0, 0, 0)),
    (0x2, words(0xB), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES: no fast channel
    # PERFORMANCE_DOMAIN_ATTRIBUTES: limits and level can be set (31, 30), both notifications (29, 28);
    # rate limit (19:0), sustained kHz, sustained level, name
    (0x3, words(CPU), words(0, 0xF000_0000, 1000, 600_000, 600) + b"cpu".ljust(16, b"\0")),
    # level indexing (25); the sustained level is a level all the same
    (0x3, words(INDEX), words(0, 0xF200_0000, 0, 0, 30) + b"by-index".ljust(16, b"\0")),
    # nothing can be set, extended name (26)
    (0x3, words(LONG), words(0, 0x3400_0000, 0, 0, 9) + LONG_NAME[:15] + b"\0"),
    # PERFORMANCE_DESCRIBE_LEVELS: 3 returned (11:0), none remain (31:16); each level, power, latency (15:0),
    # indicative kHz, index (0: without level indexing)
    (
        0x4,
        words(CPU, 0),
        words(0, 3, 300, 50, 100, 300_000, 0, 600, 120, 101, 600_000, 0, 900, 220, 102, 900_000, 0),
    ),
    (0x4, words(CPU, 2), words(0, 1, 900, 220, 102, 900_000, 0)),  # two skipped
    (0x4, words(INDEX, 1), words(0, 3, 20, 6, 0, 350_000, 2, 30, 7, 0, 500_000, 3, 40, 8, 0, 800_000, 4)),
    # six fit into 128 bytes, five remain
    (0x4, words(LONG, 0), words(0, 5 << 16 | 6, *(word for n in range(1, 7) for word in (n, 0, 0, 0, 0)))),
    (0x4, words(LONG, 8), words(0, 3, 9, 1, 65535, 0, 0, 10, 0, 0, 0, 0, 11, 0, 0, 0, 0)),
    (0x5, words(CPU, 900, 600), words(0)),  # PERFORMANCE_LIMITS_SET: highest, lowest
    (0x5, words(CPU, 700, 500), words(0)),  # limits need not be levels
    (0x5, words(CPU, 600, 0), words(0)),  # the lowest stays
    (0x5, words(CPU, 0, 600), words(0)),  # the highest stays
    (0x5, words(INDEX, 3, 2), words(0)),  # by index
    (0x6, words(CPU), words(0, 900, 300)),  # PERFORMANCE_LIMITS_GET: highest, lowest
    (0x6, words(INDEX), words(0, 4, 1)),
    (0x6, words(LONG), words(0, 11, 1)),
    (0x7, words(CPU, 900), words(0)),  # PERFORMANCE_LEVEL_SET
    (0x7, words(INDEX, 4), words(0)),
    (0x8, words(CPU), words(0, 600)),  # PERFORMANCE_LEVEL_GET
    (0x8, words(INDEX), words(0, 2)),
    (0x9, words(CPU, 1), words(0)),  # PERFORMANCE_NOTIFY_LIMITS
    (0xA, words(CPU, 1), words(0)),  # PERFORMANCE_NOTIFY_LEVEL
    (0xC, words(LONG), words(0, 0) + LONG_NAME.ljust(64, b"\0")),  # PERFORMANCE_DOMAIN_NAME_GET: flags, name
    (0x10, words(0x20000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x2, words(0xD), NOT_FOUND),
    (0x3, words(NONE), NOT_FOUND),
    (0x4, words(NONE, 0), NOT_FOUND),
    (0x4, words(CPU, 3), OUT_OF_RANGE),  # there are three
    (0x5, words(NONE, 900, 300), NOT_FOUND),
    (0x5, words(LONG, 9, 1), DENIED),
    (0x5, words(CPU, 0, 0), OUT_OF_RANGE),  # not both can stay
    (0x5, words(CPU, 901, 300), OUT_OF_RANGE),
    (0x5, words(CPU, 900, 299), OUT_OF_RANGE),
    (0x5, words(CPU, 500, 400), OUT_OF_RANGE),  # no level between them
    (0x5, words(CPU, 300, 600), INVALID),  # the wrong way round
    (0x5, words(INDEX, 5, 1), OUT_OF_RANGE),
    (0x5, words(INDEX, 40, 10), OUT_OF_RANGE),  # levels, where indices are wanted
    (0x6, words(NONE), NOT_FOUND),
    (0x7, words(NONE, 600), NOT_FOUND),
    (0x7, words(LONG, 2), DENIED),
    (0x7, words(CPU, 0), OUT_OF_RANGE),
    (0x7, words(CPU, 500), OUT_OF_RANGE),  # not a level
    (0x7, words(CPU, 1200), OUT_OF_RANGE),
    (0x7, words(INDEX, 0), OUT_OF_RANGE),
    (0x7, words(INDEX, 5), OUT_OF_RANGE),
    (0x8, words(NONE), NOT_FOUND),
    (0x9, words(NONE, 1), NOT_FOUND),
    (0x9, words(CPU, 2), INVALID),  # reserved bits
    (0xA, words(NONE, 1), NOT_FOUND),
    (0xA, words(CPU, 3), INVALID),
    (0xB, words(NONE, 0x7), NOT_FOUND),  # PERFORMANCE_DESCRIBE_FASTCHANNEL
    (0xB, words(CPU, 0x7), NOT_SUPPORTED),
    (0xC, words(NONE), NOT_FOUND),
    (0x10, words(0x10000), NOT_SUPPORTED),
    (0x5, words(CPU, 900), PROTOCOL_ERROR),
    (0x7, words(CPU, 900, 0), PROTOCOL_ERROR),
    (0xD, b"", NOT_SUPPORTED),
]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert rig().ask(PERF, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    assert rig().ask(PERF, message, payload) == words(status)


@pytest.mark.parametrize("message", [0x5, 0x6, 0x7, 0x8, 0x9, 0xA])
def test_denied_domain(message: int) -> None:
    made = rig()
    made.ask(0x10, 0x9, words(OSPM, 0, 0), agent=BOSS)  # device "cpu" denied to agent 1
    payload = words(CPU, 900, 300)[: {0x5: 12, 0x6: 4, 0x8: 4}.get(message, 8)]
    assert made.ask(PERF, message, payload) == words(DENIED)
    assert made.ask(PERF, 0x3, words(CPU))[4:8] == words(0x3000_0000)  # it can set neither limits nor level


# --- levels and limits ------------------------------------------------------------------------------------------------


def test_a_level_outside_the_limits_is_out_of_range() -> None:
    made = rig()
    made.ask(PERF, 0x5, words(CPU, 600, 300))
    assert made.ask(PERF, 0x7, words(CPU, 900)) == words(OUT_OF_RANGE)
    assert made.ask(PERF, 0x8, words(CPU)) == words(0, 600)
    assert made.ask(PERF, 0x7, words(CPU, 300)) == words(0)
    made.ask(PERF, 0x5, words(CPU, 900, 600))
    assert made.ask(PERF, 0x7, words(CPU, 300)) == words(OUT_OF_RANGE)


@pytest.mark.parametrize(
    ("highest", "lowest", "level"), [(500, 300, 300), (900, 601, 900), (900, 300, 600), (0, 650, 900), (599, 0, 300)]
)
def test_limits_move_the_level(highest: int, lowest: int, level: int) -> None:
    made = rig()
    assert made.ask(PERF, 0x5, words(CPU, highest, lowest)) == words(0)
    assert made.ask(PERF, 0x6, words(CPU)) == words(0, highest or 900, lowest or 300)
    assert made.ask(PERF, 0x8, words(CPU)) == words(0, level)


def test_limits_that_stay_are_the_last_ones() -> None:
    made = rig()
    made.ask(PERF, 0x5, words(CPU, 600, 300))
    assert made.ask(PERF, 0x5, words(CPU, 0, 900)) == words(INVALID)  # above the highest, which stays
    made.ask(PERF, 0x5, words(CPU, 0, 600))
    assert made.ask(PERF, 0x6, words(CPU)) == words(0, 600, 600)


def test_limits_by_index() -> None:
    made = rig()
    made.ask(PERF, 0x5, words(INDEX, 4, 3))
    assert made.ask(PERF, 0x6, words(INDEX)) == words(0, 4, 3)
    assert made.ask(PERF, 0x8, words(INDEX)) == words(0, 3)  # it was at 2
    assert made.ask(PERF, 0x7, words(INDEX, 2)) == words(OUT_OF_RANGE)
    made.ask(PERF, 0x5, words(INDEX, 0, 1))
    assert made.ask(PERF, 0x6, words(INDEX)) == words(0, 4, 1)


# --- notifications ----------------------------------------------------------------------------------------------------


def test_notifications() -> None:
    made = rig()
    made.ask(PERF, 0x9, words(CPU, 1))
    made.ask(PERF, 0xA, words(CPU, 1), agent=BOSS)
    made.ask(PERF, 0x5, words(CPU, 500, 300), agent=BOSS)
    limits, level = made.take()
    assert (limits[0], limits[1].type, limits[1].protocol, limits[1].message) == (OSPM, 3, PERF, 0x0)
    assert limits[2] == words(BOSS, CPU, 500, 300)  # agent that set them, domain, highest, lowest
    assert (level[0], level[1].type, level[1].message) == (BOSS, 3, 0x1)
    assert level[2] == words(BOSS, CPU, 300)  # agent, domain, the level that fits
    made.ask(PERF, 0x5, words(CPU, 500, 300))  # as they are
    made.ask(PERF, 0x7, words(CPU, 300))
    assert made.take() == []
    made.ask(PERF, 0x5, words(CPU, 900, 300))
    made.ask(PERF, 0x7, words(CPU, 900))
    assert [payload for _, _, payload in made.take()] == [words(OSPM, CPU, 900, 300), words(OSPM, CPU, 900)]
    made.ask(PERF, 0x9, words(CPU, 0))
    made.ask(PERF, 0xA, words(CPU, 0), agent=BOSS)
    made.ask(PERF, 0x5, words(CPU, 300, 300))
    assert made.take() == []


def test_each_agent_reads_levels_as_it_names_them() -> None:
    """Agent 1 speaks 0x30000 and agents 2 and 3 speak 0x40000; agent 3 calls the domain 0."""
    made = rig(version=0x30000)
    for agent, number in ((OSPM, INDEX), (BOSS, INDEX), (VIEW, 0)):
        made.ask(PERF, 0x9, words(number, 1), agent=agent)
        made.ask(PERF, 0xA, words(number, 1), agent=agent)
    assert made.ask(PERF, 0x7, words(0, 4), agent=VIEW) == words(0)
    assert {agent: payload for agent, _, payload in made.take()} == {
        OSPM: words(VIEW, INDEX, 40),
        BOSS: words(VIEW, INDEX, 4),
        VIEW: words(VIEW, 0, 4),
    }
    assert made.ask(PERF, 0x5, words(INDEX, 35, 15)) == words(0)  # limits that are no levels have no index either
    got = made.take()
    assert {agent: payload for agent, head, payload in got if head.message == 0} == {
        OSPM: words(OSPM, INDEX, 35, 15),
        BOSS: words(OSPM, INDEX, 3, 2),
        VIEW: words(OSPM, 0, 3, 2),
    }
    assert {agent: payload[8:] for agent, head, payload in got if head.message == 1} == {
        OSPM: words(30),
        BOSS: words(3),
        VIEW: words(3),
    }
    assert made.ask(PERF, 0x6, words(INDEX)) == words(0, 35, 15)
    assert made.ask(PERF, 0x6, words(INDEX), agent=BOSS) == words(0, 3, 2)


def test_an_agents_view() -> None:
    made = rig()
    assert made.ask(PERF, 0x1, agent=VIEW)[4:6] == b"\2\0"
    assert made.ask(PERF, 0x8, words(1), agent=VIEW) == words(0, 600)
    assert made.ask(PERF, 0x7, words(1, 900), agent=VIEW) == words(0)
    assert made.ask(PERF, 0x8, words(CPU)) == words(0, 900)
    assert made.ask(PERF, 0x3, words(2), agent=VIEW) == words(NOT_FOUND)


def test_without_p2a() -> None:
    made = rig(p2a=False)
    assert made.ask(PERF, 0x3, words(CPU))[4:8] == words(0xC000_0000)  # no notifications
    for message in (0x9, 0xA):
        assert made.ask(PERF, message, words(CPU, 1)) == words(NOT_SUPPORTED)
        assert made.ask(PERF, 0x2, words(message)) == words(NOT_FOUND)


# --- the clock --------------------------------------------------------------------------------------------------------


def test_the_clock_follows_the_level() -> None:
    made = rig()
    made.ask(CLOCK, 0x9, words(0, 1), agent=BOSS)
    made.ask(PERF, 0xA, words(CPU, 1), agent=BOSS)
    made.ask(PERF, 0x7, words(CPU, 900))
    clock, level = made.take()
    assert (clock[1].protocol, clock[1].message) == (CLOCK, 0x0)
    assert clock[2] == words(OSPM, 0, 900_000_000, 0)  # agent that asked, clock, rate
    assert level[2] == words(OSPM, CPU, 900)
    assert made.ask(CLOCK, 0x6, words(0)) == words(0, 900_000_000, 0)
    made.ask(PERF, 0x5, words(CPU, 300, 0))
    assert made.ask(CLOCK, 0x6, words(0)) == words(0, 300_000_000, 0)
    made.take()
    made.ask(CLOCK, 0x5, words(0, 0, 600_000_000, 0))  # set by hand, it is where the level will want it
    made.take()
    made.ask(PERF, 0x5, words(CPU, 900, 0))
    made.ask(PERF, 0x7, words(CPU, 600))
    assert [head.protocol for _, head, _ in made.take()] == [PERF]


def test_a_platform_that_serves_no_clocks() -> None:
    made = rig()
    del made.platform.protocols[CLOCK]
    assert made.ask(PERF, 0x7, words(CPU, 900)) == words(0)
    assert made.ask(PERF, 0x8, words(CPU)) == words(0, 900)


# --- older versions ---------------------------------------------------------------------------------------------------


def test_version_three() -> None:
    made = rig(version=0x30000)
    assert made.ask(PERF, 0x3, words(INDEX))[4:8] == words(0xF000_0000)  # levels
    assert made.ask(PERF, 0x4, words(INDEX, 2)) == words(0, 2, 30, 7, 0, 40, 8, 0)  # three words each
    assert made.ask(PERF, 0x7, words(INDEX, 30)) == words(0)
    assert made.ask(PERF, 0x8, words(INDEX)) == words(0, 30)
    assert made.ask(PERF, 0x8, words(INDEX), agent=BOSS) == words(0, 3)  # it did not negotiate
    assert made.ask(PERF, 0xC, words(LONG))[8:12] == LONG_NAME[:4]
    assert made.ask(PERF, 0x5, words(INDEX, 40, 0)) == words(0)


def test_the_older_profile() -> None:
    made = Rig(BOARD, profile="scmi-2.0")
    assert made.ask(PERF, 0x0) == words(0, 0x20000)
    assert made.ask(PERF, 0x4, words(INDEX, 2)) == words(0, 2, 30, 7, 0, 40, 8, 0)
    assert made.ask(PERF, 0xC, words(LONG)) == words(NOT_SUPPORTED)


def test_version_two() -> None:
    made = rig(version=0x20000)
    assert made.ask(PERF, 0x3, words(LONG))[4:8] == words(0x3000_0000)  # no extended name
    assert made.ask(PERF, 0xC, words(LONG)) == words(NOT_SUPPORTED)
    assert made.ask(PERF, 0x5, words(CPU, 900, 0)) == words(OUT_OF_RANGE)  # 0 is a limit like any other
    assert made.ask(PERF, 0x5, words(CPU, 0, 0)) == words(OUT_OF_RANGE)
    assert made.ask(PERF, 0x4, words(CPU, 1)) == words(0, 2, 600, 120, 101, 900, 220, 102)


@pytest.mark.parametrize(("unit", "flags", "older"), [("uW", 2, 0), ("mW", 1, 1), ("abstract", 0, 0)])
def test_power_units(tmp_path: Path, unit: str, flags: int, older: int) -> None:
    board = tmp_path / "b.toml"
    board.write_text(BOARD.read_text().replace("sustained_level", f'power_unit = "{unit}"\nsustained_level'))
    made = Rig(board)
    assert made.ask(PERF, 0x1)[4:8] == words(flags << 16 | 3)
    made.ask(PERF, 0x10, words(0x20000))
    assert made.ask(PERF, 0x1)[4:8] == words(older << 16 | 3)  # microwatts came with 0x30000


# --- resets and restarts ----------------------------------------------------------------------------------------------


def test_reset_of_an_agent() -> None:
    made = rig()
    made.ask(PERF, 0x9, words(CPU, 1), agent=BOSS)
    made.ask(PERF, 0xA, words(CPU, 1), agent=BOSS)
    made.ask(PERF, 0x5, words(CPU, 900, 500))
    made.ask(PERF, 0x7, words(CPU, 900))
    made.take()
    made.platform.reset_agent(BOSS)
    assert made.ask(PERF, 0x8, words(CPU)) == words(0, 900)  # nothing of it was the other's
    made.ask(PERF, 0x9, words(CPU, 1), agent=BOSS)
    made.ask(PERF, 0xA, words(CPU, 1), agent=BOSS)
    made.platform.reset_agent(OSPM)
    assert [payload for _, _, payload in made.take()] == [words(OSPM, CPU, 900, 300), words(OSPM, CPU, 600)]
    assert made.ask(PERF, 0x6, words(CPU)) == words(0, 900, 300)
    assert made.ask(CLOCK, 0x6, words(0)) == words(0, 600_000_000, 0)
    assert made.platform.protocols[PERF].save(CPU) is None


def test_reset_of_a_level_keeps_to_the_limits_of_others() -> None:
    made = rig()
    made.ask(PERF, 0x7, words(CPU, 900))
    made.ask(PERF, 0x5, words(CPU, 900, 700), agent=BOSS)
    made.platform.reset_agent(OSPM)
    assert made.ask(PERF, 0x8, words(CPU)) == words(0, 900)
    made.platform.reset_agent(BOSS)
    assert made.ask(PERF, 0x6, words(CPU)) == words(0, 900, 300)


def test_saved_and_loaded() -> None:
    made, again = rig(), rig()
    server = made.platform.protocols[PERF]
    assert [server.save(number) for number in server.saved()] == [None, None, None]
    made.platform.touched.clear()
    made.ask(PERF, 0x5, words(CPU, 900, 600))
    assert made.platform.touched == {(PERF, CPU)}
    made.ask(PERF, 0x7, words(CPU, 900), agent=BOSS)
    assert made.platform.touched == {(PERF, CPU), (CLOCK, 0)}
    state = server.save(CPU)
    assert state == PerformanceState(900, 900, 600, BOSS, OSPM)
    again.ask(CLOCK, 0x9, words(0, 1))
    again.platform.protocols[PERF].load(CPU, state)
    again.platform.protocols[CLOCK].load(0, made.platform.protocols[CLOCK].save(0))
    assert again.take() == []
    assert again.ask(PERF, 0x8, words(CPU)) == words(0, 900)
    assert again.ask(PERF, 0x6, words(CPU)) == words(0, 900, 600)
    assert again.ask(CLOCK, 0x6, words(0)) == words(0, 900_000_000, 0)
    assert again.platform.protocols[PERF].save(CPU) == state


def test_a_clock_that_went_its_own_way_is_not_moved_by_loading() -> None:
    """The level moved it, an agent set another rate and was reset: the clock is at the board's rate, the level not."""
    made, again = rig(), rig()
    made.ask(PERF, 0x7, words(CPU, 900))
    assert made.platform.protocols[CLOCK].save(0) is not None  # though nobody configured it
    made.ask(CLOCK, 0x5, words(0, 0, 300_000_000, 0), agent=BOSS)
    made.platform.reset_agent(BOSS)
    before = made.ask(CLOCK, 0x6, words(0))
    assert made.platform.protocols[CLOCK].save(0) is None
    again.platform.protocols[PERF].load(CPU, made.platform.protocols[PERF].save(CPU))
    assert again.ask(CLOCK, 0x6, words(0)) == before


@pytest.mark.parametrize(
    ("state", "field"),
    [
        (PerformanceState(600, 1000, 300, 1, 1), "limits"),
        (PerformanceState(600, 900, 0, 1, 1), "limits"),
        (PerformanceState(600, 300, 900, 1, 1), "limits"),
        (PerformanceState(600, 500, 400, 1, 1), "limits"),
        (PerformanceState(500, 900, 300, 1, 1), "level"),
        (PerformanceState(300, 900, 600, 1, 1), "level"),
    ],
)
def test_what_does_not_fit_the_board_is_not_loaded(state: PerformanceState, field: str) -> None:
    made = rig()
    with pytest.raises(RemoteError) as refused:
        made.platform.protocols[PERF].load(CPU, state)
    assert refused.value.field == field
    assert made.ask(PERF, 0x8, words(CPU)) == words(0, 600)
    assert made.ask(PERF, 0x6, words(CPU)) == words(0, 900, 300)


def test_not_served_without_domains() -> None:
    board = Board.parse('[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n')
    assert not Rig(BOARD).platform.protocols[PERF].present(board)
