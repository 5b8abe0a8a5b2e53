"""Guests whose NICs a learning switch joins: each sends to the next one, also over a NIC that is killed."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from tests.mesh.harness import GUARD, Run, clean, running, scrape, stop, until

pytestmark = pytest.mark.mesh

SETTINGS = (
    "BACKEND__KIND=switch", "WORKLOAD__NET=switch", "NET_PAIRS=2", "WORKLOAD__MAP_SECONDS=0.1",
    "WORKLOAD__SCMI_WORKERS=1", "TOKEN=secret",
)  # fmt: skip
SET = [word for setting in SETTINGS for word in ("--set", setting)]


async def more(run: Run, guest: str, frames: int) -> None:
    """Wait until ``guest`` has received so many frames more."""
    end = time.monotonic() + GUARD
    admin = run.services()["guest"][1]
    wanted = frames + (await scrape(admin)).total("ringmesh_net_rx_total", guest=guest)
    while (await scrape(admin)).total("ringmesh_net_rx_total", guest=guest) < wanted:
        assert time.monotonic() < end, f"{guest} receives nothing"
        await asyncio.sleep(0.1)


async def test_frames_go_from_guest_to_guest(tmp_path: Path) -> None:
    with running("up", *SET, "--guests", "3", report=tmp_path / "r.json") as run:
        for guest in ("guest0", "guest1", "guest2"):
            await more(run, guest, 1000)
        nic = await scrape(run.services()["nic"][1])
        assert nic.total("ringmesh_switch_forwarded_total") > 2000
        assert stop(run) == 0, run.text
        report = run.report()
    assert not clean(report), run.text
    assert report["net"]["tx"] == report["net"]["rx"]
    assert report["net"]["map_changes"] > 3


async def test_a_cable_that_is_pulled_and_a_nic_that_dies_cost_what_was_under_way(tmp_path: Path) -> None:
    with running("up", *SET, "--guests", "2", report=tmp_path / "r.json") as run:
        await more(run, "guest1", 500)
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as session:
            for up in (False, True):
                url = run.services()["nic"][1] + "/nic/link"
                async with session.post(url, json={"guest": "guest0", "up": up}) as answer:
                    assert answer.status == 200, await answer.text()
        for guest in ("guest0", "guest1"):
            await more(run, guest, 500)
        first = run.signal_service("nic", signal.SIGKILL)
        until(lambda: run.pids().get("nic", first) != first, "the NIC started again")
        for guest in ("guest0", "guest1"):
            await more(run, guest, 500)
        assert stop(run) == 0, run.text
        report = run.report()
    assert not clean(report), run.text
    assert report["services"]["nic"]["restarts"] == 1
    net = report["net"]
    assert net["tx"] == net["rx"] - net["re_executed"] + net["reset_dropped"]
