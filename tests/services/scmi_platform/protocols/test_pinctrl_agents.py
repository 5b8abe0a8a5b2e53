"""Pin control with several agents: who has a pin, who may use it, what is put back and what is saved."""

from __future__ import annotations

import pytest

from services.scmi_platform.protocols.pinctrl_state import PinState
from tests.services.scmi_platform.protocols.test_pinctrl import (
    ALL,
    BOARD,
    CTS,
    FLOW,
    GPIO,
    GPIO_LED,
    GROUP,
    INVALID,
    LED,
    PIN,
    PIN_CONTROL,
    PULL_UP,
    RX,
    STRENGTH,
    TX,
    UART,
    UART0,
    conf,
    get,
)
from tests.services.scmi_platform.scmi_rig import Rig, words

OSPM, BOSS, RTOS = 1, 2, 3
DENIED, IN_USE = -3, -11
REQUEST, RELEASE, PERMIT = 0x7, 0x8, 0xA


@pytest.fixture
def rig() -> Rig:
    return Rig(BOARD)


def ask(rig: Rig, message: int, *payload: int, agent: int) -> int:
    """The status."""
    return int.from_bytes(rig.ask(PIN_CONTROL, message, words(*payload), agent)[:4], "little", signed=True)


def pull(rig: Rig, identifier: int, selector: int, value: int, agent: int) -> int:
    return ask(rig, 0x6, identifier, 0, conf(selector, 1), PULL_UP, value, agent=agent)


# --- exclusive control ------------------------------------------------------------------------------------------------


def test_a_pin_that_one_agent_requested(rig: Rig) -> None:
    assert ask(rig, REQUEST, TX, PIN, agent=OSPM) == 0
    assert ask(rig, REQUEST, TX, PIN, agent=RTOS) == IN_USE
    assert ask(rig, REQUEST, TX, PIN, agent=BOSS) == IN_USE  # trust is no key
    assert ask(rig, REQUEST, TX, PIN, agent=OSPM) == 0  # its own
    assert pull(rig, TX, PIN, 5, RTOS) == DENIED
    assert pull(rig, TX, PIN, 6, OSPM) == 0
    assert rig.ask(PIN_CONTROL, 0x5, words(TX, get(0, PIN, PULL_UP)), RTOS) == words(0, UART0, 1, PULL_UP, 6)
    assert ask(rig, RELEASE, TX, PIN, agent=RTOS) == INVALID
    assert ask(rig, RELEASE, TX, PIN, agent=OSPM) == 0
    assert ask(rig, REQUEST, TX, PIN, agent=RTOS) == 0
    assert pull(rig, TX, PIN, 7, OSPM) == DENIED


def test_what_nobody_requested_everybody_configures(rig: Rig) -> None:
    for agent in (OSPM, BOSS, RTOS):
        assert pull(rig, TX, PIN, agent, agent) == 0


def test_a_group_is_in_use_when_one_of_its_pins_is(rig: Rig) -> None:
    assert ask(rig, REQUEST, CTS, PIN, agent=RTOS) == 0
    assert ask(rig, REQUEST, FLOW, GROUP, agent=OSPM) == IN_USE
    assert pull(rig, FLOW, GROUP, 0, OSPM) == DENIED
    assert ask(rig, REQUEST, TX, PIN, agent=RTOS) == 0  # the refused request took none of the others
    assert ask(rig, RELEASE, TX, PIN, agent=RTOS) == 0
    assert ask(rig, REQUEST, UART, GROUP, agent=OSPM) == 0  # its pins are free
    assert [ask(rig, REQUEST, pin, PIN, agent=RTOS) for pin in (TX, RX, CTS)] == [IN_USE, IN_USE, 0]
    assert ask(rig, REQUEST, FLOW, GROUP, agent=RTOS) == IN_USE
    assert ask(rig, RELEASE, FLOW, GROUP, agent=OSPM) == INVALID  # cts is another's: nothing is released
    assert ask(rig, REQUEST, TX, PIN, agent=RTOS) == IN_USE
    assert ask(rig, RELEASE, TX, PIN, agent=OSPM) == 0  # pin by pin
    assert ask(rig, REQUEST, TX, PIN, agent=RTOS) == 0
    assert ask(rig, REQUEST, RX, PIN, agent=RTOS) == IN_USE


