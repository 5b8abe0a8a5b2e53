"""What device services share, over real sockets: devices that live as long as their guest, MSIs over one ITS link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import RemoteError
from common.memory import MemoryKey
from common.runtime import device_service
from common.runtime.config import AdminConfig, ListenConfig, LogConfig, PeerConfig
from common.runtime.device_service import Attachment, DeviceConfig, DeviceService
from common.runtime.link import Link, LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.virtio import msi_source
from common.virtio.device import VirtioDevice
from common.wire.messages import VERSION, Call, Chain, Hello, Irq, Kick, Message, Msi, MsiDone, Return

GUARD = 10.0


async def until(holds: Any) -> None:
    async with asyncio.timeout(GUARD):
        while not holds():  # noqa: ASYNC110  (other tasks move what it looks at)
            await asyncio.sleep(0.005)


class Lamp(VirtioDevice):
    """A device with one queue that does nothing but interrupt."""

    device_id = 61

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(offered=0, queue_sizes=[4], **kwargs)
        self.vectors = [6]
        self.ticks = 0
        self.batches = 0

    def key(self, _queue: int) -> MemoryKey | None:
        return None

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        raise AssertionError("no chain comes here")

    def batch_end(self) -> None:
        self.batches += 1

    def tick(self, now: float) -> None:
        self.ticks += 1


class LampService(DeviceService[DeviceConfig, Lamp]):
    role = "scmi"
    queue_names = ("q",)

    def make_device(self, attachment: Attachment[Lamp]) -> Lamp:
        device = Lamp(
            send=attachment.send, msi=attachment.msi, clock=lambda: 1.0, log=self.log.warning, observe=self.observe
        )
        attachment.on_up = lambda: self.ups.append(attachment.guest)
        return device

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(config)
        self.ups: list[str] = []


class Noting:
    """A LinkHandler that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.link: Link | None = None

    def link_up(self, link: Link) -> None:
        self.link = link

    def link_frame(self, _link: Link, message: Message) -> None:
        self.heard.append(message)

    def link_batch(self, link: Link) -> None: ...

    def link_down(self, _link: Link, reason: str) -> None:
        self.link = None

    def send(self, message: Message) -> None:
        assert self.link is not None
        self.link.send(message)


class Bench:
    def __init__(self) -> None:
        self.its = Noting()
        self.its_server = LinkServer(
            role="its", token="", epoch=1, accept=lambda _hello: self.its, metrics=Metrics("its")
        )
        self.service: LampService
        self.task: asyncio.Task[int]
        self.clients: list[LinkClient] = []

    async def start(self) -> None:
        await self.its_server.start("127.0.0.1", 0)
        self.service = LampService(
            DeviceConfig(
                its=PeerConfig(port=self.its_server.port),
                device_id=0x30,
                listen=ListenConfig(),
                admin=AdminConfig(),
                log=LogConfig(level="error"),
            )
        )
        self.task = asyncio.get_running_loop().create_task(self.service.run())
        await until(lambda: not self.service.not_ready())

    async def guest(self, name: str, epoch: int) -> tuple[LinkClient, Noting]:
        handler = Noting()
        client = LinkClient(
            role="guest", peer="scmi", host="127.0.0.1", port=self.service._servers[0].port, token="", epoch=epoch,
            handler=handler, metrics=Metrics("guest"), guest=name,
        )  # fmt: skip
        self.clients.append(client)
        await client.start()
        await until(lambda: handler.link)
        return client, handler

    def device(self, name: str) -> Lamp:
        return self.service.attachments[name].device


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    for client in made.clients:
        await client.close()
    made.service.shut_down()
    assert await made.task == 0
    await made.its_server.close()


async def test_calls_batches_and_answers(bench: Bench) -> None:
    _, guest = await bench.guest("vm", 1)
    guest.send(Call(7, "get_device_id", []))
    await until(lambda: guest.heard)
    assert guest.heard == [Return(7, 0, 61)]
    assert bench.device("vm").batches >= 1
    assert bench.service.ups == ["vm"]
    value = bench.service.metrics.value
    assert value("ringmesh_guests") == 1
    assert value("ringmesh_device_calls_total", guest="vm") == 1
    assert value("ringmesh_queue_depth", queue="q") == 0
    bench.service.observe(0, 0.25)
    assert 'ringmesh_poll_latency_seconds_count{queue="q",service="scmi"} 1' in bench.service.metrics.render().decode()
    await until(lambda: bench.device("vm").ticks > 2)


