"""System power protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import system_power
from common.scmi.system_power import StateEvent, SystemState


def test_replies() -> None:
    assert system_power.parse_state(struct.pack("<I", 3)) == SystemState.POWER_UP


def test_the_notifier() -> None:
    assert system_power.parse_state_event(struct.pack("<IIII", 1, 1, 0, 500)) == StateEvent(1, True, 0, 500)
    assert system_power.parse_state_event(struct.pack("<III", 1, 0, 2)) == StateEvent(1, False, 2, 0)
    event = StateEvent(2, True, 0x8000_0001, 7)
    assert system_power.build_state_event(event) == struct.pack("<IIII", 2, 1, 0x8000_0001, 7)
    assert system_power.build_state_event_v1(event) == struct.pack("<III", 2, 1, 0x8000_0001)


def test_names() -> None:
    assert system_power.state_name(1) == "cold_reset"
    assert system_power.state_name(0) == "shutdown"
    assert system_power.state_name(0x8000_0001) == "0x80000001"


def test_requests() -> None:
    assert system_power.STATE_SET.pack(system_power.GRACEFUL, SystemState.SUSPEND) == struct.pack("<II", 1, 4)
    assert system_power.NOTIFY.pack(True) == struct.pack("<I", 1)


@pytest.mark.parametrize("raw", [b"", bytes(11), bytes(13)])
def test_short(raw: bytes) -> None:
    with pytest.raises(ScmiError):
        system_power.parse_state_event(raw)