def test_groups_that_share_pins(rig: Rig) -> None:
    assert ask(rig, REQUEST, UART, GROUP, agent=OSPM) == 0
    assert ask(rig, REQUEST, FLOW, GROUP, agent=OSPM) == 0
    assert ask(rig, RELEASE, FLOW, GROUP, agent=OSPM) == 0
    assert ask(rig, REQUEST, UART, GROUP, agent=RTOS) == 0


# --- permissions ------------------------------------------------------------------------------------------------------


def test_only_a_trusted_agent_sets_permissions(rig: Rig) -> None:
    assert ask(rig, PERMIT, RTOS, TX, PIN, agent=OSPM) == DENIED
    assert ask(rig, PERMIT, OSPM, TX, 1 << 2, agent=OSPM) == DENIED
    assert ask(rig, REQUEST, TX, PIN, agent=RTOS) == 0


def test_a_pin_that_an_agent_is_denied(rig: Rig) -> None:
    assert ask(rig, PERMIT, OSPM, TX, PIN, agent=BOSS) == 0
    for identifier, selector in ((TX, PIN), (UART, GROUP), (FLOW, GROUP)):
        assert ask(rig, REQUEST, identifier, selector, agent=OSPM) == DENIED
        assert pull(rig, identifier, selector, 1, OSPM) == DENIED
        assert ask(rig, 0x5, identifier, get(2, selector), agent=OSPM) == DENIED
        assert ask(rig, 0x3, identifier, selector, agent=OSPM) == 0  # discovered all the same
        assert ask(rig, 0x9, identifier, selector, agent=OSPM) == 0
    assert ask(rig, 0x4, UART, GROUP, 0, agent=OSPM) == 0
    assert pull(rig, RX, PIN, 1, OSPM) == 0
    assert pull(rig, TX, PIN, 1, RTOS) == 0
    assert ask(rig, PERMIT, OSPM, TX, 1 << 2 | PIN, agent=BOSS) == 0
    assert pull(rig, UART, GROUP, 1, OSPM) == 0


def test_a_group_is_denied_and_allowed_with_all_its_pins(rig: Rig) -> None:
    assert ask(rig, PERMIT, OSPM, FLOW, GROUP, agent=BOSS) == 0
    assert [ask(rig, REQUEST, pin, PIN, agent=OSPM) for pin in (TX, RX, CTS, LED)] == [DENIED, DENIED, DENIED, 0]
    assert ask(rig, PERMIT, OSPM, UART, 1 << 2 | GROUP, agent=BOSS) == 0
    assert [ask(rig, REQUEST, pin, PIN, agent=OSPM) for pin in (TX, RX, CTS)] == [0, 0, DENIED]


def test_who_is_denied_a_pin_loses_it(rig: Rig) -> None:
    ask(rig, REQUEST, FLOW, GROUP, agent=OSPM)
    assert ask(rig, PERMIT, RTOS, TX, PIN, agent=BOSS) == 0  # another's permission
    assert ask(rig, REQUEST, TX, PIN, agent=BOSS) == IN_USE
    assert ask(rig, PERMIT, OSPM, TX, PIN, agent=BOSS) == 0
    assert ask(rig, REQUEST, TX, PIN, agent=BOSS) == 0
    assert ask(rig, REQUEST, RX, PIN, agent=BOSS) == IN_USE
    assert ask(rig, RELEASE, TX, PIN, agent=OSPM) == INVALID


# --- BASE_RESET_AGENT_CONFIGURATION -----------------------------------------------------------------------------------


def test_reset_puts_back_what_an_agent_set_and_releases_what_it_has(rig: Rig) -> None:
    ask(rig, 0x6, UART, GPIO, conf(GROUP, 1, True), STRENGTH, 8, agent=OSPM)
    ask(rig, 0x6, LED, 0xFFFF_FFFF, conf(PIN, 0, True), agent=RTOS)
    ask(rig, REQUEST, TX, PIN, agent=OSPM)
    ask(rig, REQUEST, ALL, PIN, agent=OSPM)  # requested only
    ask(rig, REQUEST, CTS, PIN, agent=OSPM)
    pull(rig, CTS, PIN, 9, OSPM)
    ask(rig, REQUEST, RX, PIN, agent=RTOS)  # configured by OSPM before
    rig.platform.touched.clear()
    assert rig.ask(0x10, 0xB, words(OSPM, 0), agent=OSPM) == words(0)
    assert {number for protocol, number in rig.platform.touched if protocol == PIN_CONTROL} == {TX, CTS, ALL}
    assert rig.ask(PIN_CONTROL, 0x5, words(TX, get(0, PIN, STRENGTH))) == words(0, UART0, 1, STRENGTH, 4)
    assert rig.ask(PIN_CONTROL, 0x5, words(CTS, get(0, PIN, PULL_UP)))[-4:] == words(0)
    # what another agent has to itself now is not changed under it
    assert rig.ask(PIN_CONTROL, 0x5, words(RX, get(0, PIN, STRENGTH))) == words(0, GPIO, 1, STRENGTH, 8)
    assert rig.ask(PIN_CONTROL, 0x5, words(LED, get(2, PIN)))[4:8] == words(-1)
    assert [ask(rig, REQUEST, pin, PIN, agent=RTOS) for pin in (TX, RX, CTS, ALL)] == [0, 0, 0, 0]
    rig.ask(0x10, 0xB, words(RTOS, 0), agent=RTOS)
    assert rig.ask(PIN_CONTROL, 0x5, words(LED, get(2, PIN)))[4:8] == words(GPIO_LED)


