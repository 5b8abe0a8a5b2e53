"""Board files: the shipped one loads, a contradiction is refused by file, key and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from services.scmi_platform.board import Board
from services.scmi_platform.boards.clock import RateRange
from tests.services.scmi_platform.scmi_rig import JUNO, SMALL

HEAD = '[platform]\nvendor = "v"\n[[agents]]\nname = "a"\n'
CLOCK = '[[clocks]]\nname = "c"\n'
SENSOR = '[[sensors]]\nname = "s"\ntype = "volts"\nmin = 0\nmax = 9\nsignal = { base = 1 }\n'
AXIS = '[[sensors.axes]]\nname = "x"\ntype = "volts"\nmin = 0\nmax = 9\nsignal = { base = 1 }\n'
PERF = '[[performance_domains]]\nname = "p"\n'

REFUSED = [
    ("x = ", "", "Invalid value"),
    ("", "", "missing required field `platform`"),
    ('[platform]\nvendor = "v"\nagents = []\n', "platform", "unknown field `agents`"),
    ('agents = []\n[platform]\nvendor = "v"\n', "agents", "at least one"),
    (HEAD + "[oops]\n", "", "unknown field `oops`"),
    (HEAD + CLOCK + "rates = [1]\nrate = 1\nspeed = 3\n", "clocks[0]", "unknown field `speed`"),
    (HEAD + '[[agents]]\nname = "a"\n', "agents[1].name", "there twice"),
    (HEAD + f'[[agents]]\nname = "{"n" * 16}"\n', "agents[1].name", "length <= 15"),
    (HEAD + f'[[clocks]]\nname = "{"n" * 64}"\nrates = [1]\nrate = 1\n', "clocks[0].name", "length <= 63"),
    (HEAD + '[[clocks]]\nname = "ü"\nrates = [1]\nrate = 1\n', "clocks[0].name", "regex"),
    (HEAD + CLOCK + "rates = []\nrate = 1\n", "clocks[0].rates", "empty"),
    (HEAD + CLOCK + "rates = [2, 1]\nrate = 1\n", "clocks[0].rates[1]", "ascending"),
    (HEAD + CLOCK + "rates = [1, 3]\nrate = 2\n", "clocks[0].rate", "not one of"),
    (HEAD + CLOCK + "rates = { min = 9, max = 1, step = 1 }\nrate = 2\n", "clocks[0].rates", "above max"),
    (HEAD + CLOCK + "rates = { min = 0, max = 9, step = 2 }\nrate = 3\n", "clocks[0].rate", "is not in"),
    (HEAD + CLOCK + "rates = { min = 0, max = 9, step = 0 }\nrate = 3\n", "clocks[0].rates.step", ">= 1"),
    (HEAD + CLOCK + 'rates = [1]\nrate = 1\nparents = ["d"]\nparent = "d"\n', "clocks[0].parents", "not on the board"),
    (HEAD + CLOCK + 'rates = [1]\nrate = 1\nparents = ["c"]\nparent = "c"\n', "clocks[0].parents", "own parent"),
    (HEAD + CLOCK + 'rates = [1]\nrate = 1\nparent = "c"\n', "clocks[0].parent", "not one of the parents"),
    (HEAD + CLOCK + "rates = [1]\nrate = 1\nextended = { phase = 360 }\n", "clocks[0].extended.phase", "above 359"),
    (HEAD + '[[devices]]\nname = "d"\nclocks = ["q"]\n', "devices[0].clocks", "not on the board"),
    (HEAD + SENSOR + AXIS, "sensors[0].signal", "either"),
    (HEAD + '[[sensors]]\nname = "s"\ntype = "volts"\n', "sensors[0].signal", "either"),
    (HEAD + SENSOR.replace("volts", "smell"), "sensors[0].type", "not a sensor type"),
    (HEAD + SENSOR.replace("min = 0", "min = 10"), "sensors[0].min", "above max"),
    (HEAD + SENSOR.replace("base = 1", "base = 10"), "sensors[0].signal.base", "outside"),
    (HEAD + SENSOR + "trip_points = [{ value = 10 }]\n", "sensors[0].trip_points[0].value", "outside"),
    (HEAD + SENSOR + f"trip_points = [{'{ value = 1 },' * 256}]\n", "sensors[0].trip_points", "at most 255"),
    (HEAD + SENSOR + "update_intervals = [[2, 0], [1, 0]]\n", "sensors[0].update_intervals", "ascending"),
    (
        HEAD + SENSOR + "update_intervals = { min = [2, 0], max = [1, 0], step = [1, 0] }\n",
        "sensors[0].update_intervals",
        "above max",
    ),
    (HEAD + SENSOR + "exponent = 16\n", "sensors[0].exponent", "<= 15"),
    (
        HEAD + '[[sensors]]\nname = "s"\ntype = "volts"\ntrip_points = [{ value = 0 }]\n' + AXIS,
        "sensors[0].trip_points",
        "without axes",
    ),
    (
        HEAD + '[[sensors]]\nname = "s"\ntype = "volts"\n' + "".join(AXIS.replace('"x"', f'"{n}"') for n in range(64)),
        "sensors[0].axes",
        "at most 63",
    ),
    (HEAD + '[[sensors]]\nname = "s"\ntype = "volts"\n' + AXIS * 2, "sensors[0].axes[1].name", "there twice"),
    (HEAD + '[[power_domains]]\nname = "p"\nparent = "q"\n', "power_domains[0].parent", "not on the board"),
    (HEAD + '[[power_domains]]\nname = "p"\nparent = "p"\n', "power_domains[0].parent", "own ancestor"),
    (
        HEAD + '[[power_domains]]\nname = "p"\nparent = "q"\n[[power_domains]]\nname = "q"\nparent = "p"\n',
        "power_domains[0].parent",
        "own ancestor",
    ),
    (
        HEAD + PERF + "opps = [{ frequency = 1 }]\nlevel = 1\nsustained_level = 1\n",
        "performance_domains[0].opps[0]",
        "missing required field `level`",
    ),
    (
        HEAD + PERF + "opps = [{ level = 2 }, { level = 2 }]\nlevel = 2\nsustained_level = 2\n",
        "performance_domains[0].opps[1]",
        "ascending",
    ),
    (
        HEAD + PERF + "opps = [{ level = 2 }]\nlevel = 1\nsustained_level = 2\n",
        "performance_domains[0].level",
        "not the level",
    ),
    (
        HEAD + PERF + 'opps = [{ level = 2 }]\nlevel = 2\nsustained_level = 2\nclock = "q"\n',
        "performance_domains[0].clock",
        "not on the board",
    ),
]


@pytest.mark.parametrize(("text", "key", "reason"), REFUSED)
def test_refused(text: str, key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Board.parse(text, "b.toml")
    assert (caught.value.source, caught.value.key) == ("b.toml", key)
    assert reason in caught.value.reason


def test_too_many() -> None:
    agents = "".join(f'[[agents]]\nname = "{n}"\n' for n in range(256))
    with pytest.raises(ConfigError, match="at most 255"):
        Board.parse('[platform]\nvendor = "v"\n' + agents)
    names = ", ".join(f'"{n}"' for n in range(256))
    with pytest.raises(ConfigError, match="256 parents"):
        Board.parse(HEAD + CLOCK + f'rates = [1]\nrate = 1\nparents = [{names}]\nparent = "0"\n')


def test_too_many_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.scmi_platform.boards.section.MAX_DOMAINS", 3)
    with pytest.raises(ConfigError, match="clocks: 4 of them, at most 3"):
        Board.load(SMALL)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Board.load(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="decode"):
        Board.load(bad)


def test_juno_r2() -> None:
    """The indices that the device tree of the real board relies on (juno-scmi.dtsi)."""
    board = Board.load(JUNO)
    assert [one.name for one in board.power_domains][8:10] == ["DBGSYS", "GPUTOP"]
    assert board.clocks[3].name == "HDLCD_0"
    assert isinstance(board.clocks[3].rates, RateRange)
    assert [board.sensors[n].name for n in (0, 3, 21, 22, 23, 24)] == [
        "TEMP_PMIC",
        "TEMP_SOC",
        "TEMP_BIG",
        "TEMP_LITTLE",
        "TEMP_GPU_0",
        "TEMP_GPU_1",
    ]
    big, little, gpu = board.performance_domains
    assert [opp.frequency // 10**6 for opp in big.opps] == [600, 1000, 1200]
    assert [opp.frequency // 10**6 for opp in little.opps] == [450, 800, 950]
    assert [opp.power for opp in gpu.opps] == [1418, 2278]
    for domain in board.performance_domains:
        rates = next(one.rates for one in board.clocks if one.name == domain.clock)
        assert [opp.frequency for opp in domain.opps] == rates


def test_small_board_loads() -> None:
    assert len(Board.load(SMALL).clocks) == 4
