"""``ringmesh guest boot`` as a process: its exit codes, its lines, Ctrl-C, and keys on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.linux_guest.boot import KEYS
from services.linux_guest.files import PROJECT
from services.linux_guest.guest import Boot
from tests.services.linux_guest.conftest import Plan
from tests.services.linux_guest.fake_qemu import READY

GUARD = 60.0


def command(boot: Boot, *options: str) -> list[str]:
    paths = ["--kernel", str(boot.kernel), "--initrd", str(boot.initrd)]
    return [sys.executable, "-m", "services.cli", "guest", "boot", *paths, *options]


def run(boot: Boot, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(boot, *options), cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GUARD
    )  # fmt: skip


def test_ready_is_0_and_both_streams_are_shown(plan: Plan) -> None:
    done = run(plan(READY, stays=False))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "console| GUEST-INIT uptime 0.5" in lines
    assert lines[-1] == "the guest was ready 1.5 s after its start"


def test_never_ready_is_1(plan: Plan) -> None:
    done = run(plan(("Kernel panic",), stays=False))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "never got to GUEST-READY" in done.stdout


def test_its_time_is_over(plan: Plan) -> None:
    done = run(plan(("booting",)), "--seconds", "0.1")
    assert done.returncode == 1, done.stdout + done.stderr


def test_the_platform_asks_for_shutdown_and_says_where_nobody_listens(plan: Plan) -> None:
    """The stand-in has no SCMI, so it stays until its time is over."""
    done = run(plan(), "--power-off-after", "0.1", "--seconds", "6", "--set", "LOG__LEVEL=info")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "system power state asked for" in done.stdout


@contextmanager
def started(boot: Boot, **streams: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(boot), cwd=PROJECT, text=True, **streams)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_ctrl_c_ends_both(plan: Plan) -> None:
    for said, code in ((READY, 0), (("booting",), 130)):
        with started(plan(said), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == f"console| {said[-1]}":
                    break
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(children) == 2
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert process.wait(GUARD) == code, rest
            assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_a_key_on_a_terminal(plan: Plan) -> None:
    assert KEYS["p"] == "shutdown"
    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                seen.extend(os.read(ours, 4096))
            except OSError:
                return

    def wait_for(mark: bytes) -> None:
        deadline = time.monotonic() + GUARD
        while mark not in seen:
            assert time.monotonic() < deadline, bytes(seen[-2000:])
            time.sleep(0.02)

    reader = threading.Thread(target=read)
    with started(plan(), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        reader.start()
        wait_for(b"GUEST-READY")
        os.write(ours, b"xp")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(GUARD) == 0
    reader.join(GUARD)
    os.close(ours)
