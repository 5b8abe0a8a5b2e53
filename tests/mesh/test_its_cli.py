"""``ringmesh its`` on a mesh under load: its ITS is shown, saved, and restored, and nothing is lost by that."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from common.gic.saved import decode
from tests.mesh.harness import GUARD, RINGMESH, ROOT, TOKEN, clean, running, stop

pytestmark = pytest.mark.mesh


def its(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RINGMESH, "its", *args, "--token", TOKEN],
        cwd=ROOT, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip


def document(*args: str) -> dict[str, Any]:
    done = its("dump", *args, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def mapped(found: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Device, event and LPI of each event; their vCPUs change under the load."""
    return [
        (device["device"], event["event"], event["intid"]) for device in found["devices"] for event in device["events"]
    ]


def test_dump_save_restore_under_load(tmp_path: Path) -> None:
    report, file, picture = tmp_path / "r.json", tmp_path / "guest1.its", tmp_path / "its.svg"
    with running("up", "--guests", "2", report=report) as run:
        admin = run.services()["guest"][1]
        of_guest1 = ("--admin", admin, "--guest", "guest1")
        shown = document(*of_guest1, "--svg", str(picture))
        assert shown["profile"] == "kvm"
        assert shown["findings"] == []
        assert {each[:2] for each in mapped(shown)} >= {(16, 0), (16, 1), (32, 0), (32, 1), (32, 2)}
        assert all(event["enabled"] for device in shown["devices"] for event in device["events"])
        assert "</svg>" in picture.read_text()

        done = its("save", str(file), *of_guest1)
        assert done.returncode == 0, done.stderr
        saved = decode(file.read_bytes())
        assert mapped(document(str(file))) == mapped(shown)
        assert saved.its["GITS_CREADR"] == saved.its["GITS_CWRITER"]

        for _ in range(3):
            done = its("restore", str(file), *of_guest1)
            assert (done.returncode, done.stdout) == (0, f"guest1: {len(mapped(shown))} events restored\n")
        assert mapped(document(*of_guest1)) == mapped(shown)
        done = its("dump", "--admin", admin)
        assert (done.returncode, done.stdout) == (1, "")
        assert "guest0, guest1" in done.stderr

        done = its("restore", str(file))
        assert done.returncode == 0, done.stderr
        assert stop(run) == 0, run.text
    assert not clean(json.loads(report.read_text()))
