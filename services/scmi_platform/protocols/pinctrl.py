"""Pin control protocol 0x19 (DEN0056E §4.11): what pins do, how they are driven, and who has them to himself.

All agents see all pins under the same numbers. Who may use one is decided pin by pin: a group is denied, or in use,
when one of its pins is. Discovery is open to everybody, and settings are read by everybody who is not denied the pin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from common.scmi import pinctrl as msg
from common.scmi.fields import build_name, is_long, short_name
from common.scmi.pinctrl import Command, Config, ConfigType, GetFlag, Selector
from common.scmi.status import Status
from services.scmi_platform.agent import Agent
from services.scmi_platform.boards.pinctrl import PinControlSection
from services.scmi_platform.protocol import ProtocolServer, Result
from services.scmi_platform.protocols.pinctrl_state import Function, Group, Pin, PinController, PinState
from services.scmi_platform.registry import PAYLOAD, ProtocolTable

if TYPE_CHECKING:
    from services.scmi_platform.board import Board
    from services.scmi_platform.platform import Platform

PIN_CONTROL: Final = ProtocolTable(msg.PROTOCOL, (msg.VERSION,))
_SECTION: Final = "4.11.2"
_IDENTIFIED: Final = msg.IDENTIFIED.unpack_from
#: Config types that are neither reserved nor a vendor's, and those of vendors.
_KNOWN: Final = frozenset(msg.CONFIG_NAMES.values())


class PinControlProtocol(ProtocolServer):
    __slots__ = ("controller",)

    def __init__(self, platform: Platform, table: ProtocolTable) -> None:
        super().__init__(platform, table)
        self.controller: Final = PinController(platform.board.pin_control or PinControlSection(pins=[]))

    @classmethod
    def present(cls, board: Board) -> bool:
        return board.pin_control is not None

    def attributes(self, agent: Agent) -> bytes:
        board = self.controller
        return msg.ATTRIBUTES_REPLY.pack(len(board.pins), len(board.groups), len(board.functions), 0)

    # --- what a message names -----------------------------------------------------------------------------------------

    def _named(self, identifier: int, selector: int) -> Pin | Group | Function | Status:
        """What ``identifier`` names, or NOT_FOUND; INVALID_PARAMETERS for the reserved selector, which may come with
        reserved bits of its word."""
        board = self.controller
        if selector not in (Selector.PIN, Selector.GROUP, Selector.FUNCTION):
            return Status.INVALID_PARAMETERS
        of_kind: Sequence[Pin | Group | Function] = (board.pins, board.groups, board.functions)[selector]
        number = identifier & msg.IDENTIFIER_MASK
        return of_kind[number] if number < len(of_kind) else Status.NOT_FOUND

    def _settable(self, identifier: int, selector: int) -> Pin | Group | Status:
        """As :meth:`_named`, where a function cannot be meant."""
        found = self._named(identifier, selector)
        return Status.INVALID_PARAMETERS if isinstance(found, Function) or selector == Selector.FUNCTION else found

    # --- discovery: not subject to permissions ------------------------------------------------------------------------

    @PIN_CONTROL.command(Command.PINCTRL_ATTRIBUTES, section=_SECTION, size=8)
    def pin_attributes(self, agent: Agent, request: bytes) -> Result:
        found = self._named(*_IDENTIFIED(request, PAYLOAD))
        if isinstance(found, Status):
            return found
        if isinstance(found, Function):
            word = len(found.members)
            word |= msg.ATTR_PIN_ONLY if found.pin_only else 0
            word |= msg.ATTR_GPIO if found.gpio else 0
        else:
            word = len(found.pins)
        if is_long(found.name):
            word |= msg.ATTR_EXTENDED_NAME
        return msg.PIN_ATTRIBUTES_REPLY.pack(word, short_name(found.name))

    @PIN_CONTROL.command(Command.PINCTRL_LIST_ASSOCIATIONS, section=_SECTION, size=12)
    def list_associations(self, agent: Agent, request: bytes) -> Result:
        identifier, selector, index = msg.LIST_ASSOCIATIONS.unpack_from(request, PAYLOAD)
        found = self._named(identifier, selector)
        if isinstance(found, Status):
            return found
        if isinstance(found, Pin):
            return Status.INVALID_PARAMETERS
        members = found.members if isinstance(found, Function) else [pin.id for pin in found.pins]
        if index >= len(members):
            return Status.INVALID_PARAMETERS
        room = min((self.platform.max_payload - 8) // 2, msg.MAX_LISTED)
        some = members[index : index + room]
        return msg.build_associations(some, len(members) - index - len(some))

    @PIN_CONTROL.command(Command.PINCTRL_NAME_GET, section=_SECTION, size=8)
    def name_get(self, agent: Agent, request: bytes) -> Result:
        found = self._named(*_IDENTIFIED(request, PAYLOAD))
        return found if isinstance(found, Status) else build_name(found.name)

    # --- settings -----------------------------------------------------------------------------------------------------

    @PIN_CONTROL.command(Command.PINCTRL_SETTINGS_GET, section=_SECTION, size=8)
    def settings_get(self, agent: Agent, request: bytes) -> Result:
        identifier, word = msg.SETTINGS_GET.unpack_from(request, PAYLOAD)
        flag = word >> msg.GET_FLAG_SHIFT & 0x3
        if word & msg.GET_RESERVED or flag > GetFlag.FUNCTION:
            return Status.INVALID_PARAMETERS
        found = self._settable(identifier, word >> msg.GET_SELECTOR_SHIFT & msg.SELECTOR_MASK)
        if isinstance(found, Status):
            return found
        if self._denied(agent, found):
            return Status.DENIED
        if flag == GetFlag.FUNCTION:
            return msg.build_settings(found.function, (), 0)
        configs = found.configs
        if flag == GetFlag.ONE:
            kind = word & 0xFF
            if kind not in configs:
                return Status.INVALID_PARAMETERS
            return msg.build_settings(found.function, [(kind, configs[kind])], 0)
        skip = word >> msg.GET_SKIP_SHIFT & 0xFF
        if skip > len(configs):
            return Status.INVALID_PARAMETERS
        some = list(configs.items())[skip : skip + (self.platform.max_payload - 12) // 8]
        return msg.build_settings(found.function, some, len(configs) - skip - len(some))

    @PIN_CONTROL.command(
        Command.PINCTRL_SETTINGS_CONFIGURE,
        section=_SECTION,
        size=msg.SETTINGS_CONFIGURE.size,
        max_size=msg.SETTINGS_CONFIGURE.size + msg.MAX_CONFIGS * msg.CONFIG.size,
    )
    def settings_configure(self, agent: Agent, request: bytes) -> Result:
        """All of it, or nothing. The configs are to be sorted by type; Linux sends them as its device tree has them,
        so any order is taken, and the last of a type counts."""
        identifier, function, word = msg.SETTINGS_CONFIGURE.unpack_from(request, PAYLOAD)
        first = PAYLOAD + msg.SETTINGS_CONFIGURE.size
        count = word >> msg.CONFIGURE_COUNT_SHIFT & msg.MAX_CONFIGS
        if len(request) != first + count * msg.CONFIG.size:
            return Status.PROTOCOL_ERROR
        if word & msg.CONFIGURE_RESERVED:
            return Status.INVALID_PARAMETERS
        found = self._settable(identifier, word & msg.SELECTOR_MASK)
        if isinstance(found, Status):
            return found
        if self._denied(agent, found) or self._held_from(agent, found):
            return Status.DENIED
        configs = list(msg.CONFIG.iter_unpack(request[first:]))
        select = bool(word & msg.CONFIGURE_FUNCTION)
        wrong = self._unselectable(found, function) if select else None
        if wrong is None:
            wrong = self._unsettable(found.pins, configs)
        if wrong is not None:
            return wrong
        for pin in found.pins:
            if select:
                pin.function = None if function == msg.NO_FUNCTION else function & msg.IDENTIFIER_MASK
            pin.configs.update(configs)
            pin.owner = agent.id
            self.touch(pin.id)
        return b""

    def _unselectable(self, found: Pin | Group, function: int) -> Status | None:
        """Why ``function`` cannot be selected, None where it can."""
        number = function & msg.IDENTIFIER_MASK
        if function == msg.NO_FUNCTION or number in found.functions:
            return None
        return Status.NOT_SUPPORTED if number < len(self.controller.functions) else Status.INVALID_PARAMETERS

    @staticmethod
    def _unsettable(pins: list[Pin], configs: list[Config]) -> Status | None:
        """Why ``configs`` cannot be set, None where they can."""
        for kind, value in configs:
            if kind not in _KNOWN:
                return Status.INVALID_PARAMETERS
            # What is at the pin is read, not set.
            if kind == ConfigType.INPUT_VALUE or any(kind not in pin.configs for pin in pins):
                return Status.NOT_SUPPORTED
            if not all(pin.takes(kind, value) for pin in pins):
                return Status.INVALID_PARAMETERS
        return None

    # --- who may use a pin --------------------------------------------------------------------------------------------

    @staticmethod
    def _denied(agent: Agent, found: Pin | Group) -> bool:
        return any(agent.id in pin.denied for pin in found.pins)

    @staticmethod
    def _held_from(agent: Agent, found: Pin | Group) -> bool:
        """Has another agent requested any of the pins?"""
        return any(pin.holder not in (0, agent.id) for pin in found.pins)

    @PIN_CONTROL.command(Command.PINCTRL_REQUEST, section=_SECTION, size=8)
    def request(self, agent: Agent, request: bytes) -> Result:
        """An agent may request again what it has."""
        found = self._settable(*_IDENTIFIED(request, PAYLOAD))
        if isinstance(found, Status):
            return found
        if self._denied(agent, found):
            return Status.DENIED
        if self._held_from(agent, found):
            return Status.IN_USE
        self._hold(found.pins, agent.id)
        return b""

    @PIN_CONTROL.command(Command.PINCTRL_RELEASE, section=_SECTION, size=8)
    def release(self, agent: Agent, request: bytes) -> Result:
        """Pin by pin, however they were requested; what nobody has is released already."""
        found = self._settable(*_IDENTIFIED(request, PAYLOAD))
        if isinstance(found, Status):
            return found
        if self._held_from(agent, found):
            return Status.INVALID_PARAMETERS
        self._hold(found.pins, 0)
        return b""

    def _hold(self, pins: list[Pin], agent: int) -> None:
        for pin in pins:
            if pin.holder != agent:
                pin.holder = agent
                self.touch(pin.id)

    @PIN_CONTROL.command(Command.PINCTRL_SET_PERMISSIONS, section=_SECTION, size=12)
    def set_permissions(self, agent: Agent, request: bytes) -> Result:
        """An agent that is denied a pin loses it, too."""
        target, identifier, flags = msg.SET_PERMISSIONS.unpack_from(request, PAYLOAD)
        found = self._settable(identifier, flags & ~msg.PERMIT)
        if isinstance(found, Status):
            return found
        if target not in self.platform.agents:
            return Status.NOT_FOUND
        if not agent.trusted:
            return Status.DENIED
        for pin in found.pins:
            if flags & msg.PERMIT:
                pin.denied.discard(target)
            else:
                pin.denied.add(target)
                pin.holder = 0 if pin.holder == target else pin.holder
            self.touch(pin.id)
        return b""

    # --- what outlives a restart --------------------------------------------------------------------------------------

    state_type = PinState

    def saved(self) -> range:
        return range(len(self.controller.pins))

    def save(self, number: int) -> PinState | None:
        return self.controller.pins[number].save()

    def load(self, number: int, state: PinState) -> None:
        """An agent that is no more holds nothing."""
        pin = self.controller.pins[number]
        pin.load(state)
        if pin.holder not in self.platform.agents:
            pin.holder = 0

    def reset_agent(self, agent: Agent) -> None:
        for pin in self.controller.pins:
            mine = pin.owner == agent.id and not self._held_from(agent, pin)
            if mine:
                self.controller.reset(pin)
            if mine or pin.holder == agent.id:
                self._hold([pin], 0)
                self.touch(pin.id)

    def agent_left(self, agent: Agent) -> None:
        self._hold([pin for pin in self.controller.pins if pin.holder == agent.id], 0)

    def reset_permissions(self, agent: Agent) -> None:
        for pin in self.controller.pins:
            if agent.id in pin.denied:
                pin.denied.remove(agent.id)
                self.touch(pin.id)
