"""Power domain protocol 0x11 (DEN0056E §4.3): attributes, states, notifications.

An asynchronous change is done later and answered at once; there is no delayed response, POWER_STATE_CHANGED tells of
it. A synchronous one takes no time here. Which of the two a domain offers, and to whom, goes by its kind on the board;
a core is always changed asynchronously, as who turns it off may be running on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from common.errors import RemoteError
from common.scmi import power as msg
from common.scmi.fields import U32, is_long, short_name
from common.scmi.power import Command, Notification
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.domains import DomainServer
from services.scmi_platform.protocol import Result
from services.scmi_platform.protocols.power_state import PowerDomain, PowerState, domains_of
from services.scmi_platform.registry import PAYLOAD, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.platform import Platform

POWER: Final = ProtocolTable(msg.PROTOCOL, (0x20000, msg.VERSION), Notification)
_SECTION: Final = "4.3.2"
_V3: Final = 0x30000
_unpack_id: Final = U32.unpack_from


class PowerProtocol(DomainServer[PowerDomain]):
    __slots__ = ()

    kind = "power_domains"

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        super().__init__(platform, table, domains_of(platform.board.power_domains))

    def attributes(self, agent: Agent) -> bytes:
        return msg.ATTRIBUTES_REPLY.pack(len(self.seen(agent)), 0, 0, 0)

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @POWER.command(Command.POWER_DOMAIN_ATTRIBUTES, section=_SECTION, size=4)
    def domain_attributes(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.find(agent, number)
        if domain is None:
            return Status.NOT_FOUND
        name = domain.section.name
        word = self._offered(agent, domain)
        if self.platform.p2a(agent.id):
            word |= msg.ATTR_CHANGED | msg.ATTR_CHANGE_REQUESTED
        if self.version(agent) >= _V3 and is_long(name):
            word |= msg.ATTR_EXTENDED_NAME
        return msg.DOMAIN_ATTRIBUTES_REPLY.pack(word, short_name(name))

    @POWER.command(Command.POWER_DOMAIN_NAME_GET, section=_SECTION, size=4, since=_V3)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        return self.extended_name(agent, request)

    @staticmethod
    def _offered(agent: Agent, domain: PowerDomain) -> int:
        """How ``agent`` may set the state: ATTR_SYNC, ATTR_ASYNC, both or neither."""
        kind = domain.section.kind
        if kind == "system" or (kind in ("core", "cluster") and not agent.trusted):
            return 0
        return msg.ATTR_ASYNC if kind == "core" else msg.ATTR_SYNC | msg.ATTR_ASYNC

    # --- states -------------------------------------------------------------------------------------------------------

    @POWER.command(Command.POWER_STATE_GET, section=_SECTION, size=4)
    def state_get(self, agent: Agent, request: bytes) -> Result:
        (number,) = _unpack_id(request, PAYLOAD)
        domain = self.usable(agent, number)
        return domain if isinstance(domain, Status) else msg.STATE_REPLY.pack(domain.state)

    @POWER.command(Command.POWER_STATE_SET, section=_SECTION, size=12)
    def state_set(self, agent: Agent, request: bytes) -> Result:
        """DENIED, too, where something below the domain is on."""
        flags, number, state = msg.STATE_SET.unpack_from(request, PAYLOAD)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        if flags & ~msg.SET_ASYNC or state not in domain.states:
            return Status.INVALID_PARAMETERS
        offered = self._offered(agent, domain)
        if not offered:
            return Status.NOT_SUPPORTED
        if domain.refuses(state):
            return Status.DENIED
        if flags & msg.SET_ASYNC or not offered & msg.ATTR_SYNC:
            seconds = domain.section.transition_us / 1e6
            if not self.platform.later(agent, request, seconds, self._finish(agent, domain, state), respond=False):
                return Status.BUSY
            self._announce_request(agent, domain, state)
            return b""
        self._announce_request(agent, domain, state)
        self._change(agent, domain, state)
        return b""

    def _finish(self, agent: Agent, domain: PowerDomain, state: int) -> Callable[[], Result]:
        def finish() -> Result:
            if domain.refuses(state):  # by now
                return Status.DENIED
            self._change(agent, domain, state)
            return b""

        return finish

    def _change(self, agent: Agent, domain: PowerDomain, state: int) -> None:
        """Set the state, after turning on what is off above."""
        if not state & msg.CONTEXT_LOST:
            for above in domain.off_above():
                self._set(agent, above, msg.ON)
        self._set(agent, domain, state)

    def _set(self, agent: Agent, domain: PowerDomain, state: int) -> None:
        before = domain.state
        domain.state, domain.owner = state, agent.id
        self.touch(domain.id)
        self._announce_change(agent, domain, before)

    # --- notifications ------------------------------------------------------------------------------------------------

    @POWER.command(Command.POWER_STATE_NOTIFY, section=_SECTION, size=8, p2a=True)
    def state_notify(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.POWER_STATE_CHANGED)

    @POWER.command(Command.POWER_STATE_CHANGE_REQUESTED_NOTIFY, section=_SECTION, size=8, p2a=True)
    def state_change_requested_notify(self, agent: Agent, request: bytes) -> Result:
        return self.subscribe(agent, request, Notification.POWER_STATE_CHANGE_REQUESTED)

    def _announce_change(self, agent: Agent, domain: PowerDomain, before: int) -> None:
        if domain.state != before:
            self._announce(Notification.POWER_STATE_CHANGED, agent, domain, domain.state)

    def _announce_request(self, agent: Agent, domain: PowerDomain, state: int) -> None:
        """For the agents that did not ask themselves."""
        self._announce(Notification.POWER_STATE_CHANGE_REQUESTED, agent, domain, state, but=agent.id)

    def _announce(self, event: Notification, agent: Agent, domain: PowerDomain, state: int, but: int = 0) -> None:
        if self.platform.subscribed(msg.PROTOCOL, event, domain.id):
            payload = msg.STATE_EVENT.pack(agent.id, domain.id, state)
            self.platform.notify(msg.PROTOCOL, event, domain.id, payload, but=but)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = PowerState

    def load(self, number: int, state: PowerState) -> None:
        if state.owner not in self.platform.agents:
            raise RemoteError("owner", state.owner, None, "no such agent")
        super().load(number, state)

    def reset_agent(self, agent: Agent) -> None:
        """What other agents turned on stays on, and so does what that needs: it is theirs then."""
        before = [domain.state for domain in self.domains]
        for domain in self.domains:
            if domain.owner == agent.id:
                domain.reset()
                self.touch(domain.id)
        for domain in self.domains:
            if not domain.lost:
                for above in domain.off_above():
                    above.state, above.owner = msg.ON, domain.owner
                    self.touch(above.id)
        for domain, state in zip(self.domains, before, strict=True):
            self._announce_change(agent, domain, state)
