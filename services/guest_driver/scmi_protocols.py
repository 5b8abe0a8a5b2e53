"""The clients that an agent makes when they are asked for: those of protocols that no driver of a guest holds.

They have no state. So an agent is as large as it was without them, in the services and in the lab.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from common.world import Table
from services.guest_driver.notify_events import ProtocolEvents
from services.guest_driver.scmi_perf import PerfClient
from services.guest_driver.scmi_pinctrl import PinctrlClient
from services.guest_driver.scmi_power import PowerClient
from services.guest_driver.scmi_powercap import PowercapClient
from services.guest_driver.scmi_reset import ResetClient
from services.guest_driver.scmi_system import SystemPowerClient
from services.guest_driver.scmi_voltage import VoltageClient

if TYPE_CHECKING:
    from services.guest_driver.scmi_agent import ScmiAgent


class ProtocolClients:
    """One property a protocol, for :class:`~services.guest_driver.scmi_agent.ScmiAgent`."""

    __slots__ = ()

    #: power zone → (low, high) that its measurements are watched with, where anybody said
    power_thresholds: Table[tuple[int, int]]

    @property
    def power(self) -> PowerClient:
        """Power domains."""
        return PowerClient(cast("ScmiAgent", self))

    @property
    def system(self) -> SystemPowerClient:
        """System power."""
        return SystemPowerClient(cast("ScmiAgent", self))

    @property
    def reset(self) -> ResetClient:
        """Reset domains."""
        return ResetClient(cast("ScmiAgent", self))

    @property
    def voltage(self) -> VoltageClient:
        """Voltage domains."""
        return VoltageClient(cast("ScmiAgent", self))

    @property
    def pinctrl(self) -> PinctrlClient:
        """Pin control."""
        return PinctrlClient(cast("ScmiAgent", self))

    @property
    def perf(self) -> PerfClient:
        """Performance domains."""
        return PerfClient(cast("ScmiAgent", self))

    @property
    def powercap(self) -> PowercapClient:
        """Power zones."""
        return PowercapClient(cast("ScmiAgent", self))

    def event_tables(self) -> list[ProtocolEvents]:
        """The notifications of every protocol that has any: what a driver registers."""
        agent = cast("ScmiAgent", self)
        return [
            agent.base.events(),
            agent.clock.events(),
            agent.sensor.events(),
            self.power.events(),
            self.system.events(),
            self.reset.events(),
            self.perf.events(),
            self.powercap.events(),
        ]
