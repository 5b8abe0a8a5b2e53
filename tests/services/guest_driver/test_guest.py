"""One guest against the real services in one event loop: bring-up, links that break, services that restart, maps."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import CallError, LinkDownError, LocalError
from common.gic.walk import walk
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
    made = Mesh(map_seconds=0.0, inv_seconds=0.0, affinity_seconds=0.0, scmi_workers=1)
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


async def test_interrupts_move_between_vcpus_under_traffic(mesh: Mesh) -> None:
    guest = mesh.guest
    moves = 0

    async def move() -> None:
        nonlocal moves
        while True:
            await asyncio.gather(*(guest.balance() for _ in range(3)))
            moves += 3

    task = asyncio.get_running_loop().create_task(move())
    for n in range(6):
        await echo(mesh)
        if n == 3:
            mesh.cut("its")
    task.cancel()
    await asyncio.wait([task])
    await until(guest.vcpus.settled)
    books = guest.vcpus.close()
    assert (books.lost, books.duplicated, books.corrupted) == (0, 0, 0)
    assert moves > 10
    line = guest.vcpus.lines[1]
    before = line.delivered
    await within(guest.set_affinity(line, 3))
    assert (line.vcpu, line.leaving) == (3, ())
    await echo(mesh)
    assert line.delivered >= before


async def test_an_older_its_is_brought_to_where_the_guest_is(mesh: Mesh) -> None:
    """`ringmesh its restore` under traffic: what moved since the save moves again, and nobody waits for ever."""
    guest = mesh.guest
    saved = await within(guest.its_link.vmm.save())
    for _ in range(3):
        for _ in range(7):
            await within(guest.balance())
        task = asyncio.get_running_loop().create_task(guest.balance())
        await echo(mesh)
        await within(guest.restore_its(saved))
        await within(task)
        await echo(mesh)
    await until(guest.vcpus.settled)
    books = guest.vcpus.close()
    assert (books.lost, books.duplicated, books.corrupted) == (0, 0, 0)
    assert all(line.leaving == () for line in guest.vcpus.lines)
    now = walk(await within(guest.its_link.vmm.save()))
    where = {(d.device, e.event): e.icid for d in now.devices for e in d.events}
    assert where == {(line.device, line.event): line.vcpu for line in guest.vcpus.lines}


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
    """The VMM restores it; the driver does not notice."""
    guest = mesh.guest
    commands = guest.its.stats.commands
    await mesh.restart("its")
    await until(lambda: guest.its_link.stats.restores == 1)
    await echo(mesh)
    mesh.cut("its")
    await until(lambda: guest.its_link.stats.restores == 2)
    await echo(mesh)
    assert (guest.its.stats.restores, guest.its_link.stats.restore_refused) == (0, 0)
    assert guest.its.stats.commands == commands
    its = mesh.services["its"].guests["guest0"].its
    assert its.control.events == len(guest.vcpus.lines)
    await within(guest.inv())
    await until(guest.vcpus.settled)
    books = guest.vcpus.close()
    assert (books.lost, books.duplicated, books.corrupted) == (0, 0, 0)


async def test_the_its_goes_away_under_commands(mesh: Mesh) -> None:
    """Restarts and broken links while vCPUs queue commands: each returns, in its time, as if nothing had been."""
    guest = mesh.guest
    line = guest.vcpus.lines[0]
    done = 0

    async def commands() -> None:
        nonlocal done
        while done < 400:
            await guest.its.enable_lpi(line.device, line.event)
            done += 1

    tasks = [asyncio.get_running_loop().create_task(commands()) for _ in range(3)]
    for round_ in range(6):
        before = done
        await until(lambda before=before: done > before + 5)  # type: ignore[misc]
        if round_ % 2:
            await mesh.restart("its")
        else:
            mesh.cut("its")
    for task in tasks:
        await within(task)
    stats = guest.its.stats
    assert (stats.restores, stats.timeouts, guest.its_link.stats.restores) == (0, 0, 6)
    assert guest.its_link.stats.posted_done == guest.its_link.stats.posted
    await echo(mesh)
    assert mesh.services["its"].guests["guest0"].its.control.events == len(guest.vcpus.lines)


async def test_a_saved_its_is_restored_into_the_running_guest(mesh: Mesh) -> None:
    guest = mesh.guest
    vmm = guest.its_link.vmm
    saved = await within(vmm.save())
    await echo(mesh)
    mesh.services["its"].guests["guest0"].its.reset()
    await within(vmm.restore(saved))
    await echo(mesh)
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


async def test_an_its_that_refuses_is_programmed_by_the_driver(mesh: Mesh) -> None:
    """Tables that cannot be restored: garbage behind the collections."""
    guest = mesh.guest
    collections = guest.its._tables[1]
    await mesh.stop("its")
    table = guest.memory.read(collections, 16)
    guest.memory.write(collections, table[:8] + table[:8])
    await mesh.start("its")
    await until(lambda: guest.its_link.stats.restore_refused == 1)
    await until(lambda: guest.its.stats.restores == 1)
    await within(guest.inv())
    await echo(mesh)
    its = mesh.services["its"].guests["guest0"].its
    assert its.control.events == len(guest.vcpus.lines)
    mesh.cut("its")
    await until(lambda: guest.its_link.stats.restores == 1)
    await echo(mesh)


async def test_an_its_that_does_not_take_its_programming_is_programmed_again(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by nobody any more where it has refused to be restored once more meanwhile."""
    tries: list[int] = []

    async def restore(_its: ItsDriver) -> None:
        tries.append(guest._its_turn)
        if len(tries) in (1, 3):
            raise CallError("CREADR", errno.ETIMEDOUT, "no progress")

    monkeypatch.setattr(ItsDriver, "restore", restore)
    monkeypatch.setattr(guest_module, "ITS_RETRY", 0.05)
    guest, actors = mesh.guest, mesh.guest.world.actors
    guest._its_refused()
    await until(lambda: guest.world.actors == actors)
    assert tries == [1, 1]
    guest._its_refused()
    await until(lambda: len(tries) == 3)
    guest._its_refused()
    await until(lambda: guest.world.actors == actors)
    assert tries == [1, 1, 2, 3]
