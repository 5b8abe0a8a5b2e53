"""Reset domain protocol 0x16 (DEN0056E §4.8): attributes, resets, notifications.

No command reads whether a domain is held in reset: metrics do. A domain that one agent holds is not reset, asserted or
deasserted by another: GENERIC_ERROR, as the specification has it for a domain with other users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.errors import RemoteError
from common.scmi import reset as msg
from common.scmi.fields import U32, is_long, short_name
from common.scmi.reset import Command, Notification
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.protocol import Result
from services.scmi_platform.protocols.reset_state import ResetDomain, ResetState
from services.scmi_platform.registry import PAYLOAD, Delayed, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

RESET: Final = ProtocolTable(msg.PROTOCOL, (0x10000, msg.VERSION), Notification)
_SECTION: Final = "4.8.2"
_V3: Final = 0x30000
_ASYNC: Final = msg.AUTONOMOUS | msg.RESET_ASYNC
_unpack_id: Final = U32.unpack_from


class ResetProtocol(DomainServer[ResetDomain]):
    __slots__ = ()

    kind = "reset_domains"

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        sections = platform.board.reset_domains
        super().__init__(platform, table, [ResetDomain(number, section) for number, section in enumerate(sections)])

    def attributes(self, agent: Agent) -> bytes:
        return msg.ATTRIBUTES_REPLY.pack(len(self.seen(agent)), 0)

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @RESET.command(Command.RESET_DOMAIN_ATTRIBUTES, section=_SECTION, size=4)
    def domain_attributes(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.find(agent, number)
        if domain is None:
            return Status.NOT_FOUND
        section = domain.section
        word = 0
        if self.platform.p2a(agent.id):
            word |= msg.ATTR_NOTIFY | (msg.ATTR_ASYNC if section.asynchronous else 0)
        if self.version(agent) >= _V3 and is_long(section.name):
            word |= msg.ATTR_EXTENDED_NAME
        return msg.DOMAIN_ATTRIBUTES_REPLY.pack(word, section.reset_us, short_name(section.name))

    @RESET.command(Command.RESET_DOMAIN_NAME_GET, section=_SECTION, size=4, since=_V3)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        return self.extended_name(agent, request)

    # --- resets -------------------------------------------------------------------------------------------------------

    @RESET.command(Command.RESET, section=_SECTION, size=12, repeatable=False, delayed=Delayed(4, _ASYNC, _ASYNC))
    def reset(self, agent: Agent, request: bytes) -> Result:
        number, flags, state = msg.RESET.unpack_from(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        autonomous, later = flags & msg.AUTONOMOUS, flags & msg.RESET_ASYNC
        if flags & ~msg.RESET_FLAGS or (later and not autonomous) or state not in domain.states:
            return Status.INVALID_PARAMETERS
        if not autonomous:
            return self._signal(agent, domain, state, bool(flags & msg.EXPLICIT_ASSERT))
        if not later:
            return self._reset(agent, domain, state)
        if not domain.section.asynchronous or not self.platform.p2a(agent.id):
            return Status.NOT_SUPPORTED
        finish = self._finish(agent, number, domain, state)
        return b"" if self.platform.later(agent, request, domain.section.reset_us / 1e6, finish) else Status.BUSY

    def _finish(self, agent: Agent, number: int, domain: ResetDomain, state: int) -> Callable[[], Result]:
        def finish() -> Result:
            done = self._reset(agent, domain, state)
            return done if isinstance(done, Status) else msg.RESET_COMPLETE.pack(number)

        return finish

    def _reset(self, agent: Agent, domain: ResetDomain, state: int) -> Result:
        """Reset the domain; it is out of reset afterwards."""
        if domain.held_by_another(agent.id):
            return Status.GENERIC_ERROR
        self._hold(domain, 0)
        self._issued(agent, domain, state)
        return b""

    def _signal(self, agent: Agent, domain: ResetDomain, state: int, asserted: bool) -> Result:
        """The agent moves the reset signal itself."""
        if not domain.section.explicit:
            return Status.NOT_SUPPORTED
        if domain.held_by_another(agent.id):
            return Status.GENERIC_ERROR
        before = domain.owner
        self._hold(domain, agent.id if asserted else 0)
        if asserted and not before:
            self._issued(agent, domain, state)
        return b""

    def _hold(self, domain: ResetDomain, agent: int) -> None:
        if domain.owner != agent:
            domain.owner = agent
            self.touch(domain.id)

    # --- notifications ------------------------------------------------------------------------------------------------

    @RESET.command(Command.RESET_NOTIFY, section=_SECTION, size=8, p2a=True)
    def reset_notify(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.RESET_ISSUED)

    def _issued(self, agent: Agent, domain: ResetDomain, state: int) -> None:
        event = Notification.RESET_ISSUED
        if self.platform.subscribed(msg.PROTOCOL, event, domain.id):
            payload = msg.RESET_EVENT.pack(agent.id, domain.id, state)
            self.platform.notify(msg.PROTOCOL, event, domain.id, payload)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = ResetState

    def load(self, number: int, state: ResetState) -> None:
        if state.owner not in self.platform.agents:
            raise RemoteError("owner", state.owner, None, "no such agent")
        super().load(number, state)

    def agent_left(self, agent: Agent) -> None:
        """Nobody else could end the reset."""
        self.reset_agent(agent)

    def reset_agent(self, agent: Agent) -> None:
        for domain in self.domains:
            if domain.owner == agent.id:
                self._hold(domain, 0)
