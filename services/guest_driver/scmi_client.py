"""What the clients of all protocols share: the generic commands, and iteration over long replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from common.errors import ScmiError
from common.scmi.fields import NAME_REPLY, U32, parse_name, unpack
from common.scmi.status import Common, Status

if TYPE_CHECKING:
    from services.guest_driver.scmi_agent import ScmiAgent

#: A tuple, maybe one with names.
Part = TypeVar("Part", bound=tuple[Any, ...])


@dataclass(slots=True, frozen=True)
class ProtocolClient:
    """One protocol of one agent. Every command that waits for one response takes ``poll``: wait for it by polling.

    All raise what :meth:`~services.guest_driver.scmi_agent.ScmiAgent.do_xfer` raises.
    """

    agent: ScmiAgent

    protocol: ClassVar[int] = 0

    async def version(self, *, poll: bool = False) -> int:
        """PROTOCOL_VERSION: major 31:16, minor 15:0. The platform's newest, whatever was negotiated."""
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
        self.agent.versions[self.protocol] = version

    async def spoken(self, *, poll: bool = False) -> int:
        """The version in use: what was negotiated, else what the platform has, which is asked for once."""
        version = self.agent.versions.get(self.protocol)
        if version is None:
            version = self.agent.versions[self.protocol] = await self.version(poll=poll)
        return version

    async def listed(
        self, command: IntEnum, request: Callable[[int], bytes], parse: Callable[[bytes], Part], poll: bool
    ) -> Part:
        """A list that may take several messages, all of it. ``request(skip)`` asks for what follows the first ``skip``
        items; what ``parse`` returns ends with the items and how many remain. Returns the last of these, with all
        items and none remaining."""
        found: list[Any] = []
        before: int | None = None
        while True:
            reply = await self.agent.do_xfer(self.protocol, command, request(len(found)), poll=poll)
            part = parse(reply)
            *head, items, remaining = part
            found += items
            if not went_on(command.name, len(items), remaining, before):
                return tuple.__new__(type(part), (*head, found, 0))  # names, if it has any, stay
            before = remaining

    async def extended_name(self, command: IntEnum, domain: bytes, poll: bool) -> str:
        """A ``*_NAME_GET`` command; ``domain`` is its payload."""
        reply = await self.agent.do_xfer(self.protocol, command, domain, expect=NAME_REPLY.size, poll=poll)
        return parse_name(reply, command.name)


def went_on(command: str, returned: int, remaining: int, before: int | None) -> bool:
    """Is there more to ask for? ``before`` is what remained after the answer before, None at the first.

    Raises ScmiError where the platform says so and returns nothing, or has more in all than it said: an endless loop.
    """
    if remaining and not returned:
        raise ScmiError(command, Status.PROTOCOL_ERROR, f"{remaining} remaining, but none returned")
    if before is not None and returned + remaining > before:
        raise ScmiError(command, Status.PROTOCOL_ERROR, f"{returned} returned, {remaining} remaining, of {before}")
    return remaining > 0
