"""Clock protocol 0x14 from the agent's side (DEN0056E §4.6). Rates are Hz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import clock
from common.scmi.clock import Command
from common.world import Table
from services.guest_driver.notify_events import Event, Handler, ProtocolEvents
from services.guest_driver.notify_stream import STREAM_SIZE, NotificationStream
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class ClockClient(ProtocolClient):
    """Clocks: what there are, their rates, on and off.

    ``enable_latencies`` remembers what the platform said of each clock, µs; it is made by the world.
    """

    enable_latencies: Table[int]

    protocol: ClassVar[int] = clock.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> clock.Attributes:
        """How many clocks, how many asynchronous rate changes may be pending."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=clock.ATTRIBUTES_REPLY.size, poll=poll
        )
        return clock.parse_attributes(reply)

    async def clock_attributes(self, clock_id: int, *, poll: bool = False) -> clock.ClockAttributes:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.CLOCK_ATTRIBUTES,
            clock.CLOCK_ID.pack(clock_id),
            expect=clock.CLOCK_ATTRIBUTES_REPLY.size,
            poll=poll,
        )
        found = clock.parse_clock_attributes(reply)
        self.enable_latencies[clock_id] = found.enable_latency
        return found

    async def is_atomic(self, clock_id: int) -> bool:
        """Is this clock turned on and off by polling, as Linux's clk-scmi decides it: is the transport atomic and the
        clock's enable latency within the threshold? Asks the platform for it once, sleeping, unless
        :meth:`clock_attributes` has; not where the threshold is 0, or the transport not atomic."""
        agent = self.agent
        if not agent.atomic_threshold_us or not agent.is_transport_atomic:
            return False
        latency = self.enable_latencies.get(clock_id)
        if latency is None:
            latency = (await self.clock_attributes(clock_id)).enable_latency
        return agent.polls(latency)

    async def describe_rates(self, clock_id: int, *, poll: bool = False) -> clock.Rates:
        """All rates: a list, or with ``triplet`` (lowest, highest, step). Asks again while some remain."""
        return await self.listed(
            Command.CLOCK_DESCRIBE_RATES,
            lambda skip: clock.DESCRIBE_RATES.pack(clock_id, skip),
            clock.parse_rates,
            poll,
        )

    async def rate_get(self, clock_id: int, *, poll: bool = False) -> int:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.CLOCK_RATE_GET,
            clock.CLOCK_ID.pack(clock_id),
            expect=clock.RATE_REPLY.size,
            poll=poll,
        )
        return clock.parse_rate(reply)

    async def rate_set(self, clock_id: int, rate: int, *, flags: int = 0, poll: bool = False) -> None:
        """``flags``: how to round, RATE_ROUND_UP or RATE_ROUND_AUTO. See :meth:`rate_set_async` for the rest."""
        payload = clock.RATE_SET.pack(flags, clock_id, rate)
        await self.agent.do_xfer(self.protocol, Command.CLOCK_RATE_SET, payload, expect=0, poll=poll)

    async def rate_set_async(
        self, clock_id: int, rate: int, *, flags: int = 0, timeout: float | None = None
    ) -> tuple[int, int]:
        """Set the rate and wait for the delayed response: (clock id, rate that it runs at now)."""
        payload = clock.RATE_SET.pack(flags | clock.RATE_ASYNC, clock_id, rate)
        reply = await self.agent.do_xfer_with_response(self.protocol, Command.CLOCK_RATE_SET, payload, timeout=timeout)
        return clock.parse_rate_set_complete(reply)

    async def config_set(self, clock_id: int, enable: bool, *, poll: bool | None = None) -> None:
        """Turn the clock on or off; nothing else of its configuration changes. Polls where :meth:`is_atomic` says so,
        or as told. Before version 0x30000 the command is a word shorter."""
        if poll is None:
            poll = await self.is_atomic(clock_id)
        state = clock.STATE_ENABLE if enable else clock.STATE_DISABLE
        if await self.spoken(poll=poll) < clock.VERSION:
            payload = clock.CONFIG_SET_V2.pack(clock_id, state)
        else:
            payload = clock.CONFIG_SET.pack(clock_id, state, 0)
        await self.agent.do_xfer(self.protocol, Command.CLOCK_CONFIG_SET, payload, expect=0, poll=poll)

    async def config_get(self, clock_id: int, *, poll: bool | None = None) -> bool:
        """Is the clock on? Polls as :meth:`config_set` does. Before version 0x30000 its attributes say so."""
        if poll is None:
            poll = await self.is_atomic(clock_id)
        if await self.spoken(poll=poll) < clock.VERSION:
            return bool((await self.clock_attributes(clock_id, poll=poll)).attributes & clock.ATTR_ENABLED)
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.CLOCK_CONFIG_GET,
            clock.CONFIG_GET.pack(clock_id, 0),
            expect=clock.CONFIG_REPLY.size,
            poll=poll,
        )
        return clock.parse_config(reply)[0]

    async def name_get(self, clock_id: int, *, poll: bool = False) -> str:
        """The name where it is longer than the attributes can hold."""
        return await self.extended_name(Command.CLOCK_NAME_GET, clock.CLOCK_ID.pack(clock_id), poll)

    async def parents(self, clock_id: int, *, poll: bool = False) -> list[int]:
        """Clocks that this one may be fed from."""
        found = await self.listed(
            Command.CLOCK_POSSIBLE_PARENTS_GET,
            lambda skip: clock.POSSIBLE_PARENTS.pack(clock_id, skip),
            clock.parse_parents,
            poll,
        )
        return found.parents

    async def notify_rate(self, clock_id: int, enable: bool, *, poll: bool = False) -> None:
        """CLOCK_RATE_NOTIFY: have the platform send CLOCK_RATE_CHANGED of this clock. :meth:`on_rate_changed` and
        :meth:`rate_changes` send it where it is due."""
        payload = clock.NOTIFY.pack(clock_id, enable)
        await self.agent.do_xfer(self.protocol, Command.CLOCK_RATE_NOTIFY, payload, expect=0, poll=poll)

    async def notify_rate_change_requests(self, clock_id: int, enable: bool, *, poll: bool = False) -> None:
        """CLOCK_RATE_CHANGE_REQUESTED_NOTIFY: have the platform send CLOCK_RATE_CHANGE_REQUESTED of this clock.
        :meth:`on_rate_change_requested` and :meth:`rate_change_requests` send it where it is due."""
        payload = clock.NOTIFY.pack(clock_id, enable)
        await self.agent.do_xfer(
            self.protocol, Command.CLOCK_RATE_CHANGE_REQUESTED_NOTIFY, payload, expect=0, poll=poll
        )

    # --- notifications ------------------------------------------------------------------------------------------------

    def events(self) -> ProtocolEvents:
        """DEN0056E §4.6, notifications. The sources are the clocks."""
        commands = {
            clock.Notification.CLOCK_RATE_CHANGED: self.notify_rate,
            clock.Notification.CLOCK_RATE_CHANGE_REQUESTED: self.notify_rate_change_requests,
        }
        size, parse = clock.RATE_EVENT.size, clock.parse_rate_event
        events = (Event(one, size, parse, lambda report: int(report.clock), call) for one, call in commands.items())
        return ProtocolEvents(self.protocol, tuple(events), self._count)

    async def _count(self) -> int:
        return (await self.attributes()).clocks

    async def on_rate_changed(self, handler: Handler, clock_id: int | None = None) -> None:
        """Have ``handler`` hear of CLOCK_RATE_CHANGED of one clock, or of all; its report is a
        :class:`common.scmi.clock.RateEvent`."""
        await self.agent.on_notification(self.protocol, clock.Notification.CLOCK_RATE_CHANGED, handler, clock_id)

    async def on_rate_change_requested(self, handler: Handler, clock_id: int | None = None) -> None:
        """As :meth:`on_rate_changed`, of CLOCK_RATE_CHANGE_REQUESTED."""
        event = clock.Notification.CLOCK_RATE_CHANGE_REQUESTED
        await self.agent.on_notification(self.protocol, event, handler, clock_id)

    def rate_changes(self, clock_id: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """CLOCK_RATE_CHANGED of one clock, or of all, to iterate over."""
        event = clock.Notification.CLOCK_RATE_CHANGED
        return self.agent.notifications.stream(self.protocol, event, clock_id, size=size)

    def rate_change_requests(self, clock_id: int | None = None, *, size: int = STREAM_SIZE) -> NotificationStream:
        """CLOCK_RATE_CHANGE_REQUESTED of one clock, or of all, to iterate over."""
        event = clock.Notification.CLOCK_RATE_CHANGE_REQUESTED
        return self.agent.notifications.stream(self.protocol, event, clock_id, size=size)
