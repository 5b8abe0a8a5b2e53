"""Power domain protocol, byte for byte (DEN0056E §4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import RemoteError
from common.scmi import power
from services.scmi_platform.protocols.power_state import PowerState
from tests.services.scmi_platform.scmi_rig import Rig, words

BOARD = Path(__file__).parent / "board_power.toml"
POWER = 0x11
CORE, CLUSTER, GPU, ISLAND, SOC, NONE = range(6)
OSPM, PSCI, VIEW = 1, 2, 3
ON, OFF = 0, 0x4000_0000
RETENTION, DEEP = 1, 0x4000_0001
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, BUSY, PROTOCOL_ERROR = -1, -2, -3, -4, -6, -10
LONG_NAME = b"island-of-the-graphics"

SUCCESS = [
    (0x0, b"", words(0, 0x30001)),  # PROTOCOL_VERSION
    (0x1, b"", words(0, 5, 0, 0, 0)),  # PROTOCOL_ATTRIBUTES: 5 domains; statistics: address low, high, length
    (0x2, words(0x7), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES
    # POWER_DOMAIN_ATTRIBUTES: changed (31), asynchronous (30), synchronous (29), change requested (28); name
    (0x3, words(GPU), words(0, 0xF000_0000) + b"gpu".ljust(16, b"\0")),
    (0x3, words(ISLAND), words(0, 0xF800_0000) + LONG_NAME[:15] + b"\0"),  # extended name (27)
    (0x3, words(CORE), words(0, 0x9000_0000) + b"core0".ljust(16, b"\0")),  # not for this agent to set
    (0x3, words(SOC), words(0, 0x9000_0000) + b"soc".ljust(16, b"\0")),
    (0x4, words(0, GPU, ON), words(0)),  # POWER_STATE_SET: flags, domain, state
    (0x4, words(1, GPU, OFF), words(0)),  # asynchronously
    (0x4, words(0, GPU, RETENTION), words(0)),
    (0x5, words(GPU), words(0, OFF)),  # POWER_STATE_GET: context lost (30)
    (0x5, words(CORE), words(0, ON)),
    (0x6, words(GPU, 1), words(0)),  # POWER_STATE_NOTIFY
    (0x7, words(GPU, 1), words(0)),  # POWER_STATE_CHANGE_REQUESTED_NOTIFY
    (0x8, words(ISLAND), words(0, 0) + LONG_NAME.ljust(64, b"\0")),  # POWER_DOMAIN_NAME_GET: flags, name
    (0x10, words(0x20000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x2, words(0x9), NOT_FOUND),
    (0x3, words(NONE), NOT_FOUND),
    (0x4, words(0, NONE, ON), NOT_FOUND),
    (0x4, words(2, GPU, ON), INVALID),  # reserved flag
    (0x4, words(0, GPU, 2), INVALID),  # no such state
    (0x4, words(0, GPU, 0x8000_0000), INVALID),  # reserved bits
    (0x4, words(0, GPU, 0x1000_0000), INVALID),
    (0x4, words(0, ISLAND, RETENTION), INVALID),  # another domain's
    (0x4, words(0, CORE, OFF), NOT_SUPPORTED),  # for trusted agents
    (0x4, words(0, CLUSTER, OFF), NOT_SUPPORTED),
    (0x4, words(0, SOC, OFF), NOT_SUPPORTED),  # for nobody
    (0x5, words(NONE), NOT_FOUND),
    (0x6, words(NONE, 1), NOT_FOUND),
    (0x6, words(GPU, 2), INVALID),
    (0x7, words(NONE, 1), NOT_FOUND),
    (0x7, words(GPU, 2), INVALID),
    (0x8, words(NONE), NOT_FOUND),
    (0x10, words(0x10000), NOT_SUPPORTED),
    (0x4, words(0, GPU), PROTOCOL_ERROR),
    (0x5, b"", PROTOCOL_ERROR),
    (0x9, b"", NOT_SUPPORTED),
]


def rig_of(**options: Any) -> Rig:
    return Rig(BOARD, **options)


def state_of(rig: Rig, domain: int) -> int:
    status, state = (int.from_bytes(rig.ask(POWER, 0x5, words(domain))[at : at + 4], "little") for at in (0, 4))
    assert status == 0
    return state


def states(rig: Rig) -> list[int]:
    return [state_of(rig, domain) for domain in range(NONE)]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert rig_of().ask(POWER, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    assert rig_of().ask(POWER, message, payload) == words(status)


@pytest.mark.parametrize("message", [0x4, 0x5, 0x6, 0x7])
def test_denied_domain(message: int) -> None:
    rig = rig_of()
    rig.ask(0x10, 0x9, words(OSPM, 0, 0), agent=PSCI)  # device "gpu"
    payload = {0x4: words(0, GPU, ON), 0x5: words(GPU)}.get(message, words(GPU, 1))
    assert rig.ask(POWER, message, payload) == words(DENIED)
    assert rig.ask(POWER, 0x3, words(GPU))[:4] == words(0), "it is still discovered"


def test_what_a_trusted_agent_may_set() -> None:
    rig = rig_of()
    attributes = [rig.ask(POWER, 0x3, words(domain), agent=PSCI)[4:8] for domain in range(NONE)]
    assert attributes == [words(word << 24) for word in (0xD0, 0xF0, 0xF0, 0xF8, 0x90)]
    assert rig.ask(POWER, 0x4, words(0, SOC, OFF), agent=PSCI) == words(NOT_SUPPORTED)


def test_a_core_is_set_later_whatever_the_flag_says() -> None:
    rig = rig_of()
    assert rig.ask(POWER, 0x4, words(0, CORE, OFF), agent=PSCI) == words(0)
    assert state_of(rig, CORE) == ON
    rig.advance(0.0005)
    assert state_of(rig, CORE) == OFF
    assert rig.ask(POWER, 0x4, words(0, CLUSTER, OFF), agent=PSCI) == words(0)
    assert state_of(rig, CLUSTER) == OFF


# --- those above and below ------------------------------------------------------------------------------------------


def test_what_is_above_is_turned_on_too() -> None:
    rig = rig_of()
    for domain in (GPU, ISLAND):
        rig.ask(POWER, 0x6, words(domain, 1), agent=PSCI)
    assert rig.ask(POWER, 0x4, words(0, GPU, ON)) == words(0)
    assert states(rig) == [ON] * 5
    # agent that asked, domain, state: the one above first
    assert [payload for _, _, payload in rig.take()] == [words(OSPM, ISLAND, ON), words(OSPM, GPU, ON)]


def test_a_state_that_keeps_the_context_needs_what_is_above() -> None:
    rig = rig_of()
    rig.ask(POWER, 0x4, words(0, GPU, DEEP))
    assert state_of(rig, ISLAND) == OFF
    rig.ask(POWER, 0x4, words(0, GPU, RETENTION))
    assert state_of(rig, ISLAND) == ON
    assert rig.ask(POWER, 0x4, words(0, ISLAND, OFF)) == words(DENIED)
    rig.ask(POWER, 0x4, words(0, GPU, DEEP))
    assert rig.ask(POWER, 0x4, words(0, ISLAND, OFF)) == words(0)


def test_what_others_hang_on_is_not_turned_off() -> None:
    rig = rig_of()
    assert rig.ask(POWER, 0x4, words(0, CLUSTER, OFF), agent=PSCI) == words(DENIED)
    assert rig.ask(POWER, 0x4, words(1, CLUSTER, OFF), agent=PSCI) == words(DENIED)
    assert rig.ask(POWER, 0x4, words(0, CLUSTER, ON), agent=PSCI) == words(0)
    assert state_of(rig, CLUSTER) == ON


# --- asynchronous -----------------------------------------------------------------------------------------------------


def test_asynchronous_changes_have_no_delayed_response() -> None:
    rig = rig_of()
    rig.ask(POWER, 0x6, words(GPU, 1))
    assert rig.ask(POWER, 0x4, words(1, GPU, ON)) == words(0)
    assert state_of(rig, GPU) == OFF
    assert rig.platform.tick(rig.now) == pytest.approx(rig.now + 0.002)
    assert rig.take() == []
    rig.advance(0.002)
    ((agent, head, payload),) = rig.take()
    assert (agent, head.type, head.protocol, head.message) == (OSPM, 3, POWER, 0)
    assert power.parse_state_event(payload) == (OSPM, GPU, ON)
    assert rig.platform.agents[OSPM].pending[POWER] == 0


def test_too_many_asynchronous_changes_are_busy() -> None:
    rig = rig_of()
    rig.ask(POWER, 0x7, words(GPU, 1), agent=PSCI)
    assert [rig.ask(POWER, 0x4, words(1, GPU, ON)) for _ in range(9)] == [words(0)] * 8 + [words(BUSY)]
    assert len(rig.take()) == 8, "nobody hears of the one that was refused"


def test_a_change_that_has_become_impossible_is_reported() -> None:
    rig = rig_of()
    rig.ask(0x10, 0x8, words(1), agent=PSCI)
    rig.ask(POWER, 0x4, words(0, ISLAND, ON))
    assert rig.ask(POWER, 0x4, words(1, ISLAND, OFF)) == words(0)
    token = rig.token
    rig.ask(POWER, 0x4, words(0, GPU, ON))
    rig.advance(1.0)
    assert state_of(rig, ISLAND) == ON
    ((agent, head, payload),) = rig.take()
    assert (agent, head.protocol, head.message) == (PSCI, 0x10, 0)
    assert payload[8:] == words(token << 18 | POWER << 10 | 0x4, DENIED)  # header of the command, status


def test_without_p2a() -> None:
    rig = rig_of(p2a=False)
    assert rig.ask(POWER, 0x3, words(GPU))[4:8] == words(0x6000_0000)  # no notifications
    assert rig.ask(POWER, 0x4, words(1, GPU, ON)) == words(0)  # nothing has to come back
    rig.advance(1.0)
    assert state_of(rig, GPU) == ON
    for message in (0x6, 0x7):
        assert rig.ask(POWER, message, words(GPU, 1)) == words(NOT_SUPPORTED)
        assert rig.ask(POWER, 0x2, words(message)) == words(NOT_FOUND)


# --- notifications, views, versions -----------------------------------------------------------------------------------


def test_notifications() -> None:
    rig = rig_of()
    for agent in (OSPM, PSCI):
        for message in (0x6, 0x7):
            rig.ask(POWER, message, words(GPU, 1), agent=agent)
    rig.ask(POWER, 0x4, words(0, GPU, ON))
    sent = [(agent, head.message, payload) for agent, head, payload in rig.take()]
    event = words(OSPM, GPU, ON)  # agent that asked, domain, state
    assert sent == [(PSCI, 1, event), (OSPM, 0, event), (PSCI, 0, event)]  # what it asked for itself it is not told
    rig.ask(POWER, 0x4, words(0, GPU, ON))
    assert [(agent, head.message) for agent, head, _ in rig.take()] == [(PSCI, 1)]  # asked for, but nothing changed
    rig.ask(POWER, 0x6, words(GPU, 0), agent=PSCI)
    rig.ask(POWER, 0x7, words(GPU, 0), agent=PSCI)
    rig.ask(POWER, 0x4, words(0, GPU, OFF))
    assert [agent for agent, _, _ in rig.take()] == [OSPM]


def test_an_agent_with_a_view() -> None:
    rig = rig_of()
    assert rig.ask(POWER, 0x1, agent=VIEW)[:8] == words(0, 2)
    assert rig.ask(POWER, 0x3, words(0), agent=VIEW)[8:11] == b"gpu"
    rig.ask(POWER, 0x6, words(0, 1), agent=VIEW)
    rig.ask(POWER, 0x6, words(GPU, 1))
    assert rig.ask(POWER, 0x4, words(0, 0, ON), agent=VIEW) == words(0)
    assert [(agent, payload) for agent, _, payload in rig.take()] == [
        (OSPM, words(VIEW, GPU, ON)),
        (VIEW, words(VIEW, 0, ON)),
    ]
    assert rig.ask(POWER, 0x5, words(2), agent=VIEW) == words(NOT_FOUND)


def test_version_two() -> None:
    rig = rig_of()
    rig.ask(POWER, 0x10, words(0x20000))
    assert rig.ask(POWER, 0x3, words(ISLAND))[4:8] == words(0xF000_0000)  # no extended name
    assert rig.ask(POWER, 0x8, words(ISLAND)) == words(NOT_SUPPORTED)
    assert rig.ask(POWER, 0x2, words(0x8)) == words(NOT_FOUND)
    assert rig.ask(POWER, 0x7, words(ISLAND, 1)) == words(0)
    assert rig.ask(POWER, 0x8, words(ISLAND), agent=PSCI)[:4] == words(0)  # the other agent did not negotiate


# --- what is put back, what is kept -----------------------------------------------------------------------------------


def test_reset_of_an_agent() -> None:
    rig = rig_of()
    rig.ask(POWER, 0x4, words(0, GPU, ON))
    rig.ask(POWER, 0x6, words(GPU, 1), agent=PSCI)
    rig.platform.reset_agent(PSCI, settings=True)
    assert state_of(rig, GPU) == ON, "another's"
    rig.ask(POWER, 0x6, words(GPU, 1), agent=PSCI)
    rig.platform.reset_agent(OSPM)
    assert states(rig) == [ON, ON, OFF, OFF, ON]
    assert [payload for _, _, payload in rig.take()] == [words(OSPM, GPU, OFF)]


def test_what_another_agent_uses_stays_on() -> None:
    rig = rig_of()
    rig.ask(POWER, 0x4, words(0, GPU, ON), agent=PSCI)
    rig.ask(POWER, 0x4, words(0, ISLAND, ON))
    for domain in range(NONE):
        rig.ask(POWER, 0x6, words(domain, 1), agent=PSCI)
    rig.platform.reset_agent(OSPM)
    assert states(rig) == [ON] * 5
    assert rig.take() == []
    rig.platform.reset_agent(PSCI)  # it is this one's now
    assert states(rig) == [ON, ON, OFF, OFF, ON]


def test_save_and_load() -> None:
    rig = rig_of()
    server = rig.platform.protocols[POWER]
    assert [server.save(number) for number in server.saved()] == [None] * 5
    rig.platform.touched.clear()
    rig.ask(POWER, 0x4, words(0, GPU, RETENTION))
    assert rig.platform.touched == {(POWER, GPU), (POWER, ISLAND)}
    rig.ask(POWER, 0x4, words(0, CORE, OFF), agent=PSCI)
    rig.advance(1.0)
    rig.ask(POWER, 0x4, words(0, CLUSTER, OFF), agent=PSCI)
    saved = {number: server.save(number) for number in server.saved()}
    assert saved[GPU] == PowerState(RETENTION, OSPM)
    for order in (sorted(saved), sorted(saved, reverse=True)):
        again = rig_of()
        for number in order:
            if saved[number] is not None:
                again.platform.protocols[POWER].load(number, saved[number])
        assert states(again) == states(rig) == [OFF, OFF, RETENTION, ON, ON]
        assert {number: again.platform.protocols[POWER].save(number) for number in saved} == saved
        assert again.sent == []


def test_a_snapshot_that_is_refused() -> None:
    rig = rig_of()
    with pytest.raises(RemoteError, match="state = 1: the power domain has no such state"):
        rig.platform.protocols[POWER].load(ISLAND, PowerState(RETENTION, OSPM))
    with pytest.raises(RemoteError, match="owner = 4: no such agent"):
        rig.platform.protocols[POWER].load(ISLAND, PowerState(ON, 4))
    assert state_of(rig, ISLAND) == OFF


def test_scmi_2_0() -> None:
    rig = rig_of(profile="scmi-2.0")
    assert rig.ask(POWER, 0x0) == words(0, 0x20000)
    assert rig.ask(POWER, 0x3, words(ISLAND))[4:8] == words(0xF000_0000)
    assert rig.ask(POWER, 0x8, words(ISLAND)) == words(NOT_SUPPORTED)
    assert rig.ask(POWER, 0x10, words(0x20000)) == words(NOT_SUPPORTED)
    assert rig.ask(0x12, 0x0) == words(0, 0x10000)
    rig.ask(0x12, 0x5, words(1))
    rig.ask(0x12, 0x3, words(1, 0), agent=PSCI)
    assert [payload for _, _, payload in rig.take()] == [words(PSCI, 1, 0)]  # without a time-out
