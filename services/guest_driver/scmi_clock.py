"""Clock protocol 0x14 from the agent's side (DEN0056E §4.6). Rates are Hz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import clock
from common.scmi.clock import Command
from services.guest_driver.scmi_client import ProtocolClient, went_on
from services.guest_driver.scmi_notify import Callback


@dataclass(slots=True, frozen=True)
class ClockClient(ProtocolClient):
    """Clocks: what there are, their rates, on and off."""

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
        return clock.parse_clock_attributes(reply)

    async def describe_rates(self, clock_id: int, *, poll: bool = False) -> clock.Rates:
        """All rates: a list, or with ``triplet`` (lowest, highest, step). Asks again while some remain."""
        rates: list[int] = []
        while True:
            reply = await self.agent.do_xfer(
                self.protocol,
                Command.CLOCK_DESCRIBE_RATES,
                clock.DESCRIBE_RATES.pack(clock_id, len(rates)),
                poll=poll,
            )
            part = clock.parse_rates(reply)
            rates += part.rates
            if not went_on("CLOCK_DESCRIBE_RATES", len(part.rates), part.remaining):
                return clock.Rates(part.triplet, rates, 0)

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

    async def config_set(self, clock_id: int, enable: bool, *, poll: bool = False) -> None:
        """Turn the clock on or off; nothing else of its configuration changes."""
        state = clock.STATE_ENABLE if enable else clock.STATE_DISABLE
        payload = clock.CONFIG_SET.pack(clock_id, state, 0)
        await self.agent.do_xfer(self.protocol, Command.CLOCK_CONFIG_SET, payload, expect=0, poll=poll)

    async def config_get(self, clock_id: int, *, poll: bool = False) -> bool:
        """Is the clock on?"""
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
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.CLOCK_NAME_GET,
            clock.CLOCK_ID.pack(clock_id),
            expect=clock.NAME_REPLY.size,
            poll=poll,
        )
        return clock.parse_name(reply)

    async def parents(self, clock_id: int, *, poll: bool = False) -> list[int]:
        """Clocks that this one may be fed from."""
        found: list[int] = []
        while True:
            reply = await self.agent.do_xfer(
                self.protocol,
                Command.CLOCK_POSSIBLE_PARENTS_GET,
                clock.POSSIBLE_PARENTS.pack(clock_id, len(found)),
                poll=poll,
            )
            part = clock.parse_parents(reply)
            found += part.parents
            if not went_on("CLOCK_POSSIBLE_PARENTS_GET", len(part.parents), part.remaining):
                return found

    async def notify_rate(self, clock_id: int, enable: bool, *, poll: bool = False) -> None:
        """CLOCK_RATE_NOTIFY: have the platform send CLOCK_RATE_CHANGED of this clock."""
        payload = clock.NOTIFY.pack(clock_id, enable)
        await self.agent.do_xfer(self.protocol, Command.CLOCK_RATE_NOTIFY, payload, expect=0, poll=poll)

    def on_rate_changed(self, callback: Callback, clock_id: int | None = None) -> None:
        """Hear of CLOCK_RATE_CHANGED; parse its payload with :func:`common.scmi.clock.parse_rate_event`."""
        self.agent.on_notification(self.protocol, clock.Notification.CLOCK_RATE_CHANGED, callback, clock_id)
