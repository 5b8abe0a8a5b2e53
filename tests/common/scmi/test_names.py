"""Names of messages."""

from __future__ import annotations

import pytest

from common.scmi.names import message_name


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ((0x14, 0x5, 0), "CLOCK_RATE_SET"),
        ((0x14, 0x5, 2), "CLOCK_RATE_SET_COMPLETE"),
        ((0x14, 0x1, 3), "CLOCK_RATE_CHANGE_REQUESTED"),
        ((0x15, 0xD, 0), "SENSOR_AXIS_NAME_GET"),
        ((0x11, 0x8, 0), "POWER_DOMAIN_NAME_GET"),
        ((0x12, 0x5, 0), "SYSTEM_POWER_STATE_NOTIFY"),
        ((0x13, 0xC, 0), "PERFORMANCE_DOMAIN_NAME_GET"),
        ((0x16, 0x6, 0), "RESET_DOMAIN_NAME_GET"),
        ((0x17, 0x9, 0), "VOLTAGE_DOMAIN_NAME_GET"),
        ((0x18, 0xC, 0), "POWERCAP_DESCRIBE_FASTCHANNEL"),
        ((0x19, 0xA, 0), "PINCTRL_SET_PERMISSIONS"),
        ((0x19, 0x10, 0), "NEGOTIATE_PROTOCOL_VERSION"),
        ((0x99, 0x3, 0), "0x99/0x3"),
        ((0x99, 0x3, 3), "0x99/0x3.3"),
    ],
)
def test_name(message: tuple[int, int, int], name: str) -> None:
    assert message_name(*message) == name
