"""The protocols that the commands know: a new one is a file and an entry here."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from common.errors import ConfigError
from services.scmi_cli.base_view import BASE
from services.scmi_cli.clock_view import CLOCK
from services.scmi_cli.performance_view import PERFORMANCE
from services.scmi_cli.pinctrl_view import PIN_CONTROL
from services.scmi_cli.power_view import POWER
from services.scmi_cli.powercap_view import POWERCAP
from services.scmi_cli.reset_view import RESET
from services.scmi_cli.sensor_view import SENSOR
from services.scmi_cli.system_view import SYSTEM
from services.scmi_cli.view import View
from services.scmi_cli.voltage_view import VOLTAGE

VIEWS: Final = (BASE, CLOCK, SENSOR, POWER, SYSTEM, RESET, VOLTAGE, PIN_CONTROL, PERFORMANCE, POWERCAP)

#: What Linux calls a protocol that the specification calls otherwise.
_ALSO: Final = {"perf": PERFORMANCE.name, "pinctrl": PIN_CONTROL.name}


def view_of(wanted: str) -> View:
    """By name, by what stands before the ``_`` of it (``power``), or by number (``0x14``). Raises ConfigError."""
    for view in VIEWS:
        names = (view.name, view.name.partition("_")[0])
        if _ALSO.get(wanted.lower(), wanted.lower()) in names or _number(wanted) == view.protocol:
            return view
    all_of_them = ", ".join(f"{view.name} ({view.protocol:#x})" for view in sorted(VIEWS, key=attrgetter("protocol")))
    raise ConfigError("protocol", "", f"{wanted!r} is not one of {all_of_them}")


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
