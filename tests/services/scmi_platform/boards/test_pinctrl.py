"""Pins, groups and functions of a board file: what is refused, by key and reason."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board
from services.scmi_platform.boards.pinctrl import PinConfig

HEAD = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n'
PINS = '[pin_control]\npins = [{ name = "p" }, { name = "q" }]\n'
GROUP = '[[pin_control.groups]]\nname = "g"\npins = ["p", "q"]\n'
OTHER = '[[pin_control.groups]]\nname = "h"\npins = ["p"]\n'
FUNCTION = '[[pin_control.functions]]\nname = "f"\n'
SECOND = '[[pin_control.functions]]\nname = "s"\n'
GROUPS, ONLY = 'groups = ["g"]\n', 'pins = ["p"]\n'


def configs(text: str) -> str:
    return f'[pin_control]\npins = [{{ name = "p", configs = {{ {text} }} }}]\n'


def test_a_section() -> None:
    text = configs("slew_rate = 1, vendor_192 = { value = 2, allowed = [1, 2] }") + GROUP.replace(', "q"', "")
    board = Board.parse(HEAD + text + FUNCTION + GROUPS + "gpio = true\n")
    assert board.pin_control is not None
    assert board.pin_control.pins[0].configs == {"slew_rate": 1, "vendor_192": PinConfig(value=2, allowed=[1, 2])}
    assert board.pin_control.groups[0].pins == ["p"]
    assert board.pin_control.functions[0].gpio
    assert Board.parse(HEAD).pin_control is None


def test_the_same_function_by_two_groups_is_no_contradiction() -> None:
    both = 'groups = ["g", "h"]\n'
    with_function = GROUP + 'function = "f"\n' + OTHER + 'function = "f"\n'
    assert Board.parse(HEAD + PINS + with_function + FUNCTION + both).pin_control is not None


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("[pin_control]\n", "", "missing required field `pins`"),
        ("[pin_control]\npins = []\n", ".pins", "empty"),
        ('[pin_control]\npins = [{ name = "p" }, { name = "p" }]\n', ".pins[1].name", "there twice"),
        (configs("speed = 1"), ".pins[0].configs.speed", "not a type of pin configuration"),
        (configs("vendor_191 = 1"), ".pins[0].configs.vendor_191", "not a type"),
        (configs("slew_rate = { value = 3, allowed = [1] }"), ".pins[0].configs.slew_rate.value", "3 is not one"),
        (configs("slew_rate = { value = 3 }"), ".pins[0].configs", "missing required field `allowed`"),
        (configs("slew_rate = -1"), ".pins[0].configs", ">= 0"),
        (PINS + GROUP + GROUP, ".groups[1].name", "there twice"),
        (PINS + GROUP.replace('"q"', '"z"'), ".groups[0].pins", "'z' is not on the board"),
        (PINS + GROUP.replace('"q"', '"p"'), ".groups[0].pins", "'p' is there twice"),
        (PINS + GROUP.replace('"p", "q"', ""), ".groups[0].pins", "empty"),
        (PINS + GROUP + FUNCTION, ".functions[0]", "must have groups, or else pins"),
        (PINS + GROUP + FUNCTION + GROUPS + ONLY, ".functions[0]", "must have groups, or else pins"),
        (PINS + GROUP + FUNCTION + 'groups = ["p"]\n', ".functions[0].groups", "'p' is not on the board"),
        (PINS + GROUP + FUNCTION + 'pins = ["g"]\n', ".functions[0].pins", "'g' is not on the board"),
        (PINS + FUNCTION + 'pins = ["p", "p"]\n', ".functions[0].pins", "there twice"),
        (PINS + FUNCTION + ONLY + FUNCTION + ONLY, ".functions[1].name", "there twice"),
        (
            PINS + FUNCTION + ONLY + "gpio = true\n" + SECOND + ONLY + "gpio = true\n",
            ".functions[1].gpio", "'p' has GPIO by 'f' already",
        ),
        (
            PINS + GROUP + FUNCTION + GROUPS + "gpio = true\n" + SECOND + GROUPS + "gpio = true\n",
            ".functions[1].gpio", "'g' has GPIO by 'f' already",
        ),
        (PINS + GROUP + 'function = "f"\n', ".groups[0].function", "'f' is not a function of 'g'"),
        (PINS + GROUP + 'function = "f"\n' + FUNCTION + ONLY, ".groups[0].function", "not a function of 'g'"),
        (
            PINS.replace('"p" }', '"p", function = "f" }') + GROUP + FUNCTION + GROUPS,
            ".pins[0].function", "'f' is not a function of 'p'",
        ),
        (
            PINS + GROUP + 'function = "f"\n' + OTHER + 'function = "s"\n'
            + FUNCTION + GROUPS + SECOND + 'groups = ["h"]\n',
            ".groups[1].function", "pin 'p' begins with 'f' already",
        ),
        (
            PINS.replace('"p" }', '"p", function = "s" }') + GROUP + 'function = "f"\n'
            + FUNCTION + GROUPS + SECOND + ONLY,
            ".groups[0].function", "pin 'p' begins with 's' already",
        ),
    ],
)  # fmt: skip
def test_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        Board.parse(HEAD + text, "f.toml")
    said = str(error.value)
    assert said.startswith(f"f.toml: pin_control{key}"), said
    assert reason in said, said
