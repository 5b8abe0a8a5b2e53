"""What a guest without a lock around CWRITER does to itself, against a real ``ringmesh serve its``: it stays inside its
queue, and the guest beside it goes on.

``RINGMESH_ITS_SECONDS=60 pytest -s tests/mesh/test_its_wild.py`` is the long run; its numbers are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest

from common.gic.commands import COMMAND_SIZE
from common.histogram import Histogram
from common.runtime.clock import monotonic
from tests.mesh.harness import ROOT
from tests.mesh.its_commands import errors, ran
from tests.mesh.its_guest import Devices, ItsGuest
from tests.mesh.its_process import ItsProcess
from tests.mesh.its_wild import NAME, QUEUE
from tests.services.guest_driver.mesh_rig import until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(900)]

SECONDS: Final = float(os.environ.get("RINGMESH_ITS_SECONDS", "2"))
#: Bytes that the service may grow by while one guest is wild: what it holds of it is bounded.
GROWTH: Final = 48 << 20


async def measure(guest: ItsGuest, device: Devices, ends: Callable[[], bool]) -> tuple[Histogram, Histogram]:
    """Seconds that a command takes, and that an MSI takes to its handler, one after the other."""
    command, msi = Histogram(), Histogram()
    line = device.lines[0]
    while not ends():
        began = monotonic()
        await guest.driver.inv(line.device, line.event)
        command.observe(monotonic() - began)
        began = monotonic()
        arrived = asyncio.Event()
        line.handler = arrived.set
        device.raise_(line)
        async with asyncio.timeout(30):
            await arrived.wait()
        msi.observe(monotonic() - began)
        await asyncio.sleep(0.001)
    return command, msi


def quantiles(histogram: Histogram) -> str:
    return f"p50 {histogram.quantile(0.5) * 1e6:.0f} µs, p99 {histogram.quantile(0.99) * 1e6:.0f} µs"


async def test_a_guest_without_a_lock_harms_itself_only() -> None:
    its = ItsProcess()
    its.start()
    guest = ItsGuest(its.port, "calm")
    device = Devices(its.port, "scmi", guest, (1,))
    try:
        await guest.start()
        await device.start(1, 8192)
        idle_until = monotonic() + min(SECONDS, 10)
        idle = await measure(guest, device, lambda: monotonic() > idle_until)
        size = its.rss
        wild = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.mesh.its_wild", str(its.port), str(SECONDS), "6", cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        ended = asyncio.create_task(wild.communicate())
        try:
            while not ran(await its.scrape(), NAME)["INT"]:
                assert not ended.done(), ended.result()
            beside = await measure(guest, device, ended.done)
        finally:
            if wild.returncode is None:
                wild.kill()
            said = (await ended)[0].decode()
        assert wild.returncode == 0, said
        done: dict[str, Any] = json.loads(said.splitlines()[-1])
        after = await its.scrape()
        growth = its.rss - size
        commands = ran(after, NAME).total() + sum(
            after.total(f"ringmesh_its_error_{kind}_total", guest=NAME) for kind in ("unknown", "unreadable")
        )
        # inside the queue: CREADR stopped where the last write that was one said, after a lap for each at most
        assert done["creadr"] == done["cwriter"] & (QUEUE - COMMAND_SIZE) == done["last"]
        assert commands <= (done["writes"] - done["outside"]) * (QUEUE // COMMAND_SIZE - 1)
        assert after.total("ringmesh_its_cwriter_dropped_total", guest=NAME) == done["outside"]
        assert done["wraps"] > 10
        assert done["restores"] == 0, "its link held"
        assert growth < GROWTH
        # the guest beside it
        await until(lambda: not device.unsettled)
        irq = guest.vcpus.close()
        assert (irq.lost, irq.duplicated, irq.corrupted, irq.coalesced) == (0, 0, 0, 0)
        assert errors(after, "calm") == {}
        assert beside[0].count > 5 * SECONDS
        print(
            f"\nwild: {done['writes']} writes of CWRITER, {done['wraps']} lower than the one before, {done['outside']} "
            f"past the queue, {commands:.0f} commands run; the ITS grew by {growth >> 10} KiB"
            f"\nbeside it: command {quantiles(beside[0])} (idle {quantiles(idle[0])}); MSI {quantiles(beside[1])} "
            f"(idle {quantiles(idle[1])}): {beside[1].quantile(0.5) / idle[1].quantile(0.5):.1f} times as long at p50, "
            f"{beside[1].quantile(0.99) / idle[1].quantile(0.99):.1f} times at p99"
        )  # fmt: skip
    finally:
        await device.close()
        await guest.close()
        its.close()
