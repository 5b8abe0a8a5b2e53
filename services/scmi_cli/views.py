"""The protocols that the commands know: a new one is a file and an entry here."""

from __future__ import annotations

from typing import Final

from common.errors import ConfigError
from services.scmi_cli.base_view import BASE
from services.scmi_cli.clock_view import CLOCK
from services.scmi_cli.sensor_view import SENSOR
from services.scmi_cli.view import View

VIEWS: Final = (BASE, CLOCK, SENSOR)


def view_of(wanted: str) -> View:
    """By name, or by number (``0x14``). Raises ConfigError."""
    for view in VIEWS:
        if wanted.lower() == view.name or _number(wanted) == view.protocol:
            return view
    names = ", ".join(f"{view.name} ({view.protocol:#x})" for view in VIEWS)
    raise ConfigError("protocol", "", f"{wanted!r} is not one of {names}")


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
