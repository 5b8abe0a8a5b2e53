"""Voltage protocol 0x17 from the agent's side (DEN0056E §4.9). Levels are µV, modes ``MODE_*`` of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from common.scmi import voltage
from common.scmi.voltage import Command
from services.guest_driver.scmi_client import ProtocolClient


@dataclass(slots=True, frozen=True)
class VoltageClient(ProtocolClient):
    """Voltage domains: what there are, their levels, on and off. There are no notifications."""

    protocol: ClassVar[int] = voltage.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> int:
        """How many domains."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=voltage.ATTRIBUTES_REPLY.size, poll=poll
        )
        return voltage.parse_attributes(reply)

    async def domain_attributes(self, domain: int, *, poll: bool = False) -> voltage.DomainAttributes:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.VOLTAGE_DOMAIN_ATTRIBUTES,
            voltage.DOMAIN_ID.pack(domain),
            expect=voltage.DOMAIN_ATTRIBUTES_REPLY.size,
            poll=poll,
        )
        return voltage.parse_domain_attributes(reply)

    async def describe_levels(self, domain: int, *, poll: bool = False) -> voltage.Levels:
        """All levels: a list, or with ``triplet`` (lowest, highest, step). Asks again while some remain."""
        return await self.listed(
            Command.VOLTAGE_DESCRIBE_LEVELS,
            lambda skip: voltage.DESCRIBE_LEVELS.pack(domain, skip),
            voltage.parse_levels,
            poll,
        )

    async def config_set(self, domain: int, mode: int, *, poll: bool = False) -> None:
        """Choose the operating mode: MODE_ON, MODE_OFF, or one of the vendor's."""
        payload = voltage.CONFIG_SET.pack(domain, mode)
        await self.agent.do_xfer(self.protocol, Command.VOLTAGE_CONFIG_SET, payload, expect=0, poll=poll)

    async def config_get(self, domain: int, *, poll: bool = False) -> int:
        """The operating mode."""
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.VOLTAGE_CONFIG_GET,
            voltage.DOMAIN_ID.pack(domain),
            expect=voltage.CONFIG_REPLY.size,
            poll=poll,
        )
        return voltage.parse_config(reply)

    async def level_set(self, domain: int, level: int, *, poll: bool = False) -> None:
        """Set one of the levels exactly; see :meth:`level_set_async` for domains that are slow."""
        payload = voltage.LEVEL_SET.pack(domain, 0, level)
        await self.agent.do_xfer(self.protocol, Command.VOLTAGE_LEVEL_SET, payload, expect=0, poll=poll)

    async def level_set_async(self, domain: int, level: int, *, timeout: float | None = None) -> tuple[int, int]:
        """Set the level and wait for the delayed response: (domain id, level that it is set to now)."""
        payload = voltage.LEVEL_SET.pack(domain, voltage.LEVEL_ASYNC, level)
        reply = await self.agent.do_xfer_with_response(
            self.protocol, Command.VOLTAGE_LEVEL_SET, payload, timeout=timeout
        )
        return voltage.parse_level_set_complete(reply)

    async def level_get(self, domain: int, *, poll: bool = False) -> int:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.VOLTAGE_LEVEL_GET,
            voltage.DOMAIN_ID.pack(domain),
            expect=voltage.LEVEL_REPLY.size,
            poll=poll,
        )
        return voltage.parse_level(reply)

    async def name_get(self, domain: int, *, poll: bool = False) -> str:
        """The name where it is longer than the attributes can hold."""
        return await self.extended_name(Command.VOLTAGE_DOMAIN_NAME_GET, voltage.DOMAIN_ID.pack(domain), poll)
