"""Clock protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import clock


def test_replies() -> None:
    assert clock.parse_attributes(b"\x04\x00\x08\x00") == (4, 8)
    raw = struct.pack("<I16sI", 0xC000_0001, b"cpu", 7)
    assert clock.parse_clock_attributes(raw) == (0xC000_0001, "cpu", 7)
    assert clock.parse_clock_attributes(struct.pack("<I16s", 1, b"cpu")) == (1, "cpu", 0)  # version 0x10000
    for cut in (19, 21, 23):
        with pytest.raises(ScmiError):
            clock.parse_clock_attributes(raw[:cut])
    assert clock.parse_rate(struct.pack("<II", 2, 1)) == 0x1_0000_0002
    assert clock.parse_config(struct.pack("<III", 0, 1, 50)) == (True, 50)
    assert clock.parse_rate_set_complete(struct.pack("<IQ", 3, 99)) == (3, 99)
    assert clock.parse_rate_event(struct.pack("<IIQ", 1, 3, 99)) == (1, 3, 99)


def test_lists() -> None:
    assert clock.parse_rates(clock.build_rates([1, 1 << 40], 7, False)) == (False, [1, 1 << 40], 7)
    assert clock.parse_rates(clock.build_rates([1, 9, 2], 0, True)) == (True, [1, 9, 2], 0)
    assert clock.parse_parents(clock.build_parents([4, 5], 3)) == ([4, 5], 3)


@pytest.mark.parametrize("raw", [b"", struct.pack("<IQ", 2, 1)])
def test_short(raw: bytes) -> None:
    with pytest.raises(ScmiError):
        clock.parse_rates(raw)
