"""An ITS that is saved and restored in the middle of a stream goes on as if nothing had been."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from services.gic_its.adapter import CaseAdapter
from tests.services.gic_its import save_points
from tests.services.gic_its.machine import Machine
from tests.services.gic_its.stream_differences import differences

ROOT = Path(__file__).resolve().parents[3]
#: Every how many commands; 1 takes minutes.
EVERY = int(os.environ.get("RINGMESH_ITS_SAVE_POINTS", "10"))
COMMANDS = 10_000


class Moving(CaseAdapter):
    """Saved, and restored into a fresh instance, after every batch."""

    moves = 0
    moving = False

    def drain(self) -> None:
        super().drain()
        if not self.moving:
            self.moving = True
            self.migrate()
            self.moving = False
            Moving.moves += 1


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("profile", ["qemu", "kvm"])
def test_a_stream_goes_on_in_a_fresh_instance(profile: str, hostile: bool) -> None:
    """Mappings (by what they lead to), pending sets, CREADR and the bytes of all tables stay the same."""
    Moving.moves = 0
    found = differences(
        lambda: CaseAdapter({}, profile), lambda: Moving({}, profile), seed=EVERY, n=COMMANDS, profile=profile,
        hostile=hostile, nowhere=profile == "qemu", wide_pes=True, batch=(EVERY, EVERY), extras=(), check_every=4,
    )  # fmt: skip
    assert found is None, found
    assert Moving.moves >= COMMANDS // EVERY


def continued(profile: str, point: int, file: bytes) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.services.gic_its.save_points", profile, str(point)],
        input=file, capture_output=True, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()


@pytest.mark.parametrize("profile", ["qemu", "kvm"])
def test_a_stream_goes_on_in_a_fresh_process(profile: str) -> None:
    last = save_points.POINTS + save_points.AFTER
    with closing(Machine(profile)) as machine:
        machine.start()
        files = list(save_points.files(machine, save_points.stream(), 0, last))
    digests = [save_points.digest(file) for file, _itts in files]
    assert len(set(digests)) == last
    points = range(1, save_points.POINTS + 1)
    with ThreadPoolExecutor(2) as pool:
        for point, got in zip(
            points, pool.map(lambda p: continued(profile, p, b"".join(files[p - 1])), points), strict=True
        ):
            assert got == digests[point : point + save_points.AFTER], f"point {point}"