def test_permissions_come_back_only_when_they_are_reset_too(rig: Rig) -> None:
    ask(rig, PERMIT, OSPM, TX, PIN, agent=BOSS)
    ask(rig, PERMIT, RTOS, TX, PIN, agent=BOSS)
    assert rig.ask(0x10, 0xB, words(OSPM, 0), agent=OSPM) == words(0)
    assert ask(rig, REQUEST, TX, PIN, agent=OSPM) == DENIED
    rig.platform.touched.clear()
    assert rig.ask(0x10, 0xB, words(OSPM, 1), agent=BOSS) == words(0)  # permissions (0)
    assert (PIN_CONTROL, TX) in rig.platform.touched
    assert (PIN_CONTROL, RX) not in rig.platform.touched
    assert ask(rig, REQUEST, TX, PIN, agent=OSPM) == 0
    ask(rig, RELEASE, TX, PIN, agent=OSPM)
    assert ask(rig, REQUEST, TX, PIN, agent=RTOS) == DENIED


# --- what outlives a restart ------------------------------------------------------------------------------------------


def test_what_is_set_is_saved(rig: Rig) -> None:
    server = rig.platform.protocols[PIN_CONTROL]
    assert server.saved() == range(42)
    assert [server.save(pin) for pin in range(3)] == [None] * 3
    ask(rig, 0x6, UART, GPIO, conf(GROUP, 1, True), STRENGTH, 8, agent=OSPM)
    assert rig.platform.touched == {(PIN_CONTROL, TX), (PIN_CONTROL, RX)}
    rig.platform.touched.clear()
    ask(rig, REQUEST, TX, PIN, agent=OSPM)
    assert rig.platform.touched == {(PIN_CONTROL, TX)}
    rig.platform.touched.clear()
    ask(rig, REQUEST, TX, PIN, agent=OSPM)
    assert not rig.platform.touched  # nothing changed
    ask(rig, PERMIT, RTOS, LED, PIN, agent=BOSS)
    assert rig.platform.touched == {(PIN_CONTROL, LED)}
    states = {pin: server.save(pin) for pin in (TX, RX, CTS, LED)}
    assert states[TX] == PinState({4: 1, 10: 8, 20: 3}, GPIO, OSPM, OSPM, [])
    assert states[RX] == PinState({4: 1, 10: 8, 14: 1}, GPIO, OSPM, 0, [])
    assert states[CTS] is None
    assert states[LED] == PinState({17: 1, 18: 0}, GPIO_LED, 0, 0, [RTOS])
    other = Rig(BOARD)
    for pin, state in states.items():
        if state is not None:
            other.platform.protocols[PIN_CONTROL].load(pin, state)
    assert [other.platform.protocols[PIN_CONTROL].save(pin) for pin in states] == list(states.values())
    assert ask(other, REQUEST, TX, PIN, agent=RTOS) == IN_USE
    assert ask(other, REQUEST, LED, PIN, agent=RTOS) == DENIED
    assert other.ask(PIN_CONTROL, 0x5, words(UART, get(0, GROUP, STRENGTH))) == words(0, GPIO, 1, STRENGTH, 8)


def test_an_agent_that_is_no_more_holds_nothing(rig: Rig) -> None:
    rig.platform.protocols[PIN_CONTROL].load(TX, PinState({4: 1, 10: 8, 20: 3}, GPIO, 77, 77, [77]))
    assert ask(rig, REQUEST, TX, PIN, agent=OSPM) == 0
