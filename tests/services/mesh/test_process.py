"""A child process: its log, its account, its end. The child is a real service that is not told where its peers are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.mesh.process import MAX_LINE, Process

ENV = {"RINGMESH_ADMIN__PORT": "0", "RINGMESH_LISTEN__PORT": "0", "RINGMESH_LOG__FORMAT": "json"}


@pytest.fixture
async def its() -> AsyncIterator[tuple[Process, list[str]]]:
    """An ITS service that has started, and the lines that it logged."""
    lines: list[str] = []
    started = asyncio.Event()

    def line(text: str) -> None:
        lines.append(text)
        if '"started"' in text:
            started.set()

    process = Process.start("its", ENV, line)
    async with asyncio.timeout(20):
        await started.wait()
    yield process, lines
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_it_stops_on_sigterm_and_its_account_is_the_kernels(its: tuple[Process, list[str]]) -> None:
    process, lines = its
    assert (process.returncode, process.cpu_seconds) == (None, 0.0)
    assert os.getpgid(process.pid) == process.pid, "Ctrl-C in our terminal must not reach it"
    before = _cpu(process.pid)
    assert await process.stop(10)
    assert process.returncode == 0
    assert before <= process.cpu_seconds < before + 2
    assert before > 0
    assert '"stopped"' in lines[-1]
    process.send_signal(signal.SIGKILL)  # too late, and no error


async def test_one_that_does_not_stop_is_killed_and_still_accounted(its: tuple[Process, list[str]]) -> None:
    process, _ = its
    before = _cpu(process.pid)
    process.send_signal(signal.SIGSTOP)
    assert not await process.stop(0.1)
    assert process.returncode == -signal.SIGKILL
    assert process.cpu_seconds >= before > 0


def _cpu(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _lines_of(script: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], int]:
    """What a child that runs ``script`` instead of a service writes to standard error, and its exit code."""
    popen: Callable[..., Any] = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _command, **kwargs: popen([sys.executable, "-c", script], **kwargs))
    lines: list[str] = []
    process = Process.start("its", {}, lines.append)
    async with asyncio.timeout(20):
        code = await process.wait()
    return lines, code


async def test_an_unfinished_last_line_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; sys.stderr.write('one\\ntwo \\u2013\\nend'); sys.stderr.flush(); sys.exit(3)"
    assert await _lines_of(script, monkeypatch) == (["one", "two \u2013", "end"], 3)


async def test_a_line_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, code = await _lines_of("import sys; sys.stderr.write('x' * 300_000)", monkeypatch)
    assert code == 0
    assert sum(map(len, lines)) == 300_000
    assert max(map(len, lines)) <= 2 * MAX_LINE


async def test_a_log_that_is_closed_early_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, time; os.write(2, b'bye'); os.close(2); time.sleep(0.2)"
    assert await _lines_of(script, monkeypatch) == (["bye"], 0)
