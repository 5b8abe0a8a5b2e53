"""What the clients of all protocols share: the generic commands, and iteration over long replies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.errors import ScmiError
from common.scmi.fields import U32, unpack
from common.scmi.status import Common, Status

if TYPE_CHECKING:
    from services.guest_driver.scmi_agent import ScmiAgent


@dataclass(slots=True, frozen=True)
class ProtocolClient:
    """One protocol of one agent. Every command that waits for one response takes ``poll``: wait for it by polling.

    All raise what :meth:`~services.guest_driver.scmi_agent.ScmiAgent.do_xfer` raises.
    """

    agent: ScmiAgent

    protocol: ClassVar[int] = 0

    async def version(self, *, poll: bool = False) -> int:
        """PROTOCOL_VERSION: major 31:16, minor 15:0."""
        reply = await self.agent.do_xfer(self.protocol, Common.PROTOCOL_VERSION, expect=4, poll=poll)
        return int(unpack(U32, reply, "PROTOCOL_VERSION")[0])

    async def message_attributes(self, message: int, *, poll: bool = False) -> int:
        """PROTOCOL_MESSAGE_ATTRIBUTES; ScmiError NOT_FOUND where the platform has no such command."""
        reply = await self.agent.do_xfer(
            self.protocol, Common.PROTOCOL_MESSAGE_ATTRIBUTES, U32.pack(message), expect=4, poll=poll
        )
        return int(unpack(U32, reply, "PROTOCOL_MESSAGE_ATTRIBUTES")[0])

    async def negotiate(self, version: int, *, poll: bool = False) -> None:
        """NEGOTIATE_PROTOCOL_VERSION; ScmiError NOT_SUPPORTED where the platform cannot speak it."""
        await self.agent.do_xfer(
            self.protocol, Common.NEGOTIATE_PROTOCOL_VERSION, U32.pack(version), expect=0, poll=poll
        )


def went_on(command: str, returned: int, remaining: int, before: int | None) -> bool:
    """Is there more to ask for? ``before`` is what remained after the answer before, None at the first.

    Raises ScmiError where the platform says so and returns nothing, or has more in all than it said: an endless loop.
    """
    if remaining and not returned:
        raise ScmiError(command, Status.PROTOCOL_ERROR, f"{remaining} remaining, but none returned")
    if before is not None and returned + remaining > before:
        raise ScmiError(command, Status.PROTOCOL_ERROR, f"{returned} returned, {remaining} remaining, of {before}")
    return remaining > 0
