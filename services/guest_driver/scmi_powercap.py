"""Powercap protocol 0x18 from the agent's side (DEN0056E §4.10). Powers are in the unit of the domain's attributes,
averaging intervals (PAI) µs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import powercap
from common.scmi.powercap import Command
from services.guest_driver.notify_events import Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class PowercapClient(ProtocolClient):
    """Power zones: what there are, their caps, what they draw."""

    protocol: ClassVar[int] = powercap.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> int:
        """How many domains."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=powercap.ATTRIBUTES_REPLY.size, poll=poll
        )
        return powercap.parse_attributes(reply)

    async def domain_attributes(self, domain: int, *, poll: bool = False) -> powercap.DomainAttributes:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.POWERCAP_DOMAIN_ATTRIBUTES,
            powercap.DOMAIN_ID.pack(domain),
            expect=powercap.DOMAIN_ATTRIBUTES_REPLY.size,
            poll=poll,
        )
        return powercap.parse_domain_attributes(reply)

    async def cap_get(self, domain: int, *, poll: bool = False) -> int:
        """0: there is none."""
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.POWERCAP_CAP_GET,
            powercap.DOMAIN_ID.pack(domain),
            expect=powercap.CAP_REPLY.size,
            poll=poll,
        )
        return powercap.parse_cap(reply)

    async def cap_set(self, domain: int, cap: int, *, poll: bool = False) -> None:
        """Since version 0x20000 a ``cap`` of 0 takes it away."""
        payload = powercap.CAP_SET.pack(domain, 0, cap)
        await self.agent.do_xfer(self.protocol, Command.POWERCAP_CAP_SET, payload, expect=0, poll=poll)

    async def cap_set_async(self, domain: int, cap: int, *, timeout: float | None = None) -> tuple[int, int]:
        """Set the cap and wait for the delayed response: (domain, cap that it has now)."""
        payload = powercap.CAP_SET.pack(domain, powercap.CAP_ASYNC, cap)
        command = Command.POWERCAP_CAP_SET
        reply = await self.agent.do_xfer_with_response(self.protocol, command, payload, timeout=timeout)
        return powercap.parse_cap_set_complete(reply)

    async def pai_get(self, domain: int, *, poll: bool = False) -> int:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.POWERCAP_PAI_GET,
            powercap.DOMAIN_ID.pack(domain),
            expect=powercap.PAI_REPLY.size,
            poll=poll,
        )
        return powercap.parse_pai(reply)

    async def pai_set(self, domain: int, pai: int, *, poll: bool = False) -> None:
        payload = powercap.PAI_SET.pack(domain, 0, pai)
        await self.agent.do_xfer(self.protocol, Command.POWERCAP_PAI_SET, payload, expect=0, poll=poll)

    async def name_get(self, domain: int, *, poll: bool = False) -> str:
        """The name where it is longer than the attributes can hold."""
        return await self.extended_name(Command.POWERCAP_DOMAIN_NAME_GET, powercap.DOMAIN_ID.pack(domain), poll)

    async def measurements_get(self, domain: int, *, poll: bool = False) -> powercap.Measurements:
        """Average power, and the interval that it was averaged over."""
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.POWERCAP_MEASUREMENTS_GET,
            powercap.DOMAIN_ID.pack(domain),
            expect=powercap.MEASUREMENTS_REPLY.size,
            poll=poll,
        )
        return powercap.parse_measurements(reply)

    async def describe_fastchannel(self, domain: int, message: int, *, poll: bool = False) -> bytes:
        """The return values as they are; ScmiError NOT_SUPPORTED where ``message`` has no fast channel."""
        payload = powercap.DESCRIBE_FASTCHANNEL.pack(domain, message)
        return await self.agent.do_xfer(self.protocol, Command.POWERCAP_DESCRIBE_FASTCHANNEL, payload, poll=poll)

    async def notify_cap(self, domain: int, enable: bool, *, poll: bool = False) -> None:
        """POWERCAP_CAP_NOTIFY: have the platform send POWERCAP_CAP_CHANGED of this domain. :meth:`on_cap_changed` and
        :meth:`cap_changes` send it where it is due."""
        payload = powercap.CAP_NOTIFY.pack(domain, enable)
        await self.agent.do_xfer(self.protocol, Command.POWERCAP_CAP_NOTIFY, payload, expect=0, poll=poll)

    async def notify_measurements(
        self, domain: int, enable: bool, thresholds: tuple[int, int] | None = None, *, poll: bool = False
    ) -> None:
        """POWERCAP_MEASUREMENTS_NOTIFY: have the platform send POWERCAP_MEASUREMENTS_CHANGED of this domain when its
        power leaves ``thresholds``, (low, high). :meth:`on_measurements_changed` and :meth:`measurements_changes` send
        it where it is due, with those that :meth:`set_thresholds` named."""
        low, high = thresholds or (await self._thresholds(domain) if enable else (0, 0))
        payload = powercap.MEASUREMENTS_NOTIFY.pack(domain, enable, low, high)
        await self.agent.do_xfer(self.protocol, Command.POWERCAP_MEASUREMENTS_NOTIFY, payload, expect=0, poll=poll)

    # --- notifications ------------------------------------------------------------------------------------------------

    def set_thresholds(self, domain: int, low: int, high: int) -> None:
        """What POWERCAP_MEASUREMENTS_CHANGED of this domain is enabled with from now on. Where it is enabled already,
        call :meth:`notify_measurements` too."""
        self.agent.power_thresholds[domain] = (low, high)

    async def _thresholds(self, domain: int) -> tuple[int, int]:
        """Those that were named; else more than the domain can sustain, or than its highest cap."""
        named = self.agent.power_thresholds.get(domain)
        if named is not None:
            return named
        about = await self.domain_attributes(domain)
        return 0, about.sustainable or about.cap.highest

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.10, notifications. The sources are the domains."""
        cap = Event(
            powercap.Notification.POWERCAP_CAP_CHANGED,
            powercap.CAP_EVENT.size,
            powercap.parse_cap_event,
            lambda report: int(report.domain),
            self.notify_cap,
        )
        measurements = Event(
            powercap.Notification.POWERCAP_MEASUREMENTS_CHANGED,
            powercap.MEASUREMENTS_EVENT.size,
            powercap.parse_measurements_event,
            lambda report: int(report.domain),
            self.notify_measurements,
        )
        return ProtocolEvents(self.protocol, (cap, measurements), self.attributes)

    async def on_cap_changed(self, handler: Handler, domain: int | None = None) -> None:
        """Have ``handler`` hear of POWERCAP_CAP_CHANGED (cap or interval) of one domain, or of all; its report is a
        :class:`common.scmi.powercap.CapEvent`."""
        event = powercap.Notification.POWERCAP_CAP_CHANGED
        await self.agent.on_notification(self.protocol, event, handler, domain)

    async def on_measurements_changed(self, handler: Handler, domain: int | None = None) -> None:
        """As :meth:`on_cap_changed`, of POWERCAP_MEASUREMENTS_CHANGED; its report is a
        :class:`common.scmi.powercap.MeasurementsEvent`."""
        event = powercap.Notification.POWERCAP_MEASUREMENTS_CHANGED
        await self.agent.on_notification(self.protocol, event, handler, domain)

    def cap_changes(self, domain: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """POWERCAP_CAP_CHANGED of one domain, or of all, to iterate over."""
        event = powercap.Notification.POWERCAP_CAP_CHANGED
        return self.agent.notifications.stream(self.protocol, event, domain, size=size)

    def measurements_changes(self, domain: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """POWERCAP_MEASUREMENTS_CHANGED of one domain, or of all, to iterate over."""
        event = powercap.Notification.POWERCAP_MEASUREMENTS_CHANGED
        return self.agent.notifications.stream(self.protocol, event, domain, size=size)
