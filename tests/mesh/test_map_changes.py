"""The NIC's memory map changes all the time under full load on four queue pairs, with DIMMs coming and going.

``RINGMESH_MAP_CHANGES`` says how many changes are waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from tests.mesh.harness import GUARD, Run, clean, running, scrape, stop, until
from tests.mesh.report_schema import REPORT

pytestmark = pytest.mark.mesh

CHANGES = int(os.environ.get("RINGMESH_MAP_CHANGES", "400"))
#: Small rings turn quickly, so that a DIMM's buffers are soon back.
SETTINGS = (
    "NET_PAIRS=4", "NET_QUEUE_SIZE=64", "WORKLOAD__NET_WINDOW=128", "WORKLOAD__MAP_SECONDS=0.0001",
    "WORKLOAD__SCMI_WORKERS=1",
)  # fmt: skip


def _settings(*more: str) -> list[str]:
    return [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]


async def _changed(run: Run, count: int) -> None:
    """Wait until the NIC has confirmed so many changes."""
    admin = run.services()["guest"][1]
    # no change takes longer than this, whatever else the machine does
    end = time.monotonic() + GUARD + count / 5
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(admin + "/report") as answer:
                report = await answer.json()
            if report["net"]["map_changes"] >= count:
                return
            assert time.monotonic() < end, report
            await asyncio.sleep(0.1)


def _finish(run: Run) -> dict[str, Any]:
    assert stop(run) == 0, run.text
    report = run.report()
    jsonschema.validate(report, REPORT)
    assert not clean(report), run.text
    net = report["net"]
    assert net["tx"] == net["rx"] - net["re_executed"] + net["reset_dropped"]
    return report


@pytest.mark.parametrize("op", ["set_map", "dma_map"])
async def test_every_frame_comes_back_once_and_in_order(op: str, tmp_path: Path) -> None:
    with running("up", *_settings(f"WORKLOAD__MAP_OP={op}"), report=tmp_path / "r.json") as run:
        await _changed(run, CHANGES)
        guest = await scrape(run.services()["guest"][1])
        nic = await scrape(run.services()["nic"][1])
        # which were no mere calls: DIMMs came and went, and after each change the indices were compared
        plugged, unplugged = (guest.total(f"ringmesh_hotplug_{way}_total") for way in ("plugged", "unplugged"))
        assert plugged + unplugged >= CHANGES - 2
        assert 3 <= plugged - unplugged <= 5
        assert nic.total("ringmesh_vdpa_map_changes_total") >= CHANGES
        assert guest.total("ringmesh_vq_state_checked_total") >= CHANGES
        for pair in map(str, range(4)):
            assert guest.total("ringmesh_net_rx_total", pair=pair) > CHANGES
            assert guest.total("ringmesh_net_pair_tx_interrupts_total", pair=pair) > 0
        report = _finish(run)
    assert report["net"]["map_changes"] >= CHANGES
    assert report["net"]["re_executed"] == report["net"]["reset_dropped"] == 0
    assert report["services"]["nic"]["restarts"] == 0


async def test_the_nic_dies_in_the_middle(tmp_path: Path) -> None:
    """What it had in hand may be dropped, nothing else; DIMMs and indices go on where they were."""
    with running("up", *_settings(), report=tmp_path / "r.json") as run:
        await _changed(run, CHANGES // 2)
        first = run.signal_service("nic", signal.SIGKILL)
        until(lambda: run.pids().get("nic", first) != first, "the NIC started again")
        at = (await scrape(run.services()["guest"][1])).total("ringmesh_net_rx_total")
        await _changed(run, CHANGES)
        after = (await scrape(run.services()["guest"][1])).total("ringmesh_net_rx_total")
        assert after > at + 1000
        report = _finish(run)
    assert report["services"]["nic"]["restarts"] == 1
