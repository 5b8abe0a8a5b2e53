"""What every protocol has: version, attributes, message attributes, negotiation, what it saves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from common.scmi.fields import U32
from common.scmi.status import Common, Status
from services.scmi_platform.registry import PAYLOAD, Command, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.agent import Agent
    from services.scmi_platform.board import Board
    from services.scmi_platform.boards.agent import DeviceSection
    from services.scmi_platform.platform import Platform

#: What a handler returns: the return values on success (maybe empty), or why not.
Result = bytes | Status

#: ``notify_enable`` and ``event_control`` words: bit 0, the rest reserved.
ENABLE: Final = 1

_COMMON_SECTION: Final = "4.2.2"


class ProtocolServer:
    """One protocol of one platform. A handler is ``(agent, whole request) -> Result``; its size is checked before.

    ``versions``: what an agent may negotiate, oldest first; the last is reported. The profile cuts them.
    """

    __slots__ = ("platform", "protocol", "table", "versions")

    #: what :meth:`save` gives and :meth:`load` takes, for msgspec; None: the protocol has nothing that is set
    state_type: ClassVar[Any] = None

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        self.platform = platform
        self.table = table
        self.protocol: Final = table.protocol
        self.versions: Final = platform.profile.versions(table)

    # --- what a protocol overrides ------------------------------------------------------------------------------------

    @classmethod
    def present(cls, board: Board) -> bool:
        """Has ``board`` anything for this protocol to serve?"""
        return True

    def visible(self, agent: Agent) -> bool:
        """Is there anything of this protocol for ``agent`` to see?"""
        return True

    def closed(self, agent: Agent) -> bool:
        """Was everything that ``agent`` sees of this protocol taken from it? It does not discover the protocol then,
        and each of its commands is DENIED."""
        return False

    def of_device(self, device: DeviceSection) -> Iterable[int]:
        """The domains, by the board's numbers, that an agent is denied together with ``device``."""
        return ()

    def attributes(self, agent: Agent) -> bytes:
        """Return values of PROTOCOL_ATTRIBUTES: one word of zeros unless the protocol has more to say."""
        return U32.pack(0)

    def tick(self, now: float) -> float | None:
        """Time is ``now`` (monotonic seconds). Returns when there is something to do next, None for never."""
        return None

    def reset_agent(self, agent: Agent) -> None:
        """Put back what ``agent`` configured (BASE_RESET_AGENT_CONFIGURATION)."""

    def agent_left(self, agent: Agent) -> None:
        """``agent`` does not come again, and its number may be another's next: give up what it has to itself. What it
        set stays."""

    def reset_permissions(self, agent: Agent) -> None:
        """Give back what commands of this protocol took away from ``agent`` (BASE_RESET_AGENT_CONFIGURATION)."""

    # --- what outlives a restart of the service -----------------------------------------------------------------------

    def touch(self, number: int) -> None:
        """What is set in domain ``number`` (of the board; 0 where the protocol has no domains) has changed: the
        service saves it before the answer leaves."""
        self.platform.touched.add((self.protocol, number))

    def saved(self) -> range:
        """The numbers that :meth:`save` takes."""
        return range(0)

    def save(self, number: int) -> Any:
        """What is set in domain ``number``, of ``state_type``; None where it stands as the board says."""
        return None

    def load(self, number: int, state: Any) -> None:
        """Set domain ``number`` as ``state`` (of ``state_type``) says, telling nobody. Raises RemoteError with the
        field where the board does not allow it; nothing is changed then."""

    # --- what the generic commands do ---------------------------------------------------------------------------------

    def version_get(self, agent: Agent, request: bytes) -> Result:
        return U32.pack(self.versions[-1])

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
        if version not in self.versions:
            return Status.NOT_SUPPORTED
        agent.versions[self.protocol] = version
        self.platform.agent_touched(agent)
        self.platform.rebuild(agent)
        return b""

    def version(self, agent: Agent) -> int:
        """The version that ``agent`` negotiated, or the one reported."""
        return agent.versions.get(self.protocol, self.versions[-1])

    def rows(self, agent: Agent) -> dict[int, Command]:
        """The commands that exist for ``agent``: those of the version that it negotiated, and the generic ones."""
        version = self.version(agent)
        rows = {row.message: row for row in self.table.commands.values() if row.since <= version}
        rows.update(GENERIC)
        if not self.platform.profile.negotiates:
            del rows[Common.NEGOTIATE_PROTOCOL_VERSION]
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
