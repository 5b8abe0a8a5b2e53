"""The ITS service over real TCP links: a guest with the real ITS driver, a device service, crashes of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from common.runtime.link import Link, LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.wire.messages import VERSION, DmaData, Hello, Message, MmioRead, MmioWrite, Msi, MsiDone
from services.gic_its.config import ItsConfig, LimitsConfig
from services.gic_its.shell import ItsService
from tests.services.gic_its.guest_end import GuestEnd


class Guest(GuestEnd):
    """A guest's end whose ups and downs are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.up: Link | None = None
        self.downs = 0

    def link_up(self, link: Link) -> None:
        self.up = link
        self.link.link_up(link)

    def link_frame(self, link: Link, message: Any) -> None:
        self.link.link_frame(link, message)

    def link_batch(self, link: Link) -> None:
        self.link.link_batch(link)

    def link_down(self, link: Link, reason: str) -> None:
        self.up = None
        self.downs += 1
        self.link.link_down(link, reason)


class Device:
    """A device service's end: what was confirmed."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int, int, int]] = []
        self.link: Link | None = None

    def link_up(self, link: Link) -> None:
        self.link = link

    def link_frame(self, link: Link, message: Any) -> None:
        assert isinstance(message, MsiDone)
        self.done.append((message.guest, message.device, message.event, message.number))

    def link_batch(self, link: Link) -> None:
        return None

    def link_down(self, link: Link, reason: str) -> None:
        self.link = None

    def msi(self, device: int, event: int, number: int, guest: str = "vm0") -> None:
        assert self.link is not None
        self.link.send(Msi(guest, device, event, number))


class Mesh:
    """One ITS service that listens, and clients to it."""

    def __init__(self, config: ItsConfig) -> None:
        self.config = config
        self.clients: list[LinkClient] = []
        self.port = 0

    async def start(self, epoch: int = 1) -> None:
        self.service = ItsService(self.config)
        await self.service.start()
        self.server = LinkServer(
            role="its", token="", epoch=epoch, accept=self.service.accept, metrics=self.service.metrics
        )
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port

    async def stop(self) -> None:
        await self.server.close()
        await self.service.world.close()

    async def client(self, role: str, handler: Any, guest: str = "", epoch: int = 5) -> LinkClient:
        client = LinkClient(
            role=role, peer="its", host="127.0.0.1", port=self.port, token="", epoch=epoch, handler=handler,
            metrics=Metrics(role), guest=guest,
        )  # fmt: skip
        self.clients.append(client)
        await client.start()
        async with asyncio.timeout(10):  # a hang guard
            await client.wait_up()
        return client


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    mesh = Mesh(ItsConfig(cpus=2, limits=LimitsConfig(guests=2)))
    await mesh.start()
    yield mesh
    for client in mesh.clients:
        await client.close()
    await mesh.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what happens is on the other side of a socket
            await asyncio.sleep(0.001)


@pytest.fixture(params=["kvm", "qemu"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Mesh]:
    """A mesh of each profile."""
    mesh = Mesh(ItsConfig(cpus=2, gic_profile=request.param))
    await mesh.start()
    yield mesh
    for client in mesh.clients:
        await client.close()
    await mesh.stop()


async def test_a_vmm_carries_an_its_to_another_service(either: Mesh) -> None:
    guest, _, _ = await ready(either)
    await guest.driver.enable_lpi(0x20, 1, False)
    await guest.driver.raise_event(0x20, 1)
    saved = await guest.link.vmm.save()
    other = Mesh(either.config)
    await other.start()
    there = Guest()
    await other.client("guest", there, "vm0")
    await there.link.vmm.restore(saved)
    assert other.service.guests["vm0"].its.pending(1) == [8192]
    assert (await there.link.vmm.save()).its == saved.its
    for client in other.clients:
        await client.close()
    await other.stop()


async def ready(mesh: Mesh) -> tuple[Guest, Device, LinkClient]:
    guest, device = Guest(), Device()
    client = await mesh.client("guest", guest, "vm0")
    await mesh.client("nic", device)
    await guest.driver.start()
    await guest.driver.map_device(0x20, 4)
    await guest.driver.map_event(0x20, 1, 8192, 1)
    await guest.driver.enable_lpi(0x20, 1)
    return guest, device, client


async def test_from_msi_to_confirmation(mesh: Mesh) -> None:
    guest, device, _ = await ready(mesh)
    for number in range(1, 6):
        device.msi(0x20, 1, number)
    await until(lambda: bool(device.done) and device.done[-1] == ("vm0", 0x20, 1, 5))
    assert guest.vcpus.taken[0] == (1, 8192, 1)
    assert guest.vcpus.taken[-1] == (1, 8192, 5)
    metrics = mesh.service.metrics
    assert metrics.value("ringmesh_its_msis_total", guest="vm0") == 5
    assert metrics.value("ringmesh_its_command_mapti_total", guest="vm0") == 1
    # the mean since the last look, then what is there: nothing
    assert metrics.value("ringmesh_queue_depth", queue="cmdq") > 0
    for queue in ("lpi", "cmdq"):
        metrics.value("ringmesh_queue_depth", queue=queue)
        assert metrics.value("ringmesh_queue_depth", queue=queue) == 0
    link = mesh.service.guests["vm0"]
    assert link.batches.count > 0
    assert link.latencies.count > 0


async def test_msis_that_cannot_be_taken_are_not_confirmed(mesh: Mesh) -> None:
    guest, device, _ = await ready(mesh)
    device.msi(0x20, 2, 1)
    device.msi(0x21, 1, 1)
    device.msi(0x20, 1, 1, guest="nobody")
    device.msi(0x20, 1, 1)
    await until(lambda: bool(device.done))
    stats = mesh.service.guests["vm0"].its.stats
    await until(lambda: stats.unmapped == 2)
    assert mesh.service.routes.unknown_guest == 1
    assert device.done == [("vm0", 0x20, 1, 1)]
    await guest.driver.map_event(0x20, 2, 8193, 0)
    await guest.driver.enable_lpi(0x20, 2)
    device.msi(0x20, 2, 1)
    await until(lambda: device.done[-1] == ("vm0", 0x20, 2, 1))


async def test_the_guests_link_comes_back(mesh: Mesh) -> None:
    guest, device, client = await ready(mesh)
    guest.vcpus.masked = True
    device.msi(0x20, 1, 1)
    await until(lambda: guest.vcpus.taken == [(1, 8192, 1)])
    assert guest.up is not None
    guest.up.close("lost")
    guest.vcpus.masked = False
    await client.wait_up()
    await until(lambda: guest.link.stats.restores == 1)
    assert mesh.service.guests["vm0"].its.control.events == 1
    # what was not confirmed is sent again
    device.msi(0x20, 1, 1)
    device.msi(0x20, 1, 2)
    await until(lambda: ("vm0", 0x20, 1, 2) in device.done)
    assert guest.vcpus.taken[1] == (1, 8192, 1)
    assert guest.downs == 1


async def test_the_driver_does_not_notice(mesh: Mesh) -> None:
    """It goes on mapping while its ITS is stopped and another process takes its place."""
    guest, device, client = await ready(mesh)
    await mesh.stop()
    work = asyncio.create_task(guest.driver.map_event(0x20, 2, 8193, 0))
    await asyncio.sleep(0)
    assert not work.done()
    await mesh.start(epoch=2)
    link = await client.wait_up()
    assert link.peer_epoch == 2
    async with asyncio.timeout(10):
        await work
        await guest.driver.enable_lpi(0x20, 2)
    await until(lambda: device.link is not None)
    for event in (1, 2):
        device.msi(0x20, event, 7)
        await until(lambda event=event: ("vm0", 0x20, event, 7) in device.done)  # type: ignore[misc]
    assert guest.vcpus.taken == [(1, 8192, 7), (0, 8193, 7)]


async def test_a_restarted_guest_finds_nothing(mesh: Mesh) -> None:
    _, device, client = await ready(mesh)
    await client.close()
    fresh = Guest()
    await mesh.client("guest", fresh, "vm0", epoch=6)
    its = mesh.service.guests["vm0"].its
    assert its.control.devices == ()
    device.msi(0x20, 1, 1)
    await until(lambda: its.stats.disabled == 1)
    await fresh.driver.start()
    assert its.control.enabled
    assert device.done == []


async def test_guests_are_bounded_and_named(mesh: Mesh) -> None:
    for name in ("a", "b"):
        await mesh.client("guest", Guest(), name)
    for name in ("c", ""):
        client = LinkClient(
            role="guest", peer="its", host="127.0.0.1", port=mesh.port, token="", epoch=5, handler=Guest(),
            metrics=Metrics("guest"), guest=name,
        )  # fmt: skip
        await client.start()
        await until(
            lambda: mesh.service.metrics.value("ringmesh_frames_refused_total", link="guest", reason="handler") > 0
        )
        assert client.link is None
        await client.close()
    assert sorted(mesh.service.guests) == ["a", "b"]


async def test_the_guest_that_is_down_longest_makes_room(mesh: Mesh) -> None:
    clients = {name: await mesh.client("guest", Guest(), name) for name in ("a", "b")}
    service = mesh.service
    a = service.guests["a"]
    a.its.stats.msis = 3
    for name in ("b", "a"):
        await clients[name].close()
        await until(lambda name=name: not service.guests[name].is_up)  # type: ignore[misc]
    await mesh.client("guest", Guest(), "c")
    assert sorted(service.guests) == ["a", "c"]  # b went down first
    await mesh.client("guest", Guest(), "d")
    assert sorted(service.guests) == ["c", "d"]
    text = service.metrics.render().decode()
    assert 'guest="c"' in text
    assert 'guest="a"' not in text
    assert 'guest="b"' not in text
    # nothing is known of one that returns; its counters begin again
    await clients["a"].close()
    service.guests["c"].link_down(service.guests["c"]._link, "lost")  # type: ignore[arg-type]
    again = service.accept(Hello(VERSION, "guest", "", 5, "a"))
    assert again is service.guests["a"]
    assert again is not a
    assert service.metrics.value("ringmesh_its_msis_total", guest="a") == 0


async def test_a_dropped_guest_ends_what_it_had_under_way(mesh: Mesh) -> None:
    _, device, client = await ready(mesh)
    await mesh.client("guest", Guest(), "b")
    its = mesh.service.guests["vm0"].its
    generation = its.control.generation
    await client.close()
    await until(lambda: not mesh.service.guests["vm0"].is_up)
    await mesh.client("guest", Guest(), "c")
    assert its.control.generation > generation
    assert its.control.devices == ()
    device.msi(0x20, 1, 9)
    await until(lambda: mesh.service.routes.unknown_guest == 1)


@pytest.mark.parametrize(
    "message",
    [
        MmioRead(1, "gicr9", 0, 4),
        MmioRead(1, "its", 0x10000, 4),
        MmioWrite(1, "its", 0, 3, 0),
        MmioWrite(1, "gicx", 0, 4, 0),
        DmaData(99, b""),
    ],
)
async def test_bad_frames_close_the_guests_link_only(mesh: Mesh, message: Message) -> None:
    guest = Guest()
    await mesh.client("guest", guest, "vm0")
    assert guest.up is not None
    guest.up.send(message)
    await until(lambda: guest.downs == 1)
    await until(lambda: guest.up is not None)
    await guest.driver.start()


@pytest.mark.parametrize("msi", [(-1, 0, 1), (1 << 32, 0, 1), (0, -1, 1), (0, 1 << 32, 1), (0, 0, 0)])
async def test_bad_msis_close_the_devices_link_only(mesh: Mesh, msi: tuple[int, int, int]) -> None:
    guest, device, _ = await ready(mesh)
    device.msi(*msi)
    await until(lambda: device.link is None)
    await until(lambda: device.link is not None)
    device.msi(0x20, 1, 1)
    await until(lambda: len(device.done) == 1)
    assert guest.downs == 0
