"""Power domain protocol 0x11 from the agent's side (DEN0056E §4.3). States are power state words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import power
from common.scmi.power import Command
from services.guest_driver.notify_events import Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class PowerClient(ProtocolClient):
    """Power domains: what there are, on and off."""

    protocol: ClassVar[int] = power.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> power.Attributes:
        """How many domains, where their statistics are."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=power.ATTRIBUTES_REPLY.size, poll=poll
        )
        return power.parse_attributes(reply)

    async def domain_attributes(self, domain: int, *, poll: bool = False) -> power.DomainAttributes:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.POWER_DOMAIN_ATTRIBUTES,
            power.DOMAIN_ID.pack(domain),
            expect=power.DOMAIN_ATTRIBUTES_REPLY.size,
            poll=poll,
        )
        return power.parse_domain_attributes(reply)

    async def state_get(self, domain: int, *, poll: bool = False) -> int:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.POWER_STATE_GET,
            power.DOMAIN_ID.pack(domain),
            expect=power.STATE_REPLY.size,
            poll=poll,
        )
        return power.parse_state(reply)

    async def state_set(self, domain: int, state: int, *, later: bool = False, poll: bool = False) -> None:
        """``later``: asynchronously. No delayed response follows; :meth:`state_changes` tell when it is done."""
        payload = power.STATE_SET.pack(power.SET_ASYNC if later else 0, domain, state)
        await self.agent.do_xfer(self.protocol, Command.POWER_STATE_SET, payload, expect=0, poll=poll)

    async def name_get(self, domain: int, *, poll: bool = False) -> str:
        """The name where it is longer than the attributes can hold."""
        return await self.extended_name(Command.POWER_DOMAIN_NAME_GET, power.DOMAIN_ID.pack(domain), poll)

    async def notify_state(self, domain: int, enable: bool, *, poll: bool = False) -> None:
        """POWER_STATE_NOTIFY: have the platform send POWER_STATE_CHANGED of this domain. :meth:`on_state_changed` and
        :meth:`state_changes` send it where it is due."""
        payload = power.NOTIFY.pack(domain, enable)
        await self.agent.do_xfer(self.protocol, Command.POWER_STATE_NOTIFY, payload, expect=0, poll=poll)

    async def notify_state_change_requests(self, domain: int, enable: bool, *, poll: bool = False) -> None:
        """POWER_STATE_CHANGE_REQUESTED_NOTIFY: have the platform send POWER_STATE_CHANGE_REQUESTED of this domain, when
        another agent asks for a change."""
        payload = power.NOTIFY.pack(domain, enable)
        await self.agent.do_xfer(
            self.protocol, Command.POWER_STATE_CHANGE_REQUESTED_NOTIFY, payload, expect=0, poll=poll
        )

    # --- notifications ------------------------------------------------------------------------------------------------

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.3.3. The sources are the domains."""
        commands = {
            power.Notification.POWER_STATE_CHANGED: self.notify_state,
            power.Notification.POWER_STATE_CHANGE_REQUESTED: self.notify_state_change_requests,
        }
        size, parse = power.STATE_EVENT.size, power.parse_state_event
        events = (Event(one, size, parse, lambda report: int(report.domain), call) for one, call in commands.items())
        return ProtocolEvents(self.protocol, tuple(events), self._count)

    async def _count(self) -> int:
        return (await self.attributes()).domains

    async def on_state_changed(self, handler: Handler, domain: int | None = None) -> None:
        """Have ``handler`` hear of POWER_STATE_CHANGED of one domain, or of all; its report is a
        :class:`common.scmi.power.StateEvent`."""
        await self.agent.on_notification(self.protocol, power.Notification.POWER_STATE_CHANGED, handler, domain)

    async def on_state_change_requested(self, handler: Handler, domain: int | None = None) -> None:
        """As :meth:`on_state_changed`, of POWER_STATE_CHANGE_REQUESTED."""
        event = power.Notification.POWER_STATE_CHANGE_REQUESTED
        await self.agent.on_notification(self.protocol, event, handler, domain)

    def state_changes(self, domain: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """POWER_STATE_CHANGED of one domain, or of all, to iterate over."""
        event = power.Notification.POWER_STATE_CHANGED
        return self.agent.notifications.stream(self.protocol, event, domain, size=size)

    def state_change_requests(self, domain: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """POWER_STATE_CHANGE_REQUESTED of one domain, or of all, to iterate over."""
        event = power.Notification.POWER_STATE_CHANGE_REQUESTED
        return self.agent.notifications.stream(self.protocol, event, domain, size=size)
