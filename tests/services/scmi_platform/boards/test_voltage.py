"""Voltage domains of a board file: what is refused, by key and reason."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board
from services.scmi_platform.boards.voltage import LevelRange

HEAD = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n[[voltage_domains]]\nname = "v"\n'
LIST = "levels = [-1, 0, 5]\n"
RANGE = "levels = { min = -25, max = 25, step = 10 }\n"
MANY = f"levels = [{', '.join(map(str, range(1 << 16)))}]\nlevel = 0\n"


def test_a_domain() -> None:
    board = Board.parse(HEAD + RANGE + "level = -15\nmode = 9\nvendor_modes = [9]\nlevel_set_us = 7\n")
    (domain,) = board.voltage_domains
    assert domain.levels == LevelRange(min=-25, max=25, step=10)
    assert (domain.level, domain.mode, domain.vendor_modes, domain.level_set_us) == (-15, 9, [9], 7)
    (domain,) = Board.parse(HEAD + LIST + "level = -1\n").voltage_domains
    assert (domain.levels, domain.mode, domain.level_set_us) == ([-1, 0, 5], "on", 0)


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("level = 1\n", "", "missing required field `levels`"),
        (LIST, "", "missing required field `level`"),
        ("levels = []\nlevel = 0\n", ".levels", "empty"),
        ("levels = [5, 5]\nlevel = 5\n", ".levels[1]", "ascending"),
        (LIST + "level = 1\n", ".level", "not one of the levels"),
        (MANY, ".levels", "65536 levels, at most 65535"),
        ("levels = [2147483648]\nlevel = 0\n", ".levels[0]", "<= 2147483647"),
        ("levels = [-2147483649]\nlevel = 0\n", ".levels[0]", ">= -2147483648"),
        (RANGE + "level = 0\n", ".level", "is not in -25, -15 …"),
        (RANGE + "level = 35\n", ".level", "is not in"),
        (RANGE + "level = -35\n", ".level", "is not in"),
        ("levels = { min = 5, max = 1, step = 1 }\nlevel = 5\n", ".levels", "above max"),
        ("levels = { min = 1, max = 5, step = 0 }\nlevel = 5\n", ".levels.step", ">= 1"),
        (LIST + "level = 0\nmode = 9\n", ".mode", "not one of the vendor_modes"),
        (LIST + "level = 0\nmode = 7\n", ".mode", ">= 8"),
        (LIST + 'level = 0\nmode = "half"\n', ".mode", "Invalid enum value"),
        (LIST + "level = 0\nvendor_modes = [16]\n", ".vendor_modes[0]", "<= 15"),
        (LIST + 'level = 0\nrestricted = ["all"]\n', ".restricted[0]", "Invalid enum value"),
        (LIST + 'level = 0\n[[voltage_domains]]\nname = "v"\nlevels = [0]\nlevel = 0\n', "[1].name", "there twice"),
    ],
)  # fmt: skip
def test_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        Board.parse(HEAD + text, "f.toml")
    where = key if key.startswith("[1]") else f"[0]{key}"
    said = str(error.value)
    assert said.startswith(f"f.toml: voltage_domains{where}: "), said
    assert reason in said, said
