"""Powercap protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import powercap
from common.scmi.powercap import DomainAttributes, PowerUnit, Span

RAW = struct.pack("<I16s9I", 0xEE80_0000, b"soc", 1, 9, 2, 100, 500, 10, 400, 3, 7)


def test_replies() -> None:
    assert powercap.parse_attributes(struct.pack("<I", 0xFFFF_0003)) == 3
    assert powercap.parse_cap(struct.pack("<I", 100)) == 100
    assert powercap.parse_pai(struct.pack("<I", 1000)) == 1000
    assert powercap.parse_measurements(struct.pack("<II", 250, 1000)) == (250, 1000)
    assert powercap.parse_cap_set_complete(struct.pack("<II", 2, 100)) == (2, 100)
    assert powercap.parse_cap_event(struct.pack("<IIII", 1, 2, 100, 1000)) == (1, 2, 100, 1000)
    assert powercap.parse_measurements_event(struct.pack("<III", 0, 2, 250)) == (0, 2, 250)


def test_domain_attributes() -> None:
    about = powercap.parse_domain_attributes(RAW)
    assert about == DomainAttributes(0xEE80_0000, "soc", Span(1, 9, 2), Span(100, 500, 10), 400, 3, 7)
    assert about.unit == PowerUnit.MICROWATTS
    assert powercap.build_domain_attributes(about, b"soc".ljust(16, b"\0")) == RAW
    root = RAW[:-4] + b"\xff" * 4
    assert powercap.parse_domain_attributes(root).parent is None
    assert powercap.build_domain_attributes(about._replace(parent=None), b"soc".ljust(16, b"\0")) == root


def test_short() -> None:
    with pytest.raises(ScmiError):
        powercap.parse_domain_attributes(RAW[:-1])
