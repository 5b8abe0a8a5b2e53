"""The service as a process: its socket file, its admin endpoint, its death and its successor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.scmi import clock, header, sensor
from tests.services.scmi_platform.scmi_rig import SMALL, words
from tests.services.vhost_user.front_end import GUARD
from tests.services.vhost_user.scmi_front import CMDQ, Guest
from tests.services.vhost_user.test_server import CPU, RATE_GET, RATE_SET, READING_GET, rate


class Platform:
    """``ringmesh serve scmi --listen vhost-user:PATH`` with more ``options``; ``admin`` is its URL."""

    def __init__(self, path: Path, *options: str, **environ: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "services.cli",
                "serve",
                "scmi",
                "--listen",
                f"vhost-user:{path}",
                "--board",
                str(SMALL),
                *options,
            ],
            env=os.environ | {"RINGMESH_ADMIN__PORT": "0"} | environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == "started":
                self.admin = f"http://127.0.0.1:{said['admin_port']}"
                break
        else:
            self.process.communicate(timeout=GUARD)
            raise AssertionError(f"it ended with {self.process.returncode}")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.admin + path, timeout=GUARD) as answer:
            return str(answer.read().decode())

    def post(self, path: str, value: object) -> None:
        request = urllib.request.Request(self.admin + path, json.dumps(value).encode())
        with urllib.request.urlopen(request, timeout=GUARD) as answer:
            assert answer.status == 200

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=GUARD)
        return self.process.returncode


@contextmanager
def platform(path: Path, *options: str, **environ: str) -> Iterator[Platform]:
    made = Platform(path, *options, **environ)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end(signal.SIGKILL)


def test_from_start_to_end(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    with platform(path) as served:
        assert json.loads(served.get("/healthz")) == {"status": "ok"}
        assert json.loads(served.get("/readyz"))
        guest = Guest(path)
        assert rate(guest.command(*RATE_GET, CPU)) == 300
        metrics = served.get("/metrics")
        for sample in (
            'ringmesh_poll_latency_seconds_count{queue="cmdq",service="scmi"} 1.0',
            'ringmesh_queue_depth{queue="cmdq",service="scmi"}',
            'ringmesh_vhost_user_requests_total{guest="vm0",request="SET_VRING_KICK",service="scmi"} 2.0',
            'ringmesh_scmi_device_commands_total{guest="vm0",service="scmi"} 1.0',
            'ringmesh_vhost_device_kicks_total{guest="vm0",service="scmi"} 1.0',
        ):
            assert sample in metrics
        guest.front.send(99)
        assert guest.front.ask_u64(1)
        assert 'ringmesh_vhost_user_refused_total{guest="vm0",reason="' in served.get("/metrics")
        # in the middle of everything
        assert served.end(signal.SIGTERM) == 0
        assert not path.exists()
        assert guest.front.hung_up()
        guest.close()


def test_one_process_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    with platform(path) as served:
        second = subprocess.run(
            [sys.executable, "-m", "services.cli", "serve", "scmi", "--listen", f"vhost-user:{path}"],
            env=os.environ | {"RINGMESH_ADMIN__PORT": "0", "RINGMESH_BOARD": str(SMALL)},
            capture_output=True,
            text=True,
            timeout=GUARD,
            check=False,
        )
        assert second.returncode == 2
        assert str(path) in second.stderr
        assert "another process listens there" in second.stderr
        guest = Guest(path)
        assert rate(guest.command(*RATE_GET, CPU)) == 300
        guest.close()
        assert served.end(signal.SIGTERM) == 0


def test_the_successor_of_a_killed_platform(tmp_path: Path) -> None:
    """It takes the dead one's socket over; what may not be done twice is not done, the rest is."""
    path = tmp_path / "vm0.sock"
    with platform(path) as served:
        guest = Guest(path, start=0xFFFD)
        for turn in range(5):
            assert rate(guest.command(*RATE_GET, CPU, poll=turn % 2 == 0)) == 300
        served.end(signal.SIGKILL)
    assert path.is_socket()
    commands = [(*READING_GET, words(0, 1)), (*RATE_GET, words(CPU))]
    for n, (protocol, message, payload) in enumerate(commands):
        guest.send(n, header.command(protocol, message, n, payload))
    with platform(path) as served:
        guest.reconnect(path)
        replies: dict[int, bytes] = {}
        deadline = time.monotonic() + GUARD
        while len(replies) < 2:
            assert time.monotonic() < deadline
            replies |= {n: guest.memory.read(guest.data + 512 * n + 260, size - 4)
                        for n, size in guest.drivers[CMDQ].get_bufs(8)}  # fmt: skip
        assert replies[0] == words(-7), "COMMS_ERROR: it may have been under way already"
        assert rate(replies[1]) == 300
        assert guest.command(*RATE_SET, 0, CPU, 500, 0) == words(0)
        assert 'ringmesh_vhost_queue_again_total{guest="vm0",queue="cmdq",service="scmi"} 2.0' in served.get("/metrics")
        guest.close()
        assert served.end(signal.SIGTERM) == 0
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    path.write_text("mine")
    with pytest.raises(AssertionError, match="ended with 2"):
        Platform(path)
    assert path.read_text() == "mine"


