"""What a message is called: ``CLOCK_RATE_SET`` for (0x14, 0x5, command). For traces, captures and error texts."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from common.scmi import base, clock, performance, pinctrl, power, powercap, reset, sensor, system_power, voltage
from common.scmi.header import COMMAND, DELAYED_RESPONSE, NOTIFICATION
from common.scmi.status import Common, ProtocolId

_DELAYED: Final[dict[tuple[int, int], str]] = {
    (ProtocolId.CLOCK, 0x5): "CLOCK_RATE_SET_COMPLETE",
    (ProtocolId.SENSOR, 0x6): "SENSOR_READING_COMPLETE",
    (ProtocolId.RESET_DOMAIN, 0x4): "RESET_COMPLETE",
    (ProtocolId.VOLTAGE, 0x7): "VOLTAGE_LEVEL_SET_COMPLETE",
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
        (power.PROTOCOL, power.Command, power.Notification),
        (system_power.PROTOCOL, system_power.Command, system_power.Notification),
        (reset.PROTOCOL, reset.Command, reset.Notification),
        (performance.PROTOCOL, performance.Command, performance.Notification),
        (powercap.PROTOCOL, powercap.Command, powercap.Notification),
        (pinctrl.PROTOCOL, pinctrl.Command, pinctrl.Notification),
        (voltage.PROTOCOL, voltage.Command, voltage.Notification),
    )
    for protocol, commands, notifications in written:
        table.update({(protocol, one, COMMAND): one.name for one in commands})
        table.update({(protocol, one, NOTIFICATION): one.name for one in notifications})
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
