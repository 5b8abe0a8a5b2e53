"""What every protocol has: version, attributes, message attributes, negotiation, domains and their permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from common.scmi.fields import U32
from common.scmi.status import Common, Status
from services.scmi_platform.registry import PAYLOAD, Command, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.agent import Agent
    from services.scmi_platform.platform import Platform

#: What a handler returns: the return values on success (maybe empty), or why not.
Result = bytes | Status

#: ``notify_enable`` and ``event_control`` words: bit 0, the rest reserved.
ENABLE: Final = 1

_COMMON_SECTION: Final = "4.2.2"


class ProtocolServer:
    """One protocol of one platform. A handler is ``(agent, whole request) -> Result``; its size is checked before."""

    __slots__ = ("platform", "table")

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        self.platform = platform
        self.table = table

    # --- what a protocol overrides ------------------------------------------------------------------------------------

    def attributes(self, agent: Agent) -> bytes:
        """Return values of PROTOCOL_ATTRIBUTES: one word of zeros unless the protocol has more to say."""
        return U32.pack(0)

    def tick(self, now: float) -> float | None:
        """Time is ``now`` (monotonic seconds). Returns when there is something to do next, None for never."""
        return None

    def reset_agent(self, agent: Agent) -> None:
        """Put back what ``agent`` configured (BASE_RESET_AGENT_CONFIGURATION)."""

    # --- what the generic commands do ---------------------------------------------------------------------------------

    def version_get(self, agent: Agent, request: bytes) -> Result:
        return U32.pack(self.table.version)

    def attributes_get(self, agent: Agent, request: bytes) -> Result:
        return self.attributes(agent)

    def message_attributes(self, agent: Agent, request: bytes) -> Result:
        (message,) = U32.unpack_from(request, PAYLOAD)
        row = self.rows(agent).get(message)
        if row is None or (row.p2a and not self.platform.p2a(agent.id)):
            return Status.NOT_FOUND
        return U32.pack(0)

    def negotiate(self, agent: Agent, request: bytes) -> Result:
        (version,) = U32.unpack_from(request, PAYLOAD)
        if version not in self.table.versions:
            return Status.NOT_SUPPORTED
        agent.versions[self.table.protocol] = version
        self.platform.rebuild(agent)
        return b""

    def rows(self, agent: Agent) -> dict[int, Command]:
        """The commands that exist for ``agent``: those of the version that it negotiated, and the generic ones."""
        version = agent.versions.get(self.table.protocol, self.table.version)
        rows = {row.message: row for row in self.table.commands.values() if row.since <= version}
        rows.update(GENERIC)
        return rows


#: The commands of :class:`~common.scmi.status.Common`, the same in every protocol.
GENERIC: Final[dict[int, Command]] = {
    message: Command(message, message.name, method, _COMMON_SECTION, size, size)
    for message, method, size in (
        (Common.PROTOCOL_VERSION, "version_get", 0),
        (Common.PROTOCOL_ATTRIBUTES, "attributes_get", 0),
        (Common.PROTOCOL_MESSAGE_ATTRIBUTES, "message_attributes", 4),
        (Common.NEGOTIATE_PROTOCOL_VERSION, "negotiate", 4),
    )
}
