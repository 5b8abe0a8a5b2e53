"""Which messages a fault is for."""

from __future__ import annotations

import pytest

from common.scmi.header import COMMAND, DELAYED_RESPONSE, NOTIFICATION, pack
from common.scmi.status import ProtocolId
from services.scmi_platform.faults_only import Only, message_id, protocol_id

COMMANDS = (COMMAND,)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("clock", 0x14), ("CLOCK", 0x14), ("0x14", 0x14), ("20", 0x14), ("power", 0x11), ("power_domain", 0x11),
        ("system", 0x12), ("reset", 0x16), ("pinctrl", 0x19), ("pin_control", 0x19), ("powercap", 0x18), ("0x80", 0x80),
    ],
)  # fmt: skip
def test_protocols(name: str, number: int) -> None:
    assert protocol_id(name) == number


@pytest.mark.parametrize("name", ["", "clocks", "0x100", "-1", "1.5", "0xzz", "clock/"])
def test_what_is_no_protocol(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        protocol_id(name)


@pytest.mark.parametrize(
    ("protocol", "name", "kinds", "number"),
    [
        (ProtocolId.PERFORMANCE, "level_set", COMMANDS, 7),
        (ProtocolId.PERFORMANCE, "PERFORMANCE_LEVEL_SET", COMMANDS, 7),
        (ProtocolId.CLOCK, "rate_get", COMMANDS, 6),
        (ProtocolId.CLOCK, "protocol_version", COMMANDS, 0),
        (ProtocolId.RESET_DOMAIN, "reset", COMMANDS, 4),
        (ProtocolId.SENSOR, "reading_complete", (COMMAND, DELAYED_RESPONSE), 6),
        (ProtocolId.SENSOR, "trip_point_event", (NOTIFICATION,), 0),
        (0x99, "0x7", COMMANDS, 7),
    ],
)
def test_messages(protocol: int, name: str, kinds: tuple[int, ...], number: int) -> None:
    assert message_id(protocol, name, kinds) == number


@pytest.mark.parametrize(
    ("protocol", "name", "kinds", "why"),
    [
        (ProtocolId.CLOCK, "level_set", COMMANDS, "no message"),
        (ProtocolId.CLOCK, "get", COMMANDS, "more than one"),
        (ProtocolId.SENSOR, "trip_point_event", COMMANDS, "no message"),
        (ProtocolId.CLOCK, "", COMMANDS, "no message"),
        (ProtocolId.CLOCK, "256", COMMANDS, "above"),
    ],
)
def test_what_is_no_message(protocol: int, name: str, kinds: tuple[int, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        message_id(protocol, name, kinds)


def test_a_set_of_messages() -> None:
    only = Only(["sensor", "clock/rate_set", "0x13/0x7"], COMMANDS)
    assert pack(0x15, 3, 99) in only
    assert pack(0x15, 0) in only
    assert pack(0x14, 5, 1023) in only
    assert pack(0x14, 6) not in only
    assert pack(0x13, 7) in only
    assert pack(0x13, 8) not in only
    assert pack(0x10, 5) not in only, "the id alone is not enough"


def test_none_named_are_all() -> None:
    assert all(pack(protocol, message) in Only([], COMMANDS) for protocol in (0, 0x10, 0xFF) for message in (0, 0xFF))
