"""The two processes of a booted guest: the platform, and QEMU with the guest's console on its standard streams.

Both get a process group of their own, so Ctrl-C reaches us alone, and both die with us however we end. QEMU asks
nobody for that, so it is started by way of ``python -m services.linux_guest.children``, which ties itself to us and
becomes QEMU.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from services.mesh.lifeline import SUPERVISOR, follow
from services.mesh.process import PROJECT, Process

#: Bytes read from the console at a time.
_CHUNK: Final = 64 * 1024


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RINGMESH_")}
    return inherited | dict(env) | {SUPERVISOR: str(os.getpid())}


def start_platform(socket: Path, agent: str, env: Mapping[str, str], line: Callable[[str], None]) -> Process:
    """``ringmesh serve scmi`` as the vhost-user back end of ``agent`` at ``socket``; what it logs goes to ``line``."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "serve", "scmi", "--listen", f"vhost-user:{socket},agent={agent}"],
        env=_environment(env),
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    return Process(popen, line)


class Qemu:
    """A running QEMU. ``console`` gets what the guest prints, as it comes; ``line`` what QEMU itself says."""

    def __init__(self, command: Sequence[str], console: Callable[[bytes], None], line: Callable[[str], None]) -> None:
        popen = subprocess.Popen(
            [sys.executable, "-m", "services.linux_guest.children", *command],
            env=_environment({}),
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert popen.stdin is not None
        assert popen.stdout is not None
        self.process: Final = Process(popen, line)
        self._stdin: Final = popen.stdin
        self._stdout: Final = popen.stdout
        self._console: Final = console
        self._loop: Final = asyncio.get_running_loop()
        #: everything that the guest printed has been read
        self.drained: Final = asyncio.Event()
        os.set_blocking(self._stdout.fileno(), False)
        self._loop.add_reader(self._stdout.fileno(), self._read)

    def type(self, text: str) -> None:
        """Type ``text`` and Enter at the guest's console; nothing if it is gone. A guest reads 4095 bytes a line."""
        try:
            self._stdin.write(text.encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError):
            pass

    async def stop(self, timeout: float) -> None:
        """End it if it has not ended, read what is left."""
        await self.process.stop(timeout)
        self._read()
        self._close()

    def _read(self) -> None:
        while not self._stdout.closed:
            try:
                data = os.read(self._stdout.fileno(), _CHUNK)
            except BlockingIOError:
                return
            if not data:
                self._close()
                return
            self._console(data)

    def _close(self) -> None:
        if not self._stdout.closed:
            self._loop.remove_reader(self._stdout.fileno())
            self._stdout.close()
            try:
                self._stdin.close()
            except OSError:
                pass  # what was typed last has no reader any more
        self.drained.set()


def main(command: Sequence[str]) -> None:
    """Tie this process to its supervisor and become ``command``."""
    follow(os.environ)
    os.execv(command[0], list(command))


if __name__ == "__main__":
    main(sys.argv[1:])
