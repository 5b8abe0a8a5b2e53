"""Power zones that contradict themselves are refused, as are zones that are no tree."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board

HEAD = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n'
ZONE = (
    '[[powercap_domains]]\nname = "z"\ncaps = { min = 10, max = 20, step = 5 }\npais = { min = 4, max = 8, step = 2 }\n'
)


@pytest.mark.parametrize(
    "text",
    [
        ZONE + "pai = 6\n",
        ZONE + "pai = 4\ncap = 20\nsignal = { base = 0 }\n",
        ZONE.replace("max = 20, step = 5", "max = 10") + "cap = 10\npai = 8\n",
        ZONE + "pai = 4\n" + ZONE.replace('"z"', '"y"') + 'pai = 4\nparent = "z"\n',
    ],
)
def test_accepted(text: str) -> None:
    assert Board.parse(HEAD + text).powercap_domains[0].name == "z"


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        (ZONE, "", "missing required field `pai`"),
        (ZONE + "pai = 0\n", ".pai", ">= 1"),
        (ZONE + "pai = 5\n", ".pai", "5 is not in 4, 6 … 8"),
        (ZONE + "pai = 10\n", ".pai", "10 is not in"),
        (ZONE + "pai = 2\n", ".pai", "2 is not in"),
        (ZONE + "pai = 4\ncap = 9\n", ".cap", "9 is not in 10, 15 … 20"),
        (ZONE + "pai = 4\ncap = 12\n", ".cap", "12 is not in"),
        (ZONE.replace("min = 10", "min = 0") + "pai = 4\n", ".caps.min", ">= 1"),
        (ZONE.replace("min = 10", "min = 21") + "pai = 4\n", ".caps", "min 21 is above max 20"),
        (ZONE.replace("step = 5", "step = 0") + "pai = 4\n", ".caps.step", "must not be 0"),
        (ZONE.replace("step = 2", "step = 0") + "pai = 4\n", ".pais.step", "must not be 0"),
        (ZONE.replace("max = 20", "max = 10") + "pai = 4\n", ".cap", "0, but the cap cannot be set"),
        (ZONE + "pai = 4\nsignal = { base = -1 }\n", ".signal.base", "-1 is below 0"),
        (ZONE + 'pai = 4\nparent = "y"\n', ".parent", "not on the board"),
        (ZONE + 'pai = 4\nparent = "z"\n', ".parent", "'z' is its own ancestor"),
        (
            ZONE + 'pai = 4\nparent = "y"\n' + ZONE.replace('"z"', '"y"') + 'pai = 4\nparent = "z"\n',
            ".parent",
            "'z' is its own ancestor",
        ),
    ],
)
def test_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Board.parse(HEAD + text)
    assert caught.value.key == f"powercap_domains[0]{key}"
    assert reason in caught.value.reason
