"""Performance domain protocol 0x13 from the agent's side (DEN0056E §4.5).

A *level* is what the commands carry: in level indexing mode (ATTR_LEVEL_INDEXING) the ``level_index`` of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import performance
from common.scmi.performance import Command, Level
from services.guest_driver.notify_events import Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class PerfClient(ProtocolClient):
    """Performance domains: what there are, their levels and limits."""

    protocol: ClassVar[int] = performance.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> performance.Attributes:
        """How many domains, the unit of power costs, where the statistics are."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=performance.ATTRIBUTES_REPLY.size, poll=poll
        )
        return performance.parse_attributes(reply)

    async def domain_attributes(self, domain: int, *, poll: bool = False) -> performance.DomainAttributes:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.PERFORMANCE_DOMAIN_ATTRIBUTES,
            performance.DOMAIN_ID.pack(domain),
            expect=performance.DOMAIN_ATTRIBUTES_REPLY.size,
            poll=poll,
        )
        return performance.parse_domain_attributes(reply)

    async def describe_levels(self, domain: int, *, poll: bool = False) -> list[Level]:
        """All levels, ascending. Asks again while some remain."""
        found = await self.listed(
            Command.PERFORMANCE_DESCRIBE_LEVELS,
            lambda skip: performance.DESCRIBE_LEVELS.pack(domain, skip),
            performance.parse_levels,
            poll,
        )
        return found.levels

    async def limits_get(self, domain: int, *, poll: bool = False) -> performance.Limits:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.PERFORMANCE_LIMITS_GET,
            performance.DOMAIN_ID.pack(domain),
            expect=performance.LIMITS_REPLY.size,
            poll=poll,
        )
        return performance.parse_limits(reply)

    async def limits_set(self, domain: int, highest: int, lowest: int, *, poll: bool = False) -> None:
        """Since version 0x30000 one of them may be 0: it stays as it is."""
        payload = performance.LIMITS_SET.pack(domain, highest, lowest)
        await self.agent.do_xfer(self.protocol, Command.PERFORMANCE_LIMITS_SET, payload, expect=0, poll=poll)

    async def level_get(self, domain: int, *, poll: bool = False) -> int:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.PERFORMANCE_LEVEL_GET,
            performance.DOMAIN_ID.pack(domain),
            expect=performance.LEVEL_REPLY.size,
            poll=poll,
        )
        return performance.parse_level(reply)

    async def level_set(self, domain: int, level: int, *, poll: bool = False) -> None:
        payload = performance.LEVEL_SET.pack(domain, level)
        await self.agent.do_xfer(self.protocol, Command.PERFORMANCE_LEVEL_SET, payload, expect=0, poll=poll)

    async def describe_fastchannel(self, domain: int, message: int, *, poll: bool = False) -> bytes:
        """The return values as they are; ScmiError NOT_SUPPORTED where ``message`` has no fast channel."""
        payload = performance.DESCRIBE_FASTCHANNEL.pack(domain, message)
        return await self.agent.do_xfer(self.protocol, Command.PERFORMANCE_DESCRIBE_FASTCHANNEL, payload, poll=poll)

    async def name_get(self, domain: int, *, poll: bool = False) -> str:
        """The name where it is longer than the attributes can hold."""
        return await self.extended_name(Command.PERFORMANCE_DOMAIN_NAME_GET, performance.DOMAIN_ID.pack(domain), poll)

    async def notify_limits(self, domain: int, enable: bool, *, poll: bool = False) -> None:
        """PERFORMANCE_NOTIFY_LIMITS: have the platform send PERFORMANCE_LIMITS_CHANGED of this domain.
        :meth:`on_limits_changed` and :meth:`limits_changes` send it where it is due."""
        payload = performance.NOTIFY.pack(domain, enable)
        await self.agent.do_xfer(self.protocol, Command.PERFORMANCE_NOTIFY_LIMITS, payload, expect=0, poll=poll)

    async def notify_level(self, domain: int, enable: bool, *, poll: bool = False) -> None:
        """PERFORMANCE_NOTIFY_LEVEL: have the platform send PERFORMANCE_LEVEL_CHANGED of this domain.
        :meth:`on_level_changed` and :meth:`level_changes` send it where it is due."""
        payload = performance.NOTIFY.pack(domain, enable)
        await self.agent.do_xfer(self.protocol, Command.PERFORMANCE_NOTIFY_LEVEL, payload, expect=0, poll=poll)

    # --- notifications ------------------------------------------------------------------------------------------------

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.5, notifications. The sources are the domains."""
        limits = Event(
            performance.Notification.PERFORMANCE_LIMITS_CHANGED,
            performance.LIMITS_EVENT.size,
            performance.parse_limits_event,
            lambda report: int(report.domain),
            self.notify_limits,
        )
        level = Event(
            performance.Notification.PERFORMANCE_LEVEL_CHANGED,
            performance.LEVEL_EVENT.size,
            performance.parse_level_event,
            lambda report: int(report.domain),
            self.notify_level,
        )
        return ProtocolEvents(self.protocol, (limits, level), self._count)

    async def _count(self) -> int:
        return (await self.attributes()).domains

    async def on_limits_changed(self, handler: Handler, domain: int | None = None) -> None:
        """Have ``handler`` hear of PERFORMANCE_LIMITS_CHANGED of one domain, or of all; its report is a
        :class:`common.scmi.performance.LimitsEvent`."""
        event = performance.Notification.PERFORMANCE_LIMITS_CHANGED
        await self.agent.on_notification(self.protocol, event, handler, domain)

    async def on_level_changed(self, handler: Handler, domain: int | None = None) -> None:
        """As :meth:`on_limits_changed`, of PERFORMANCE_LEVEL_CHANGED; its report is a
        :class:`common.scmi.performance.LevelEvent`."""
        event = performance.Notification.PERFORMANCE_LEVEL_CHANGED
        await self.agent.on_notification(self.protocol, event, handler, domain)

    def limits_changes(self, domain: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """PERFORMANCE_LIMITS_CHANGED of one domain, or of all, to iterate over."""
        event = performance.Notification.PERFORMANCE_LIMITS_CHANGED
        return self.agent.notifications.stream(self.protocol, event, domain, size=size)

    def level_changes(self, domain: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """PERFORMANCE_LEVEL_CHANGED of one domain, or of all, to iterate over."""
        event = performance.Notification.PERFORMANCE_LEVEL_CHANGED
        return self.agent.notifications.stream(self.protocol, event, domain, size=size)
