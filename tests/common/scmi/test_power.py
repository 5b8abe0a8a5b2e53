"""Power domain protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import power


def test_replies() -> None:
    assert power.parse_attributes(struct.pack("<IIII", 5, 2, 1, 64)) == (5, (0x1_0000_0002, 64))
    assert power.parse_domain_attributes(struct.pack("<I16s", 0xF000_0000, b"gpu")) == (0xF000_0000, "gpu")
    assert power.parse_state(struct.pack("<I", 0x4000_0000)) == power.OFF
    assert power.parse_state_event(struct.pack("<III", 1, 2, 3)) == (1, 2, 3)


def test_requests() -> None:
    assert power.STATE_SET.pack(power.SET_ASYNC, 2, power.OFF) == struct.pack("<III", 1, 2, 0x4000_0000)
    assert power.NOTIFY.pack(2, True) == struct.pack("<II", 2, 1)


def test_the_state_word() -> None:
    assert power.STATE_RESERVED == 0xB000_0000
    assert (power.ON, power.OFF) == (0, 0x4000_0000)


@pytest.mark.parametrize(
    "parse",
    [
        power.parse_attributes,
        power.parse_domain_attributes,
        power.parse_state,
        power.parse_state_event,
    ],
)
def test_short(parse: object) -> None:
    with pytest.raises(ScmiError):
        parse(b"\0\0\0")  # type: ignore[operator]
