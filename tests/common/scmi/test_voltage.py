"""Voltage protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import voltage


def test_replies() -> None:
    assert voltage.parse_attributes(b"\x04\x01\x00\x00") == 0x104
    raw = struct.pack("<I16s", 0x8000_0000, b"vdd0")
    assert voltage.parse_domain_attributes(raw) == (voltage.ATTR_ASYNC_LEVEL_SET, "vdd0")
    assert voltage.parse_config(struct.pack("<I", 0xFFFF_FFF7)) == voltage.MODE_ON  # reserved bits are not looked at
    assert voltage.parse_level(b"\xff\xff\xff\xff") == -1
    assert voltage.parse_level_set_complete(struct.pack("<Ii", 3, -5_000)) == (3, -5_000)


def test_requests() -> None:
    assert voltage.LEVEL_SET.pack(1, voltage.LEVEL_ASYNC, -2) == b"\1\0\0\0\1\0\0\0\xfe\xff\xff\xff"
    assert voltage.CONFIG_SET.pack(2, voltage.MODE_ON) == b"\2\0\0\0\7\0\0\0"


def test_levels() -> None:
    assert voltage.parse_levels(voltage.build_levels([-5, 7], 3, False)) == (False, [-5, 7], 3)
    assert voltage.parse_levels(voltage.build_levels([-9, 9, 2], 0, True)) == (True, [-9, 9, 2], 0)
    assert voltage.build_levels([1], 2, False)[:4] == b"\1\0\2\0"


@pytest.mark.parametrize("raw", [b"", struct.pack("<Ii", 2, 1)])
def test_short(raw: bytes) -> None:
    with pytest.raises(ScmiError):
        voltage.parse_levels(raw)
