"""Pins and what the board makes of them; what a saved state may not say."""

from __future__ import annotations

import msgspec
import pytest

from common.errors import RemoteError
from services.scmi_platform.boards.pinctrl import (
    PinConfig,
    PinControlSection,
    PinFunctionSection,
    PinGroupSection,
    PinSection,
)
from services.scmi_platform.protocols.pinctrl_state import PinController, PinState

SLEW, STRENGTH = 20, 10
F, G = 0, 1


@pytest.fixture
def board() -> PinController:
    strength = PinConfig(value=4, allowed=[2, 4])
    pins = [
        PinSection(name="p", configs={"slew_rate": 1, "drive_strength": strength}),
        PinSection(name="q", configs={"slew_rate": 1}, function="g"),
    ]
    groups = [PinGroupSection(name="a", pins=["p"], function="f")]
    functions = [PinFunctionSection(name="f", groups=["a"]), PinFunctionSection(name="g", pins=["q"])]
    return PinController(PinControlSection(pins=pins, groups=groups, functions=functions))


def test_what_the_board_says(board: PinController) -> None:
    p, q = board.pins
    assert list(p.configs.items()) == [(STRENGTH, 4), (SLEW, 1)]  # by type
    assert (p.function, q.function, board.groups[0].function) == (F, G, F)
    assert (p.functions, p.in_groups, q.functions, q.in_groups) == (set(), {F}, {G}, set())
    assert [(one.members, one.pin_only) for one in board.functions] == [([0], False), ([1], True)]
    assert [p.takes(STRENGTH, value) for value in (2, 3, 4)] == [True, False, True]
    assert p.takes(SLEW, 0xFFFF_FFFF)


def test_a_function_of_its_pins_that_a_group_has_not(board: PinController) -> None:
    board.pins[0].function = G
    assert board.groups[0].function is None


def test_load_and_reset(board: PinController) -> None:
    p = board.pins[0]
    assert p.save() is None
    p.load(PinState({SLEW: 9, STRENGTH: 2}, None, 1, 2, [3, 4]))
    assert list(p.configs.items()) == [(STRENGTH, 2), (SLEW, 9)]
    assert (p.function, p.owner, p.holder, p.denied) == (None, 1, 2, {3, 4})
    assert p.save() == PinState({STRENGTH: 2, SLEW: 9}, None, 1, 2, [3, 4])
    board.reset(p)
    assert (dict(p.configs), p.function, p.owner, p.holder, p.denied) == ({STRENGTH: 4, SLEW: 1}, F, 0, 2, {3, 4})


@pytest.mark.parametrize("changed", [{"owner": 1}, {"holder": 1}, {"denied": {1}}])
def test_what_makes_a_pin_worth_saving(board: PinController, changed: dict[str, object]) -> None:
    for name, value in changed.items():
        setattr(board.pins[0], name, value)
    assert board.pins[0].save() is not None


@pytest.mark.parametrize(
    ("state", "field"),
    [
        (PinState({SLEW: 1}, None, 1, 0, []), "configs"),
        (PinState({SLEW: 1, STRENGTH: 4, 5: 1}, None, 1, 0, []), "configs"),
        (PinState({SLEW: 1, STRENGTH: 3}, None, 1, 0, []), "configs"),
        (PinState({SLEW: 1, STRENGTH: 4}, G, 1, 0, []), "function"),
        (PinState({SLEW: 1, STRENGTH: 4}, -1, 1, 0, []), "function"),
    ],
)
def test_states_that_the_board_does_not_allow(board: PinController, state: PinState, field: str) -> None:
    pin = board.pins[0]
    with pytest.raises(RemoteError) as error:
        pin.load(state)
    assert error.value.field == field
    assert (dict(pin.configs), pin.function, pin.owner) == ({STRENGTH: 4, SLEW: 1}, F, 0)


@pytest.mark.parametrize(
    "raw",
    [
        {"configs": {20: 1 << 32}, "function": None, "owner": 0, "holder": 0, "denied": []},
        {"configs": {20: -1}, "function": None, "owner": 0, "holder": 0, "denied": []},
        {"configs": {}, "function": None, "owner": 256, "holder": 0, "denied": []},
        {"configs": {}, "function": None, "owner": 0, "holder": -1, "denied": []},
        {"configs": {}, "function": None, "owner": 0, "holder": 0, "denied": [256]},
        {"configs": {}, "function": None, "owner": 0, "holder": 0, "denied": [], "more": 1},
    ],
)
def test_states_that_no_pin_has(raw: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, PinState)
