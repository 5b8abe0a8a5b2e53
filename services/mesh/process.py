"""One child process: started, watched through its pidfd, reaped with the kernel's account of what it used."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.mesh.lifeline import SUPERVISOR

PROJECT: Final = Path(__file__).resolve().parents[2]
#: Longest line of a child's log that is shown, in bytes.
MAX_LINE: Final = 64 * 1024


class Process:
    """A running ``serve ROLE``. ``returncode`` is None while it runs, negative for the signal that ended it.

    ``cpu_seconds`` is user and system time from the kernel (``wait4(2)``): exact once the process has ended, however
    it ended, and 0 before.
    """

    def __init__(self, popen: subprocess.Popen[bytes], line: Callable[[str], None] | None) -> None:
        self._popen: Final = popen
        self._ended: Final = asyncio.Event()
        self.pid: Final = popen.pid
        self.returncode: int | None = None
        self.cpu_seconds = 0.0
        self._loop: Final = asyncio.get_running_loop()
        self._pidfd: Final = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._reap)
        self._line: Final = line
        self._rest = b""
        if popen.stderr is not None:
            os.set_blocking(popen.stderr.fileno(), False)
            self._loop.add_reader(popen.stderr.fileno(), self._read)

    @classmethod
    def start(cls, role: str, env: dict[str, str], line: Callable[[str], None] | None = None) -> Process:
        """Start the service ``role``. Its log goes to ``line`` line by line, or to our own standard error.

        It gets a process group of its own: Ctrl-C in a terminal reaches the supervisor only, which stops the services
        in order. It dies with the supervisor, see :mod:`services.mesh.lifeline`.
        """
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RINGMESH_")}
        popen = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "serve", role],
            env=inherited | env | {SUPERVISOR: str(os.getpid())},
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stderr=None if line is None else subprocess.PIPE,
            process_group=0,
        )
        return cls(popen, line)

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing if the process has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait until the process has ended; its returncode."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def stop(self, timeout: float) -> bool:
        """SIGTERM, and SIGKILL if it has not ended after ``timeout`` seconds. True: it ended by itself."""
        self.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await self.wait()
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            await self.wait()
            return False
        return True

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status, usage = os.wait4(self.pid, 0)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.returncode = self._popen.returncode = os.waitstatus_to_exitcode(status)
        if self._popen.stderr is not None and not self._popen.stderr.closed:
            self._read()
            self._close_log()
        self._ended.set()

    # --- its log ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Pass whole lines on; what never ends in a newline is cut at MAX_LINE."""
        assert self._popen.stderr is not None
        while True:
            try:
                data = os.read(self._popen.stderr.fileno(), MAX_LINE)
            except BlockingIOError:
                return
            if not data:
                self._close_log()
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for text in lines:
                self._say(text)
            if len(self._rest) > MAX_LINE:
                self._say(self._rest)
                self._rest = b""

    def _close_log(self) -> None:
        assert self._popen.stderr is not None
        if not self._popen.stderr.closed:
            self._loop.remove_reader(self._popen.stderr.fileno())
            self._popen.stderr.close()
        if self._rest:
            self._say(self._rest)
            self._rest = b""

    def _say(self, text: bytes) -> None:
        if self._line is not None:
            self._line(text.decode(errors="replace"))
