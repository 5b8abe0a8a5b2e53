"""A service goes with its supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from services.mesh.lifeline import SUPERVISOR, follow

CHILD = """
import os, time
from services.mesh.lifeline import follow
follow(os.environ)
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env=os.environ | {{"{SUPERVISOR}": str(os.getpid())}})
time.sleep(60)
"""


def test_nothing_happens_without_a_supervisor() -> None:
    environ = {"OTHER": "1"}
    follow(environ)
    assert environ == {"OTHER": "1"}


def test_a_supervisor_that_is_gone_ends_the_service() -> None:
    environ = {SUPERVISOR: "1" if os.getppid() != 1 else "2"}
    # in a process of its own: it sets the death signal first
    code = subprocess.run(
        [sys.executable, "-c", f"from services.mesh.lifeline import follow; follow({environ!r})"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert code.returncode == 1
    assert "is gone" in code.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux'")
def test_the_service_dies_when_its_supervisor_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        deadline = time.monotonic() + 10
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