async def test_a_device_lives_as_long_as_its_guests_process(bench: Bench) -> None:
    client, guest = await bench.guest("vm", 1)
    device, attachment = bench.device("vm"), bench.service.attachments["vm"]
    guest.link.close("test")  # type: ignore[union-attr]
    await until(lambda: attachment.link is None)
    attachment.send(Kick(0))  # dropped
    await until(lambda: attachment.link is not None)
    assert bench.device("vm") is device
    assert bench.service.ups == ["vm", "vm"]
    assert guest.heard == []
    await client.close()
    await bench.guest("vm", 2)
    assert bench.device("vm") is not device
    assert bench.service.attachments["vm"].epoch == 2
    assert bench.service.metrics.value("ringmesh_guests") == 1


async def test_an_older_link_that_ends_does_not_take_the_newer_one_along(bench: Bench) -> None:
    _, first = await bench.guest("vm", 1)
    attachment = bench.service.attachments["vm"]
    newer = object.__new__(Link)
    attachment.link = newer
    assert first.link is not None
    first.link.close("test")
    await until(lambda: not bench.service._servers[0].links)
    assert attachment.link is newer
    attachment.link = None
    await until(lambda: attachment.link is not None)


async def test_guests_must_have_names_and_there_are_only_so_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_service, "MAX_GUESTS", 1)
    with pytest.raises(RemoteError, match="must say its name"):
        bench.service.attach(Hello(VERSION, "guest", "", 1))
    first = bench.service.attach(Hello(VERSION, "guest", "", 1, "a"))
    with pytest.raises(RemoteError, match="guests"):
        bench.service.attach(Hello(VERSION, "guest", "", 1, "b"))
    assert bench.service.attach(Hello(VERSION, "guest", "", 1, "a")) is first
    assert bench.service.attach(Hello(VERSION, "guest", "", 2, "a")) is not first, "one that starts anew has its place"


async def test_only_the_guest_renews_its_device(bench: Bench) -> None:
    attach = bench.service.attach
    first = attach(Hello(VERSION, "vmm", "", 5, "a"))
    made_for: list[int | None] = [first.epoch]
    assert attach(Hello(VERSION, "vmm", "", 6, "a")) is first, "no guest has come yet"
    assert attach(Hello(VERSION, "guest", "", 7, "a")) is first, "adopted"
    made_for.append(first.epoch)
    assert made_for == [None, 7]
    assert attach(Hello(VERSION, "vmm", "", 7, "a")) is first, "of the guest's process"
    with pytest.raises(RemoteError, match="away"):
        attach(Hello(VERSION, "vmm", "", 8, "a"))
    first.link = object.__new__(Link)
    assert attach(Hello(VERSION, "vmm", "", 8, "a")) is first
    first.link = None
    second = attach(Hello(VERSION, "guest", "", 8, "a"))
    assert second is not first
    assert attach(Hello(VERSION, "vmm", "", 8, "a")) is second


async def test_msis_until_they_are_confirmed(bench: Bench) -> None:
    _, guest = await bench.guest("vm", 1)
    guest.send(Irq(0, 1))
    await until(lambda: len(bench.its.heard) >= 2)  # by the tick, again
    assert set(map(str, bench.its.heard)) == {str(Msi("vm", 0x30, 6, 1))}
    msi = bench.service.attachments["vm"].msi
    for other in (MsiDone("nobody", 0x30, 6, 1), MsiDone("vm", 0x31, 6, 1), MsiDone("vm", 0x30, 7, 1)):
        bench.its.send(other)
    heard = len(bench.its.heard)
    await until(lambda: len(bench.its.heard) > heard)
    assert msi.unconfirmed == 1
    bench.its.send(MsiDone("vm", 0x30, 6, 1))
    await until(lambda: not msi.unconfirmed)


async def test_the_its_link_comes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi_source, "RESEND_AFTER", 1000.0)  # the tick is not what sends it again
    _, guest = await bench.guest("vm", 1)
    assert bench.its.link is not None
    bench.its.link.close("test")
    await until(lambda: bench.service._its is None)
    guest.send(Irq(0, 1))
    msi = bench.service.attachments["vm"].msi
    await until(lambda: msi.unconfirmed)
    await until(lambda: bench.its.heard)
    assert bench.its.heard[0] == Msi("vm", 0x30, 6, 1)
