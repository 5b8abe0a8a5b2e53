"""The SCMI service over real sockets: a guest with driver, port and agent on one side, an ITS that answers on the
other; the service killed and started again in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from common.errors import ConfigError, ScmiError, XferTimeoutError
from common.memory import GuestMemory
from common.runtime.clock import monotonic
from common.runtime.config import AdminConfig, ListenConfig, LogConfig, PeerConfig, load
from common.runtime.link import Link, LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.runtime.world import AsyncWorld
from common.scmi.status import ProtocolId, Status
from common.virtio.features import DeviceId
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Irq, Message, Msi, MsiDone
from common.workqueue import WorkQueue
from services.guest_driver.layout import Layout
from services.guest_driver.port import Port
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_virtio_rx import RxChannel
from services.guest_driver.virtio_bus import DevicePlan, QueuePlan, VirtioBus
from services.scmi_platform.config import DEFAULT_BOARD, ScmiConfig
from services.scmi_platform.core import FEATURES
from services.scmi_platform.mesh_device import IDENTITY
from services.scmi_platform.shell import ScmiService
from tests.services.scmi_platform.scmi_rig import SMALL

T = TypeVar("T")
TOKEN = "a token"


async def within(work: Awaitable[T], seconds: float = 20.0) -> T:
    async with asyncio.timeout(seconds):
        return await work


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  (other tasks move what it looks at)
            await asyncio.sleep(0.005)


class Its:
    """Takes every MSI, runs the guest's handler for it and confirms. A LinkHandler."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, int], Any] = {}
        self.seen: list[Msi] = []
        self.deaf = False
        self.server = LinkServer(role="its", token=TOKEN, epoch=1, accept=lambda hello: self, metrics=Metrics("its"))

    def link_up(self, link: Link) -> None:
        pass

    def link_frame(self, link: Link, message: Any) -> None:
        assert isinstance(message, Msi)
        self.seen.append(message)
        if self.deaf:
            return
        self.handlers[message.guest, message.event]()
        link.send(MsiDone(message.guest, message.device, message.event, message.number))

    def link_batch(self, link: Link) -> None:
        pass

    def link_down(self, link: Link, reason: str) -> None:
        pass


class Guest:
    """A guest's memory, rings, port and agent, and its link to the service."""

    def __init__(self, name: str, its: Its, port: int, epoch: int = 1) -> None:
        self.world = AsyncWorld()
        self.memory = GuestMemory(1 << 20)
        self.layout = Layout(0, 1 << 20)
        self.its = its
        self.name = name
        self.link: Link | None = None
        self.device_port = Port(
            self.world,
            self.memory,
            queues=2,
            send=self.send,
            key_of=lambda generation: IDENTITY if generation == 0 else None,
            clock=monotonic,
        )
        self.restarts = 0
        self.bus = VirtioBus("scmi", self.device_port, spawn=self.world.spawn, log=Quiet(), on_restart=self.restarted)
        self.client = LinkClient(
            role="guest", peer="scmi", host="127.0.0.1", port=port, token=TOKEN, epoch=epoch, handler=self,
            metrics=Metrics("guest"), guest=name, stir=self.world.stir,
        )  # fmt: skip
        self.workqueue = WorkQueue(self.world)
        self.agent = ScmiAgent(self.world, Quiet().warning, timeout=15.0)
        self.agent.notifications.register_protocol_events(self.agent.sensor.events())
        self.tx: TxChannel
        self.rx: RxChannel
        self.irqs = 0

    def restarted(self) -> None:
        self.restarts += 1

    def send(self, message: Message) -> None:
        self.irqs += isinstance(message, Irq)
        if self.link is not None:
            self.link.send(message)

    def link_up(self, link: Link) -> None:
        self.link = link
        self.bus.link_up(link)

    def link_frame(self, link: Link, message: Any) -> None:
        self.bus.link_frame(link, message)

    def link_batch(self, link: Link) -> None:
        self.bus.link_batch(link)

    def link_down(self, link: Link, reason: str) -> None:
        self.link = None
        self.bus.link_down(link, reason)

    def queues(self, _features: int) -> list[QueuePlan]:
        plans, rings = [], []
        for index in range(2):
            at = SplitLayout.packed_at(self.layout.alloc(4096, 4096), 32)
            plans.append(QueuePlan(index, at, index))
            rings.append(SplitDriver(self.world, self.memory, at, event_idx=True))
        bell, rx = self.device_port.doorbell, self.agent.rx_callback
        self.tx = TxChannel(self.world, self.memory, rings[0], self.layout, lambda: bell(0), rx, self.workqueue)
        self.rx = RxChannel(self.world, self.memory, rings[1], self.layout, lambda: bell(1), rx)
        self.agent.attach(self.tx)
        self.its.handlers[self.name, 0] = self.tx.complete_cb
        self.its.handlers[self.name, 1] = self.rx.complete_cb
        return plans

    async def start(self) -> None:
        await self.client.start()
        await within(self.client.wait_up())
        assert await within(self.bus.probe(DevicePlan(DeviceId.SCMI, FEATURES, self.queues)))
        self.world.spawn("deferred", self.workqueue.run())
        self.agent.notifications.start(self.name)
        self.rx.start()

    async def stop(self) -> None:
        await self.client.close()
        await self.tx.close()
        await self.rx.close()
        await self.workqueue.stop()
        self.agent.detach()
        await self.world.close()


