"""``ringmesh scmi`` beside a mesh under load: one more guest, which nobody minds."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.mesh.harness import GUARD, RINGMESH, ROOT, TOKEN, Run, link_port

pytestmark = pytest.mark.mesh


def scmi(run: Run, *args: str) -> subprocess.CompletedProcess[str]:
    where = ["--connect", f"127.0.0.1:{link_port(run, 'scmi')}"] if args[0] != "trace" else []
    return subprocess.run(
        [*RINGMESH, "scmi", *args, *where, "--token", TOKEN],
        cwd=ROOT, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip


def test_the_mesh_says_where_its_firmware_is(live: Run) -> None:
    live.services()
    end = time.monotonic() + GUARD
    while live.said("firmware at") is None and time.monotonic() < end:
        time.sleep(0.02)
    assert live.said(f"firmware at 127.0.0.1:{link_port(live, 'scmi')}")


def test_an_agent_beside_those_of_the_guests(live: Run) -> None:
    said = json.loads(scmi(live, "protocols", "--json").stdout)
    assert said["platform"]["this_agent"]["name"] == "cli"
    assert said["platform"]["this_agent"]["id"] > 2, "OSPM is guest0"


def test_notifications_of_what_the_guests_do(live: Run) -> None:
    done = scmi(live, "watch", "clock", "--count", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["rate_changed"] * 3


def test_the_guests_messages(live: Run) -> None:
    url = live.services()["guest"][1]
    assert scmi(live, "trace", url, "--on", "--events", "scmi_msg_dump").stdout == "guest0: scmi_msg_dump\n"
    lines: list[str] = []
    end = time.monotonic() + GUARD
    while not lines and time.monotonic() < end:
        lines = scmi(live, "trace", url).stdout.splitlines()
    assert scmi(live, "trace", url, "--off").stdout == "guest0: off\n"
    assert lines
    assert all("scmi_msg_dump: id=0 ch=10" in line for line in lines)
