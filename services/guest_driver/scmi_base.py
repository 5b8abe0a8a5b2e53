"""Base protocol 0x10 from the agent's side (DEN0056E §4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import base
from common.scmi.base import Command
from common.scmi.fields import U32, unpack
from services.guest_driver.notify_events import MAX_PAYLOAD, Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class BaseClient(ProtocolClient):
    """Who is the platform, what does it serve, who am I?"""

    protocol: ClassVar[int] = base.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> base.Attributes:
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=base.ATTRIBUTES_REPLY.size, poll=poll
        )
        return base.parse_attributes(reply)

    async def vendor(self, *, poll: bool = False) -> str:
        reply = await self.agent.do_xfer(
            self.protocol, Command.BASE_DISCOVER_VENDOR, expect=base.VENDOR_REPLY.size, poll=poll
        )
        return base.parse_vendor(reply)

    async def sub_vendor(self, *, poll: bool = False) -> str:
        reply = await self.agent.do_xfer(
            self.protocol, Command.BASE_DISCOVER_SUB_VENDOR, expect=base.VENDOR_REPLY.size, poll=poll
        )
        return base.parse_vendor(reply)

    async def implementation_version(self, *, poll: bool = False) -> int:
        reply = await self.agent.do_xfer(
            self.protocol, Command.BASE_DISCOVER_IMPLEMENTATION_VERSION, expect=4, poll=poll
        )
        return int(unpack(U32, reply, "BASE_DISCOVER_IMPLEMENTATION_VERSION")[0])

    async def protocols(self, *, poll: bool = False) -> list[int]:
        """Every protocol besides base; asks until an answer is empty or all that the attributes promise are there."""
        promised = (await self.attributes(poll=poll)).protocols
        found: list[int] = []
        while len(found) < promised:
            reply = await self.agent.do_xfer(
                self.protocol,
                Command.BASE_DISCOVER_LIST_PROTOCOLS,
                base.LIST_PROTOCOLS.pack(len(found)),
                poll=poll,
            )
            more = base.parse_protocols(reply)
            if not more:
                break
            found += more
        return found

    async def discover_agent(self, agent: int = base.SELF, *, poll: bool = False) -> tuple[int, str]:
        """(agent id, name); of the caller itself by default."""
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.BASE_DISCOVER_AGENT,
            base.DISCOVER_AGENT.pack(agent),
            expect=base.AGENT_REPLY.size,
            poll=poll,
        )
        return base.parse_agent(reply)

    async def notify_errors(self, enable: bool, *, poll: bool = False) -> None:
        """BASE_NOTIFY_ERRORS. :meth:`on_error` and :meth:`errors` send it where it is due."""
        await self.agent.do_xfer(
            self.protocol, Command.BASE_NOTIFY_ERRORS, base.NOTIFY_ERRORS.pack(enable), expect=0, poll=poll
        )

    async def reset_agent_configuration(self, agent: int, permissions: bool = False, *, poll: bool = False) -> None:
        flags = base.RESET_PERMISSIONS if permissions else 0
        await self.agent.do_xfer(
            self.protocol,
            Command.BASE_RESET_AGENT_CONFIGURATION,
            base.RESET_AGENT.pack(agent, flags),
            expect=0,
            poll=poll,
        )

    # --- notifications ------------------------------------------------------------------------------------------------

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.2.3. There is one source: the platform."""
        error = Event(
            base.Notification.BASE_ERROR_EVENT,
            MAX_PAYLOAD,
            base.parse_error_event,
            lambda _report: 0,
            lambda _source, enable: self.notify_errors(enable),
        )
        return ProtocolEvents(self.protocol, (error,), 1)

    async def on_error(self, handler: Handler) -> None:
        """Have ``handler`` hear of BASE_ERROR_EVENT; its report is a :class:`common.scmi.base.ErrorEvent`."""
        await self.agent.on_notification(self.protocol, base.Notification.BASE_ERROR_EVENT, handler)

    def errors(self, *, size: int = STREAM_SIZE) -> NotificationStream:
        """The same to iterate over."""
        return self.agent.notifications.stream(self.protocol, base.Notification.BASE_ERROR_EVENT, size=size)
