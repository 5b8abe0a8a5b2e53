"""``ringmesh run``: the main job, as a user starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from tests.mesh.harness import GUARD, READY, RINGMESH, ROOT, clean, gone, running, stop, until
from tests.mesh.report_schema import REPORT, ROLES

pytestmark = pytest.mark.mesh


def _established(pids: dict[str, int]) -> set[tuple[str, str]]:
    """Pairs of roles (who connected, who listens) with a TCP connection between their processes."""
    listening = {}
    for role, pid in pids.items():
        for conn in psutil.Process(pid).net_connections("tcp"):
            if conn.status == psutil.CONN_LISTEN:
                listening[conn.laddr.port] = role
    return {
        (role, listening[conn.raddr.port])
        for role, pid in pids.items()
        for conn in psutil.Process(pid).net_connections("tcp")
        if conn.status == psutil.CONN_ESTABLISHED and conn.raddr and conn.raddr.port in listening
    }


def test_a_run_reports_and_exits_with_0(tmp_path: Path) -> None:
    with running("run", "--seconds", "6", report=tmp_path / "r.json") as run:
        services = run.services()
        pids = {role: pid for role, (pid, _) in services.items()}
        assert set(pids) == set(ROLES)
        assert len(set(pids.values())) == 4
        assert run.pids() == pids
        # every link of the floor plan, and nothing else
        assert _established(pids) == {
            ("guest", "scmi"), ("guest", "nic"), ("guest", "its"), ("scmi", "its"), ("nic", "its"),
        }  # fmt: skip
        used: dict[str, float] = {}
        while run.popen.poll() is None:
            for role, pid in pids.items():
                try:
                    times = psutil.Process(pid).cpu_times()
                except psutil.Error:
                    continue
                used[role] = max(used.get(role, 0.0), times.user + times.system)
            time.sleep(0.1)
        assert run.wait() == 0, run.text
        report = run.report()
    jsonschema.validate(report, REPORT)
    assert not clean(report)
    assert report["net"]["map_changes"] >= 2
    assert report["scmi"]["sent"] == report["scmi"]["completed"] + report["scmi"]["timed_out"]
    assert 0 < report["scmi"]["polled"] < report["scmi"]["completed"]
    assert report["scmi"]["notifications"] >= 2 * 5  # several a second
    assert report["net"]["tx"] == report["net"]["rx"]
    assert report["irq"]["raised"] == report["irq"]["delivered"] + report["irq"]["coalesced"]
    assert report["its"]["commands"] > 20
    for role in ROLES:
        # the kernel's account at the end, and what /proc said a moment before it
        assert used[role] - 0.02 <= report["services"][role]["cpu_seconds"] <= used[role] + 1.5
        assert report["services"][role]["rss_bytes"] > 10e6
    assert not run.log, "a run without trouble has nothing to warn of"
    assert gone(list(pids.values()))
    assert run.said("nothing lost, nothing doubled, nothing corrupted")
    at = next(number for number, line in enumerate(run.lines) if line.startswith("service"))
    assert run.lines[at].split() == ["service", "queue", "depth", "poll", "p50", "poll", "p99"]
    table = run.lines[at : at + 19]  # eighteen queues, nine of them the NIC's
    assert {line.split()[0] for line in table[1:]} == set(ROLES)
    assert len(set(map(len, table))) == 1, "aligned"


def test_twenty_seconds_move_what_was_promised(tmp_path: Path) -> None:
    with running("run", "--seconds", "20", report=tmp_path / "r.json") as run:
        assert run.wait() == 0, run.text
        report = run.report()
    jsonschema.validate(report, REPORT)
    assert not clean(report)
    assert report["scmi"]["completed"] >= 20_000
    assert report["net"]["rx"] >= 400_000
    assert report["net"]["map_changes"] >= 3


def test_three_guests_share_the_devices(tmp_path: Path) -> None:
    with running("run", "--seconds", "4", "--guests", "3", report=tmp_path / "r.json") as run:
        assert run.wait() == 0, run.text
        report = run.report()
    jsonschema.validate(report, REPORT)
    assert not clean(report)
    assert report["net"]["map_changes"] >= 3
    assert report["scmi"]["completed"] > 1000


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    with subprocess.Popen(
        [*RINGMESH, "run", "--seconds", "2", "--report", str(report)], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as popen:  # fmt: skip
        assert popen.stdout is not None
        assert popen.stderr is not None
        assert READY.match(popen.stdout.readline())
        popen.stdout.close()
        assert popen.stderr.read() == ""
        assert popen.wait(GUARD) == 0
    jsonschema.validate(json.loads(report.read_text()), REPORT)


def _refused(*args: str, variables: dict[str, str] | None = None) -> tuple[int, str]:
    with running("run", *args, variables=variables) as run:
        code = run.wait()
        assert not run.lines, "nothing was started"
        return code, run.text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nonsense = 1\n", "nonsense"),
        ("[[clocks]\n", "board.toml"),
        ('[[clocks]]\nname = "A"\nrates = "fast"\n', "clocks"),
    ],
)
def test_a_bad_board_is_named_before_anything_starts(text: str, named: str, tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    board.write_text(text)
    code, said = _refused("--board", str(board))
    assert code == 2
    assert str(board) in said
    assert named in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--board", "/nowhere/board.toml"], "--board"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "soon"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--guests", "0"], "--guests"),
        (["--guests", "many"], "--guests"),
        (["--report", "/nowhere/r.json"], "--report"),
        (["--set", "LOG__LEVEL"], "--set"),
        (["--set", "NO__SUCH=1"], "NO__SUCH"),
        (["--set", "GUESTS=2"], "GUESTS"),
        (["--set", "drain_seconds=soon"], "drain_seconds"),
        (["--set", "WORKLOAD__NET_WINDOW=-1"], "workload.net_window"),
    ],
)
def test_usage_errors_exit_with_2_and_name_the_field(args: list[str], named: str) -> None:
    code, said = _refused(*args)
    assert code == 2
    assert named in said


@pytest.mark.parametrize(
    ("name", "value"),
    [("RINGMESH_LOG__LEVEL", "x"), ("RINGMESH_NO__SUCH", "1"), ("RINGMESH_NO__PORT", "1"), ("RINGMESH_GUESTS", "2")],
)
def test_a_bad_variable_is_named_before_anything_starts(name: str, value: str) -> None:
    code, said = _refused(variables={name: value})
    assert code == 2
    assert name in said
    assert len(said.splitlines()) == 1


def test_settings_and_variables_reach_the_service_that_knows_them(tmp_path: Path) -> None:
    variables = {
        "RINGMESH_ADMIN__PORT": "9100",  # as the image sets it, for a single service
        "RINGMESH_WORKLOAD__NET_WINDOW": "0",
        "RINGMESH_WORKLOAD__SCMI_WORKERS": "0",
    }
    setting = ("--set", "workload__scmi_workers=4")
    with running("run", "--seconds", "2", *setting, report=tmp_path / "r.json", variables=variables) as run:
        assert run.wait() == 0, run.text
        report = run.report()
    assert run.said("RINGMESH_ADMIN__PORT: not used, a mesh chooses its own addresses")
    assert report["net"]["tx"] == 0
    assert report["scmi"]["completed"] > 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_order_and_the_report_comes(number: signal.Signals, tmp_path: Path) -> None:
    with running("run", "--seconds", "60", report=tmp_path / "r.json") as run:
        pids = [pid for pid, _ in run.services().values()]
        time.sleep(1.0)
        run.popen.send_signal(number)
        assert run.wait() == 0, run.text
        assert gone(pids)
        report: dict[str, Any] = run.report()
    jsonschema.validate(report, REPORT)
    assert not clean(report)
    assert 0.5 < report["seconds"] < 60


def test_a_second_signal_forces_the_end() -> None:
    with running("run", "--seconds", "60") as run:
        services = run.services()
        time.sleep(0.5)
        # a device that does not answer keeps the first signal's drain from ending
        run.signal_service("nic", signal.SIGSTOP)
        run.popen.send_signal(signal.SIGINT)
        until(lambda: run.said("waiting for what is in flight"), "drain")
        run.popen.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.text  # the drain's end would be a report
        assert gone([pid for pid, _ in services.values()])


def test_a_signal_during_start_up_starts_nothing_more() -> None:
    with running("run", "--seconds", "60") as run:
        until(lambda: run.pids(), "a first service")
        pids = list(run.pids().values())
        assert stop(run) == 130
        assert gone(pids)
