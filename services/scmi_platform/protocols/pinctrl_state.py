"""Pins as they are set now, and the groups and functions that the board makes of them.

A group has no settings of its own: it stands for its pins. A function that groups have is selected pin by pin too; a
group *has* it while all its pins do.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from common.errors import RemoteError
from common.scmi.pinctrl import CONFIG_NAMES
from services.scmi_platform.boards.pinctrl import PinConfig, PinControlSection, PinSection
from services.scmi_platform.boards.section import numbers

_U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class PinState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What agents set. ``configs``: value by type; ``function``: its number on the board, or None; ``holder``: the
    agent that has the pin to itself, 0 for nobody; ``denied``: agents that may not use it."""

    configs: dict[_U8, _U32]
    function: int | None
    owner: _U8
    holder: _U8
    denied: list[_U8]


class Pin:
    """``allowed``: the values that each of its configs may have, None for any. ``owner`` is the agent that configured
    it last, ``holder`` the one that requested it; 0 for nobody. ``functions``: the numbers of those that it can have by
    itself, ``in_groups`` of those that it can have with others."""

    __slots__ = (
        "_first",
        "allowed",
        "configs",
        "denied",
        "function",
        "functions",
        "holder",
        "id",
        "in_groups",
        "name",
        "owner",
    )

    def __init__(self, number: int, section: PinSection) -> None:
        self.id: Final = number
        self.name: Final = section.name
        #: value by type, ascending, as PINCTRL_SETTINGS_GET lists them
        self._first: Final = {CONFIG_NAMES[name]: _value(one) for name, one in section.configs.items()}
        self.allowed: Final = {
            CONFIG_NAMES[name]: frozenset(one.allowed) if isinstance(one, PinConfig) else None
            for name, one in section.configs.items()
        }
        self.functions: Final[set[int]] = set()
        self.in_groups: Final[set[int]] = set()
        self.holder = 0
        self.denied: set[int] = set()
        self.reset(None)

    def reset(self, function: int | None) -> None:
        """Back to what the board file says; ``function`` is selected there. Who holds it does not change."""
        self.configs = dict(sorted(self._first.items()))
        self.function: int | None = function
        self.owner = 0

    @property
    def pins(self) -> list[Pin]:
        """Itself, as a group of one."""
        return [self]

    def takes(self, kind: int, value: int) -> bool:
        """May the config ``kind``, which it has, be ``value``?"""
        allowed = self.allowed[kind]
        return allowed is None or value in allowed

    def save(self) -> PinState | None:
        """What agents set; None where nobody did."""
        if not (self.owner or self.holder or self.denied):
            return None
        return PinState(dict(self.configs), self.function, self.owner, self.holder, sorted(self.denied))

    def load(self, state: PinState) -> None:
        """Raises RemoteError for what the board does not allow; nothing is changed then."""
        if state.configs.keys() != self.configs.keys():
            raise RemoteError("configs", sorted(state.configs), None, "not the configs that the pin has")
        for kind, value in state.configs.items():
            if not self.takes(kind, value):
                raise RemoteError("configs", value, None, f"not a value of config {kind}")
        if state.function is not None and state.function not in self.functions | self.in_groups:
            raise RemoteError("function", state.function, None, "not a function of the pin")
        self.configs = dict(sorted(state.configs.items()))
        self.function, self.owner, self.holder = state.function, state.owner, state.holder
        self.denied = set(state.denied)


def _value(config: int | PinConfig) -> int:
    return config.value if isinstance(config, PinConfig) else config


class Group:
    """``functions``: the numbers of those that it can have."""

    __slots__ = ("functions", "name", "pins")

    def __init__(self, name: str, pins: list[Pin]) -> None:
        self.name: Final = name
        self.pins: Final = pins
        self.functions: Final[set[int]] = set()

    @property
    def function(self) -> int | None:
        """The one of its functions that all its pins have selected."""
        first = self.pins[0].function
        return first if first in self.functions and all(pin.function == first for pin in self.pins) else None

    @property
    def configs(self) -> dict[int, int]:
        """The configs that all its pins have, with the same value; by type, ascending."""
        first, *rest = self.pins
        return {
            kind: value for kind, value in first.configs.items() if all(pin.configs.get(kind) == value for pin in rest)
        }


class Function:
    """``members``: numbers of its groups, of its pins where it is ``pin_only``."""

    __slots__ = ("gpio", "members", "name", "pin_only")

    def __init__(self, name: str, members: list[int], pin_only: bool, gpio: bool) -> None:
        self.name: Final = name
        self.members: Final = members
        self.pin_only: Final = pin_only
        self.gpio: Final = gpio


class PinController:
    """The board's pins, groups and functions, numbered as they are listed."""

    __slots__ = ("_selected", "functions", "groups", "pins")

    def __init__(self, section: PinControlSection) -> None:
        self.pins: Final = [Pin(number, one) for number, one in enumerate(section.pins)]
        by_name = {pin.name: pin for pin in self.pins}
        self.groups: Final = [Group(one.name, [by_name[name] for name in one.pins]) for one in section.groups]
        group_ids = numbers(section.groups)
        self.functions: Final = [
            Function(
                one.name,
                [by_name[name].id for name in one.pins] or [group_ids[name] for name in one.groups],
                bool(one.pins),
                one.gpio,
            )
            for one in section.functions
        ]
        for number, function in enumerate(self.functions):
            for member in function.members:
                if function.pin_only:
                    self.pins[member].functions.add(number)
                else:
                    self.groups[member].functions.add(number)
                    for pin in self.groups[member].pins:
                        pin.in_groups.add(number)
        ids = numbers(section.functions)
        self._selected: Final = [ids.get(one.function) for one in section.pins]
        for group, one in zip(self.groups, section.groups, strict=True):
            if one.function:
                for pin in group.pins:
                    self._selected[pin.id] = ids[one.function]
        for pin in self.pins:
            self.reset(pin)

    def reset(self, pin: Pin) -> None:
        """Back to what the board file says."""
        pin.reset(self._selected[pin.id])
