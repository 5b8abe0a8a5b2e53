"""One guest against the real services in one event loop: bring-up, links that break, services that restart, maps."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import CallError, LinkDownError, LocalError
from common.virtio.features import Status
from services.guest_driver import guest as guest_module
from services.guest_driver.guest import FIRST_LPI
from services.guest_driver.its_driver import ItsDriver
from tests.services.guest_driver.mesh_rig import Mesh, stop_all, until, within


@pytest.fixture(autouse=True)
async def no_mesh_is_left() -> AsyncIterator[None]:
    yield
    await stop_all()


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=1)
    await made.start()
    yield made
    assert await made.stop() == [0] * len(made.services)


async def echo(mesh: Mesh, count: int = 40) -> None:
    """``count`` frames there and back."""
    guest, ledger = mesh.guest, mesh.load.net.ledgers[0]
    sent = ledger.tx
    while ledger.tx < sent + count:
        guest.net.pairs[0].transmit(ledger.make(min(8, guest.net.pairs[0].room), 0))
        await until(lambda: guest.net.pairs[0].room)
    await until(lambda: not ledger.outstanding)


async def test_bring_up(mesh: Mesh) -> None:
    guest = mesh.guest
    assert guest.ready
    nic, scmi = mesh.services["nic"].attachments["guest0"].device, mesh.services["scmi"].attachments["guest0"].device
    assert nic.status == scmi.status == 15
    assert nic.vdpa_stats.map_changes == guest.nic.vmm.changes == 1
    assert [line.intid for line in guest.vcpus.lines] == list(range(FIRST_LPI, FIRST_LPI + 5))
    assert [line.vcpu for line in guest.vcpus.lines] == [0, 1, 2, 3, 0]
    assert set(guest.nic.rings) == {"rx0", "tx0", "ctrl"}
    await echo(mesh)
    await until(guest.vcpus.settled)
    books = guest.vcpus.close()
    assert (books.lost, books.duplicated, books.corrupted) == (0, 0, 0)
    await within(guest.inv())


async def test_maps_change_under_traffic(mesh: Mesh) -> None:
    guest = mesh.guest

    async def change() -> None:
        for _ in range(12):
            await guest.nic.vmm.change_map()

    task = asyncio.get_running_loop().create_task(change())
    for _ in range(6):
        await echo(mesh)
    await within(task)
    assert guest.nic.vmm.changes == 13
    assert mesh.load.net.close() == 0


@pytest.mark.parametrize("role", ["guest", "vmm"])
async def test_links_that_break_cost_nothing(mesh: Mesh, role: str) -> None:
    guest, nic = mesh.guest, mesh.services["nic"]
    device = nic.attachments["guest0"].device
    for _ in range(3):
        task = asyncio.get_running_loop().create_task(guest.nic.vmm.change_map())
        await asyncio.sleep(0)
        guest.net.pairs[0].transmit(mesh.load.net.ledgers[0].make(16, 0))
        mesh.cut("nic", role)
        try:
            await within(task)
        except (LinkDownError, CallError):
            pass
        await until(lambda: not mesh.services["guest"].not_ready())
        await echo(mesh)
    assert nic.attachments["guest0"].device is device
    assert mesh.load.net.close() == mesh.load.net.total("duplicated") == 0
    assert guest.nic.bus.restarts == 0


async def test_the_nic_restarts(mesh: Mesh) -> None:
    guest = mesh.guest
    await guest.nic.vmm.change_map()
    await mesh.restart("nic")
    await until(lambda: guest.nic.bus.restarts == 1)
    await echo(mesh)
    device = mesh.services["nic"].attachments["guest0"].device
    assert len(device.spaces.in_force(0).mappings) == 2, "the VMM said it again"
    await within(guest.nic.vmm.change_map())
    assert len(device.spaces.in_force(0).mappings) == 1


async def test_the_map_in_force_stays_known_while_the_vmm_cannot_reach_the_nic(mesh: Mesh) -> None:
    """Attempts that fail must not push the key out that the NIC's queues hold: the port would break them."""
    guest = mesh.guest
    vmm_client = guest._clients[2]
    await vmm_client.close()
    for _ in range(8):
        with pytest.raises(LinkDownError):
            await guest.nic.vmm.change_map()
    mesh.cut("nic")
    await echo(mesh)
    assert guest.nic_port.stats.rings_broken == 0
    await vmm_client.start()
    await within(vmm_client.wait_up())
    device = mesh.services["nic"].attachments["guest0"].device
    await within(guest.nic.vmm.change_map())
    assert device.vdpa_stats.map_changes == 2
    await echo(mesh)


