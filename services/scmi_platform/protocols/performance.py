"""Performance domain protocol 0x13 (DEN0056E §4.5): levels, limits, and the clock that follows a level."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.scmi import performance as msg
from common.scmi.fields import U32, is_long, short_name
from common.scmi.performance import Command, Limits, Notification
from common.scmi.status import ProtocolId, Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.boards.section import numbers
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.lists import packed_list
from services.scmi_platform.protocol import Result
from services.scmi_platform.protocols.clock import ClockProtocol
from services.scmi_platform.protocols.performance_state import PerformanceDomain, PerformanceState
from services.scmi_platform.registry import PAYLOAD, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

_V3: Final = 0x30000
_V4: Final = 0x40000
PERFORMANCE: Final = ProtocolTable(msg.PROTOCOL, (0x20000, _V3, msg.VERSION), Notification)
_SECTION: Final = "4.5.3"
_unpack_id: Final = U32.unpack_from


class PerformanceProtocol(DomainServer[PerformanceDomain]):
    __slots__ = ()

    kind = "performance_domains"

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        sections, clocks = platform.board.performance_domains, numbers(platform.board.clocks)
        super().__init__(platform, table, [PerformanceDomain(n, one, clocks) for n, one in enumerate(sections)])

    def attributes(self, agent: Agent) -> bytes:
        unit = self.domains[0].section.power_unit
        flags = msg.POWER_MILLIWATTS if unit == "mW" else 0
        if unit == "uW" and self.version(agent) >= _V3:
            flags = msg.POWER_MICROWATTS
        return msg.ATTRIBUTES_REPLY.pack(len(self.seen(agent)), flags, 0, 0)

    def _indexed(self, agent: Agent, domain: PerformanceDomain) -> bool:
        """Does ``agent`` name this domain's levels by their index?"""
        return domain.section.level_indexing and self.version(agent) >= _V4

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @PERFORMANCE.command(Command.PERFORMANCE_DOMAIN_ATTRIBUTES, section=_SECTION, size=4)
    def domain_attributes(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.find(agent, number)
        if domain is None:
            return Status.NOT_FOUND
        section = domain.section
        word = 0
        if not isinstance(self.usable(agent, number), Status):
            word |= msg.ATTR_SET_LIMITS if section.can_set_limits else 0
            word |= msg.ATTR_SET_LEVEL if section.can_set_level else 0
        if self.platform.p2a(agent.id):
            word |= msg.ATTR_LIMITS_NOTIFY | msg.ATTR_LEVEL_NOTIFY
        if self.version(agent) >= _V3 and is_long(section.name):
            word |= msg.ATTR_EXTENDED_NAME
        if self._indexed(agent, domain):
            word |= msg.ATTR_LEVEL_INDEXING
        return msg.DOMAIN_ATTRIBUTES_REPLY.pack(
            word, section.rate_limit_us, section.sustained_khz, section.sustained_level, short_name(section.name)
        )

    @PERFORMANCE.command(Command.PERFORMANCE_DESCRIBE_LEVELS, section=_SECTION, size=8)
    def describe_levels(self, agent: Agent, request: bytes) -> Result:
        number, skip = msg.DESCRIBE_LEVELS.unpack_from(request, PAYLOAD)
        domain = self.find(agent, number)
        if domain is None:
            return Status.NOT_FOUND
        total = len(domain.levels)
        if skip >= total:
            return Status.OUT_OF_RANGE
        current = self.version(agent) >= _V4
        packed = (msg.pack_level(domain.described(position), current) for position in range(skip, total))
        return packed_list(packed, total - skip, self.platform.max_payload, remaining_shift=16)

    @PERFORMANCE.command(Command.PERFORMANCE_DESCRIBE_FASTCHANNEL, section=_SECTION, size=8)
    def describe_fastchannel(self, agent: Agent, request: bytes) -> Result:
        """There are none."""
        (number,) = _unpack_id(request, PAYLOAD)
        return Status.NOT_FOUND if self.find(agent, number) is None else Status.NOT_SUPPORTED

    @PERFORMANCE.command(Command.PERFORMANCE_DOMAIN_NAME_GET, section=_SECTION, size=4, since=_V3)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        return self.extended_name(agent, request)

    # --- limits -------------------------------------------------------------------------------------------------------

    @PERFORMANCE.command(Command.PERFORMANCE_LIMITS_GET, section=_SECTION, size=4)
    def limits_get(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        return msg.LIMITS_REPLY.pack(*domain.said_limits(self._indexed(agent, domain)))

    @PERFORMANCE.command(Command.PERFORMANCE_LIMITS_SET, section=_SECTION, size=12)
    def limits_set(self, agent: Agent, request: bytes) -> Result:
        number, highest, lowest = msg.LIMITS_SET.unpack_from(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        if not domain.section.can_set_limits:
            return Status.DENIED
        limits = self._limits(agent, domain, highest, lowest)
        if limits is None:
            return Status.OUT_OF_RANGE
        if limits.lowest > limits.highest:
            return Status.INVALID_PARAMETERS
        if not domain.possible(limits):
            return Status.OUT_OF_RANGE
        domain.limits_owner = agent.id
        self._change_limits(agent, domain, limits)
        return b""

    def _limits(self, agent: Agent, domain: PerformanceDomain, highest: int, lowest: int) -> Limits | None:
        """What a request means. Since version 0x30000 a limit of 0 stays as it is; not both can."""
        keeps = self.version(agent) >= _V3
        if keeps and not highest and not lowest:
            return None
        indexed = self._indexed(agent, domain)
        top = domain.limits.highest if keeps and not highest else domain.level_of(highest, indexed)
        bottom = domain.limits.lowest if keeps and not lowest else domain.level_of(lowest, indexed)
        return None if top is None or bottom is None else Limits(top, bottom)

    def _change_limits(self, agent: Agent, domain: PerformanceDomain, limits: Limits) -> None:
        """A level that is outside from now on moves inside."""
        self.touch(domain.id)
        if limits != domain.limits:
            domain.limits = limits
            self._tell(
                Notification.PERFORMANCE_LIMITS_CHANGED,
                domain,
                lambda indexed: msg.LIMITS_EVENT.pack(agent.id, domain.id, *domain.said_limits(indexed)),
            )
        self._change_level(agent, domain, domain.nearest(domain.level))

    # --- levels -------------------------------------------------------------------------------------------------------

    @PERFORMANCE.command(Command.PERFORMANCE_LEVEL_GET, section=_SECTION, size=4)
    def level_get(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        return U32.pack(domain.said(domain.level, self._indexed(agent, domain)))

    @PERFORMANCE.command(Command.PERFORMANCE_LEVEL_SET, section=_SECTION, size=8)
    def level_set(self, agent: Agent, request: bytes) -> Result:
        number, said = msg.LEVEL_SET.unpack_from(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        if not domain.section.can_set_level:
            return Status.DENIED
        level = domain.level_of(said, self._indexed(agent, domain))
        if level is None or not domain.allows(level):
            return Status.OUT_OF_RANGE
        domain.level_owner = agent.id
        self._change_level(agent, domain, level)
        return b""

    def _change_level(self, agent: Agent, domain: PerformanceDomain, level: int) -> None:
        """The clock follows at once."""
        self.touch(domain.id)
        if level == domain.level:
            return
        domain.level = level
        self._drive_clock(domain, agent)
        self._tell(
            Notification.PERFORMANCE_LEVEL_CHANGED,
            domain,
            lambda indexed: msg.LEVEL_EVENT.pack(agent.id, domain.id, domain.said(level, indexed)),
        )

    def _drive_clock(self, domain: PerformanceDomain, agent: Agent) -> None:
        """``agent`` is who is named to those who want to hear of the clock."""
        clocks = self.platform.protocols.get(ProtocolId.CLOCK)
        if domain.clock is not None and isinstance(clocks, ClockProtocol):
            clocks.drive(domain.clock, domain.frequency, agent)

    # --- notifications ------------------------------------------------------------------------------------------------

    @PERFORMANCE.command(Command.PERFORMANCE_NOTIFY_LIMITS, section=_SECTION, size=8, p2a=True)
    def notify_limits(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.PERFORMANCE_LIMITS_CHANGED)

    @PERFORMANCE.command(Command.PERFORMANCE_NOTIFY_LEVEL, section=_SECTION, size=8, p2a=True)
    def notify_level(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.PERFORMANCE_LEVEL_CHANGED)

    def _tell(self, event: Notification, domain: PerformanceDomain, payload: Callable[[bool], bytes]) -> None:
        """Each agent reads levels or indices, as it names them itself."""
        wanted = self.platform.subscribed(msg.PROTOCOL, event, domain.id)
        by_index = {one for one in wanted if self._indexed(self.platform.agents[one], domain)}
        for indexed, agents in ((False, wanted - by_index), (True, by_index)):
            if agents:
                self.platform.notify(msg.PROTOCOL, event, domain.id, payload(indexed), only=agents)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = PerformanceState

    def load(self, number: int, state: PerformanceState) -> None:
        """The clock that follows saves its rate itself: agents may have set another one since."""
        self.domains[number].load(state)

    def reset_agent(self, agent: Agent) -> None:
        for domain in self.domains:
            if domain.limits_owner == agent.id:
                domain.limits_owner = 0
                self._change_limits(agent, domain, domain.widest)
            if domain.level_owner == agent.id:
                domain.level_owner = 0
                self._change_level(agent, domain, domain.nearest(domain.section.level))
