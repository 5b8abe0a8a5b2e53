"""System power protocol 0x12 from the agent's side (DEN0056E §4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import system_power
from common.scmi.system_power import Command
from services.guest_driver.notify_events import Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class SystemPowerClient(ProtocolClient):
    """The state of the whole system: shut down, reset, suspend."""

    protocol: ClassVar[int] = system_power.PROTOCOL.value

    async def state_set(self, state: int, *, graceful: bool = True, poll: bool = False) -> None:
        """``state``: a :class:`~common.scmi.system_power.SystemState`, or a vendor's."""
        payload = system_power.STATE_SET.pack(system_power.GRACEFUL if graceful else 0, state)
        await self.agent.do_xfer(self.protocol, Command.SYSTEM_POWER_STATE_SET, payload, expect=0, poll=poll)

    async def state_get(self, *, poll: bool = False) -> int:
        reply = await self.agent.do_xfer(
            self.protocol, Command.SYSTEM_POWER_STATE_GET, expect=system_power.STATE_REPLY.size, poll=poll
        )
        return system_power.parse_state(reply)

    async def set_attributes(self, *, poll: bool = False) -> int:
        """Which of the optional states this agent may ask for: SET_WARM_RESET, SET_SUSPEND."""
        return await self.message_attributes(Command.SYSTEM_POWER_STATE_SET, poll=poll)

    async def notify_state(self, _source: int, enable: bool, *, poll: bool = False) -> None:
        """SYSTEM_POWER_STATE_NOTIFY: have the platform send SYSTEM_POWER_STATE_NOTIFIER. There is one source: 0."""
        payload = system_power.NOTIFY.pack(enable)
        await self.agent.do_xfer(self.protocol, Command.SYSTEM_POWER_STATE_NOTIFY, payload, expect=0, poll=poll)

    # --- notifications ------------------------------------------------------------------------------------------------

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.4.3. There is one source."""
        event = Event(
            system_power.Notification.SYSTEM_POWER_STATE_NOTIFIER,
            system_power.STATE_EVENT.size,
            system_power.parse_state_event,
            lambda _report: 0,
            self.notify_state,
        )
        return ProtocolEvents(self.protocol, (event,), 1)

    async def on_state(self, handler: Handler) -> None:
        """Have ``handler`` hear of SYSTEM_POWER_STATE_NOTIFIER; its report is a
        :class:`common.scmi.system_power.StateEvent`."""
        event = system_power.Notification.SYSTEM_POWER_STATE_NOTIFIER
        await self.agent.on_notification(self.protocol, event, handler, 0)

    def states(self, *, size: int = STREAM_SIZE) -> NotificationStream:
        """SYSTEM_POWER_STATE_NOTIFIER, to iterate over."""
        event = system_power.Notification.SYSTEM_POWER_STATE_NOTIFIER
        return self.agent.notifications.stream(self.protocol, event, 0, size=size)
