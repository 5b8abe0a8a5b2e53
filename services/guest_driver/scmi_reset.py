"""Reset domain protocol 0x16 from the agent's side (DEN0056E §4.8). States are reset state words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import reset
from common.scmi.reset import Command
from services.guest_driver.notify_events import Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class ResetClient(ProtocolClient):
    """Reset domains: what there are, resetting them."""

    protocol: ClassVar[int] = reset.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> int:
        """How many domains."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=reset.ATTRIBUTES_REPLY.size, poll=poll
        )
        return reset.parse_attributes(reply)

    async def domain_attributes(self, domain: int, *, poll: bool = False) -> reset.DomainAttributes:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.RESET_DOMAIN_ATTRIBUTES,
            reset.DOMAIN_ID.pack(domain),
            expect=reset.DOMAIN_ATTRIBUTES_REPLY.size,
            poll=poll,
        )
        return reset.parse_domain_attributes(reply)

    async def pulse(self, domain: int, state: int = reset.COLD_RESET, *, poll: bool = False) -> None:
        """The platform resets the domain and brings it out of reset."""
        await self._reset(domain, reset.AUTONOMOUS, state, poll)

    async def assert_signal(self, domain: int, state: int = reset.COLD_RESET, *, poll: bool = False) -> None:
        """Put the domain into reset."""
        await self._reset(domain, reset.EXPLICIT_ASSERT, state, poll)

    async def deassert_signal(self, domain: int, state: int = reset.COLD_RESET, *, poll: bool = False) -> None:
        """Bring the domain out of reset."""
        await self._reset(domain, 0, state, poll)

    async def _reset(self, domain: int, flags: int, state: int, poll: bool) -> None:
        payload = reset.RESET.pack(domain, flags, state)
        await self.agent.do_xfer(self.protocol, Command.RESET, payload, expect=0, poll=poll)

    async def pulse_async(self, domain: int, state: int = reset.COLD_RESET, *, timeout: float | None = None) -> int:
        """As :meth:`pulse`, and wait for the delayed response: domain id."""
        payload = reset.RESET.pack(domain, reset.AUTONOMOUS | reset.RESET_ASYNC, state)
        reply = await self.agent.do_xfer_with_response(self.protocol, Command.RESET, payload, timeout=timeout)
        return reset.parse_reset_complete(reply)

    async def name_get(self, domain: int, *, poll: bool = False) -> str:
        """The name where it is longer than the attributes can hold."""
        return await self.extended_name(Command.RESET_DOMAIN_NAME_GET, reset.DOMAIN_ID.pack(domain), poll)

    async def notify_resets(self, domain: int, enable: bool, *, poll: bool = False) -> None:
        """RESET_NOTIFY: have the platform send RESET_ISSUED of this domain. :meth:`on_reset` and :meth:`resets` send
        it where it is due."""
        payload = reset.NOTIFY.pack(domain, enable)
        await self.agent.do_xfer(self.protocol, Command.RESET_NOTIFY, payload, expect=0, poll=poll)

    # --- notifications ------------------------------------------------------------------------------------------------

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.8.4. The sources are the domains."""
        event = Event(
            reset.Notification.RESET_ISSUED,
            reset.RESET_EVENT.size,
            reset.parse_reset_event,
            lambda report: int(report.domain),
            self.notify_resets,
        )
        return ProtocolEvents(self.protocol, (event,), self.attributes)

    async def on_reset(self, handler: Handler, domain: int | None = None) -> None:
        """Have ``handler`` hear of RESET_ISSUED of one domain, or of all; its report is a
        :class:`common.scmi.reset.ResetEvent`."""
        await self.agent.on_notification(self.protocol, reset.Notification.RESET_ISSUED, handler, domain)

    def resets(self, domain: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """RESET_ISSUED of one domain, or of all, to iterate over."""
        return self.agent.notifications.stream(self.protocol, reset.Notification.RESET_ISSUED, domain, size=size)
