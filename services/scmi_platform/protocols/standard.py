"""The standard protocols of DEN0056E, one file each."""

from __future__ import annotations

from typing import Final

from services.scmi_platform.protocols.base import BASE, BaseProtocol
from services.scmi_platform.protocols.clock import CLOCK, ClockProtocol
from services.scmi_platform.protocols.performance import PERFORMANCE, PerformanceProtocol
from services.scmi_platform.protocols.pinctrl import PIN_CONTROL, PinControlProtocol
from services.scmi_platform.protocols.power import POWER, PowerProtocol
from services.scmi_platform.protocols.powercap import POWERCAP, PowercapProtocol
from services.scmi_platform.protocols.reset import RESET, ResetProtocol
from services.scmi_platform.protocols.sensor import SENSOR, SensorProtocol
from services.scmi_platform.protocols.system_power import SYSTEM_POWER, SystemPowerProtocol
from services.scmi_platform.protocols.voltage import VOLTAGE, VoltageProtocol
from services.scmi_platform.registry import Registry


def _standard() -> Registry:
    registry = Registry()
    registry.serve(BASE, BaseProtocol)
    registry.serve(POWER, PowerProtocol)
    registry.serve(SYSTEM_POWER, SystemPowerProtocol)
    registry.serve(PERFORMANCE, PerformanceProtocol)
    registry.serve(CLOCK, ClockProtocol)
    registry.serve(SENSOR, SensorProtocol)
    registry.serve(RESET, ResetProtocol)
    registry.serve(VOLTAGE, VoltageProtocol)
    registry.serve(POWERCAP, PowercapProtocol)
    registry.serve(PIN_CONTROL, PinControlProtocol)
    return registry


#: What every platform serves where its board has anything for it. A vendor's protocol joins a copy.
STANDARD: Final = _standard()
