"""System power protocol, byte for byte (DEN0056E §4.4)."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from common.errors import LocalError, RemoteError
from common.scmi.system_power import StateEvent
from services.scmi_platform.protocols.system_power import SystemPowerProtocol, SystemPowerState
from tests.services.scmi_platform.scmi_rig import SMALL, Rig, words

BOARD = Path(__file__).parent / "board_power.toml"
SYSTEM = 0x12
OSPM, PSCI, VIEW = 1, 2, 3
SHUTDOWN, COLD_RESET, WARM_RESET, POWER_UP, SUSPEND = range(5)
VENDOR = 0x8000_0005
NOT_SUPPORTED, INVALID, NOT_FOUND, COMMS, PROTOCOL_ERROR = -1, -2, -4, -7, -10

SUCCESS = [
    (0x0, b"", words(0, 0x20000)),  # PROTOCOL_VERSION
    (0x1, b"", words(0, 0)),  # PROTOCOL_ATTRIBUTES: reserved
    (0x2, words(0x3), words(0, 0x8000_0000)),  # PROTOCOL_MESSAGE_ATTRIBUTES: warm reset (31), no suspend (30)
    (0x2, words(0x5), words(0, 0)),
    (0x3, words(1, SHUTDOWN), words(0)),  # SYSTEM_POWER_STATE_SET: flags, state
    (0x3, words(0, COLD_RESET), words(0)),
    (0x3, words(0, WARM_RESET), words(0)),
    (0x3, words(1, POWER_UP), words(0)),
    (0x3, words(0, VENDOR), words(0)),
    (0x4, b"", words(0, POWER_UP)),  # SYSTEM_POWER_STATE_GET
    (0x5, words(1), words(0)),  # SYSTEM_POWER_STATE_NOTIFY
    (0x5, words(0), words(0)),
    (0x10, words(0x10000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x2, words(0x6), NOT_FOUND),
    (0x3, words(2, SHUTDOWN), INVALID),  # reserved flag
    (0x3, words(0, 5), INVALID),  # reserved states
    (0x3, words(0, 0x7FFF_FFFF), INVALID),
    (0x3, words(0, SUSPEND), NOT_SUPPORTED),  # not on this board
    (0x3, words(0, 0x8000_0000), NOT_SUPPORTED),
    (0x5, words(2), INVALID),
    (0x10, words(0x20001), NOT_SUPPORTED),
    (0x3, words(0), PROTOCOL_ERROR),
    (0x5, b"", PROTOCOL_ERROR),
    (0x6, b"", NOT_SUPPORTED),
]


def server_of(rig: Rig) -> SystemPowerProtocol:
    return cast(SystemPowerProtocol, rig.platform.protocols[SYSTEM])


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert Rig(BOARD).ask(SYSTEM, message, payload, agent=PSCI) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    rig = Rig(BOARD)
    assert rig.ask(SYSTEM, message, payload, agent=PSCI) == words(status)
    assert rig.ask(SYSTEM, 0x4) == words(0, POWER_UP)


def test_who_may_set_it() -> None:
    rig = Rig(BOARD)
    assert rig.ask(SYSTEM, 0x3, words(0, SHUTDOWN), agent=OSPM) == words(NOT_SUPPORTED)
    assert rig.ask(SYSTEM, 0x2, words(0x3), agent=OSPM) == words(0, 0)
    assert rig.ask(SYSTEM, 0x4, agent=OSPM) == words(0, POWER_UP)
    assert rig.ask(SYSTEM, 0x3, words(0, SHUTDOWN), agent=PSCI) == words(0)
    assert rig.ask(SYSTEM, 0x4, agent=OSPM) == words(0, SHUTDOWN)


def test_without_a_list_the_trusted_may(tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    board.write_text(SMALL.read_text() + "\n[system_power]\n")
    rig = Rig(board)
    assert rig.ask(SYSTEM, 0x3, words(0, SUSPEND), agent=1) == words(NOT_SUPPORTED)
    assert rig.ask(SYSTEM, 0x3, words(0, SUSPEND), agent=2) == words(0)
    assert rig.ask(SYSTEM, 0x2, words(0x3), agent=2) == words(0, 0xC000_0000)


def test_a_board_without_it() -> None:
    assert Rig(SMALL).ask(SYSTEM, 0x0) == words(NOT_SUPPORTED)


# --- notifications ----------------------------------------------------------------------------------------------------


def test_the_others_are_told() -> None:
    rig = Rig(BOARD)
    for agent in (OSPM, PSCI, VIEW):
        rig.ask(SYSTEM, 0x5, words(1), agent=agent)
    rig.ask(SYSTEM, 0x3, words(1, SHUTDOWN), agent=PSCI)
    sent = rig.take()
    assert [(agent, head.type, head.protocol, head.message) for agent, head, _ in sent] == [
        (OSPM, 3, SYSTEM, 0),
        (VIEW, 3, SYSTEM, 0),
    ]
    # agent that asked, flags: graceful (0), state, time-out in ms
    assert {payload for _, _, payload in sent} == {words(PSCI, 1, SHUTDOWN, 9000)}
    rig.ask(SYSTEM, 0x3, words(0, SHUTDOWN), agent=PSCI)  # forceful: no time-out
    assert rig.take()[0][2] == words(PSCI, 0, SHUTDOWN, 0)
    rig.ask(SYSTEM, 0x3, words(1, COLD_RESET), agent=PSCI)  # neither has a reset
    assert rig.take()[0][2] == words(PSCI, 1, COLD_RESET, 0)
    rig.ask(SYSTEM, 0x3, words(1, POWER_UP), agent=PSCI)  # the flag is ignored
    assert rig.take()[0][2] == words(PSCI, 0, POWER_UP, 0)
    for agent in (OSPM, VIEW):
        rig.ask(SYSTEM, 0x5, words(0), agent=agent)
    rig.ask(SYSTEM, 0x3, words(1, SHUTDOWN), agent=PSCI)
    assert rig.take() == []


def test_an_agent_of_version_one_hears_no_timeout() -> None:
    rig = Rig(BOARD)
    rig.ask(SYSTEM, 0x10, words(0x10000))
    for agent in (OSPM, PSCI, VIEW):
        rig.ask(SYSTEM, 0x5, words(1), agent=agent)
    server_of(rig).request(SHUTDOWN, timeout_ms=500)
    assert [(agent, payload) for agent, _, payload in rig.take()] == [
        (OSPM, words(0, 1, SHUTDOWN)),
        (PSCI, words(0, 1, SHUTDOWN, 500)),
        (VIEW, words(0, 1, SHUTDOWN, 500)),
    ]


def test_the_platform_asks() -> None:
    rig = Rig(BOARD)
    heard: list[StateEvent] = []
    server_of(rig).on_request = heard.append
    rig.ask(SYSTEM, 0x5, words(1))
    server_of(rig).request(WARM_RESET, graceful=False, timeout_ms=5)
    assert [payload for _, _, payload in rig.take()] == [words(0, 0, WARM_RESET, 0)]
    rig.ask(SYSTEM, 0x3, words(1, SHUTDOWN), agent=PSCI)
    assert heard == [StateEvent(0, False, WARM_RESET, 0), StateEvent(PSCI, True, SHUTDOWN, 9000)]
    with pytest.raises(LocalError, match="no system state suspend"):
        server_of(rig).request(SUSPEND)
    with pytest.raises(LocalError, match="no system state 0x80000001"):
        server_of(rig).request(0x8000_0001)
    assert rig.ask(SYSTEM, 0x4) == words(0, SHUTDOWN)


def test_without_p2a() -> None:
    rig = Rig(BOARD, p2a=False)
    assert rig.ask(SYSTEM, 0x5, words(1)) == words(NOT_SUPPORTED)
    assert rig.ask(SYSTEM, 0x2, words(0x5)) == words(NOT_SUPPORTED)  # this one command has its own status
    assert rig.ask(SYSTEM, 0x3, words(0, SHUTDOWN), agent=PSCI) == words(0)


def test_it_is_not_asked_for_twice() -> None:
    rig = Rig(BOARD)
    assert rig.ask(SYSTEM, 0x3, words(0, COLD_RESET), agent=PSCI, again=True) == words(COMMS)
    assert rig.ask(SYSTEM, 0x4, again=True) == words(0, POWER_UP)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_save_and_load() -> None:
    rig = Rig(BOARD)
    server = server_of(rig)
    assert [server.save(number) for number in server.saved()] == [None]
    rig.platform.touched.clear()
    written: set[tuple[int, int]] = set()

    def write(touched: set[tuple[int, int]]) -> bool:
        written.update(touched)
        return True

    rig.platform.save = write
    rig.ask(SYSTEM, 0x3, words(0, VENDOR), agent=PSCI)
    rig.platform.commit()
    assert written == {(SYSTEM, 0)}
    assert server.save(0) == SystemPowerState(VENDOR)
    again = Rig(BOARD)
    again.platform.protocols[SYSTEM].load(0, server.save(0))
    assert again.ask(SYSTEM, 0x4) == words(0, VENDOR)
    with pytest.raises(RemoteError, match="state = 4: the board has no such system state"):
        again.platform.protocols[SYSTEM].load(0, SystemPowerState(SUSPEND))
    assert again.ask(SYSTEM, 0x4) == words(0, VENDOR)
    rig.platform.reset_agent(PSCI)
    assert rig.ask(SYSTEM, 0x4) == words(0, VENDOR), "what was asked for was asked for"
