"""A service of the running mesh dies, stops or hangs: what is in flight completes exactly once all the same."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from tests.mesh.harness import Run, clean, gone, running, until
from tests.mesh.report_schema import REPORT

pytestmark = pytest.mark.mesh


def _under_load(run: Run) -> None:
    """Wait until the workload has run for about a second."""
    run.services()
    until(lambda: run.said("token") or run.pids().get("guest"), "services")
    time.sleep(1.0)


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _finish(run: Run) -> dict[str, Any]:
    assert run.wait() == 0, run.text
    report = run.report()
    jsonschema.validate(report, REPORT)
    assert not clean(report), run.text
    assert report["scmi"]["timed_out"] == 0
    return report


@pytest.mark.parametrize("role", ["scmi", "nic", "its"])
def test_a_device_killed_twice_loses_doubles_and_corrupts_nothing(role: str, tmp_path: Path) -> None:
    with running("run", "--seconds", "5", report=tmp_path / "r.json") as run:
        _under_load(run)
        used = _cpu(run.pids()[role])
        first = run.signal_service(role, signal.SIGKILL)
        until(lambda: run.pids().get(role, first) != first, f"{role} started again")
        time.sleep(1.5)
        used += _cpu(run.pids()[role])
        second = run.signal_service(role, signal.SIGKILL)
        until(lambda: run.pids().get(role, second) != second, f"{role} started again")
        time.sleep(1.0)
        used += _cpu(run.pids()[role])
        report = _finish(run)
    assert report["services"][role]["restarts"] == 2, run.text
    assert sum(cost["restarts"] for cost in report["services"].values()) == 2
    assert run.said(f"{role} killed by SIGKILL: starting it again now")
    assert run.said("2 deaths in quick succession")
    # three processes stand in the account: what those that were killed had used is not forgotten
    assert report["services"][role]["cpu_seconds"] >= used - 0.05
    # load went on after each of them: the second half of the run did work of every kind
    assert report["scmi"]["completed"] > 1000
    assert report["net"]["rx"] > 10_000


@pytest.mark.parametrize("role", ["scmi", "nic", "its"])
def test_a_device_that_hangs_for_two_seconds_is_waited_for(role: str, tmp_path: Path) -> None:
    with running("run", "--seconds", "5", report=tmp_path / "r.json") as run:
        _under_load(run)
        pid = run.signal_service(role, signal.SIGSTOP)
        time.sleep(2.0)
        os.kill(pid, signal.SIGCONT)
        report = _finish(run)
    assert report["services"][role]["restarts"] == 0
    slowest = max(report["scmi"]["rtt_us"]["max"], report["net"]["rtt_us"]["max"])
    assert slowest > 1_500_000


def test_all_devices_killed_at_once_come_back(tmp_path: Path) -> None:
    with running("run", "--seconds", "5", report=tmp_path / "r.json") as run:
        _under_load(run)
        for role in ("nic", "its", "scmi"):
            run.signal_service(role, signal.SIGKILL)
        report = _finish(run)
    assert {role: cost["restarts"] for role, cost in report["services"].items()} == {
        "guest": 0, "scmi": 1, "nic": 1, "its": 1,
    }  # fmt: skip


def test_the_guests_death_ends_the_run_and_every_child(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{}")  # of an earlier run
    with running("run", "--seconds", "60", report=tmp_path / "r.json") as run:
        _under_load(run)
        children = list(run.pids().values())
        run.signal_service("guest", signal.SIGKILL)
        assert run.wait() == 1, run.text
        assert gone(children)
    assert run.said("guest killed by SIGKILL: the mesh cannot go on")
    assert not (tmp_path / "r.json").exists()
    assert run.said(f"no report: the run ended before its books were closed; {tmp_path / 'r.json'} is not written")


def test_no_child_survives_a_supervisor_that_is_killed() -> None:
    with running("run", "--seconds", "60") as run:
        run.services()
        children = list(run.pids().values())
        os.kill(children[0], signal.SIGSTOP)  # even one that cannot run
        run.popen.kill()
        run.wait()
        until(lambda: gone(children), "children gone")
