"""A protocol of domains (clocks, sensors, resets …): which one a command names, and what its agent calls it.

Domains are numbered by the board. An agent with a view of its own sees some of them, under its own numbers
(what an agent discovers is the platform's choice); :class:`~services.scmi_platform.agent.View` has both ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from typing import Protocol as Interface

from common.scmi.fields import U32, build_name
from common.scmi.status import Status
from services.scmi_platform.boards.section import Named, numbers
from services.scmi_platform.protocol import ENABLE, ProtocolServer, Result
from services.scmi_platform.registry import PAYLOAD, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.agent import Agent
    from services.scmi_platform.board import Board
    from services.scmi_platform.boards.agent import DeviceSection
    from services.scmi_platform.platform import Platform


class Domain(Interface):
    """``id`` is its number on the board, ``section`` what the board says of it. :meth:`save` and :meth:`load` are those
    of :class:`~services.scmi_platform.protocol.ProtocolServer`."""

    @property
    def id(self) -> int: ...

    @property
    def section(self) -> Named: ...

    def save(self) -> Any: ...

    def load(self, state: Any) -> None: ...


D = TypeVar("D", bound=Domain)


class DomainServer(ProtocolServer, Generic[D]):
    """A protocol whose messages name a domain. ``domains`` are in the board's order; without any the protocol is not
    served."""

    __slots__ = ("domains",)

    #: what the board calls the domains, see KINDS
    kind: ClassVar[str]

    def __init__(self, platform: Platform, table: ProtocolTable, domains: list[D]) -> None:
        super().__init__(platform, table)
        self.domains = domains

    @classmethod
    def present(cls, board: Board) -> bool:
        return bool(getattr(board, cls.kind))

    def saved(self) -> range:
        return range(len(self.domains))

    def save(self, number: int) -> Any:
        return self.domains[number].save()

    def load(self, number: int, state: Any) -> None:
        self.domains[number].load(state)

    def visible(self, agent: Agent) -> bool:
        return bool(self.seen(agent))

    def closed(self, agent: Agent) -> bool:
        return bool(agent.denied) and all(self.denied(agent, domain) for domain in self.seen(agent))

    def of_device(self, device: DeviceSection) -> Iterable[int]:
        ids = numbers(getattr(self.platform.board, self.kind))
        return [ids[name] for name in device.of(self.protocol) or []]

    # --- from an agent's numbers to domains and back ------------------------------------------------------------------

    def seen(self, agent: Agent) -> Sequence[D]:
        """The domains that ``agent`` sees, by its own numbers."""
        view = agent.views.get(self.protocol)
        return self.domains if view is None else [self.domains[number] for number in view.board]

    def find(self, agent: Agent, number: int) -> D | None:
        """The domain that ``agent`` calls ``number``; None where it sees none of that number."""
        view = agent.views.get(self.protocol)
        if view is not None:
            return self.domains[view.board[number]] if number < len(view.board) else None
        return self.domains[number] if number < len(self.domains) else None

    def usable(self, agent: Agent, number: int) -> D | Status:
        """The domain that ``agent`` calls ``number``, or why it may not use it: NOT_FOUND or DENIED."""
        if not agent.views and not agent.denied:  # nearly all agents: no further calls
            return self.domains[number] if number < len(self.domains) else Status.NOT_FOUND
        domain = self.find(agent, number)
        if domain is None:
            return Status.NOT_FOUND
        return Status.DENIED if self.denied(agent, domain) else domain

    def denied(self, agent: Agent, domain: D) -> bool:
        """Was ``domain`` taken from ``agent`` (BASE_SET_DEVICE_PERMISSIONS, BASE_SET_PROTOCOL_PERMISSIONS)?"""
        return bool(agent.denied) and domain.id in agent.denied.get(self.protocol, ())

    def number(self, agent: Agent, domain: int) -> int | None:
        """What ``agent`` calls the board's ``domain``; None where it does not see it."""
        view = agent.views.get(self.protocol)
        return domain if view is None else view.agent.get(domain)

    # --- what several protocols answer alike --------------------------------------------------------------------------

    def extended_name(self, agent: Agent, request: bytes) -> Result:
        """A ``*_NAME_GET`` command of one word, the domain: its name where it is too long for the attributes."""
        (number,) = U32.unpack_from(request, PAYLOAD)
        domain = self.find(agent, number)
        return Status.NOT_FOUND if domain is None else build_name(domain.section.name)

    def subscribe(self, agent: Agent, request: bytes, event: int) -> Result:
        """A ``*_NOTIFY`` command of two words: domain, notify enable (bit 0; the rest is reserved)."""
        (number,) = U32.unpack_from(request, PAYLOAD)
        (enable,) = U32.unpack_from(request, PAYLOAD + 4)
        domain = self.usable(agent, number)
        if isinstance(domain, Status):
            return domain
        if enable & ~ENABLE:
            return Status.INVALID_PARAMETERS
        self.platform.subscribe(agent, self.protocol, event, domain.id, bool(enable))
        return b""
