"""Reset domain protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import reset


def test_replies() -> None:
    assert reset.parse_attributes(struct.pack("<I", 3)) == 3
    raw = struct.pack("<II16s", 0xC000_0000, 9, b"uart")
    assert reset.parse_domain_attributes(raw) == (0xC000_0000, 9, "uart")
    assert reset.parse_reset_complete(struct.pack("<I", 4)) == 4
    assert reset.parse_reset_event(struct.pack("<III", 1, 2, 0x8000_0003)) == (1, 2, 0x8000_0003)


def test_requests() -> None:
    flags = reset.AUTONOMOUS | reset.RESET_ASYNC
    assert reset.RESET.pack(2, flags, reset.COLD_RESET) == struct.pack("<III", 2, 5, 0)
    assert reset.EXPLICIT_ASSERT | flags == reset.RESET_FLAGS
    assert reset.NOTIFY.pack(2, True) == struct.pack("<II", 2, 1)


@pytest.mark.parametrize(
    "parse",
    [
        reset.parse_attributes,
        reset.parse_domain_attributes,
        reset.parse_reset_complete,
        reset.parse_reset_event,
    ],
)
def test_short(parse: object) -> None:
    with pytest.raises(ScmiError):
        parse(b"\0\0\0")  # type: ignore[operator]
