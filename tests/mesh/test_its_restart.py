"""A ``ringmesh serve its`` dies under load, again and again, at any moment: what the guest programmed is there again,
every command has run once, no interrupt is lost.

``RINGMESH_ITS_KILLS=50 pytest -s tests/mesh/test_its_restart.py`` is the long run; its numbers are printed.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Final

import pytest

from tests.mesh.harness import GUARD
from tests.mesh.its_commands import errors
from tests.mesh.its_load import SEED, Load, loaded
from tests.services.guest_driver.mesh_rig import until

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(900)]

KILLS: Final = int(os.environ.get("RINGMESH_ITS_KILLS", "3"))


def restoring(load: Load) -> bool:
    """The link is up, and the VMM is not done."""
    link = load.guest.link
    return link._link is not None and not link._open


async def judge(load: Load, deaths: int) -> str:
    """Everything arrives, the tables are what the commands said, each event leads where it should."""
    guest, commands = load.guest, load.commands
    await load.settle()
    mapped = commands.check_tables()
    await commands.ring_all()
    assert commands.doubled() == 0, "an INT ran twice"
    assert errors(await load.its.scrape(), guest.name) == {}, "a command ran twice, or one before it was lost"
    irq = guest.vcpus.close()
    assert (irq.lost, irq.duplicated, irq.corrupted) == (0, 0, 0)
    stats = guest.link.stats
    assert stats.restore_refused == 0, load.its.log
    assert stats.dma_faults == 0
    again = sum(line.repeated for devices in load.devices for line in devices.lines)
    return (
        f"{deaths} deaths, {stats.restores} restores, {commands.queued.total()} commands, {mapped} events mapped at "
        f"the end, {commands.queued['INT']} INTs; {irq.raised} MSIs, {irq.delivered} "
        f"delivered, {irq.coalesced} coalesced, {again} again; {stats.mmio_waited} accesses waited"
    )


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
async def test_killed_under_load(profile: str) -> None:
    rng = random.Random(SEED)
    async with loaded(profile) as load:
        its, stats = load.its, load.guest.link.stats
        await load.commands.start()
        load.raise_msis()
        in_restore = 0
        for n in range(KILLS):
            if n % 2:
                await until(lambda: restoring(load), GUARD)  # of the one before
                await asyncio.sleep(rng.random() * 0.01)
                in_restore += restoring(load)
            else:
                restores = stats.restores
                await until(lambda n=n, restores=restores: not n or stats.restores > restores, GUARD)  # type: ignore[misc]
                await asyncio.sleep(rng.uniform(0.2, 0.6))
                assert errors(await its.scrape(), load.guest.name) == {}
            its.kill()
            its.start()
        await until(lambda: load.guest.link._open, GUARD)
        await asyncio.sleep(0.5)
        print(f"\n{profile}: {await judge(load, KILLS)}; {in_restore} killed during the restore")


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
async def test_links_that_break_under_load(profile: str) -> None:
    """The process lives; the guest's link, or a device's, goes down: the same."""
    rng = random.Random(SEED)
    async with loaded(profile) as load:
        link = load.guest.link
        await load.commands.start()
        load.raise_msis()
        for n in range(KILLS):
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            await until(lambda: link._open, GUARD)
            client = load.devices[0].client if n % 4 == 3 else load.guest.client
            assert client.link is not None
            client.link.close("test")
        await until(lambda: link._open, GUARD)
        await asyncio.sleep(0.3)
        print(f"\n{profile}, links: {await judge(load, 0)}")


async def test_msis_that_are_raised_while_the_its_is_away_come_later() -> None:
    async with loaded("kvm") as load:
        load.its.kill()
        await until(lambda: all(devices.client.link is None for devices in load.devices), GUARD)
        for devices in load.devices:
            for line in devices.lines:
                for _ in range(3):
                    devices.raise_(line)
        waits = asyncio.create_task(load.guest.driver.sync())
        await asyncio.sleep(0.2)
        assert load.unsettled
        assert not waits.done()
        load.its.start()
        await waits
        await load.settle()
        irq = load.guest.vcpus.close()
        lines = sum(len(devices.lines) for devices in load.devices)
        assert (irq.raised, irq.delivered, irq.coalesced) == (3 * lines, lines, 2 * lines)
        assert (irq.lost, irq.duplicated, irq.corrupted) == (0, 0, 0)


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
async def test_interrupts_that_wait_in_the_its_outlive_it(profile: str) -> None:
    """LPIs that commands raised while they were masked; no device would raise them again."""
    device, count, first = 7, 16, 10_000
    async with loaded(profile) as load:
        driver, commanded, at = load.guest.driver, load.guest.vcpus.commanded, load.guest.vcpus.at
        await driver.map_device(device, count)
        for event in range(count):
            commanded[first + event], at[first + event] = 0, []
            await driver.map_event(device, event, first + event, event % 8)
            await driver.enable_lpi(device, event, enabled=False)
            if event % 3:
                await driver.raise_event(device, event)
        await driver.move_event(device, 1, 5)
        await driver.clear_event(device, 2)
        waiting = [event for event in range(count) if event % 3 and event != 2]
        for restores in (1, 2, 3):
            load.its.kill()
            load.its.start()
            await until(lambda n=restores: load.guest.link.stats.restores == n, GUARD)  # type: ignore[misc]
            assert not any(commanded[first + event] for event in range(count)) or restores == 3
            if restores == 2:
                for event in range(count):
                    await driver.enable_lpi(device, event)
                await until(lambda: sum(commanded.values()) == len(waiting), GUARD)
        await driver.sync()
        where = {event: 5 if event == 1 else event % 8 for event in waiting}
        assert at == {first + event: [where[event]] if event in where else [] for event in range(count)}


@pytest.mark.parametrize(("first", "then"), [("kvm", "qemu"), ("qemu", "kvm")])
async def test_an_its_of_another_profile_comes_back(first: str, then: str) -> None:
    """It does not know the tables of the other one: that is said once, and the driver programs it."""
    async with loaded(first) as load:
        guest = load.guest
        load.raise_msis()
        await asyncio.sleep(0.2)
        load.its.kill()
        load.its.start(GIC_PROFILE=then)
        await until(lambda: guest.reprogrammed, GUARD)
        await load.settle()
        assert guest.link.stats.restore_refused == 1
        (refusal,) = (said for _, event, said in guest.log.lines if event.startswith("ITS not restored"))
        assert refusal["error"].startswith("GITS_TYPER = 22: ")
        # the next death finds what the new one was told, and that is restored
        load.its.kill()
        load.its.start()
        load.raise_msis()
        await until(lambda: guest.link.stats.restores, GUARD)
        await load.settle()
        irq = guest.vcpus.close()
        assert (irq.lost, irq.duplicated, irq.corrupted) == (0, 0, 0)
        assert (guest.link.stats.restore_refused, guest.reprogrammed) == (1, 1)


async def test_an_its_with_fewer_redistributors_comes_back() -> None:
    """There is no way on: vCPUs have no redistributor. The driver says so until the right one is back."""
    async with loaded("kvm") as load:
        guest, log = load.guest, load.guest.log.lines
        load.its.kill()
        load.its.start(CPUS="4")
        await until(lambda: len(log) > 3, GUARD)
        assert log[0][2] == {"error": "set_redist_reg = 6: vcpu: 4 is none of 4"}
        assert {said["error"] for _, _, said in log[1:]} == {"GICR_TYPER = 6: 4 redistributors for 8 vCPUs"}
        assert guest.link.stats.restore_refused == 1, "its link holds"
        load.raise_msis()
        load.its.kill()
        load.its.start(CPUS="8")
        await until(lambda: guest.reprogrammed, GUARD)
        await load.settle()
        irq = guest.vcpus.close()
        assert irq.raised
        assert (irq.lost, irq.duplicated, irq.corrupted) == (0, 0, 0)
