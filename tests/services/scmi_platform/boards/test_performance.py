"""Performance domains that contradict themselves, their clock or each other are refused."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board

HEAD = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n'
CLOCK = '[[clocks]]\nname = "c"\nrates = [1000, 2000]\nrate = 2000\n'
SPAN = '[[clocks]]\nname = "c"\nrates = { min = 1000, max = 3500, step = 1000 }\nrate = 2000\n'
START = '[[performance_domains]]\nname = "p"\nlevel = 2\nsustained_level = 1\n'
PERF = START + "opps = [{ level = 1, frequency = 1000 }, { level = 2, frequency = 2000 }]\n"
MORE = PERF.replace('"p"', '"q"')


@pytest.mark.parametrize(
    "text",
    [
        PERF,
        PERF + "level_indexing = true\nrate_limit_us = 1048575\ncan_set_limits = false\ncan_set_level = false\n",
        CLOCK + PERF + 'clock = "c"\n',
        SPAN + PERF + 'clock = "c"\n',
        PERF + 'power_unit = "uW"\n' + MORE + 'power_unit = "uW"\n',
        START + "opps = [{ level = 1, frequency = 4294967295999 }, { level = 2 }]\n",
    ],
)
def test_accepted(text: str) -> None:
    assert Board.parse(HEAD + text).performance_domains[0].name == "p"


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        (START + "opps = []\n", "opps", "empty"),
        (START + "opps = [{ level = 0 }]\n", "opps[0].level", ">= 1"),
        (PERF + "rate_limit_us = 1048576\n", "rate_limit_us", "<= 1048575"),
        (PERF.replace("sustained_level = 1", "sustained_level = 3"), "sustained_level", "not the level of an OPP"),
        (
            PERF.replace("= 1000", "= 999") + "level_indexing = true\n",
            "opps[0].frequency",
            "1000 Hz",
        ),
        (PERF.replace("= 2000", "= 4294967296000"), "opps[1].frequency", "above 4294967295999"),
        (
            CLOCK + PERF.replace("= 1000", "= 1500") + 'clock = "c"\n',
            "opps[0].frequency",
            "1500 is no rate of",
        ),
        (SPAN + PERF.replace("= 1000", "= 1500") + 'clock = "c"\n', "opps[0].frequency", "no rate of clock"),
        (SPAN + PERF.replace("= 1000", "= 0") + 'clock = "c"\n', "opps[0].frequency", "no rate of clock"),
        (SPAN + PERF.replace("= 2000", "= 4000") + 'clock = "c"\n', "opps[1].frequency", "no rate of clock"),
        (
            CLOCK + PERF.replace("\nlevel = 2", "\nlevel = 1") + 'clock = "c"\n',
            "level",
            "1 is 1000 Hz, but clock",
        ),
    ],
)
def test_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Board.parse(HEAD + text)
    assert caught.value.key == f"performance_domains[0].{key}"
    assert reason in caught.value.reason


def test_one_unit_for_all() -> None:
    with pytest.raises(ConfigError) as caught:
        Board.parse(HEAD + PERF + MORE + 'power_unit = "uW"\n')
    assert caught.value.key == "performance_domains[1].power_unit"


def test_too_many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.scmi_platform.boards.performance.MAX_OPPS", 1)
    with pytest.raises(ConfigError, match="2 OPPs, at most 1"):
        Board.parse(HEAD + PERF)
