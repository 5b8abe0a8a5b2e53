"""Voltage protocol, byte for byte (DEN0056E §4.9). Levels are µV, negative ones in two's complement."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.scmi_platform.protocols.voltage_state import VoltageState
from tests.services.scmi_platform.scmi_rig import Rig, words

BOARD = Path(__file__).parent / "board_voltage.toml"
VOLTAGE = 0x17
VDD0, VEE, LONG, FIXED, NONE = 0, 1, 2, 3, 4
OSPM, BOSS, SOME = 1, 2, 3
NOT_SUPPORTED, INVALID, DENIED, NOT_FOUND, OUT_OF_RANGE, BUSY = -1, -2, -3, -4, -5, -6
COMMS_ERROR, PROTOCOL_ERROR = -7, -10
LONG_NAME = b"a-regulator-with-a-long-name"


def rig(p2a: bool = True, max_payload: int = 128) -> Rig:
    return Rig(BOARD, p2a, max_payload)


SUCCESS = [
    (0x0, b"", words(0, 0x20000)),  # PROTOCOL_VERSION
    (0x1, b"", words(0, 4)),  # PROTOCOL_ATTRIBUTES: 4 domains (15:0)
    (0x2, words(0x7), words(0, 0)),  # PROTOCOL_MESSAGE_ATTRIBUTES
    (0x3, words(VDD0), words(0, 0) + b"vdd0".ljust(16, b"\0")),  # VOLTAGE_DOMAIN_ATTRIBUTES: attributes; name
    (0x3, words(VEE), words(0, 1 << 31) + b"vee".ljust(16, b"\0")),  # asynchronous level set (31)
    (0x3, words(LONG), words(0, 1 << 30) + LONG_NAME[:15] + b"\0"),  # extended name (30)
    # VOLTAGE_DESCRIBE_LEVELS: triplet (12) of 3 (11:0): lowest, highest, step
    (0x4, words(VDD0, 0), words(0, 1 << 12 | 3, 800_000, 1_100_000, 50_000)),
    (0x4, words(VEE, 0), words(0, 1 << 12 | 3, -5_000_000, 1_000, 1_000)),
    # 30 levels fit (11:0), 3 remain (31:16)
    (0x4, words(LONG, 0), words(0, 3 << 16 | 30, *range(-400, 2600, 100))),
    (0x4, words(LONG, 30), words(0, 3, 2600, 2700, 2800)),
    (0x4, words(FIXED, 0), words(0, 1, 3_300_000)),
    (0x5, words(VDD0, 0x7), words(0)),  # VOLTAGE_CONFIG_SET: architectural (3), on (2:0)
    (0x5, words(VDD0, 0x0), words(0)),  # off
    (0x5, words(VEE, 0xF), words(0)),  # the vendor's (3) mode 7
    (0x6, words(VDD0), words(0, 0x0)),  # VOLTAGE_CONFIG_GET: off
    (0x6, words(VEE), words(0, 0x9)),
    (0x6, words(FIXED), words(0, 0x7)),
    (0x7, words(VDD0, 0, 1_100_000), words(0)),  # VOLTAGE_LEVEL_SET: domain, flags, level
    (0x7, words(VEE, 0, -5_000_000), words(0)),
    (0x7, words(VEE, 1, -1_000), words(0)),  # asynchronous (0)
    (0x7, words(LONG, 0, -400), words(0)),
    (0x8, words(VDD0), words(0, 900_000)),  # VOLTAGE_LEVEL_GET: what it is set to, though it is off
    (0x8, words(VEE), words(0, -3_300_000)),
    (0x9, words(LONG), words(0, 0) + LONG_NAME.ljust(64, b"\0")),  # VOLTAGE_DOMAIN_NAME_GET: flags, name
    (0x9, words(VDD0), words(0, 0) + b"vdd0".ljust(64, b"\0")),
    (0x10, words(0x10000), words(0)),  # NEGOTIATE_PROTOCOL_VERSION
    (0x10, words(0x20000), words(0)),
]

ERRORS = [
    (0x2, words(0xA), NOT_FOUND),
    (0x3, words(NONE), NOT_FOUND),
    (0x4, words(NONE, 0), NOT_FOUND),
    (0x4, words(VDD0, 1), OUT_OF_RANGE),
    (0x4, words(LONG, 33), OUT_OF_RANGE),
    (0x5, words(NONE, 0x7), NOT_FOUND),
    (0x5, words(VDD0, 0x1), INVALID),  # an architectural mode that is reserved
    (0x5, words(VDD0, 0x9), INVALID),  # a vendor mode of another domain
    (0x5, words(VDD0, 1 << 4 | 0x7), INVALID),  # reserved bits (31:4)
    (0x5, words(VDD0, 1 << 31), INVALID),
    (0x5, words(FIXED, 0x0), DENIED),  # restricted
    (0x6, words(NONE), NOT_FOUND),
    (0x7, words(NONE, 0, 900_000), NOT_FOUND),
    (0x7, words(VDD0, 2, 900_000), INVALID),  # reserved flag
    (0x7, words(VEE, 1 << 31, 0), INVALID),
    (0x7, words(VDD0, 1, 900_000), NOT_SUPPORTED),  # only synchronously
    (0x7, words(VDD0, 0, 925_000), INVALID),  # between two steps
    (0x7, words(VDD0, 0, 750_000), INVALID),  # below the lowest
    (0x7, words(VDD0, 0, 1_150_000), INVALID),  # above the highest
    (0x7, words(VDD0, 0, -900_000), INVALID),
    (0x7, words(LONG, 0, 50), INVALID),  # not in the list
    (0x7, words(VEE, 1, 500), INVALID),  # told at once, not in the delayed response
    (0x7, words(FIXED, 0, 3_300_000), DENIED),
    (0x8, words(NONE), NOT_FOUND),
    (0x9, words(NONE), NOT_FOUND),
    (0x10, words(0x30000), NOT_SUPPORTED),
    (0x7, words(VDD0, 0), PROTOCOL_ERROR),
    (0x8, words(VDD0, 0), PROTOCOL_ERROR),
    (0xA, b"", NOT_SUPPORTED),
]


@pytest.mark.parametrize(("message", "payload", "reply"), SUCCESS)
def test_success(message: int, payload: bytes, reply: bytes) -> None:
    assert rig().ask(VOLTAGE, message, payload) == reply


@pytest.mark.parametrize(("message", "payload", "status"), ERRORS)
def test_errors(message: int, payload: bytes, status: int) -> None:
    assert rig().ask(VOLTAGE, message, payload) == words(status)


def test_what_linux_asks_of_a_regulator() -> None:
    """scmi-regulator: 0.80 V to 1.10 V in steps of 50 mV, off at first; then on, another level, off."""
    one = rig()
    assert one.ask(VOLTAGE, 0x4, words(VDD0, 0)).hex() == "000000000310000000350c00e0c8100050c30000"
    assert one.ask(VOLTAGE, 0x8, words(VDD0)).hex() == "00000000a0bb0d00"
    assert one.ask(VOLTAGE, 0x5, words(VDD0, 0x7)) == words(0)
    assert one.ask(VOLTAGE, 0x7, words(VDD0, 0, 1_000_000)) == words(0)
    assert one.ask(VOLTAGE, 0x6, words(VDD0)) == words(0, 0x7)
    assert one.ask(VOLTAGE, 0x8, words(VDD0)) == words(0, 1_000_000)
    assert one.ask(VOLTAGE, 0x5, words(VDD0, 0x0)) == words(0)
    assert one.ask(VOLTAGE, 0x8, words(VDD0)) == words(0, 1_000_000)


def test_every_level_of_a_long_list_comes_once() -> None:
    one, levels, index = rig(max_payload=76), [], 0
    while index < 33:
        reply = one.ask(VOLTAGE, 0x4, words(LONG, index))
        flags = int.from_bytes(reply[4:8], "little")
        count = flags & 0xFFF
        assert (count, flags >> 16) == (min(17, 33 - index), 33 - index - count)
        levels += [int.from_bytes(reply[at : at + 4], "little", signed=True) for at in range(8, 8 + 4 * count, 4)]
        index += count
    assert levels == list(range(-400, 2900, 100))


def test_the_count_of_one_reply_is_twelve_bits() -> None:
    one = rig(max_payload=1 << 16)
    domain = one.platform.protocols[VOLTAGE].domains[LONG]  # type: ignore[attr-defined]
    domain.levels = list(range(5000))
    reply = one.ask(VOLTAGE, 0x4, words(LONG, 0))
    assert reply[4:8] == words((5000 - 4095) << 16 | 4095)
    assert len(reply) == 8 + 4 * 4095


# --- asynchronous -----------------------------------------------------------------------------------------------------


def test_level_set_async() -> None:
    one = rig()
    assert one.ask(VOLTAGE, 0x7, words(VEE, 1, -2_000)) == words(0)
    token = one.token
    assert one.ask(VOLTAGE, 0x8, words(VEE)) == words(0, -3_300_000)  # not yet
    assert one.platform.tick(one.now) == pytest.approx(one.now + 0.002)
    one.advance(0.002)
    ((agent, head, payload),) = one.take()
    assert (agent, head.type, head.protocol, head.message, head.token) == (OSPM, 2, VOLTAGE, 0x7, token)
    assert payload == words(0, VEE, -2_000)  # status, domain, level
    assert one.ask(VOLTAGE, 0x8, words(VEE)) == words(0, -2_000)


def test_too_many_asynchronous_changes_are_busy() -> None:
    one = rig()
    replies = [one.ask(VOLTAGE, 0x7, words(VEE, 1, 0)) for _ in range(9)]
    assert replies == [words(0)] * 8 + [words(BUSY)]
    assert one.ask(VOLTAGE, 0x7, words(VEE, 1, 0), agent=BOSS) == words(0)
    one.advance(1.0)
    assert one.ask(VOLTAGE, 0x7, words(VEE, 1, 0)) == words(0)


def test_without_a_channel_to_the_agent_nothing_is_asynchronous() -> None:
    one = rig(p2a=False)
    assert one.ask(VOLTAGE, 0x3, words(VEE)) == words(0, 0) + b"vee".ljust(16, b"\0")
    assert one.ask(VOLTAGE, 0x7, words(VEE, 1, 0)) == words(NOT_SUPPORTED)
    assert one.ask(VOLTAGE, 0x7, words(VEE, 0, 0)) == words(0)


def test_repeated_after_a_reset_of_the_service() -> None:
    one = rig()
    assert one.ask(VOLTAGE, 0x7, words(VEE, 1, 0), again=True) == words(COMMS_ERROR)
    assert one.ask(VOLTAGE, 0x7, words(VEE, 0, 0), again=True) == words(0)


# --- versions ---------------------------------------------------------------------------------------------------------


def test_version_one_has_no_attributes_no_long_names_nothing_asynchronous() -> None:
    one = rig()
    assert one.ask(VOLTAGE, 0x10, words(0x10000)) == words(0)
    assert one.ask(VOLTAGE, 0x3, words(VEE)) == words(0, 0) + b"vee".ljust(16, b"\0")
    assert one.ask(VOLTAGE, 0x3, words(LONG)) == words(0, 0) + LONG_NAME[:15] + b"\0"
    assert one.ask(VOLTAGE, 0x9, words(LONG)) == words(NOT_SUPPORTED)
    assert one.ask(VOLTAGE, 0x2, words(0x9)) == words(NOT_FOUND)
    assert one.ask(VOLTAGE, 0x7, words(VEE, 1, 0)) == words(INVALID)  # the flag is reserved there
    assert one.ask(VOLTAGE, 0x7, words(VEE, 0, 0)) == words(0)
    assert one.ask(VOLTAGE, 0x9, words(LONG), agent=BOSS)[:4] == words(0)


# --- several agents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("message", "payload"), [(0x5, (7,)), (0x6, ()), (0x7, (0, 900_000)), (0x8, ())])
def test_denied(message: int, payload: tuple[int, ...]) -> None:
    one = rig()
    assert one.ask(0x10, 0x9, words(OSPM, 0, 0), agent=BOSS) == words(0)  # device "core" denied to OSPM
    assert one.ask(VOLTAGE, message, words(VDD0, *payload)) == words(DENIED)
    assert one.ask(VOLTAGE, message, words(VDD0, *payload), agent=BOSS)[:4] == words(0)


@pytest.mark.parametrize(("message", "payload"), [(0x3, ()), (0x4, (0,)), (0x9, ())])
def test_denied_domains_are_discovered_all_the_same(message: int, payload: tuple[int, ...]) -> None:
    one = rig()
    one.ask(0x10, 0x9, words(OSPM, 0, 0), agent=BOSS)
    assert one.ask(VOLTAGE, message, words(VDD0, *payload))[:4] == words(0)


def test_a_view_has_numbers_of_its_own() -> None:
    one = rig()
    assert one.ask(VOLTAGE, 0x1, agent=SOME) == words(0, 2)
    assert one.ask(VOLTAGE, 0x3, words(1), agent=SOME)[8:12] == b"vdd0"
    assert one.ask(VOLTAGE, 0x3, words(2), agent=SOME) == words(NOT_FOUND)
    assert one.ask(VOLTAGE, 0x7, words(1, 0, 800_000), agent=SOME) == words(0)
    assert one.ask(VOLTAGE, 0x8, words(VDD0)) == words(0, 800_000)
    assert one.ask(VOLTAGE, 0x7, words(0, 1, -7_000), agent=SOME) == words(0)
    one.advance(1.0)
    assert [(agent, payload) for agent, _, payload in one.take()] == [(SOME, words(0, 0, -7_000))]
    assert one.ask(VOLTAGE, 0x8, words(VEE)) == words(0, -7_000)


def test_reset_of_an_agent_puts_back_what_it_set() -> None:
    one = rig()
    one.ask(VOLTAGE, 0x7, words(VDD0, 0, 800_000))
    one.ask(VOLTAGE, 0x5, words(VDD0, 7))
    one.ask(VOLTAGE, 0x5, words(VEE, 0))
    one.ask(VOLTAGE, 0x5, words(VEE, 0xF), agent=BOSS)  # the last to touch it
    one.ask(VOLTAGE, 0x7, words(VEE, 1, -2_000))
    assert one.ask(0x10, 0xB, words(OSPM, 0)) == words(0)
    one.advance(1.0)
    assert one.take() == []  # nobody waits for it any more
    assert one.ask(VOLTAGE, 0x8, words(VDD0)) == words(0, 900_000)
    assert one.ask(VOLTAGE, 0x6, words(VDD0)) == words(0, 0)
    assert one.ask(VOLTAGE, 0x6, words(VEE)) == words(0, 0xF)
    assert one.ask(VOLTAGE, 0x8, words(VEE)) == words(0, -3_300_000)


def test_what_is_set_is_saved() -> None:
    one = rig()
    server = one.platform.protocols[VOLTAGE]
    assert server.saved() == range(4)
    assert server.save(VEE) is None
    one.platform.touched.clear()
    one.ask(VOLTAGE, 0x8, words(VEE))
    assert not one.platform.touched
    one.ask(VOLTAGE, 0x7, words(VEE, 0, -2_000))
    assert one.platform.touched == {(VOLTAGE, VEE)}
    one.platform.touched.clear()
    one.ask(VOLTAGE, 0x5, words(VEE, 0xF))
    assert one.platform.touched == {(VOLTAGE, VEE)}
    state = server.save(VEE)
    assert state == VoltageState(-2_000, 0xF, OSPM)
    other = rig()
    other.platform.protocols[VOLTAGE].load(VEE, state)
    assert other.ask(VOLTAGE, 0x8, words(VEE)) == words(0, -2_000)
    assert other.ask(VOLTAGE, 0x6, words(VEE)) == words(0, 0xF)
    other.ask(0x10, 0xB, words(OSPM, 0))
    assert other.platform.protocols[VOLTAGE].save(VEE) is None
    assert (VOLTAGE, VEE) in other.platform.touched


def test_no_domains_no_protocol() -> None:
    assert VOLTAGE not in Rig().platform.protocols