def test_two_sockets_and_a_file_of_settings(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.sock", "b.sock", "c.sock")]
    settings = tmp_path / "scmi.toml"
    settings.write_text(f'sockets = ["{paths[2]}"]\n')
    with platform(paths[0], "--listen", f"vhost-user:{paths[1]},agent=BOSS", "--config", str(settings)) as served:
        for path in paths:
            guest = Guest(path)
            assert rate(guest.command(*RATE_GET, CPU)) == 300
            guest.close()
        assert served.end(signal.SIGTERM) == 0
    assert not any(path.exists() for path in paths)


def test_faults_by_the_admin_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    with platform(path, RINGMESH_FAULTS__AFTER="0", RINGMESH_FAULTS__LATE="1.0") as served:
        guest = Guest(path)
        began = time.monotonic()
        for n in range(8):
            guest.send(n, header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_GET, n, words(CPU)))
        guest.front.kick(CMDQ)
        order: list[int] = []
        while len(order) < 8:
            guest.wait(CMDQ)
            order += [n for n, _ in guest.drivers[CMDQ].get_bufs(8)]
        assert sorted(order) == list(range(8))
        assert order != list(range(8))
        assert time.monotonic() - began > 0.05
        assert 'ringmesh_scmi_faults_late_total{guest="vm0",service="scmi"} 8.0' in served.get("/metrics")
        guest.close()


def test_a_front_end_that_cuts_off_its_memory_loses_its_connection(tmp_path: Path) -> None:
    """A file that cannot be sealed, shortened under a running ring: that front end is let go, others are served."""
    path = tmp_path / "vm0.sock"
    with platform(path) as served:
        guest = Guest(path, up=False)
        with (tmp_path / "ram").open("w+b") as file:
            file.truncate(guest.rams[0].size)
            ram, guest.rams[0].fd = guest.rams[0].fd, file.fileno()
            guest.bring_up()
            os.ftruncate(file.fileno(), 4096)
            guest.front.kick(CMDQ)
            assert guest.front.hung_up()
            guest.rams[0].fd = ram
        guest.close()
        again = Guest(path)
        assert rate(again.command(*RATE_GET, CPU)) == 300
        again.close()
        assert served.end(signal.SIGTERM) == 0


def test_a_client_that_says_nothing_holds_up_nobody_for_long(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    with platform(path) as served:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        guest = Guest(path)
        assert guest.command(sensor.PROTOCOL, sensor.Command.PROTOCOL_VERSION)[:4] == words(0)
        guest.close()
        assert served.end(signal.SIGTERM) == 0
