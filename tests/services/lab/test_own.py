"""Scenario files of somebody's own, and the example of the how-to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import LocalError
from services.lab.command import app
from services.lab.own import scenario_of
from services.lab.scenario import SCENARIOS

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "napi_rearm.py"
HEAD = "from services.lab.scenario import Checks, Scenario, Variant, register\nbuild = lambda world: Checks()\n"
ONE = 'register(Scenario("{}", "a thread", "about", (Variant("shipped", "holds", build),)))\n'


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    before = dict(SCENARIOS)
    yield
    SCENARIOS.clear()
    SCENARIOS.update(before)


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    howto = (EXAMPLE.parents[1] / "patch-to-scenario.md").read_text()
    held = runner.invoke(app, ["run", str(EXAMPLE)])
    assert held.exit_code == 0, held.output
    assert held.output in howto
    failed = runner.invoke(app, ["run", str(EXAMPLE), "--variant", "as-posted"])
    assert failed.exit_code == 1, failed.output
    assert failed.output in howto
    replayed = runner.invoke(app, ["replay", "witness-napi-rearm-as-posted.json"])
    assert replayed.exit_code == 1, replayed.output


def test_names_still_work() -> None:
    assert scenario_of("aba-wrap").name == "aba-wrap"
    with pytest.raises(LocalError, match="no scenario 'nope'"):
        scenario_of("nope")


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(HEAD + ONE.format("own-once"))
    assert scenario_of(str(file)) is scenario_of(str(file))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "registers 0 scenarios"),
        (HEAD + ONE.format("own-a") + ONE.format("own-b"), "registers 2 scenarios"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        (HEAD + ONE.format("aba-wrap"), "two scenarios of the name"),
        (HEAD + ONE.format("own-c") + "1 / 0", "ZeroDivisionError"),
    ],
)
def test_files_that_are_no_scenario(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(LocalError, match=why):
        scenario_of(str(file))
    if "1 / 0" in text:
        assert "own-c" not in SCENARIOS  # it can be mended and tried again


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="FileNotFoundError"):
        scenario_of(str(tmp_path / "no.py"))
    assert CliRunner().invoke(app, ["run", str(tmp_path / "no.py")]).exit_code == 2
