"""Base protocol 0x10 (DEN0056E §4.2): who the platform is, who the agents are, what each of them may use."""

from __future__ import annotations

from typing import Final

from common.scmi import base as msg
from common.scmi.base import Command
from common.scmi.fields import U32, short_name
from common.scmi.status import ProtocolId, Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.protocol import ENABLE, ProtocolServer, Result
from services.scmi_platform.registry import PAYLOAD, ProtocolTable

#: 0x20001 is 0x20000 with NEGOTIATE_PROTOCOL_VERSION.
BASE: Final = ProtocolTable(msg.PROTOCOL, (0x20000, msg.VERSION), msg.Notification)
_SECTION: Final = "4.2.2"


class BaseProtocol(ProtocolServer):
    __slots__ = ()

    def attributes(self, agent: Agent) -> bytes:
        # The agent count leaves out the platform (agent 0), as Arm's own firmware and conformance suite have it.
        return msg.ATTRIBUTES_REPLY.pack(len(self._protocols(agent)), len(self.platform.agents), 0)

    def _protocols(self, agent: Agent) -> bytes:
        return bytes(one.protocol for one in self.platform.accessible(agent) if one.protocol != ProtocolId.BASE)

    @BASE.command(Command.BASE_DISCOVER_VENDOR, section=_SECTION)
    def discover_vendor(self, agent: Agent, request: bytes) -> Result:
        return short_name(self.platform.board.platform.vendor)

    @BASE.command(Command.BASE_DISCOVER_SUB_VENDOR, section=_SECTION)
    def discover_sub_vendor(self, agent: Agent, request: bytes) -> Result:
        return short_name(self.platform.board.platform.sub_vendor)

    @BASE.command(Command.BASE_DISCOVER_IMPLEMENTATION_VERSION, section=_SECTION)
    def discover_implementation_version(self, agent: Agent, request: bytes) -> Result:
        return U32.pack(self.platform.board.platform.implementation_version)

    @BASE.command(Command.BASE_DISCOVER_LIST_PROTOCOLS, section=_SECTION, size=4)
    def discover_list_protocols(self, agent: Agent, request: bytes) -> Result:
        (skip,) = U32.unpack_from(request, PAYLOAD)
        protocols = self._protocols(agent)
        if skip > len(protocols):
            return Status.INVALID_PARAMETERS
        room = (self.platform.max_payload - 8) & ~3
        return msg.build_protocols(protocols[skip : skip + room])

    @BASE.command(Command.BASE_DISCOVER_AGENT, section=_SECTION, size=4)
    def discover_agent(self, agent: Agent, request: bytes) -> Result:
        (wanted,) = U32.unpack_from(request, PAYLOAD)
        if wanted == 0:
            return msg.AGENT_REPLY.pack(0, short_name("platform"))
        found = agent if wanted == msg.SELF else self.platform.agents.get(wanted)
        if found is None:
            return Status.NOT_FOUND
        return msg.AGENT_REPLY.pack(found.id, short_name(found.name))

    @BASE.command(Command.BASE_NOTIFY_ERRORS, section=_SECTION, size=4, p2a=True)
    def notify_errors(self, agent: Agent, request: bytes) -> Result:
        (enable,) = U32.unpack_from(request, PAYLOAD)
        if enable & ~ENABLE:
            return Status.INVALID_PARAMETERS
        self.platform.subscribe(agent, msg.PROTOCOL, msg.Notification.BASE_ERROR_EVENT, 0, bool(enable))
        return b""

    @BASE.command(Command.BASE_SET_DEVICE_PERMISSIONS, section=_SECTION, size=12)
    def set_device_permissions(self, agent: Agent, request: bytes) -> Result:
        target, device, flags = msg.SET_DEVICE_PERMISSIONS.unpack_from(request, PAYLOAD)
        return self._permit(agent, target, device, 0, flags)

    @BASE.command(Command.BASE_SET_PROTOCOL_PERMISSIONS, section=_SECTION, size=16)
    def set_protocol_permissions(self, agent: Agent, request: bytes) -> Result:
        target, device, protocol, flags = msg.SET_PROTOCOL_PERMISSIONS.unpack_from(request, PAYLOAD)
        if protocol >> 8:
            return Status.INVALID_PARAMETERS
        # Nobody loses the base protocol: Arm's conformance suite asks for NOT_FOUND (test_b013).
        if protocol == ProtocolId.BASE or protocol not in self.platform.protocols:
            return Status.NOT_FOUND
        return self._permit(agent, target, device, protocol, flags)

    def _permit(self, agent: Agent, target: int, device: int, protocol: int, flags: int) -> Result:
        """Allow or deny one agent one device, in one protocol (0: in all of them).

        A device that was denied as a whole stays so until it is allowed as a whole, which allows it in every protocol.
        """
        other = self.platform.agents.get(target)
        if other is None or device >= len(self.platform.board.devices):
            return Status.NOT_FOUND
        if flags & ~msg.ALLOW:
            return Status.INVALID_PARAMETERS
        if not agent.trusted:
            return Status.DENIED
        denied = set(other.denied_devices)
        if not flags & msg.ALLOW:
            denied.add((device, protocol))
        elif protocol:
            denied.discard((device, protocol))
        else:
            denied = {one for one in denied if one[0] != device}
        self.platform.deny(other, denied)
        return b""

    @BASE.command(Command.BASE_RESET_AGENT_CONFIGURATION, section=_SECTION, size=8)
    def reset_agent_configuration(self, agent: Agent, request: bytes) -> Result:
        target, flags = msg.RESET_AGENT.unpack_from(request, PAYLOAD)
        if target not in self.platform.agents:
            return Status.NOT_FOUND
        if flags & ~msg.RESET_PERMISSIONS:
            return Status.INVALID_PARAMETERS
        # An agent must not give itself back what a trusted one took away.
        if not agent.trusted and (target != agent.id or flags):
            return Status.DENIED
        self.platform.reset_agent(target, bool(flags))
        return b""

    def tick(self, now: float) -> float | None:
        """Send the error reports that have gathered: one BASE_ERROR_EVENT per agent that caused any."""
        for agent in self.platform.agents.values():
            if agent.reports:
                payload = msg.build_error_event(agent.id, agent.reports)
                agent.reports = []
                self.platform.notify(msg.PROTOCOL, msg.Notification.BASE_ERROR_EVENT, 0, payload)
        return None
