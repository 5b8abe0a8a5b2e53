"""``ringmesh run`` in a terminal: a live table, readable logs above it, Ctrl-C that reaches the supervisor only."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from tests.mesh.harness import GUARD, READY, RINGMESH, ROOT, clean, until
from tests.mesh.report_schema import REPORT

pytestmark = pytest.mark.mesh

#: runs a command in a pseudo-terminal of its own: standard input becomes what is typed there
IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_a_run_in_a_terminal(tmp_path: Path) -> None:
    seen = tmp_path / "screen"
    report = tmp_path / "r.json"
    command = [*RINGMESH, "run", "--seconds", "60", "--report", str(report)]
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "50"}

    def screen() -> str:
        return ESCAPES.sub("", seen.read_text(errors="replace")).replace("\r", "")

    with (
        seen.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, *command], cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=out
        ) as popen,
    ):
        assert popen.stdin is not None
        try:
            until(lambda: "poll p99" in screen(), "the live table")
            (nic,) = (int(m[2]) for m in READY.finditer(screen()) if m[1] == "nic")
            os.kill(nic, signal.SIGKILL)
            until(lambda: "restarts: nic 1" in screen(), "the restart in the table")
            time.sleep(1.0)
            popen.stdin.write(b"\x03")
            popen.stdin.flush()
            assert popen.wait(GUARD) == 0, screen()
        finally:
            popen.kill()
    text = screen()
    jsonschema.validate(result := json.loads(report.read_text()), REPORT)
    assert not clean(result)
    assert result["seconds"] < 30
    assert "nothing lost, nothing doubled, nothing corrupted" in text
    assert "nic killed by SIGKILL: starting it again now" in text
    # what services log is for people here: no JSON, and the guest says what it met
    assert '{"' not in text
    assert re.search(r"\[warning +\] cannot connect .*peer=.* role=(guest|vmm)", text)
    assert text.count("waiting for what is in flight") == 1
