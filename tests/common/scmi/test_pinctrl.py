"""Pin control protocol layouts: the agent's view of bytes that the specification fixes."""

from __future__ import annotations

import struct

import pytest

from common.errors import ScmiError
from common.scmi import pinctrl


def test_replies() -> None:
    assert pinctrl.parse_attributes(struct.pack("<II", 3 << 16 | 42, 4)) == (42, 3, 4)
    found = pinctrl.parse_pin_attributes(struct.pack("<I16s", 1 << 31 | 3 << 16 | 9, b"gpio"))
    assert found == (0x8003_0009, "gpio")
    assert found.members == 9


def test_lists() -> None:
    raw = pinctrl.build_associations([1, 0xFFFE], 3)
    assert raw == b"\2\0\3\0\1\0\xfe\xff"
    assert pinctrl.parse_associations(raw) == ([1, 0xFFFE], 3)
    raw = pinctrl.build_settings(None, [(4, 1), (192, 0xFFFF_FFFF)], 5)
    assert raw == struct.pack("<6I", 0xFFFF_FFFF, 5 << 24 | 2, 4, 1, 192, 0xFFFF_FFFF)
    assert pinctrl.parse_settings(raw) == (None, [(4, 1), (192, 0xFFFF_FFFF)], 5)
    assert pinctrl.parse_settings(pinctrl.build_settings(7, [], 0)) == (7, [], 0)


def test_requests() -> None:
    flags = pinctrl.GetFlag
    assert pinctrl.settings_get(9, 1, flags.ALL, skip=3) == struct.pack("<II", 9, 1 << 18 | 1 << 16 | 3 << 8)
    assert pinctrl.settings_get(9, 0, flags.ONE, kind=20) == struct.pack("<II", 9, 20)
    assert pinctrl.settings_get(9, 0, flags.FUNCTION) == struct.pack("<II", 9, 2 << 18)
    assert pinctrl.settings_configure(9, 1, [(4, 1), (10, 2)]) == struct.pack(
        "<7I", 9, 0xFFFF_FFFF, 2 << 2 | 1, 4, 1, 10, 2
    )
    assert pinctrl.settings_configure(9, 0, function=0) == struct.pack("<III", 9, 0, 1 << 10)
    assert pinctrl.settings_configure(9, 0, function=pinctrl.NO_FUNCTION) == struct.pack(
        "<III", 9, 0xFFFF_FFFF, 1 << 10
    )


def test_names_of_configs() -> None:
    assert (pinctrl.CONFIG_NAMES["slew_rate"], pinctrl.CONFIG_NAMES["vendor_255"]) == (20, 255)
    assert sorted(pinctrl.CONFIG_NAMES.values()) == [*range(21), *range(192, 256)]
    assert [pinctrl.config_name(kind) for kind in (10, 192, 99)] == ["drive_strength", "vendor_192", "type 99"]


@pytest.mark.parametrize("raw", [b"", struct.pack("<IH", 2, 1)])
def test_short_associations(raw: bytes) -> None:
    with pytest.raises(ScmiError):
        pinctrl.parse_associations(raw)


@pytest.mark.parametrize("raw", [b"", struct.pack("<IIII", 0, 2, 4, 1)])
def test_short_settings(raw: bytes) -> None:
    with pytest.raises(ScmiError):
        pinctrl.parse_settings(raw)
