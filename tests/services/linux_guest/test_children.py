"""The processes of a guest: their streams, their end, and that they end with us."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

from services.linux_guest.children import Qemu, main
from services.linux_guest.files import PROJECT
from services.mesh.lifeline import SUPERVISOR

GUARD = 30.0


async def test_what_is_typed_and_what_is_printed() -> None:
    heard: list[bytes] = []
    said: list[str] = []
    qemu = Qemu(["/bin/sh", "-c", "read x; echo got $x; echo oops >&2"], heard.append, said.append)
    qemu.type("hello")
    async with asyncio.timeout(GUARD):
        await qemu.drained.wait()
        assert await qemu.process.wait() == 0
    assert b"".join(heard) == b"got hello\n"
    assert said == ["oops"]
    qemu.type("nobody hears this")
    await qemu.stop(1.0)
    await qemu.stop(1.0)


async def up(script: str) -> tuple[Qemu, list[bytes]]:
    """A shell that runs ``script`` and has said so."""
    heard: list[bytes] = []
    said = asyncio.Event()

    def console(data: bytes) -> None:
        heard.append(data)
        said.set()

    qemu = Qemu(["/bin/sh", "-c", script], console, lambda _line: None)
    async with asyncio.timeout(GUARD):
        await said.wait()
    return qemu, heard


async def test_it_is_ended_and_what_it_said_last_is_heard() -> None:
    qemu, heard = await up("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")
    async with asyncio.timeout(GUARD):
        await qemu.stop(GUARD)
    assert b"".join(heard) == b"up\nbye\n"
    assert qemu.process.returncode == 3
    assert qemu.drained.is_set()


async def test_one_that_does_not_end_is_killed() -> None:
    qemu, _ = await up("trap '' TERM; echo up; while :; do sleep 0.05; done")
    async with asyncio.timeout(GUARD):
        await qemu.stop(0.2)
    assert qemu.process.returncode == -signal.SIGKILL


def test_it_dies_with_its_supervisor(tmp_path: Path) -> None:
    """However that ends: here by SIGKILL."""
    note = tmp_path / "pid"
    program = (
        "import os, subprocess, sys\n"
        f"env = os.environ | {{{SUPERVISOR!r}: str(os.getpid())}}\n"
        f"command = ['/bin/sh', '-c', 'echo $$ > {note}; exec sleep 1000']\n"
        "subprocess.run([sys.executable, '-m', 'services.linux_guest.children', *command], env=env)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT)
    try:
        deadline = time.monotonic() + GUARD
        while not (note.exists() and note.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child = int(note.read_text())
    finally:
        supervisor.kill()
        supervisor.wait()
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_program_becomes_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.linux_guest.children", "/bin/echo", "a", "b c"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "a b c\n"
    assert callable(main)
