"""The command line without a mesh: usage, help, exit codes. What starts services is in tests/mesh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import Role, app

ROOT = Path(__file__).resolve().parents[2]
runner = CliRunner()


def ringmesh(*args: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = runner.invoke(app, list(args), env={"RINGMESH_TOKEN": None, "COLUMNS": "120"})
    return result.exit_code, result.stdout, result.stderr


def test_help_lists_every_command() -> None:
    code, out, _ = ringmesh("--help")
    assert code == 0
    for name in ("run", "up", "serve", "bench", "capture", "lab", "scmi"):
        assert f"  {name} " in out
    assert "list, run, replay" in out
    assert "protocols, describe, get, set, watch, trace" in out


@pytest.mark.parametrize("command", [["run"], ["up"], ["serve"], ["bench"], ["capture", "record"], ["capture", "show"]])
def test_each_command_explains_itself(command: list[str]) -> None:
    code, out, _ = ringmesh(*command, "--help")
    assert code == 0
    assert "Usage: " in out


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["nonsense"], "nonsense"),
        (["run", "--seconds", "soon"], "--seconds"),
        (["run", "--seconds", "0"], "--seconds"),
        (["run", "--seconds", "nan"], "--seconds"),
        (["run", "--seconds", "inf"], "--seconds"),
        (["run", "--guests", "65"], "--guests"),
        (["run", "--board", "/nowhere"], "--board"),
        (["run", "--report", "/nowhere/r.json"], "--report"),
        (["run", "--report", "/"], "--report"),
        (["run", "--set", "=1"], "--set"),
        (["up", "--set", "NO__SUCH=1"], "NO__SUCH"),
        (["up", "--seconds", "3"], "--seconds"),
        (["serve"], "ROLE"),
        (["serve", "cpu"], "cpu"),
        (["serve", "nic", "--config", "/nowhere.toml"], "--config"),
        (["serve", "nic", "--profile", "scmi-2.0"], "--profile"),
        (["serve", "nic", "--raw", "tcp:127.0.0.1:0"], "--raw"),
        (["serve", "nic", "--state", "/tmp/state"], "--state"),
        (["serve", "scmi", "--state", "/nowhere/state"], "/nowhere/state"),
        (["serve", "scmi", "--profile", "scmi-9.9"], "scmi-9.9"),
        (["serve", "nic", "--listen", "vhost-user:/tmp/x"], "--listen"),
        (["serve", "scmi", "--listen", "tcp:127.0.0.1:1"], "vhost-user:PATH"),
        (["serve", "its", "--board", "deploy/boards/juno-r2.toml"], "--board"),
        (["capture", "record"], "ADMIN"),
        (["capture", "record", "foo", "out"], "'foo' is not a URL"),
        (["capture", "record", "ftp://localhost", "out"], "is not a URL"),
        (["capture", "record", "http://:80", "out"], "is not a URL"),
        (["capture", "record", "http://localhost:99999", "out"], "is not a URL"),
        (["capture", "record", "http://127.0.0.1:1", "/dev/null", "--direction", "up"], "--direction"),
        (["capture", "show", "/nowhere.cap"], "PATH"),
    ],
)
def test_usage_errors_exit_with_2_and_name_the_field(args: list[str], named: str) -> None:
    code, out, err = ringmesh(*args)
    assert code == 2
    assert named.lower() in err.lower()
    assert not out


def test_the_version_is_the_installed_packages() -> None:
    assert ringmesh("--version") == (0, f"ringmesh {version('ringmesh')}\n", "")


def test_an_old_report_does_not_outlive_the_start_and_a_pipe_is_left_alone(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    report.write_text("{}")
    assert ringmesh("run", "--set", "NO__SUCH=1", "--report", str(report))[0] == 2
    assert not report.exists()
    os.mkfifo(report)
    assert ringmesh("run", "--set", "NO__SUCH=1", "--report", str(report))[0] == 2
    assert report.is_fifo()


def test_a_benchmark_that_is_not_there_is_a_usage_error_that_says_what_is() -> None:
    command = [sys.executable, "-m", "services.cli", "bench", "--only", "nosuch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nosuch" in done.stderr
    assert "bench_ring" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("role", list(Role))
def test_a_bad_setting_of_a_service_is_named(role: Role, tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text("[log]\nlevel = 'loud'\n")
    code, _, err = ringmesh("serve", role.value, "--config", str(config))
    assert code == 2
    assert str(config) in err
    assert "log.level" in err


def test_the_labs_exit_codes_come_through() -> None:
    code, out, _ = ringmesh("lab", "list", "--json")
    assert code == 0
    scenarios = json.loads(out)
    assert scenarios
    assert all("shipped" in [variant["name"] for variant in scenario["variants"]] for scenario in scenarios)
    assert ringmesh("lab", "run", "no-such-race")[0] == 2
    assert ringmesh("lab", "run")[0] == 2
    assert ringmesh("lab", "run", scenarios[0]["name"], "--runs", "-1")[0] == 2


def test_a_lab_run_tells_by_its_exit_code_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the witness goes where one stands
    _, out, _ = ringmesh("lab", "list", "--json")
    scenario = json.loads(out)[0]
    failing = next(variant["name"] for variant in scenario["variants"] if variant["expect"] == "fails")
    code, out, _ = ringmesh("lab", "run", scenario["name"], "--variant", failing, "--json")
    assert code == 1
    assert ringmesh("lab", "replay", json.loads(out)["witness"])[0] == 1


def test_the_explorer_is_imported_for_the_lab_only() -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from services.cli import app\n"
        "CliRunner().invoke(app, ['--help']); CliRunner().invoke(app, ['serve', 'nic', '--help'])\n"
        "print(sorted({'greenlet', 'services.lab', 'services.scmi_cli', 'aiohttp', 'rich.live'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_capture_that_is_none_is_an_error_that_says_where(tmp_path: Path) -> None:
    file = tmp_path / "x.cap"
    file.write_bytes(b"\x93\x01\x02\x03")
    code, _, err = ringmesh("capture", "show", str(file))
    assert code == 1
    assert "record = 0" in err


def test_a_service_that_cannot_be_reached_is_no_usage_error(tmp_path: Path) -> None:
    code, _, err = ringmesh("capture", "record", "http://127.0.0.1:1", str(tmp_path / "x.cap"))
    assert code == 1
    assert "127.0.0.1:1" in err
