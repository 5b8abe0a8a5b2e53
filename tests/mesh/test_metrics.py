"""What the running services export: queue depth and polling latency of every queue, and a text that promtool likes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest

from services.mesh.scrape import Sample
from tests.mesh.harness import GUARD, Run, scrape, scrape_text
from tests.mesh.report_schema import ROLES

pytestmark = pytest.mark.mesh

DEPTH = "ringmesh_queue_depth"
LATENCY = "ringmesh_poll_latency_seconds"
QUEUES = {
    "guest": ["cmdq", "ctrl", "eventq", "rx0", "tx0"],
    "scmi": ["cmdq", "eventq"],
    "nic": ["ctrl", "rx0", "rx1", "rx2", "rx3", "tx0", "tx1", "tx2", "tx3"],
    "its": ["cmdq", "lpi"],
}
#: queues of the NIC that the guest does not use by default, and the one whose commands are answered in the same step
IDLE = {"nic": {"rx1", "rx2", "rx3", "tx1", "tx2", "tx3", "ctrl"}}
PROMTOOL = shutil.which("promtool")


def _looks(sample: Sample, queue: str) -> float:
    return sample.total(f"{LATENCY}_count", queue=queue)


@pytest.mark.parametrize("role", ROLES)
async def test_every_queue_has_depth_and_latency_and_both_move(live: Run, role: str) -> None:
    admin = live.services()[role][1]
    first = await scrape(admin)
    assert first.label_values(DEPTH, "queue") == QUEUES[role]
    assert first.label_values(f"{LATENCY}_bucket", "queue") == QUEUES[role]
    for name in (DEPTH, f"{LATENCY}_count"):
        assert first.label_values(name, "service") == [role]
    depths: dict[str, set[float]] = {queue: set() for queue in QUEUES[role] if queue not in IDLE.get(role, ())}
    waiting = set(depths)
    async with asyncio.timeout(GUARD):
        while waiting or any(len(seen) < 2 for seen in depths.values()):
            await asyncio.sleep(0.05)
            now = await scrape(admin)
            for queue in depths:
                depths[queue].add(now.total(DEPTH, queue=queue))
            waiting = {queue for queue in depths if _looks(now, queue) <= _looks(first, queue)}


@pytest.mark.prometheus
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian package prometheus)")
@pytest.mark.parametrize("role", ROLES)
def test_promtool_has_no_complaint(live: Run, role: str) -> None:
    assert PROMTOOL is not None
    text = asyncio.run(scrape_text(live.services()[role][1]))
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("role", ROLES)
async def test_names_begin_with_the_projects(live: Run, role: str) -> None:
    sample = await scrape(live.services()[role][1])
    foreign = {n for n, _ in sample.values if not n.startswith(("ringmesh_", "process_", "python_"))}
    assert not foreign
