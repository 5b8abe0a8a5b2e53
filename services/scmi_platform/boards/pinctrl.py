"""Section ``[pin_control]``: pins, groups of pins, functions of groups (DEN0056E §4.11).

Configs are named as the specification does (``drive_strength``, ``bias_pull_up``; vendors' ``vendor_192`` to
``vendor_255``); their values count what it says: mA, µs, mV, or are the board's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.scmi.pinctrl import CONFIG_NAMES
from services.scmi_platform.boards.section import U32, Name, Refuse, Section, check_listed, check_names


class PinConfig(Section, frozen=True, kw_only=True):
    """``value`` at first, and the values that it may have (left out: any)."""

    value: U32
    allowed: list[U32]


class PinSection(Section, frozen=True, kw_only=True):
    """``configs``: what of the pin can be configured, with initial values. ``function``: one for single pins that is
    selected at first."""

    name: Name
    configs: dict[str, U32 | PinConfig] = {}
    function: str = ""


class PinGroupSection(Section, frozen=True, kw_only=True):
    """``function`` is selected for all its pins at first."""

    name: Name
    pins: list[str]
    function: str = ""


class PinFunctionSection(Section, frozen=True, kw_only=True):
    """What groups can do, or what single ``pins`` can (then it is pin-only). ``gpio``: it makes them plain inputs and
    outputs."""

    name: Name
    groups: list[str] = []
    pins: list[str] = []
    gpio: bool = False


class PinControlSection(Section, frozen=True, kw_only=True):
    pins: list[PinSection]
    groups: list[PinGroupSection] = []
    functions: list[PinFunctionSection] = []


def check_pinctrl(key: str, section: PinControlSection, refuse: Refuse) -> None:
    """Names are on the board and unique among their kind, and no pin begins with two functions."""
    if not section.pins:
        refuse(f"{key}.pins", "must not be empty")
    for kind in ("pins", "groups", "functions"):
        check_names(f"{key}.{kind}", getattr(section, kind), refuse)
    for index, pin in enumerate(section.pins):
        _check_configs(f"{key}.pins[{index}].configs", pin, refuse)
    for index, group in enumerate(section.groups):
        _check_members(f"{key}.groups[{index}].pins", group.pins, section.pins, refuse)
    for index, function in enumerate(section.functions):
        at = f"{key}.functions[{index}]"
        if bool(function.groups) == bool(function.pins):
            refuse(at, "must have groups, or else pins")
        kind, names = ("groups", function.groups) if function.groups else ("pins", function.pins)
        _check_members(f"{at}.{kind}", names, getattr(section, kind), refuse)
    _check_gpio(key, section, refuse)
    _check_selected(key, section, refuse)


def _check_configs(key: str, pin: PinSection, refuse: Refuse) -> None:
    for name, config in pin.configs.items():
        if name not in CONFIG_NAMES:
            refuse(f"{key}.{name}", "not a type of pin configuration")
        if isinstance(config, PinConfig) and config.value not in config.allowed:
            refuse(f"{key}.{name}.value", f"{config.value} is not one of the allowed")


def _check_members(key: str, names: list[str], items: Sequence[PinSection | PinGroupSection], refuse: Refuse) -> None:
    if not names:
        refuse(key, "must not be empty")
    check_listed(key, names, items, refuse)


def _check_gpio(key: str, section: PinControlSection, refuse: Refuse) -> None:
    """DEN0056E §4.11.2.5: a pin or a group has at most one function that is GPIO."""
    for kind in ("pins", "groups"):
        first: dict[str, str] = {}
        for index, function in enumerate(section.functions):
            for name in getattr(function, kind) if function.gpio else []:
                if first.setdefault(name, function.name) != function.name:
                    refuse(f"{key}.functions[{index}].gpio", f"{name!r} has GPIO by {first[name]!r} already")


def _check_selected(key: str, section: PinControlSection, refuse: Refuse) -> None:
    functions = {one.name: one for one in section.functions}
    selected: dict[str, str] = {}
    for kind in ("pins", "groups"):
        for index, one in enumerate(getattr(section, kind)):
            if not one.function:
                continue
            at = f"{key}.{kind}[{index}].function"
            if one.function not in functions or one.name not in getattr(functions[one.function], kind):
                refuse(at, f"{one.function!r} is not a function of {one.name!r}")
            for pin in [one.name] if kind == "pins" else one.pins:
                if selected.setdefault(pin, one.function) != one.function:
                    refuse(at, f"pin {pin!r} begins with {selected[pin]!r} already")
