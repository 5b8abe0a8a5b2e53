"""Clock protocol 0x14 (DEN0056E §4.6): attributes, rates, states, parents, permissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.scmi import clock as msg
from common.scmi.clock import Command, Notification
from common.scmi.fields import U32, U64, is_long, short_name
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.boards.section import numbers
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.protocol import ENABLE, Result
from services.scmi_platform.protocols.clock_state import CONFIG_LIMITS, Clock, ClockState
from services.scmi_platform.registry import PAYLOAD, Delayed, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

_V1: Final = 0x10000
_V2: Final = 0x20000
_V3: Final = 0x30000
CLOCK: Final = ProtocolTable(msg.PROTOCOL, (_V1, _V2, _V3), Notification)
_SECTION: Final = "4.6.2"
_unpack_id: Final = U32.unpack_from
_pack_rate: Final = U64.pack


class ClockProtocol(DomainServer[Clock]):
    __slots__ = ()

    kind = "clocks"

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        sections = platform.board.clocks
        ids = numbers(sections)
        super().__init__(platform, table, [Clock(number, section, ids) for number, section in enumerate(sections)])

    def attributes(self, agent: Agent) -> bytes:
        pending = self.platform.max_async if self.platform.p2a(agent.id) else 0
        return msg.ATTRIBUTES_REPLY.pack(len(self.seen(agent)), pending, 0)

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @CLOCK.command(Command.CLOCK_ATTRIBUTES, section=_SECTION, size=4)
    def clock_attributes(self, agent: Agent, request: bytes) -> Result:
        (clock_id,) = _unpack_id(request, PAYLOAD)
        clock = self.find(agent, clock_id)
        if clock is None:
            return Status.NOT_FOUND
        section, version = clock.section, self.version(agent)
        word = msg.ATTR_ENABLED if clock.enabled else 0
        if version < _V2:
            return msg.CLOCK_ATTRIBUTES_REPLY_V1.pack(word, short_name(section.name))
        if is_long(section.name):
            word |= msg.ATTR_EXTENDED_NAME
        if self.platform.p2a(agent.id):
            word |= msg.ATTR_RATE_CHANGED | msg.ATTR_RATE_CHANGE_REQUESTED
        if version >= _V3:
            word |= msg.ATTR_RESTRICTED if self._permissions(agent, clock) != msg.PERMIT_ALL else 0
            word |= msg.ATTR_PARENTS if self._parents(agent, clock) else 0
            word |= msg.ATTR_EXTENDED_CONFIG if section.extended else 0
        return msg.CLOCK_ATTRIBUTES_REPLY.pack(word, short_name(section.name), section.enable_latency_us)

    @CLOCK.command(Command.CLOCK_DESCRIBE_RATES, section=_SECTION, size=8)
    def describe_rates(self, agent: Agent, request: bytes) -> Result:
        clock_id, index = msg.DESCRIBE_RATES.unpack_from(request, PAYLOAD)
        clock = self.find(agent, clock_id)
        if clock is None:
            return Status.NOT_FOUND
        if clock.triplet is not None:
            # The three numbers of a range travel together, so there is nothing to go on to.
            return Status.OUT_OF_RANGE if index else msg.build_rates(list(clock.triplet), 0, True)
        if index >= len(clock.rates):
            return Status.OUT_OF_RANGE
        rates = clock.rates[index : index + (self.platform.max_payload - 8) // 8]
        return msg.build_rates(rates, len(clock.rates) - index - len(rates), False)

    @CLOCK.command(Command.CLOCK_NAME_GET, section=_SECTION, size=4, since=_V2)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        return self.extended_name(agent, request)

    @CLOCK.command(Command.CLOCK_POSSIBLE_PARENTS_GET, section=_SECTION, size=8, since=_V3)
    def possible_parents_get(self, agent: Agent, request: bytes) -> Result:
        clock_id, skip = msg.POSSIBLE_PARENTS.unpack_from(request, PAYLOAD)
        clock = self.find(agent, clock_id)
        if clock is None:
            return Status.NOT_FOUND
        parents = self._parents(agent, clock)
        if not parents:
            return Status.NOT_SUPPORTED
        if skip >= len(parents):
            return Status.INVALID_PARAMETERS
        some = parents[skip : skip + (self.platform.max_payload - 8) // 4]
        return msg.build_parents(some, len(parents) - skip - len(some))

    @CLOCK.command(Command.CLOCK_GET_PERMISSIONS, section=_SECTION, size=4, since=_V3)
    def get_permissions(self, agent: Agent, request: bytes) -> Result:
        (clock_id,) = _unpack_id(request, PAYLOAD)
        clock = self.find(agent, clock_id)
        if clock is None:
            return Status.NOT_FOUND
        return U32.pack(self._permissions(agent, clock))

    def _permissions(self, agent: Agent, clock: Clock) -> int:
        """What ``agent`` may change of ``clock``, PERMIT_* together."""
        return 0 if self.denied(agent, clock) else clock.permissions

    def _parents(self, agent: Agent, clock: Clock) -> list[int]:
        """The possible parents that ``agent`` sees, by its own numbers."""
        seen = [self.number(agent, parent) for parent in clock.parents]
        return [number for number in seen if number is not None]

    # --- rates --------------------------------------------------------------------------------------------------------

    @CLOCK.command(Command.CLOCK_RATE_GET, section=_SECTION, size=4)
    def rate_get(self, agent: Agent, request: bytes) -> Result:
        (clock_id,) = _unpack_id(request, PAYLOAD)
        clock = self.usable(agent, clock_id)
        return _pack_rate(clock.rate) if isinstance(clock, Clock) else clock

    @CLOCK.command(
        Command.CLOCK_RATE_SET,
        section=_SECTION,
        size=16,
        delayed=Delayed(0, msg.RATE_ASYNC | msg.RATE_IGNORE_DELAYED, msg.RATE_ASYNC),
    )
    def rate_set(self, agent: Agent, request: bytes) -> Result:
        flags, clock_id, rate = msg.RATE_SET.unpack_from(request, PAYLOAD)
        clock = self.usable(agent, clock_id)
        if isinstance(clock, Status):
            return clock
        if flags & ~msg.RATE_FLAGS:
            return Status.INVALID_PARAMETERS
        respond = not flags & msg.RATE_IGNORE_DELAYED
        if flags & msg.RATE_ASYNC and respond and not self.platform.p2a(agent.id):
            return Status.NOT_SUPPORTED
        if not clock.permissions & msg.PERMIT_RATE:
            return Status.DENIED
        chosen = clock.round(rate, bool(flags & msg.RATE_ROUND_UP), bool(flags & msg.RATE_ROUND_AUTO))
        if chosen is None:
            return Status.INVALID_PARAMETERS
        if flags & msg.RATE_ASYNC:
            finish = self._finish_rate_set(agent, clock_id, clock, chosen)
            if not self.platform.later(agent, request, clock.section.rate_set_latency_us / 1e6, finish, respond):
                return Status.BUSY
            self._announce(Notification.CLOCK_RATE_CHANGE_REQUESTED, agent, clock, chosen)
            return b""
        self._announce(Notification.CLOCK_RATE_CHANGE_REQUESTED, agent, clock, chosen)
        self._change_rate(agent, clock, chosen)
        return b""

    def _finish_rate_set(self, agent: Agent, number: int, clock: Clock, rate: int) -> Callable[[], Result]:
        def finish() -> Result:
            self._change_rate(agent, clock, rate)
            return msg.RATE_SET_COMPLETE.pack(number, clock.rate)

        return finish

    def _change_rate(self, agent: Agent, clock: Clock, rate: int) -> None:
        clock.owner = agent.id
        self.touch(clock.id)
        if rate != clock.rate:
            clock.rate = rate
            self._announce(Notification.CLOCK_RATE_CHANGED, agent, clock, rate)

    def drive(self, number: int, rate: int, agent: Agent) -> None:
        """What clock ``number`` (of the board) follows has moved it to ``rate``, one of its rates, for ``agent``. Who
        configured the clock stays the same."""
        clock = self.domains[number]
        if rate == clock.rate:
            return
        clock.rate = rate
        self.touch(number)
        self._announce(Notification.CLOCK_RATE_CHANGED, agent, clock, rate)

    def _announce(self, event: Notification, agent: Agent, clock: Clock, rate: int) -> None:
        if self.platform.subscribed(msg.PROTOCOL, event, clock.id):
            self.platform.notify(msg.PROTOCOL, event, clock.id, msg.RATE_EVENT.pack(agent.id, clock.id, rate))

    @CLOCK.command(Command.CLOCK_RATE_NOTIFY, section=_SECTION, size=8, since=_V2, p2a=True)
    def rate_notify(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.CLOCK_RATE_CHANGED)

    @CLOCK.command(Command.CLOCK_RATE_CHANGE_REQUESTED_NOTIFY, section=_SECTION, size=8, since=_V2, p2a=True)
    def rate_change_requested_notify(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.CLOCK_RATE_CHANGE_REQUESTED)

    # --- state and extended configs -----------------------------------------------------------------------------------

    @CLOCK.command(Command.CLOCK_CONFIG_SET, section=_SECTION, size=8, max_size=12)
    def config_set(self, agent: Agent, request: bytes) -> Result:
        """Before version 0x30000 two words are sent, since then three."""
        current = self.version(agent) >= _V3
        if (len(request) == PAYLOAD + msg.CONFIG_SET.size) != current:
            return Status.PROTOCOL_ERROR
        clock_id, word = msg.CONFIG_SET_V2.unpack_from(request, PAYLOAD)
        clock = self.usable(agent, clock_id)
        if isinstance(clock, Status):
            return clock
        state, kind = word & msg.STATE_MASK, word >> msg.CONFIG_TYPE_SHIFT
        if word & ~(msg.CONFIG_SET_MASK if current else ENABLE) or state == 2:
            return Status.INVALID_PARAMETERS
        if state != msg.STATE_UNCHANGED and not clock.permissions & msg.PERMIT_STATE:
            return Status.DENIED
        if kind:
            if kind not in clock.extended:
                return Status.NOT_SUPPORTED
            (value,) = U32.unpack_from(request, PAYLOAD + 8)
            if value > CONFIG_LIMITS[kind]:
                return Status.INVALID_PARAMETERS
            clock.extended[kind] = value
        if state != msg.STATE_UNCHANGED:
            clock.enabled = state == msg.STATE_ENABLE
        clock.owner = agent.id
        self.touch(clock.id)
        return b""

    @CLOCK.command(Command.CLOCK_CONFIG_GET, section=_SECTION, size=8, since=_V3)
    def config_get(self, agent: Agent, request: bytes) -> Result:
        clock_id, flags = msg.CONFIG_GET.unpack_from(request, PAYLOAD)
        clock = self.usable(agent, clock_id)
        if isinstance(clock, Status):
            return clock
        if flags >> 8:
            return Status.INVALID_PARAMETERS
        if flags and flags not in clock.extended:
            return Status.NOT_SUPPORTED
        return msg.CONFIG_REPLY.pack(0, clock.enabled, clock.extended[flags] if flags else 0)

    # --- parents ------------------------------------------------------------------------------------------------------

    @CLOCK.command(Command.CLOCK_PARENT_SET, section=_SECTION, size=8, since=_V3)
    def parent_set(self, agent: Agent, request: bytes) -> Result:
        clock_id, parent_id = msg.PARENT_SET.unpack_from(request, PAYLOAD)
        clock = self.usable(agent, clock_id)
        if isinstance(clock, Status):
            return clock
        parent = self.find(agent, parent_id)
        if parent is None:
            return Status.NOT_FOUND
        if parent.id not in clock.parents:
            return Status.INVALID_PARAMETERS
        if not clock.permissions & msg.PERMIT_PARENT:
            return Status.DENIED
        clock.parent = parent.id
        clock.owner = agent.id
        self.touch(clock.id)
        return b""

    @CLOCK.command(Command.CLOCK_PARENT_GET, section=_SECTION, size=4, since=_V3)
    def parent_get(self, agent: Agent, request: bytes) -> Result:
        (clock_id,) = _unpack_id(request, PAYLOAD)
        clock = self.usable(agent, clock_id)
        if isinstance(clock, Status):
            return clock
        if clock.parent is None:
            return Status.NOT_SUPPORTED
        parent = self.number(agent, clock.parent)
        return Status.NOT_FOUND if parent is None else U32.pack(parent)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = ClockState

    def reset_agent(self, agent: Agent) -> None:
        for clock in self.domains:
            if clock.owner == agent.id:
                before = clock.rate
                clock.reset()
                self.touch(clock.id)
                if clock.rate != before:
                    self._announce(Notification.CLOCK_RATE_CHANGED, agent, clock, clock.rate)
