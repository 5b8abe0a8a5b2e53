"""Eight vCPUs on the command queue of one ITS and four devices that raise MSIs, all at once, against a real
``ringmesh serve its``: every command runs once and in order, every MSI is delivered or coalesced.

``RINGMESH_ITS_SECONDS=60 pytest -s tests/mesh/test_its_concurrency.py`` is the long run; its numbers are printed.
"""

from __future__ import annotations

import asyncio

import pytest

from common.runtime.clock import monotonic
from common.wire.messages import Msi
from tests.mesh.harness import GUARD
from tests.mesh.its_commands import errors, ran
from tests.mesh.its_load import EVENTS, SECONDS, loaded

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(900)]


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
async def test_eight_writers_and_four_devices(profile: str) -> None:
    async with loaded(profile) as load:
        guest, commands = load.guest, load.commands
        before = ran(await load.its.scrape(), guest.name)
        queued = guest.driver.stats.commands
        await commands.start()
        load.raise_msis()
        began = monotonic()
        await asyncio.sleep(SECONDS)
        await load.settle()
        took = monotonic() - began
        mapped = commands.check_tables()
        await commands.ring_all()
        after = await load.its.scrape()
        assert ran(after, guest.name) - before == commands.queued
        total = commands.queued.total()
        assert guest.driver.stats.commands - queued == total
        assert errors(after, guest.name) == {}
        assert commands.doubled() == 0
        irq = guest.vcpus.close()
        assert (irq.lost, irq.duplicated, irq.corrupted) == (0, 0, 0)
        assert irq.raised == irq.delivered + irq.coalesced
        assert (guest.link.stats.dma_faults, guest.link.stats.restores) == (0, 0)
        latency = guest.vcpus.latency
        print(
            f"\n{profile}: {total} commands, {total / took:.0f}/s, {guest.driver.stats.batches} "
            f"batches, {mapped} events mapped at the end; {irq.raised} MSIs, {irq.raised / took:.0f}/s, "
            f"{irq.delivered} delivered, {irq.coalesced} coalesced; MSI to handler p50 "
            f"{latency.quantile(0.5) * 1e6:.0f} µs, p99 {latency.quantile(0.99) * 1e6:.0f} µs, max "
            f"{latency.max * 1e6:.0f} µs; ITS {load.its.rss >> 20} MiB"
        )  # fmt: skip


async def test_msis_that_lead_nowhere_are_counted_by_their_device() -> None:
    async with loaded("kvm") as load:
        name = load.guest.name
        nobody = load.devices[0].sources[1]
        for device, event in ((0x77, 0), (0x77, 1), (1, EVENTS)):
            nobody.send(Msi(name, device, event, 1))
        sample = await load.its.scrape()
        async with asyncio.timeout(GUARD):
            while sample.total("ringmesh_its_unmapped_total", guest=name) < 3:
                sample = await load.its.scrape()
        refused = "ringmesh_its_refused_msis_total"
        assert sample.label_values(refused, "device") == ["0x1", "0x77"]
        assert [sample.total(refused, guest=name, device=device) for device in ("0x1", "0x77")] == [1, 2]
        assert load.its.log.count("msi refused") == 3