class Quiet:
    def info(self, *_args: object, **_fields: object) -> None: ...

    warning = info


class Mesh:
    """One service at a time, always at the same port."""

    def __init__(self) -> None:
        self.its = Its()
        self.port = 0
        self.service: ScmiService
        self._task: asyncio.Task[int]

    async def start(self) -> None:
        self.service = ScmiService(
            ScmiConfig(
                token=TOKEN,
                listen=ListenConfig(port=self.port),
                admin=AdminConfig(port=0),
                its=PeerConfig(port=self.its.server.port),
                log=LogConfig(level="error"),
                board=str(SMALL),
            )
        )
        self._task = asyncio.get_running_loop().create_task(self.service.run())
        await until(lambda: self._task.done() or not self.service.not_ready())
        assert not self._task.done()
        self.port = self.service._servers[0].port

    async def stop(self) -> int:
        self.service.shut_down()
        return await within(self._task)


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    await made.its.server.start("127.0.0.1", 0)
    await made.start()
    yield made
    assert await made.stop() == 0
    await made.its.server.close()


@pytest.fixture
async def guest(mesh: Mesh) -> AsyncIterator[Guest]:
    made = Guest("vm0", mesh.its, mesh.port)
    await made.start()
    yield made
    await made.stop()


def test_defaults() -> None:
    config = load(ScmiConfig, environ={"RINGMESH_BOARD": "/tmp/board.toml"})
    assert config.board == "/tmp/board.toml"
    config = load(ScmiConfig, environ={})
    assert (config.listen.port, config.admin.port, config.its.port, config.device_id) == (7101, 9102, 7103, 0x10)
    assert Path(config.board) == DEFAULT_BOARD
    assert DEFAULT_BOARD.is_file()


def test_a_board_that_is_not_there() -> None:
    with pytest.raises(ConfigError):
        ScmiService(ScmiConfig(board="/no/such/board.toml"))


async def test_commands_and_metrics(mesh: Mesh, guest: Guest) -> None:
    async def many(worker: int) -> None:
        for turn in range(25):
            assert await guest.agent.clock.rate_get(0, poll=(turn + worker) % 2 == 0) == 300

    await within(asyncio.gather(*(many(n) for n in range(4))))
    stats = guest.agent.stats
    assert stats.sent_ok == 100 == stats.response_ok + stats.response_polled_ok
    metrics = mesh.service.metrics
    assert metrics.value("ringmesh_scmi_success_total") == 100
    assert metrics.value("ringmesh_scmi_device_commands_total", guest="vm0") == 100
    assert metrics.value("ringmesh_device_chains_total", guest="vm0") == 100 + guest.rx.max_msg
    assert metrics.value("ringmesh_queue_depth", queue="eventq") == guest.rx.max_msg
    # the mean since the last look, then what is there: nothing
    assert metrics.value("ringmesh_queue_depth", queue="cmdq") > 0
    assert metrics.value("ringmesh_queue_depth", queue="cmdq") == 0
    text = metrics.render().decode()
    assert 'ringmesh_poll_latency_seconds_count{queue="cmdq",service="scmi"}' in text
    assert 'ringmesh_poll_latency_seconds_bucket{le="+Inf",queue="eventq",service="scmi"}' in text
    await until(lambda: len(guest.tx.free_list) == guest.tx.max_msg)


