"""Reset domain protocol, byte for byte (DEN0056E §4.8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import RemoteError
from common.scmi import reset
from services.scmi_platform.protocols.reset_state import ResetState
from tests.services.scmi_platform.scmi_rig import Rig, words

BOARD = Path(__file__).parent / "board_reset.toml"
RESET = 0x16
MMC, DOG, UART, NONE = range(4)
OSPM, BOSS, VIEW = 1, 2, 3
DEASSERT, AUTO, ASSERT, ASYNC = 0, 1, 2, 5
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, BUSY, GENERIC, COMMS, PROTOCOL_ERROR = -1, -2, -3, -4, -6, -8, -7, -10
LONG_NAME = b"the-reset-of-the-watchdog"

SUCCESS = [
    (0x0, b"", words(0, 0x30001)),  # PROTOCOL_VERSION
    (0x1, b"", words(0, 3)),  # PROTOCOL_ATTRIBUTES: 3 domains (15:0)
    (0x2, words(0x5), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES
    # RESET_DOMAIN_ATTRIBUTES: asynchronous (31), notifications (30); latency; name
    (0x3, words(MMC), words(0, 0xC000_0000, 3000) + b"mmc".ljust(16, b"\0")),
    (0x3, words(DOG), words(0, 0x6000_0000, 0xFFFF_FFFF) + LONG_NAME[:15] + b"\0"),  # extended name (29)
    (0x4, words(MMC, AUTO, 0), words(0)),  # RESET: domain, flags, reset state
    (0x4, words(MMC, AUTO | ASSERT, 0), words(0)),  # "explicit" is ignored with "autonomous"
    (0x4, words(MMC, AUTO, 0x8000_0007), words(0)),  # one of its own (31)
    (0x4, words(MMC, ASYNC, 0), words(0)),
    (0x4, words(MMC, ASSERT, 0), words(0)),
    (0x4, words(MMC, DEASSERT, 0), words(0)),
    (0x5, words(MMC, 1), words(0)),  # RESET_NOTIFY
    (0x6, words(DOG), words(0, 0) + LONG_NAME.ljust(64, b"\0")),  # RESET_DOMAIN_NAME_GET: flags, name
    (0x10, words(0x10000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x2, words(0x7), NOT_FOUND),
    (0x3, words(NONE), NOT_FOUND),
    (0x4, words(NONE, AUTO, 0), NOT_FOUND),
    (0x4, words(MMC, 8, 0), INVALID),  # reserved flag
    (0x4, words(MMC, 4, 0), INVALID),  # asynchronous, but not autonomous
    (0x4, words(MMC, AUTO, 1), INVALID),  # reserved for architectural resets to come
    (0x4, words(MMC, AUTO, 0x8000_0001), INVALID),  # not one that the domain has
    (0x4, words(UART, ASSERT, 0x8000_0007), INVALID),
    (0x4, words(DOG, ASYNC, 0), NOT_SUPPORTED),
    (0x4, words(DOG, ASSERT, 0), NOT_SUPPORTED),
    (0x4, words(DOG, DEASSERT, 0), NOT_SUPPORTED),
    (0x5, words(NONE, 1), NOT_FOUND),
    (0x5, words(MMC, 2), INVALID),
    (0x6, words(NONE), NOT_FOUND),
    (0x10, words(0x20000), NOT_SUPPORTED),
    (0x4, words(MMC, AUTO), PROTOCOL_ERROR),
    (0x3, b"", PROTOCOL_ERROR),
    (0x7, b"", NOT_SUPPORTED),
]


def rig_of(**options: Any) -> Rig:
    return Rig(BOARD, **options)


def held_by(rig: Rig, domain: int = MMC) -> int:
    server: Any = rig.platform.protocols[RESET]
    return int(server.domains[domain].owner)


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert rig_of().ask(RESET, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    rig = rig_of()
    rig.ask(RESET, 0x5, words(MMC, 1))
    assert rig.ask(RESET, message, payload) == words(status)
    rig.advance(10.0)
    assert rig.sent == []


@pytest.mark.parametrize("message", [0x4, 0x5])
def test_denied_domain(message: int) -> None:
    rig = rig_of()
    rig.ask(0x10, 0x9, words(OSPM, 0, 0), agent=BOSS)  # device "uart"
    assert rig.ask(RESET, message, words(UART, 1, 0)[: 12 if message == 0x4 else 8]) == words(DENIED)
    assert rig.ask(RESET, 0x3, words(UART))[:4] == words(0), "it is still discovered"


# --- resets -----------------------------------------------------------------------------------------------------------


def test_an_asynchronous_reset() -> None:
    rig = rig_of()
    rig.ask(RESET, 0x5, words(MMC, 1), agent=BOSS)
    assert rig.ask(RESET, 0x4, words(MMC, ASYNC, 0x8000_0000)) == words(0)
    token = rig.token
    assert rig.take() == []
    assert rig.platform.tick(rig.now) == pytest.approx(rig.now + 0.003)
    rig.advance(0.003)
    issued, done = rig.take()
    assert (issued[0], issued[1].message, issued[1].type) == (BOSS, 0, 3)
    assert issued[2] == words(OSPM, MMC, 0x8000_0000)  # agent that caused it, domain, reset state
    assert (done[0], done[1].type, done[1].protocol, done[1].message, done[1].token) == (OSPM, 2, RESET, 0x4, token)
    assert done[2] == words(0, MMC)  # status, domain


def test_too_many_asynchronous_resets_are_busy() -> None:
    rig = rig_of()
    assert [rig.ask(RESET, 0x4, words(MMC, ASYNC, 0)) for _ in range(9)] == [words(0)] * 8 + [words(BUSY)]
    rig.advance(1.0)
    assert rig.ask(RESET, 0x4, words(MMC, ASYNC, 0)) == words(0)


def test_the_signal_is_asserted_and_deasserted() -> None:
    rig = rig_of()
    rig.ask(RESET, 0x5, words(MMC, 1), agent=BOSS)
    assert rig.ask(RESET, 0x4, words(MMC, ASSERT, 0)) == words(0)
    assert held_by(rig) == OSPM
    assert [payload for _, _, payload in rig.take()] == [words(OSPM, MMC, 0)]
    assert rig.ask(RESET, 0x4, words(MMC, ASSERT, 0)) == words(0)  # it is already
    assert rig.ask(RESET, 0x4, words(MMC, DEASSERT, 0)) == words(0)
    assert held_by(rig) == 0
    assert rig.ask(RESET, 0x4, words(MMC, DEASSERT, 0)) == words(0)  # nor when there is nothing to deassert
    assert rig.take() == []  # told when it was asserted
    rig.ask(RESET, 0x4, words(MMC, ASSERT, 0))
    rig.ask(RESET, 0x4, words(MMC, AUTO, 0))
    assert held_by(rig) == 0, "an autonomous reset ends out of reset"
    assert len(rig.take()) == 2


@pytest.mark.parametrize("flags", [DEASSERT, AUTO, ASSERT])
def test_what_another_agent_holds_in_reset(flags: int) -> None:
    rig = rig_of()
    rig.ask(RESET, 0x4, words(MMC, ASSERT, 0))
    rig.ask(RESET, 0x5, words(MMC, 1))
    assert rig.ask(RESET, 0x4, words(MMC, flags, 0), agent=BOSS) == words(GENERIC)
    assert held_by(rig) == OSPM
    assert rig.take() == []


def test_what_another_agent_came_to_hold_in_reset() -> None:
    rig = rig_of()
    rig.ask(RESET, 0x4, words(MMC, ASYNC, 0), agent=BOSS)
    rig.ask(RESET, 0x4, words(MMC, ASSERT, 0))
    rig.advance(1.0)
    assert [(agent, payload) for agent, _, payload in rig.take()] == [(BOSS, words(GENERIC))]
    assert held_by(rig) == OSPM


def test_a_reset_is_not_repeated() -> None:
    rig = rig_of()
    for flags in (AUTO, ASYNC, ASSERT, DEASSERT):
        assert rig.ask(RESET, 0x4, words(MMC, flags, 0), again=True) == words(COMMS)
    assert rig.stats.refused_after_reset == 4
    assert held_by(rig) == 0


def test_without_p2a() -> None:
    rig = rig_of(p2a=False)
    assert rig.ask(RESET, 0x3, words(MMC))[4:8] == words(0)  # neither asynchronous nor notifications
    assert rig.ask(RESET, 0x4, words(MMC, ASYNC, 0)) == words(NOT_SUPPORTED)
    assert rig.ask(RESET, 0x4, words(MMC, AUTO, 0)) == words(0)
    assert rig.ask(RESET, 0x5, words(MMC, 1)) == words(NOT_SUPPORTED)
    assert rig.ask(RESET, 0x2, words(0x5)) == words(NOT_FOUND)


# --- notifications, views, versions -----------------------------------------------------------------------------------


def test_notifications_reach_whoever_asked() -> None:
    rig = rig_of()
    for agent in (OSPM, BOSS):
        rig.ask(RESET, 0x5, words(UART, 1), agent=agent)
    rig.ask(RESET, 0x4, words(UART, AUTO, 0))
    sent = rig.take()
    assert [agent for agent, _, _ in sent] == [OSPM, BOSS]
    assert {reset.parse_reset_event(payload) for _, _, payload in sent} == {(OSPM, UART, 0)}
    rig.ask(RESET, 0x5, words(UART, 0), agent=OSPM)
    rig.ask(RESET, 0x4, words(UART, AUTO, 0))
    assert [agent for agent, _, _ in rig.take()] == [BOSS]


def test_an_agent_with_a_view() -> None:
    rig = rig_of()
    assert rig.ask(RESET, 0x1, agent=VIEW) == words(0, 2)
    assert rig.ask(RESET, 0x3, words(0), agent=VIEW)[12:16] == b"uart"
    rig.ask(RESET, 0x5, words(1, 1), agent=VIEW)
    rig.ask(RESET, 0x5, words(MMC, 1))
    assert rig.ask(RESET, 0x4, words(1, ASYNC, 0), agent=VIEW) == words(0)
    rig.advance(1.0)
    assert [(agent, payload) for agent, _, payload in rig.take()] == [
        (OSPM, words(VIEW, MMC, 0)),
        (VIEW, words(VIEW, 1, 0)),
        (VIEW, words(0, 1)),  # RESET_COMPLETE
    ]
    assert rig.ask(RESET, 0x4, words(2, AUTO, 0), agent=VIEW) == words(NOT_FOUND)


def test_version_one() -> None:
    rig = rig_of()
    rig.ask(RESET, 0x10, words(0x10000))
    assert rig.ask(RESET, 0x3, words(DOG))[4:8] == words(0x4000_0000)  # no extended name
    assert rig.ask(RESET, 0x6, words(DOG)) == words(NOT_SUPPORTED)
    assert rig.ask(RESET, 0x2, words(0x6)) == words(NOT_FOUND)
    assert rig.ask(RESET, 0x6, words(DOG), agent=BOSS)[:4] == words(0)  # the other agent did not negotiate


# --- what is put back, what is kept -----------------------------------------------------------------------------------


def test_reset_of_an_agent() -> None:
    rig = rig_of()
    rig.ask(RESET, 0x4, words(MMC, ASSERT, 0))
    rig.ask(RESET, 0x4, words(UART, ASSERT, 0), agent=BOSS)
    rig.platform.reset_agent(OSPM)
    assert (held_by(rig), held_by(rig, UART)) == (0, BOSS)


def test_save_and_load() -> None:
    rig = rig_of()
    server = rig.platform.protocols[RESET]
    assert [server.save(number) for number in server.saved()] == [None] * 3
    rig.platform.touched.clear()
    rig.ask(RESET, 0x4, words(MMC, AUTO, 0))
    assert rig.platform.touched == set(), "nothing is set by it"
    rig.ask(RESET, 0x4, words(MMC, ASSERT, 0))
    assert rig.platform.touched == {(RESET, MMC)}
    assert server.save(MMC) == ResetState(OSPM)
    again = rig_of()
    again.platform.protocols[RESET].load(MMC, server.save(MMC))
    assert again.ask(RESET, 0x4, words(MMC, DEASSERT, 0), agent=BOSS) == words(GENERIC)
    assert again.ask(RESET, 0x4, words(MMC, DEASSERT, 0)) == words(0)
    assert again.sent == []
    with pytest.raises(RemoteError, match="no agent can hold"):
        again.platform.protocols[RESET].load(DOG, ResetState(OSPM))
    with pytest.raises(RemoteError, match="owner = 4: no such agent"):
        again.platform.protocols[RESET].load(UART, ResetState(4))
    assert (held_by(again, DOG), held_by(again, UART)) == (0, 0)


def test_scmi_2_0() -> None:
    rig = rig_of(profile="scmi-2.0")
    assert rig.ask(RESET, 0x0) == words(0, 0x10000)
    assert rig.ask(RESET, 0x3, words(MMC))[4:8] == words(0xC000_0000)
    assert rig.ask(RESET, 0x6, words(DOG)) == words(NOT_SUPPORTED)
