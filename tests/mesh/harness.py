"""A ``ringmesh run`` or ``up`` as a process of its own, seen as a user sees it: its lines, its children, its report."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from services.mesh.scrape import Sample

ROOT: Final = Path(__file__).resolve().parents[2]
RINGMESH: Final = (sys.executable, "-m", "services.cli")
READY: Final = re.compile(r"(\w+)\s+ready: pid (\d+), admin (\S+)")
#: Seconds after which something hangs.
GUARD: Final = 60.0
TOKEN: Final = "harness-token"


def until(condition: Callable[[], Any], what: str, seconds: float = GUARD) -> Any:
    """The first true value of ``condition()``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return value


class Run:
    """One supervisor. ``lines`` is what it printed so far, ``log`` what came on standard error."""

    def __init__(
        self, command: str, *args: str, report: Path | None = None, variables: dict[str, str] | None = None
    ) -> None:
        self._report = report
        full = [*RINGMESH, command, *args, *(["--report", str(report)] if report else [])]
        env = {key: value for key, value in os.environ.items() if not key.startswith("RINGMESH_")}
        # what a supervisor that is killed cannot remove
        self._left: Final = tempfile.TemporaryDirectory()
        env |= {"RINGMESH_TOKEN": TOKEN, "TMPDIR": self._left.name} | (variables or {})
        self.popen: Final = subprocess.Popen(
            full, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, process_group=0,
        )  # fmt: skip
        self.lines: Final[list[str]] = []
        self.log: Final[list[str]] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in ((self.popen.stdout, self.lines), (self.popen.stderr, self.log))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, into: list[str]) -> None:
        for line in stream:
            into.append(line.rstrip("\n"))

    # --- while it runs ------------------------------------------------------------------------------------------------

    def services(self) -> dict[str, tuple[int, str]]:
        """role → (pid, admin URL), once all are ready."""

        def ready() -> dict[str, tuple[int, str]] | None:
            found = {m[1]: (int(m[2]), m[3]) for line in list(self.lines) if (m := READY.match(line))}
            assert self.popen.poll() is None or len(found) == 4, self.text
            return found if len(found) == 4 else None

        found: dict[str, tuple[int, str]] = until(ready, "four services ready")
        return found

    def pids(self) -> dict[str, int]:
        """role → pid of the children that run now, from the process table."""
        found = {}
        for child in psutil.Process(self.popen.pid).children():
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                if "serve" in command:
                    found[command[command.index("serve") + 1]] = child.pid
        return found

    def signal_service(self, role: str, number: int) -> int:
        """Send a signal to a service; its pid."""
        pid: int = until(lambda: self.pids().get(role), f"{role} runs")
        os.kill(pid, number)
        return pid

    def said(self, text: str) -> str | None:
        """The first line with ``text``, on standard output or error."""
        return next((line for line in [*self.lines, *self.log] if text in line), None)

    # --- its end ------------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        return "\n".join([*self.lines, *self.log])

    def wait(self, seconds: float = GUARD) -> int:
        """Wait until it has ended; its exit code."""
        code = self.popen.wait(seconds)
        for reader in self._readers:
            reader.join(GUARD)
        self._left.cleanup()
        return code

    def report(self) -> dict[str, Any]:
        assert self._report is not None
        report: dict[str, Any] = json.loads(self._report.read_text())
        return report


@contextlib.contextmanager
def running(
    command: str, *args: str, report: Path | None = None, variables: dict[str, str] | None = None
) -> Iterator[Run]:
    """A supervisor that is gone, its services too, when the block ends. ``variables`` are set in its environment."""
    run = Run(command, *args, report=report, variables=variables)
    try:
        yield run
    finally:
        if run.popen.poll() is None:
            run.popen.kill()
        run.wait()
        for stream in (run.popen.stdout, run.popen.stderr):
            if stream is not None:
                stream.close()


def gone(pids: list[int]) -> bool:
    """Have all these processes ended?"""
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def clean(report: dict[str, Any]) -> dict[str, int]:
    """What must be 0 in every report of a good run, if it is not."""
    return {
        f"{part}.{key}": report[part][key]
        for part in ("scmi", "net", "irq")
        for key in ("lost", "duplicated", "corrupted")
        if report[part][key]
    }


async def scrape(admin: str) -> Sample:
    """One scrape of a service."""
    return Sample.parse(await scrape_text(admin))


async def scrape_text(admin: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(admin + "/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


def stop(run: Run) -> int:
    """SIGTERM; the exit code."""
    run.popen.send_signal(signal.SIGTERM)
    return run.wait()


def link_port(run: Run, role: str) -> int:
    """The port where a device listens for links: the one that is not its admin port."""
    pid, admin = run.services()[role]
    listening = {c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    (port,) = listening - {int(admin.rpartition(":")[2])}
    return int(port)