async def test_a_delayed_response_comes_by_itself(guest: Guest) -> None:
    assert (await within(guest.agent.sensor.reading_get_async(0)))[0].value == 50000


async def test_a_trip_point_event(mesh: Mesh, guest: Guest) -> None:
    heard = asyncio.Event()
    await within(guest.agent.sensor.on_trip_point(lambda event: heard.set(), 0))
    await within(guest.agent.sensor.config_set(0, 1))
    server: Any = mesh.service.agents.platform.protocols[ProtocolId.SENSOR]
    server.domains[0].set_interval(0)
    server.domains[0].due = 0.0
    server.override(0, 80000)
    await within(heard.wait())


async def test_an_interrupt_that_nobody_confirmed_is_raised_again(mesh: Mesh, guest: Guest) -> None:
    mesh.its.deaf = True
    task = asyncio.get_running_loop().create_task(guest.agent.clock.rate_get(0))
    await until(lambda: any(msi.event == 0 for msi in mesh.its.seen))
    assert mesh.its.seen[-1].device == 0x10
    mesh.its.deaf = False
    assert await within(task) == 300


async def test_two_guests_are_two_agents(mesh: Mesh, guest: Guest) -> None:
    other = Guest("vm1", mesh.its, mesh.port)
    await other.start()
    assert await within(guest.agent.base.discover_agent()) == (1, "OSPM")
    assert await within(other.agent.base.discover_agent()) == (3, "vm1")
    await within(guest.agent.clock.rate_set(0, 400))
    assert await within(other.agent.clock.rate_get(0)) == 400, "one board"
    await other.stop()


async def test_the_device_outlives_a_lost_connection(mesh: Mesh, guest: Guest) -> None:
    device = mesh.service.attachments["vm0"].device
    assert guest.link is not None
    guest.link.close("test")
    await until(lambda: guest.link is not None and guest.link.is_up)
    assert await within(guest.agent.clock.rate_get(0)) == 300
    assert mesh.service.attachments["vm0"].device is device
    assert guest.restarts == 0
    assert device.stats.resyncs == 2


async def test_a_guest_that_started_anew_gets_a_new_device(mesh: Mesh, guest: Guest) -> None:
    await within(guest.agent.clock.rate_set(0, 400))
    device = mesh.service.attachments["vm0"].device
    await guest.client.close()
    again = Guest("vm0", mesh.its, mesh.port, epoch=2)
    await again.start()
    assert mesh.service.attachments["vm0"].device is not device
    assert await within(again.agent.base.discover_agent()) == (1, "OSPM")
    await again.stop()


async def reading_later(guest: Guest) -> None:
    """An asynchronous reading: its delayed response, or what a killed service leaves of it."""
    try:
        await guest.agent.sensor.reading_get_async(0, timeout=0.5)
    except XferTimeoutError:
        return
    except ScmiError as error:
        if error.status not in (Status.COMMS_ERROR, Status.BUSY):
            raise


async def test_killed_and_started_again_under_load(mesh: Mesh, guest: Guest) -> None:
    """Every buffer completes exactly once, whatever the service had executed or not."""
    running = True

    async def worker(number: int) -> None:
        turn = number
        while running:
            turn += 1
            if turn % 5 == 0:
                await reading_later(guest)
            else:
                assert await guest.agent.clock.rate_get(0, poll=turn % 2 == 0) == 300

    workers = [asyncio.get_running_loop().create_task(worker(n)) for n in range(6)]
    for _ in range(2):
        await asyncio.sleep(0.1)
        assert await mesh.stop() == 0
        before = guest.restarts
        await mesh.start()
        await until(lambda before=before: guest.restarts > before)
        await until(lambda: len(mesh.service.attachments["vm0"].device.core.buffers) == guest.rx.max_msg)
        # what the service had used just before it stopped is made available anew, the rest is fetched again
        assert mesh.service.attachments["vm0"].device.stats.refetched > 0
    await asyncio.sleep(0.1)
    running = False
    await within(asyncio.gather(*workers))
    await until(lambda: len(guest.tx.free_list) == guest.tx.max_msg)
    assert guest.agent.stats.xfers_response_polled_timeout == 0
    assert guest.device_port.stats.rings_broken == 0
    assert await within(guest.agent.clock.rate_get(0, poll=True)) == 300
