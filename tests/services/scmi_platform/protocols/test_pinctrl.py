"""Pin control protocol, byte for byte (DEN0056E §4.11). Several agents: test_pinctrl_agents.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.scmi_platform.scmi_rig import Rig, words

BOARD = Path(__file__).parent / "board_pinctrl.toml"
PIN_CONTROL = 0x19
PIN, GROUP, FUNCTION, RESERVED = 0, 1, 2, 3
TX, RX, CTS, LED, LONG, ALL, BUS0, NO_PIN = 0, 1, 2, 3, 4, 5, 6, 42
UART, FLOW, WIDE, NO_GROUP = 0, 1, 2, 3
UART0, GPIO, GPIO_LED, OTHER, NO_FUNCTION = 0, 1, 2, 3, 4
NONE = 0xFFFF_FFFF
NOT_SUPPORTED, INVALID, NOT_FOUND, PROTOCOL_ERROR = -1, -2, -4, -10
PULL_UP, STRENGTH, INPUT_VALUE, SLEW, VENDOR = 4, 10, 14, 20, 192


def name(text: str, size: int = 16) -> bytes:
    return text.encode()[: size - 1].ljust(size, b"\0")


def get(flag: int, selector: int, kind: int = 0, skip: int = 0) -> int:
    """Attributes of PINCTRL_SETTINGS_GET: config flag (19:18), selector (17:16), skip (15:8), type (7:0)."""
    return flag << 18 | selector << 16 | skip << 8 | kind


def conf(selector: int, count: int, function: bool = False) -> int:
    """Attributes of PINCTRL_SETTINGS_CONFIGURE: function valid (10), configs (9:2), selector (1:0)."""
    return function << 10 | count << 2 | selector


SUCCESS = [
    (0x0, b"", words(0, 0x10000)),  # PROTOCOL_VERSION
    (0x1, b"", words(0, 3 << 16 | 42, 4)),  # PROTOCOL_ATTRIBUTES: groups (31:16), pins (15:0); functions (15:0)
    (0x2, words(0xA), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES
    # PINCTRL_ATTRIBUTES: a pin counts 1 (15:0); name
    (0x3, words(TX, PIN), words(0, 1) + name("tx")),
    (0x3, words(0xABCD_0000 | TX, PIN), words(0, 1) + name("tx")),  # identifiers are 16 bits, the rest is ignored
    (0x3, words(LONG, PIN), words(0, 1 << 31 | 1) + name("a-pin-with-a-long-name")),  # extended name (31)
    (0x3, words(FLOW, GROUP), words(0, 3) + name("uart-flow")),  # pins of a group
    (0x3, words(WIDE, GROUP), words(0, 1 << 31 | 36) + name("a-bus-that-is-rather-wide")),
    (0x3, words(UART0, FUNCTION), words(0, 2) + name("uart0")),  # groups of a function
    (0x3, words(GPIO, FUNCTION), words(0, 1 << 17 | 1) + name("gpio")),  # GPIO (17)
    (0x3, words(GPIO_LED, FUNCTION), words(0, 3 << 16 | 2) + name("gpio-led")),  # GPIO (17), pin-only (16), 2 pins
    (0x3, words(OTHER, FUNCTION), words(0, 1 << 31 | 1) + name("a-function-with-a-long-name")),
    # PINCTRL_LIST_ASSOCIATIONS: 2 returned (11:0), 0 remain (31:16); 16-bit identifiers
    (0x4, words(UART, GROUP, 0), words(0, 2) + b"\0\0\1\0"),
    (0x4, words(FLOW, GROUP, 0), words(0, 3) + b"\1\0\0\0\2\0"),  # in the order of the board
    (0x4, words(FLOW, GROUP, 2), words(0, 1) + b"\2\0"),  # from the third on
    (0x4, words(UART0, FUNCTION, 0), words(0, 2) + b"\0\0\1\0"),  # groups
    (0x4, words(GPIO_LED, FUNCTION, 0), words(0, 2) + b"\3\0\2\0"),  # pins, as it is pin-only
    # PINCTRL_SETTINGS_GET, one type (flag 0): function; 1 returned (7:0); type, value
    (0x5, words(TX, get(0, PIN, STRENGTH)), words(0, UART0, 1, STRENGTH, 4)),
    (0x5, words(RX, get(0, PIN, INPUT_VALUE)), words(0, UART0, 1, INPUT_VALUE, 1)),
    (0x5, words(CTS, get(0, PIN, VENDOR)), words(0, NONE, 1, VENDOR, 7)),  # no function
    (0x5, words(UART, get(0, GROUP, PULL_UP)), words(0, UART0, 1, PULL_UP, 1)),
    # all (flag 1): by type, ascending
    (0x5, words(TX, get(1, PIN)), words(0, UART0, 3, PULL_UP, 1, STRENGTH, 4, SLEW, 3)),
    (0x5, words(TX, get(1, PIN, kind=99, skip=2)), words(0, UART0, 1, SLEW, 3)),  # the type is ignored
    (0x5, words(TX, get(1, PIN, skip=3)), words(0, UART0, 0)),
    (0x5, words(LONG, get(1, PIN)), words(0, NONE, 0)),  # nothing to configure
    # of a group: what all its pins have, with one value
    (0x5, words(UART, get(1, GROUP)), words(0, UART0, 2, PULL_UP, 1, STRENGTH, 4)),
    (0x5, words(FLOW, get(1, GROUP)), words(0, NONE, 0)),  # one pin differs, in function too
    # function only (flag 2): no configs (7:0); type and skip are ignored
    (0x5, words(LED, get(2, PIN, kind=99, skip=99)), words(0, GPIO_LED, 0)),
    # PINCTRL_SETTINGS_CONFIGURE: identifier, function id, attributes; types and values
    (0x6, words(TX, 0, conf(PIN, 0)), words(0)),  # nothing at all
    (0x6, words(TX, 0xDEAD, conf(PIN, 1), STRENGTH, 8), words(0)),  # the function is not valid (10): ignored
    (0x6, words(TX, 0, conf(PIN, 2), SLEW, 1, PULL_UP, 0), words(0)),  # in any order
    (0x6, words(CTS, 0, conf(PIN, 1), VENDOR, 0xFFFF_FFFF), words(0)),
    (0x6, words(UART, 0, conf(GROUP, 1), STRENGTH, 2), words(0)),
    (0x6, words(UART, GPIO, conf(GROUP, 1, True), PULL_UP, 0), words(0)),
    (0x6, words(FLOW, UART0, conf(GROUP, 0, True)), words(0)),
    (0x6, words(CTS, GPIO_LED, conf(PIN, 0, True)), words(0)),
    (0x6, words(TX, NONE, conf(PIN, 0, True)), words(0)),  # no function any more
    (0x7, words(TX, PIN), words(0)),  # PINCTRL_REQUEST
    (0x7, words(FLOW, GROUP), words(0)),
    (0x8, words(TX, PIN), words(0)),  # PINCTRL_RELEASE: of what nobody has
    (0x8, words(FLOW, GROUP), words(0)),
    (0x9, words(LONG, PIN), words(0, 0) + name("a-pin-with-a-long-name", 64)),  # PINCTRL_NAME_GET: flags, name
    (0x9, words(WIDE, GROUP), words(0, 0) + name("a-bus-that-is-rather-wide", 64)),
    (0x9, words(OTHER, FUNCTION), words(0, 0) + name("a-function-with-a-long-name", 64)),
    (0x9, words(TX, PIN), words(0, 0) + name("tx", 64)),
    (0xA, words(1, TX, PIN), words(0)),  # PINCTRL_SET_PERMISSIONS: agent, identifier, flags: denied (2)
    (0xA, words(1, TX, 1 << 2 | PIN), words(0)),  # allowed
    (0xA, words(3, FLOW, GROUP), words(0)),
    (0x10, words(0x10000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
]

ERRORS = [
    (0x2, words(0xB), NOT_FOUND),
    (0x3, words(NO_PIN, PIN), NOT_FOUND),
    (0x3, words(NO_GROUP, GROUP), NOT_FOUND),
    (0x3, words(NO_FUNCTION, FUNCTION), NOT_FOUND),
    (0x3, words(TX, RESERVED), INVALID),
    (0x3, words(TX, 1 << 2), INVALID),  # reserved bits
    (0x4, words(NO_GROUP, GROUP, 0), NOT_FOUND),
    (0x4, words(NO_FUNCTION, FUNCTION, 0), NOT_FOUND),
    (0x4, words(TX, PIN, 0), INVALID),  # nothing belongs to a pin
    (0x4, words(UART, GROUP, 2), INVALID),  # behind the last
    (0x4, words(UART, RESERVED, 0), INVALID),
    (0x5, words(NO_PIN, get(1, PIN)), NOT_FOUND),
    (0x5, words(NO_GROUP, get(1, GROUP)), NOT_FOUND),
    (0x5, words(UART0, get(1, FUNCTION)), INVALID),
    (0x5, words(TX, get(1, RESERVED)), INVALID),
    (0x5, words(TX, get(3, PIN)), INVALID),  # reserved flag
    (0x5, words(TX, 1 << 20 | get(1, PIN)), INVALID),  # reserved bits
    (0x5, words(TX, get(1, PIN, skip=4)), INVALID),
    (0x5, words(TX, get(0, PIN, VENDOR)), INVALID),  # the pin has none
    (0x5, words(FLOW, get(0, GROUP, PULL_UP)), INVALID),  # its pins differ
    (0x6, words(NO_PIN, 0, conf(PIN, 0)), NOT_FOUND),
    (0x6, words(NO_GROUP, 0, conf(GROUP, 0)), NOT_FOUND),
    (0x6, words(UART0, 0, conf(FUNCTION, 0)), INVALID),
    (0x6, words(TX, 0, conf(RESERVED, 0)), INVALID),
    (0x6, words(TX, 0, 1 << 11 | conf(PIN, 0)), INVALID),  # reserved bits
    (0x6, words(TX, NO_FUNCTION, conf(PIN, 0, True)), INVALID),  # no such function
    (0x6, words(TX, UART0, conf(PIN, 0, True)), NOT_SUPPORTED),  # groups have it
    (0x6, words(LED, GPIO, conf(PIN, 0, True)), NOT_SUPPORTED),
    (0x6, words(FLOW, GPIO, conf(GROUP, 0, True)), NOT_SUPPORTED),  # another group has it
    (0x6, words(UART, GPIO_LED, conf(GROUP, 0, True)), NOT_SUPPORTED),  # pins have it
    (0x6, words(TX, 0, conf(PIN, 1), 21, 0), INVALID),  # reserved types
    (0x6, words(TX, 0, conf(PIN, 1), 191, 0), INVALID),
    (0x6, words(TX, 0, conf(PIN, 1), 256, 0), INVALID),
    (0x6, words(TX, 0, conf(PIN, 1), VENDOR, 0), NOT_SUPPORTED),
    (0x6, words(UART, 0, conf(GROUP, 1), SLEW, 0), NOT_SUPPORTED),  # one of its pins has it
    (0x6, words(RX, 0, conf(PIN, 1), INPUT_VALUE, 0), NOT_SUPPORTED),  # an input is read
    (0x6, words(TX, 0, conf(PIN, 1), STRENGTH, 3), INVALID),  # not allowed
    (0x6, words(UART, 0, conf(GROUP, 1), STRENGTH, 3), INVALID),  # to one of its pins
    (0x6, words(TX, 0, conf(PIN, 1)), PROTOCOL_ERROR),  # one announced, none there
    (0x6, words(TX, 0, conf(PIN, 1), STRENGTH), PROTOCOL_ERROR),
    (0x6, words(TX, 0, conf(PIN, 0), STRENGTH, 4), PROTOCOL_ERROR),
    (0x6, words(TX, 0, conf(PIN, 0)) + bytes(2041), PROTOCOL_ERROR),
    (0x7, words(NO_PIN, PIN), NOT_FOUND),
    (0x7, words(NO_GROUP, GROUP), NOT_FOUND),
    (0x7, words(UART0, FUNCTION), INVALID),
    (0x7, words(TX, RESERVED), INVALID),
    (0x7, words(TX, 1 << 2), INVALID),
    (0x8, words(NO_PIN, PIN), NOT_FOUND),
    (0x8, words(UART0, FUNCTION), INVALID),
    (0x8, words(TX, 1 << 31), INVALID),
    (0x9, words(NO_PIN, PIN), NOT_FOUND),
    (0x9, words(TX, RESERVED), INVALID),
    (0xA, words(1, NO_PIN, PIN), NOT_FOUND),
    (0xA, words(4, TX, PIN), NOT_FOUND),  # no such agent
    (0xA, words(0, TX, PIN), NOT_FOUND),  # the platform
    (0xA, words(1, UART0, FUNCTION), INVALID),
    (0xA, words(1, TX, 1 << 3), INVALID),  # reserved bits
    (0x10, words(0x20000), NOT_SUPPORTED),
    (0x3, words(TX), PROTOCOL_ERROR),
    (0xB, b"", NOT_SUPPORTED),
]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert Rig(BOARD).ask(PIN_CONTROL, message, payload, agent=2) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    rig = Rig(BOARD)
    assert rig.ask(PIN_CONTROL, message, payload, agent=2) == words(status)
    assert not any(protocol for protocol, _ in rig.platform.touched)


def test_associations_that_do_not_fit_one_message() -> None:
    rig = Rig(BOARD, max_payload=76)
    first = rig.ask(PIN_CONTROL, 0x4, words(WIDE, GROUP, 0))
    assert first[:8] == words(0, 2 << 16 | 34)  # 34 returned, 2 remain
    second = rig.ask(PIN_CONTROL, 0x4, words(WIDE, GROUP, 34))
    assert second[:8] == words(0, 2)
    pins = [int.from_bytes(part[at : at + 2], "little") for part in (first, second) for at in range(8, len(part), 2)]
    assert pins == list(range(BUS0, BUS0 + 36))


def test_the_count_of_associations_is_twelve_bits() -> None:
    rig = Rig(BOARD, max_payload=1 << 16)
    rig.platform.protocols[PIN_CONTROL].controller.functions[UART0].members.extend([0] * 4998)  # type: ignore[attr-defined]
    assert rig.ask(PIN_CONTROL, 0x4, words(UART0, FUNCTION, 0))[:8] == words(0, 905 << 16 | 4095)


def test_settings_that_do_not_fit_one_message() -> None:
    rig = Rig(BOARD, max_payload=76)
    first = rig.ask(PIN_CONTROL, 0x5, words(ALL, get(1, PIN)))
    assert first == words(0, NONE, 3 << 24 | 8, *(word for kind in range(8) for word in (kind, kind)))
    second = rig.ask(PIN_CONTROL, 0x5, words(ALL, get(1, PIN, skip=8)))
    assert second == words(0, NONE, 3, 8, 8, 9, 9, 255, 10)


def test_what_is_configured_is_read_back() -> None:
    rig = Rig(BOARD)
    rig.ask(PIN_CONTROL, 0x6, words(TX, 0, conf(PIN, 3), SLEW, 1, STRENGTH, 2, SLEW, 9))  # the last of a type counts
    assert rig.ask(PIN_CONTROL, 0x5, words(TX, get(1, PIN))) == words(0, UART0, 3, PULL_UP, 1, STRENGTH, 2, SLEW, 9)
    rig.ask(PIN_CONTROL, 0x6, words(UART, 0, conf(GROUP, 1), STRENGTH, 8))
    for pin in (TX, RX):
        assert rig.ask(PIN_CONTROL, 0x5, words(pin, get(0, PIN, STRENGTH))) == words(0, UART0, 1, STRENGTH, 8)


def test_a_message_is_taken_whole_or_not_at_all() -> None:
    rig = Rig(BOARD)
    before = rig.ask(PIN_CONTROL, 0x5, words(UART, get(1, GROUP)))
    wrong = words(UART, GPIO, conf(GROUP, 2, True), PULL_UP, 9, STRENGTH, 3)
    assert rig.ask(PIN_CONTROL, 0x6, wrong) == words(INVALID)
    assert rig.ask(PIN_CONTROL, 0x6, words(UART, GPIO_LED, conf(GROUP, 1, True), PULL_UP, 9)) == words(NOT_SUPPORTED)
    assert rig.ask(PIN_CONTROL, 0x5, words(UART, get(1, GROUP))) == before


def test_functions_are_selected_for_all_pins_of_a_group() -> None:
    rig = Rig(BOARD)

    def selected(identifier: int, selector: int) -> int:
        return int.from_bytes(rig.ask(PIN_CONTROL, 0x5, words(identifier, get(2, selector)))[4:8], "little")

    assert (selected(UART, GROUP), selected(FLOW, GROUP), selected(CTS, PIN)) == (UART0, NONE, NONE)
    rig.ask(PIN_CONTROL, 0x6, words(FLOW, UART0, conf(GROUP, 0, True)))
    assert (selected(UART, GROUP), selected(FLOW, GROUP), selected(CTS, PIN)) == (UART0, UART0, UART0)
    rig.ask(PIN_CONTROL, 0x6, words(UART, GPIO, conf(GROUP, 0, True)))
    assert (selected(UART, GROUP), selected(FLOW, GROUP), selected(CTS, PIN)) == (GPIO, NONE, UART0)
    rig.ask(PIN_CONTROL, 0x6, words(CTS, 0xBEEF_0000 | GPIO_LED, conf(PIN, 0, True)))  # 16 bits of it count
    assert selected(CTS, PIN) == GPIO_LED
    rig.ask(PIN_CONTROL, 0x6, words(FLOW, NONE, conf(GROUP, 0, True)))
    assert [selected(pin, PIN) for pin in (TX, RX, CTS, LED)] == [NONE, NONE, NONE, GPIO_LED]
    assert selected(UART, GROUP) == NONE


def test_no_section_no_protocol() -> None:
    assert PIN_CONTROL not in Rig().platform.protocols
