"""Base protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import base


def test_replies() -> None:
    assert base.parse_attributes(b"\x07\x02\0\0") == (7, 2)
    assert base.parse_vendor(b"acme".ljust(16, b"\0")) == "acme"
    assert base.parse_agent(struct.pack("<I16s", 1, b"OSPM")) == (1, "OSPM")
    assert base.parse_protocols(base.build_protocols(b"\x11\x13\x14\x15\x16")) == [0x11, 0x13, 0x14, 0x15, 0x16]
    assert len(base.build_protocols(b"\x11")) == 8


def test_error_event() -> None:
    raw = base.build_error_event(2, [(0x1234, -8), (5, -10)], fatal=True)
    assert raw == struct.pack("<IIIiIi", 2, 1 << 31 | 2, 0x1234, -8, 5, -10)
    assert base.parse_error_event(raw) == (2, True, [(0x1234, -8), (5, -10)])


def test_a_count_that_lies_is_refused() -> None:
    with pytest.raises(ScmiError):
        base.parse_protocols(struct.pack("<I", 5) + b"\x11")
    with pytest.raises(ScmiError):
        base.parse_error_event(struct.pack("<II", 1, 3))
