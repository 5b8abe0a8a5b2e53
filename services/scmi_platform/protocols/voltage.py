"""Voltage protocol 0x17 (DEN0056E §4.9): regulators, their levels and operating modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.scmi import voltage as msg
from common.scmi.fields import U32, is_long, short_name
from common.scmi.status import Status
from common.scmi.voltage import Command
from services.scmi_platform.agent import Agent
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.protocol import Result
from services.scmi_platform.protocols.voltage_state import VoltageDomain, VoltageState
from services.scmi_platform.registry import PAYLOAD, Delayed, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

VOLTAGE: Final = ProtocolTable(msg.PROTOCOL, (0x10000, msg.VERSION))
_SECTION: Final = "4.9.2"
#: The version that brought extended names and asynchronous changes.
_V2: Final = 0x20000
_unpack_id: Final = U32.unpack_from


class VoltageProtocol(DomainServer[VoltageDomain]):
    __slots__ = ()

    kind = "voltage_domains"

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        sections = platform.board.voltage_domains
        super().__init__(platform, table, [VoltageDomain(number, section) for number, section in enumerate(sections)])

    def attributes(self, agent: Agent) -> bytes:
        return msg.ATTRIBUTES_REPLY.pack(len(self.seen(agent)), 0)

    def _later(self, agent: Agent, domain: VoltageDomain) -> bool:
        """Can ``agent`` have the level of ``domain`` changed asynchronously?"""
        return domain.section.level_set_us > 0 and self.version(agent) >= _V2 and self.platform.p2a(agent.id)

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @VOLTAGE.command(Command.VOLTAGE_DOMAIN_ATTRIBUTES, section=_SECTION, size=4)
    def domain_attributes(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.find(agent, number)
        if domain is None:
            return Status.NOT_FOUND
        name = domain.section.name
        word = msg.ATTR_ASYNC_LEVEL_SET if self._later(agent, domain) else 0
        if is_long(name) and self.version(agent) >= _V2:
            word |= msg.ATTR_EXTENDED_NAME
        return msg.DOMAIN_ATTRIBUTES_REPLY.pack(word, short_name(name))

    @VOLTAGE.command(Command.VOLTAGE_DESCRIBE_LEVELS, section=_SECTION, size=8)
    def describe_levels(self, agent: Agent, request: bytes) -> Result:
        number, index = msg.DESCRIBE_LEVELS.unpack_from(request, PAYLOAD)
        domain = self.find(agent, number)
        if domain is None:
            return Status.NOT_FOUND
        if domain.triplet is not None:
            # The three numbers of a range travel together, so there is nothing to go on to.
            return Status.OUT_OF_RANGE if index else msg.build_levels(domain.triplet, 0, True)
        if index >= len(domain.levels):
            return Status.OUT_OF_RANGE
        # The count of one reply is 12 bits.
        room = min((self.platform.max_payload - 8) // 4, 0xFFF)
        levels = domain.levels[index : index + room]
        return msg.build_levels(levels, len(domain.levels) - index - len(levels), False)

    @VOLTAGE.command(Command.VOLTAGE_DOMAIN_NAME_GET, section=_SECTION, size=4, since=_V2)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        return self.extended_name(agent, request)

    # --- operating modes ----------------------------------------------------------------------------------------------

    @VOLTAGE.command(Command.VOLTAGE_CONFIG_SET, section=_SECTION, size=8)
    def config_set(self, agent: Agent, request: bytes) -> Result:
        number, config = msg.CONFIG_SET.unpack_from(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        # A reserved bit makes the word no mode either.
        if config not in domain.modes:
            return Status.INVALID_PARAMETERS
        if "config" in domain.section.restricted:
            return Status.DENIED
        domain.mode = config
        self._owned(agent, domain)
        return b""

    @VOLTAGE.command(Command.VOLTAGE_CONFIG_GET, section=_SECTION, size=4)
    def config_get(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.usable(agent, number)
        return domain if isinstance(domain, Status) else msg.CONFIG_REPLY.pack(domain.mode)

    # --- levels -------------------------------------------------------------------------------------------------------

    @VOLTAGE.command(
        Command.VOLTAGE_LEVEL_SET, section=_SECTION, size=12, delayed=Delayed(4, msg.LEVEL_ASYNC, msg.LEVEL_ASYNC)
    )
    def level_set(self, agent: Agent, request: bytes) -> Result:
        number, flags, level = msg.LEVEL_SET.unpack_from(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        if flags & ~(msg.LEVEL_ASYNC if self.version(agent) >= _V2 else 0):
            return Status.INVALID_PARAMETERS
        if flags and not self._later(agent, domain):
            return Status.NOT_SUPPORTED
        if not domain.supports(level):
            return Status.INVALID_PARAMETERS
        if "level" in domain.section.restricted:
            return Status.DENIED
        if flags:
            finish = self._finish_level_set(agent, number, domain, level)
            started = self.platform.later(agent, request, domain.section.level_set_us / 1e6, finish)
            return b"" if started else Status.BUSY
        domain.level = level
        self._owned(agent, domain)
        return b""

    def _finish_level_set(self, agent: Agent, number: int, domain: VoltageDomain, level: int) -> Callable[[], Result]:
        def finish() -> Result:
            domain.level = level
            self._owned(agent, domain)
            return msg.LEVEL_SET_COMPLETE.pack(number, level)

        return finish

    @VOLTAGE.command(Command.VOLTAGE_LEVEL_GET, section=_SECTION, size=4)
    def level_get(self, agent: Agent, request: bytes) -> Result:
        """The level that the domain is set to, whether it is on or off."""
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.usable(agent, number)
        return domain if isinstance(domain, Status) else msg.LEVEL_REPLY.pack(domain.level)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = VoltageState

    def _owned(self, agent: Agent, domain: VoltageDomain) -> None:
        domain.owner = agent.id
        self.touch(domain.id)

    def reset_agent(self, agent: Agent) -> None:
        for domain in self.domains:
            if domain.owner == agent.id:
                domain.reset()
                self.touch(domain.id)
