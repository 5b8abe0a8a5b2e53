"""System power protocol 0x12 (DEN0056E §4.4): the state of the whole system, asked for by agents or by the platform.

Setting a state is a request to whoever subscribed: the platform writes down what was asked for last, tells the others
and its owner (``on_request``). What becomes of it is theirs, so after a cold reset the state reads as one until
somebody sets the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from common.errors import LocalError, RemoteError
from common.scmi import system_power as msg
from common.scmi.fields import U32
from common.scmi.status import Status
from common.scmi.system_power import Command, Notification, StateEvent, SystemState, state_name
from services.scmi_platform.agent import Agent
from services.scmi_platform.boards.power import SystemPowerSection
from services.scmi_platform.boards.section import numbers
from services.scmi_platform.protocol import ENABLE, ProtocolServer, Result
from services.scmi_platform.registry import PAYLOAD, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.board import Board
    from services.scmi_platform.platform import Platform

SYSTEM_POWER: Final = ProtocolTable(msg.PROTOCOL, (0x10000, msg.VERSION), Notification)
_SECTION: Final = "4.4.2"
_V2: Final = 0x20000
_ALWAYS: Final = (SystemState.SHUTDOWN, SystemState.COLD_RESET, SystemState.POWER_UP)
_OPTIONAL: Final = {"warm_reset": SystemState.WARM_RESET, "suspend": SystemState.SUSPEND}


class SystemPowerState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked for last."""

    state: int


class SystemPowerProtocol(ProtocolServer):
    """``state`` is what was asked for last; ``on_request(event)`` hears of each, after it was written down."""

    __slots__ = ("_setters", "_timeout_ms", "on_request", "state", "states")

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        super().__init__(platform, table)
        section = platform.board.system_power or SystemPowerSection()
        agents = numbers(platform.board.agents, first=1)
        self._setters: Final = None if section.agents is None else frozenset(agents[name] for name in section.agents)
        self._timeout_ms: Final = section.shutdown_timeout_ms
        optional = [_OPTIONAL[name] for name in section.states]
        self.states: Final = frozenset((*_ALWAYS, *optional, *section.vendor_states))
        self.state: int = SystemState.POWER_UP
        self.on_request: Callable[[StateEvent], None] | None = None

    @classmethod
    def present(cls, board: Board) -> bool:
        return board.system_power is not None

    def message_attributes(self, agent: Agent, request: bytes) -> Result:
        """Of STATE_SET: which of the optional states ``agent`` may ask for. Of STATE_NOTIFY without a channel for
        notifications: NOT_SUPPORTED."""
        (message,) = U32.unpack_from(request, PAYLOAD)
        if message == Command.SYSTEM_POWER_STATE_NOTIFY and not self.platform.p2a(agent.id):
            return Status.NOT_SUPPORTED
        if message != Command.SYSTEM_POWER_STATE_SET or not self._may_set(agent):
            return super().message_attributes(agent, request)
        word = msg.SET_WARM_RESET if SystemState.WARM_RESET in self.states else 0
        return U32.pack(word | (msg.SET_SUSPEND if SystemState.SUSPEND in self.states else 0))

    def _may_set(self, agent: Agent) -> bool:
        return agent.trusted if self._setters is None else agent.id in self._setters

    # --- the state ----------------------------------------------------------------------------------------------------

    @SYSTEM_POWER.command(Command.SYSTEM_POWER_STATE_SET, section=_SECTION, size=8, repeatable=False)
    def state_set(self, agent: Agent, request: bytes) -> Result:
        flags, state = msg.STATE_SET.unpack_from(request, PAYLOAD)
        if flags & ~msg.GRACEFUL or max(SystemState) < state < msg.VENDOR_STATES:
            return Status.INVALID_PARAMETERS
        if state not in self.states or not self._may_set(agent):
            return Status.NOT_SUPPORTED
        self.request(state, bool(flags & msg.GRACEFUL), self._timeout_ms, agent.id)
        return b""

    @SYSTEM_POWER.command(Command.SYSTEM_POWER_STATE_GET, section=_SECTION)
    def state_get(self, agent: Agent, request: bytes) -> Result:
        return msg.STATE_REPLY.pack(self.state)

    def request(self, state: int, graceful: bool = True, timeout_ms: int = 0, agent: int = 0) -> None:
        """Ask for a state in the name of ``agent``, 0 being the platform itself; all other agents that subscribed are
        told. ``timeout_ms`` goes with a graceful shutdown only. Raises LocalError for a state that the board has not.
        """
        if state not in self.states:
            raise LocalError(f"the board has no system state {state_name(state)}")
        graceful = graceful and state != SystemState.POWER_UP
        timeout_ms = timeout_ms if graceful and state == SystemState.SHUTDOWN else 0
        self.state = state
        self.touch(0)
        self._announce(StateEvent(agent, graceful, state, timeout_ms))

    def _announce(self, event: StateEvent) -> None:
        """To the agents that did not ask themselves, each in the layout of its version."""
        platform, number = self.platform, Notification.SYSTEM_POWER_STATE_NOTIFIER
        current = {one.id for one in platform.agents.values() if self.version(one) >= _V2}
        old = platform.agents.keys() - current
        for payload, only in ((msg.build_state_event_v1(event), old), (msg.build_state_event(event), current)):
            platform.notify(msg.PROTOCOL, number, 0, payload, but=event.agent, only=only)
        if self.on_request is not None:
            self.on_request(event)

    @SYSTEM_POWER.command(Command.SYSTEM_POWER_STATE_NOTIFY, section=_SECTION, size=4, p2a=True)
    def state_notify(self, agent: Agent, request: bytes) -> Result:
        (enable,) = msg.NOTIFY.unpack_from(request, PAYLOAD)
        if enable & ~ENABLE:
            return Status.INVALID_PARAMETERS
        event = Notification.SYSTEM_POWER_STATE_NOTIFIER
        self.platform.subscribe(agent, msg.PROTOCOL, event, 0, bool(enable))
        return b""

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = SystemPowerState

    def saved(self) -> range:
        return range(1)

    def save(self, number: int) -> SystemPowerState | None:
        return None if self.state == SystemState.POWER_UP else SystemPowerState(self.state)

    def load(self, number: int, state: SystemPowerState) -> None:
        if state.state not in self.states:
            raise RemoteError("state", state.state, None, "the board has no such system state")
        self.state = state.state
