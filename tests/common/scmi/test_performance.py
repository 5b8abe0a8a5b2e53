"""Performance domain protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import performance
from common.scmi.performance import Level


def test_replies() -> None:
    assert performance.parse_attributes(struct.pack("<IIII", 0x0002_0003, 8, 1, 64)) == (3, 2, (0x1_0000_0008, 64))
    raw = struct.pack("<IIII16s", 0xF200_0000, 0xFFF0_0005, 600_000, 600, b"cpu")
    assert performance.parse_domain_attributes(raw) == (0xF200_0000, 5, 600_000, 600, "cpu")
    assert performance.parse_limits(struct.pack("<II", 900, 300)) == (900, 300)
    assert performance.parse_level(struct.pack("<I", 600)) == 600
    assert performance.parse_limits_event(struct.pack("<IIII", 1, 2, 900, 300)) == (1, 2, 900, 300)
    assert performance.parse_level_event(struct.pack("<III", 1, 2, 900)) == (1, 2, 900)


def test_levels_of_both_formats() -> None:
    levels = [Level(300, 50, 100, 300_000, 1), Level(600, 120, 65535, 600_000, 2)]
    head = struct.pack("<I", 7 << 16 | 2)
    new = head + b"".join(performance.pack_level(one, True) for one in levels)
    assert new == head + struct.pack("<10I", 300, 50, 100, 300_000, 1, 600, 120, 65535, 600_000, 2)
    assert performance.parse_levels(new) == (levels, 7)
    old = head + b"".join(performance.pack_level(one, False) for one in levels)
    assert old == head + struct.pack("<6I", 300, 50, 100, 600, 120, 65535)
    assert performance.parse_levels(old) == ([(300, 50, 100, 0, 0), (600, 120, 65535, 0, 0)], 7)
    assert performance.parse_levels(struct.pack("<I", 0)) == ([], 0)


@pytest.mark.parametrize("raw", [b"", struct.pack("<II", 1, 300), struct.pack("<I", 1) + bytes(16)])
def test_neither_format(raw: bytes) -> None:
    with pytest.raises(ScmiError):
        performance.parse_levels(raw)
