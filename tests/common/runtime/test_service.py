"""common.runtime.service: order of start and stop, signals, failures, as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
GUARD = 20.0

PROGRAM = """
import asyncio, sys
from common.errors import RemoteError
from common.runtime.config import BaseConfig, PeerConfig, load
from common.runtime.service import Service, run_service

class Handler:
    def link_up(self, link): pass
    def link_frame(self, link, message): pass
    def link_batch(self, link): pass
    def link_down(self, link, reason): pass

class Demo(Service[BaseConfig]):
    role = "scmi"
    async def start(self):
        print("start", flush=True)
        self.listen(lambda hello: Handler())
        self.admin.post("/fail", lambda body: self.world.spawn("worker", self.broken()))
        self.ready_when("not asked yet", lambda: True)
        if "lonely" in sys.argv:
            self.connect("its", PeerConfig(port=1), Handler())
        if "start_fails" in sys.argv:
            raise ValueError("cannot build")
    async def broken(self):
        raise ValueError("worker broke")
    async def drain(self):
        print("drain", flush=True)
        if "slow" in sys.argv:
            await asyncio.sleep(60)
    async def stop(self):
        print("stop", flush=True)

if __name__ == "__main__":
    sys.exit(run_service(Demo, load(BaseConfig)))
"""


class _Process:
    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.lines: list[dict[str, Any]] = []

    def until(self, event: str) -> dict[str, Any]:
        """Read the log until ``event``."""
        assert self.child.stderr is not None
        for text in self.child.stderr:
            line: dict[str, Any] = json.loads(text)
            self.lines.append(line)
            if line["event"] == event:
                return line
        raise AssertionError(f"no {event!r} in {self.lines}")

    def finish(self) -> tuple[int, list[str]]:
        """Exit code, and what it printed."""
        out, err = self.child.communicate(timeout=GUARD)
        self.lines += [json.loads(text) for text in err.splitlines()]
        return self.child.returncode, out.split()

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., _Process]]:
    program = tmp_path / "demo.py"
    program.write_text(PROGRAM, encoding="utf-8")
    processes: list[_Process] = []

    def start(*flags: str, **environ: str) -> _Process:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RINGMESH_")}
        child = subprocess.Popen(
            [sys.executable, str(program), *flags],
            env=env | environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(_Process(child))
        return processes[-1]

    yield start
    for process in processes:
        process.child.kill()
        process.child.communicate()


def _get(port: int, path: str, data: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=GUARD) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_exits_with_zero(launch: Callable[..., _Process], number: signal.Signals) -> None:
    service = launch()
    started = service.until("started")
    assert _get(started["admin_port"], "/readyz") == (200, {"ready": True, "reasons": []})
    assert _get(started["admin_port"], "/healthz")[0] == 200
    service.child.send_signal(number)
    assert service.finish() == (0, ["start", "drain", "stop"])
    assert service.events[-2:] == ["stopping", "stopped"]
    assert "no token is set and the address is not loopback" not in service.events


def test_the_drain_has_a_deadline(launch: Callable[..., _Process]) -> None:
    service = launch("slow", RINGMESH_DRAIN_SECONDS="0.1")
    service.until("started")
    service.child.send_signal(signal.SIGTERM)
    assert service.finish() == (0, ["start", "drain", "stop"])
    assert "drain deadline passed" in service.events


def test_a_second_signal_leaves_at_once(launch: Callable[..., _Process]) -> None:
    service = launch("slow", RINGMESH_DRAIN_SECONDS="60")
    port = service.until("started")["admin_port"]
    service.child.send_signal(signal.SIGTERM)
    service.until("stopping")
    assert _get(port, "/readyz") == (503, {"ready": False, "reasons": ["draining"]})
    service.child.send_signal(signal.SIGTERM)
    assert service.finish() == (128 + signal.SIGTERM, ["start", "drain"])
    assert service.events[-1] == "second signal: leaving at once"


def test_a_failed_actor_takes_the_service_down(launch: Callable[..., _Process]) -> None:
    service = launch()
    _get(service.until("started")["admin_port"], "/fail", b"{}")
    assert service.finish() == (1, ["start", "stop"])
    assert [line.get("actor") for line in service.lines if line["event"] == "service failed"] == ["worker"]


def test_a_failed_start_is_cleaned_up_and_exits_with_one(launch: Callable[..., _Process]) -> None:
    service = launch("start_fails")
    assert service.finish() == (1, ["start", "stop"])
    assert "ValueError: cannot build" in service.lines[-1]["exception"]


def test_an_address_in_use_is_said_in_one_line(launch: Callable[..., _Process]) -> None:
    first = launch()
    port = first.until("started")["link_ports"][0]
    second = launch(RINGMESH_LISTEN__PORT=str(port))
    assert second.finish()[0] == 2
    assert (second.lines[-1]["event"], "listen.port" in second.lines[-1]["error"]) == ("cannot start", True)
    first.child.send_signal(signal.SIGTERM)
    assert first.finish()[0] == 0


def test_a_service_is_not_ready_while_a_link_is_down_and_warns_when_it_is_open(
    launch: Callable[..., _Process],
) -> None:
    service = launch("lonely", RINGMESH_LISTEN__HOST="0.0.0.0", RINGMESH_ADMIN__HOST="localhost")
    port = service.until("started")["admin_port"]
    assert _get(port, "/readyz") == (503, {"ready": False, "reasons": ["link scmi to its is down"]})
    assert [line["section"] for line in service.lines if "no token" in line["event"]] == ["listen"]
    service.child.send_signal(signal.SIGTERM)
    assert service.finish()[0] == 0
