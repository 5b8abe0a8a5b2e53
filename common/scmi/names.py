"""What a message is called: ``CLOCK_RATE_SET`` for (0x14, 0x5, command). For traces, captures and error texts."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from common.scmi import base, clock, sensor
from common.scmi.header import COMMAND, DELAYED_RESPONSE, NOTIFICATION
from common.scmi.status import Common, ProtocolId

#: Protocols whose layouts are not written yet still have names: from message id 3 on, in order.
_COMMANDS: Final[dict[int, str]] = {
    ProtocolId.POWER_DOMAIN: "POWER_DOMAIN_ATTRIBUTES POWER_STATE_SET POWER_STATE_GET POWER_STATE_NOTIFY "
    "POWER_STATE_CHANGE_REQUESTED_NOTIFY POWER_DOMAIN_NAME_GET",
    ProtocolId.SYSTEM_POWER: "SYSTEM_POWER_STATE_SET SYSTEM_POWER_STATE_GET SYSTEM_POWER_STATE_NOTIFY",
    ProtocolId.PERFORMANCE: "PERFORMANCE_DOMAIN_ATTRIBUTES PERFORMANCE_DESCRIBE_LEVELS PERFORMANCE_LIMITS_SET "
    "PERFORMANCE_LIMITS_GET PERFORMANCE_LEVEL_SET PERFORMANCE_LEVEL_GET PERFORMANCE_NOTIFY_LIMITS "
    "PERFORMANCE_NOTIFY_LEVEL PERFORMANCE_DESCRIBE_FASTCHANNEL PERFORMANCE_DOMAIN_NAME_GET",
    ProtocolId.RESET_DOMAIN: "RESET_DOMAIN_ATTRIBUTES RESET RESET_NOTIFY RESET_DOMAIN_NAME_GET",
    ProtocolId.VOLTAGE: "VOLTAGE_DOMAIN_ATTRIBUTES VOLTAGE_DESCRIBE_LEVELS VOLTAGE_CONFIG_SET VOLTAGE_CONFIG_GET "
    "VOLTAGE_LEVEL_SET VOLTAGE_LEVEL_GET VOLTAGE_DOMAIN_NAME_GET",
    ProtocolId.POWERCAP: "POWERCAP_DOMAIN_ATTRIBUTES POWERCAP_CAP_GET POWERCAP_CAP_SET POWERCAP_PAI_GET "
    "POWERCAP_PAI_SET POWERCAP_DOMAIN_NAME_GET POWERCAP_MEASUREMENTS_GET POWERCAP_CAP_NOTIFY "
    "POWERCAP_MEASUREMENTS_NOTIFY POWERCAP_DESCRIBE_FASTCHANNEL",
    ProtocolId.PIN_CONTROL: "PINCTRL_ATTRIBUTES PINCTRL_LIST_ASSOCIATIONS PINCTRL_SETTINGS_GET "
    "PINCTRL_SETTINGS_CONFIGURE PINCTRL_REQUEST PINCTRL_RELEASE PINCTRL_NAME_GET PINCTRL_SET_PERMISSIONS",
}

_NOTIFICATIONS: Final[dict[int, str]] = {
    ProtocolId.POWER_DOMAIN: "POWER_STATE_CHANGED POWER_STATE_CHANGE_REQUESTED",
    ProtocolId.SYSTEM_POWER: "SYSTEM_POWER_STATE_NOTIFIER",
    ProtocolId.PERFORMANCE: "PERFORMANCE_LIMITS_CHANGED PERFORMANCE_LEVEL_CHANGED",
    ProtocolId.RESET_DOMAIN: "RESET_ISSUED",
    ProtocolId.POWERCAP: "POWERCAP_CAP_CHANGED POWERCAP_MEASUREMENTS_CHANGED",
}

_DELAYED: Final[dict[tuple[int, int], str]] = {
    (ProtocolId.CLOCK, 0x5): "CLOCK_RATE_SET_COMPLETE",
    (ProtocolId.SENSOR, 0x6): "SENSOR_READING_COMPLETE",
    (ProtocolId.RESET_DOMAIN, 0x4): "RESET_COMPLETE",
    (ProtocolId.VOLTAGE, 0x7): "VOLTAGE_LEVEL_SET_COMPLETE",
    (ProtocolId.POWER_DOMAIN, 0x4): "POWER_STATE_SET_COMPLETE",
    (ProtocolId.POWERCAP, 0x5): "POWERCAP_CAP_SET_COMPLETE",
}


def _table() -> dict[tuple[int, int, int], str]:
    table: dict[tuple[int, int, int], str] = {}
    for standard in ProtocolId:
        table.update({(standard, one, COMMAND): one.name for one in Common})
    written: tuple[tuple[int, type[IntEnum], type[IntEnum]], ...] = (
        (base.PROTOCOL, base.Command, base.Notification),
        (clock.PROTOCOL, clock.Command, clock.Notification),
        (sensor.PROTOCOL, sensor.Command, sensor.Notification),
    )
    for protocol, commands, notifications in written:
        table.update({(protocol, one, COMMAND): one.name for one in commands})
        table.update({(protocol, one, NOTIFICATION): one.name for one in notifications})
    for number, names in _COMMANDS.items():
        table.update({(number, 3 + index, COMMAND): name for index, name in enumerate(names.split())})
    for number, names in _NOTIFICATIONS.items():
        table.update({(number, index, NOTIFICATION): name for index, name in enumerate(names.split())})
    table.update({(*one, DELAYED_RESPONSE): name for one, name in _DELAYED.items()})
    return table


#: (protocol, message id, type) to name.
NAMES: Final[dict[tuple[int, int, int], str]] = _table()


def message_name(protocol: int, message: int, kind: int = COMMAND) -> str:
    """The specification's name, or ``0x99/0x3`` (with ``.2`` or ``.3`` for the type) where it has none."""
    name = NAMES.get((protocol, message, kind))
    if name is None:
        name = f"{protocol:#x}/{message:#x}" + (f".{kind}" if kind else "")
    return name
