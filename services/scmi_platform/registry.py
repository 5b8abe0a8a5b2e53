"""Which commands exist: one table row a command, bound once to the method that answers it.

A protocol is a class; its table is a :class:`ProtocolTable` that stands beside it::

    CLOCK = ProtocolTable(clock.PROTOCOL, (0x20000, 0x30000), clock.Notification)

    class ClockProtocol(ProtocolServer):
        @CLOCK.command(clock.Command.CLOCK_RATE_GET, section="4.6.2", size=4)
        def rate_get(self, agent, request): ...

    registry.serve(CLOCK, ClockProtocol)

Binding the same message id or the same name twice raises LocalError, so a clash stops the import. The platform makes
one object of each protocol class and, per agent, one dispatch dict from ``header & KEY_MASK`` to the bound methods,
so that versions, permissions and profiles cost nothing when a command runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from common.errors import LocalError
from common.scmi.fields import U32

if TYPE_CHECKING:
    from services.scmi_platform.protocol import ProtocolServer

Handler = TypeVar("Handler", bound=Callable[..., Any])

#: Offset of the payload in a whole message.
PAYLOAD: Final = 4


@dataclass(slots=True, frozen=True)
class Delayed:
    """When does a request ask for a delayed response? When the word at ``offset`` of its payload, and-ed with
    ``mask``, is ``value``."""

    offset: int
    mask: int
    value: int

    def wanted(self, request: bytes) -> bool:
        """Does this whole message ask for one? False where it is too short to tell."""
        at = PAYLOAD + self.offset
        return len(request) >= at + 4 and U32.unpack_from(request, at)[0] & self.mask == self.value


@dataclass(slots=True, frozen=True)
class Command:
    """One row.

    ``size``/``max_size``: smallest and largest request payload in bytes. ``since``: protocol version that brought
    the command. ``repeatable``: may be executed again after a reset of the service, because twice is as good as
    once. ``delayed``: which requests start an asynchronous operation; those may never be executed again.
    ``p2a``: useless without a platform-to-agent channel, so NOT_SUPPORTED without one (virtio 1.3 §5.17).
    """

    message: int
    name: str
    method: str
    section: str
    size: int
    max_size: int
    since: int = 0
    repeatable: bool = True
    delayed: Delayed | None = None
    p2a: bool = False

    def may_repeat(self, request: bytes) -> bool:
        """May this request be executed again after a reset?"""
        return self.repeatable and not (self.delayed is not None and self.delayed.wanted(request))


@dataclass(slots=True)
class ProtocolTable:
    """All commands of one protocol. ``versions`` are those an agent may negotiate, oldest first; ``notifications``
    what the platform may send."""

    protocol: int
    versions: tuple[int, ...]
    notifications: type[IntEnum] | None = None
    commands: dict[int, Command] = field(default_factory=dict)

    def command(
        self,
        message: IntEnum,
        *,
        section: str,
        size: int = 0,
        max_size: int | None = None,
        since: int = 0,
        repeatable: bool = True,
        delayed: Delayed | None = None,
        p2a: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Decorator: bind a method to ``message``. Raises LocalError where id or name is bound already."""

        def bind(handler: Handler) -> Handler:
            self.add(
                Command(
                    int(message),
                    message.name,
                    handler.__name__,
                    section,
                    size,
                    size if max_size is None else max_size,
                    since,
                    repeatable,
                    delayed,
                    p2a,
                )
            )
            return handler

        return bind

    def add(self, row: Command) -> None:
        """Add one row; raises LocalError where its id or name is bound already."""
        for bound in self.commands.values():
            if bound.message == row.message or bound.name == row.name:
                raise LocalError(
                    f"SCMI protocol {self.protocol:#x}: {row.name} ({row.message:#x}) is already bound "
                    f"to {bound.method} as {bound.name} ({bound.message:#x})"
                )
        self.commands[row.message] = row


class Registry:
    """Every protocol that a platform can serve; the standard ones are in :mod:`…protocols.standard`."""

    __slots__ = ("protocols",)

    def __init__(self) -> None:
        self.protocols: dict[int, tuple[ProtocolTable, type[ProtocolServer]]] = {}

    def serve(self, table: ProtocolTable, server: type[ProtocolServer]) -> None:
        """Register the class that serves ``table``. Raises LocalError where the protocol has one already."""
        if table.protocol in self.protocols:
            raise LocalError(f"SCMI protocol {table.protocol:#x} is already served")
        self.protocols[table.protocol] = (table, server)

    def copy(self) -> Registry:
        """One more, with the same protocols; what is registered in either is not in the other."""
        other = Registry()
        other.protocols.update(self.protocols)
        return other