async def test_the_its_restarts(mesh: Mesh) -> None:
    guest = mesh.guest
    await mesh.restart("its")
    await until(lambda: guest.its.stats.restores == 1)
    await echo(mesh)
    mesh.cut("its")
    await echo(mesh)
    assert guest.its.stats.restores == 1, "the same ITS goes on where it was"
    await until(guest.vcpus.settled)
    books = guest.vcpus.close()
    assert (books.lost, books.duplicated, books.corrupted) == (0, 0, 0)


@pytest.mark.parametrize("cuts", [3, 7, 11])
async def test_the_link_goes_down_again_while_the_nic_is_configured_again(mesh: Mesh, cuts: int) -> None:
    """After ``cuts`` answers of the replay the link breaks: the same NIC, half configured, must get the rest."""
    guest = mesh.guest
    await mesh.stop("nic")
    left = cuts
    returned = guest.nic.bus.calls.returned

    def cut_then(message: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            mesh.cut("nic")
        else:
            returned(message)

    guest.nic.bus.calls.returned = cut_then
    await mesh.start("nic")
    await until(lambda: left < 0)
    device = mesh.services["nic"].attachments["guest0"].device
    await until(lambda: device.status == 15)
    await echo(mesh)
    assert guest.nic.bus.restarts == 1, "it restarted once, whatever the link did"
    assert device.status & Status.DRIVER_OK


async def test_the_vmms_link_goes_down_while_it_says_the_map_again(mesh: Mesh) -> None:
    guest = mesh.guest
    await mesh.stop("nic")
    call = guest.nic.vmm.calls.call
    times = 0

    async def cut_first(op: str, *args: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            mesh.cut("nic", "vmm")
        return await call(op, *args)

    guest.nic.vmm.calls.call = cut_first
    await mesh.start("nic")
    await until(lambda: times == 2)
    await echo(mesh)


async def test_another_its_configuration_is_a_callers_mistake(mesh: Mesh) -> None:
    with pytest.raises(LocalError):
        await mesh.guest.its.map_event(0x10, 0, FIRST_LPI, 0)


@pytest.mark.parametrize(("peer", "after"), [("nic", 4), ("nic", 13), ("scmi", 6), ("its", 9), ("its", 40)])
async def test_a_link_that_breaks_during_bring_up_costs_a_retry(peer: str, after: int) -> None:
    """After so many answers of the peer the guest's link to it breaks, once."""
    mesh = Mesh(map_seconds=0.0, inv_seconds=0.0, scmi_workers=1)
    await mesh.start("its", "scmi", "nic")
    service = mesh._make("guest")
    mesh.services["guest"] = service
    left = after

    def watch(client: Any) -> None:
        handler = client.handler
        inner = handler.link_frame

        def link_frame(link: Any, message: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                link.close("test")
            else:
                inner(link, message)

        handler.link_frame = link_frame

    mesh.tasks["guest"] = asyncio.get_running_loop().create_task(service.run())
    await until(lambda: service._clients)
    watch(next(client for client in service._clients if client.peer == peer))
    await until(lambda: mesh.tasks["guest"].done() or not service.not_ready())
    assert not mesh.tasks["guest"].done()
    assert left < 0
    await echo(mesh)
    assert await within(mesh.guest.agent.clock.rate_get(0)) > 0
    assert await mesh.stop() == [0] * 4


async def test_a_refused_map_is_the_callers_to_hear_of(mesh: Mesh) -> None:
    with pytest.raises(CallError) as caught:
        await mesh.guest.nic.vmm.calls.call("set_map", 0, [])
    assert caught.value.errno == errno.EINVAL


async def test_an_its_that_is_half_programmed_is_programmed_again_whoever_notices(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link breaks while one task waits to try again: the next one goes on, for both."""
    tries: list[str] = []

    async def restore(_its: ItsDriver) -> None:
        tries.append("restore")
        if len(tries) == 1:
            raise CallError("CREADR", errno.ETIMEDOUT, "no progress")

    async def resume(_its: ItsDriver) -> None:
        tries.append("resume")
        if len(tries) == 3:
            raise CallError("CREADR", errno.ETIMEDOUT, "no progress")

    monkeypatch.setattr(ItsDriver, "restore", restore)
    monkeypatch.setattr(ItsDriver, "resume", resume)
    monkeypatch.setattr(guest_module, "ITS_RETRY", 0.05)
    guest, actors = mesh.guest, mesh.guest.world.actors
    guest._its_up(True)
    await until(lambda: tries)
    guest._its_up(False)
    await until(lambda: guest.world.actors == actors)
    assert tries == ["restore", "restore"]
    guest._its_up(False)
    await until(lambda: guest.world.actors == actors)
    assert tries[2:] == ["resume", "restore"], "one that does not go on is not as it was mapped"
