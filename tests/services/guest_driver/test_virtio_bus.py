"""The bus against a real NIC device over loopback: the order of initialisation, refusals, and coming back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from common.errors import CallError, LinkDownError, RemoteError
from common.memory import ACCESS_RW, GuestMemory
from common.runtime.link import Link, LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.runtime.world import AsyncWorld
from common.virtio.features import DeviceId, Feature, mask
from common.virtio.msi_source import MsiSource
from common.virtio.policy import DEFAULT_POLICY
from common.virtio.split_layout import SplitLayout
from common.virtio.vdpa_ops import OPS
from common.wire.messages import Call, Message, Notice, Return
from services.guest_driver.port import Port
from services.guest_driver.port_queue import ObjectState
from services.guest_driver.virtio_bus import DevicePlan, QueuePlan, VirtioBus
from services.vdpa_nic.backends.echo import Echo
from services.vdpa_nic.nic import NicDevice
from tests.services.guest_driver.mesh_rig import Quiet, until, within

FEATURES = mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.NET_MAC)


class Nic:
    """A LinkHandler with a real device behind it, that notes calls and may fall silent or cut the link at one."""

    def __init__(self, queue_size: int) -> None:
        self.heard: list[Call] = []
        self.cut_at: Callable[[Call], bool] = lambda _call: False
        #: op → what it answers in place of the device
        self.odd: dict[str, Any] = {}
        self.link: Link | None = None
        self.device = NicDevice(
            Echo(),
            send=self.send,
            answer_vmm=lambda _m: None,
            msi=MsiSource("vm", 1, lambda _m: None),
            clock=lambda: 1.0,
            policy=DEFAULT_POLICY,
            queue_size=queue_size,
            mac=b"\2RM\0\0\1",
            log=lambda event, **_fields: None,
        )
        self.device.vmm_frame(Call(1, "set_map", [0, [(0, 1 << 16, 0, ACCESS_RW)]]))

    def send(self, message: Message) -> None:
        if self.link is not None:
            self.link.send(message)

    def link_up(self, link: Link) -> None:
        self.link = link
        self.device.reconnected()

    def link_frame(self, link: Link, message: Any) -> None:
        if isinstance(message, Call):
            self.heard.append(message)
            if self.cut_at(message):
                self.cut_at = lambda _call: False
                link.close("test")
                return
            if message.op in self.odd:
                link.send(Return(message.seq, 0, self.odd[message.op]))
                return
        self.device.frame(message)

    def link_batch(self, _link: Link) -> None:
        self.device.batch_end()

    def link_down(self, link: Link, reason: str) -> None:
        if self.link is link:
            self.link = None

    @property
    def ops(self) -> list[str]:
        return [call.op for call in self.heard]


class Bench:
    def __init__(self) -> None:
        self.world = AsyncWorld()
        self.memory = GuestMemory(1 << 16)
        self.log = Quiet()
        self.to: Link | None = None
        self.device_port = Port(self.world, self.memory, queues=2, send=self.send, clock=lambda: 1.0)
        self.restarted = 0
        self.bus = VirtioBus("nic", self.device_port, spawn=self.world.spawn, log=self.log, on_restart=self.restart)
        self.nic = Nic(64)
        self.made: list[int] = []
        self.size = 16
        self.port = 0
        self.server: LinkServer
        self.client: LinkClient

    def restart(self) -> None:
        self.restarted += 1

    def send(self, message: Message) -> None:
        if self.to is not None:
            self.to.send(message)

    # the bus is handed the link by whoever owns the port's way out
    def link_up(self, link: Link) -> None:
        self.to = link
        self.bus.link_up(link)

    def link_frame(self, link: Link, message: Any) -> None:
        self.bus.link_frame(link, message)

    def link_batch(self, link: Link) -> None:
        self.bus.link_batch(link)

    def link_down(self, link: Link, reason: str) -> None:
        self.to = None
        self.bus.link_down(link, reason)

    def queues(self, features: int) -> list[QueuePlan]:
        self.made.append(features)
        return [QueuePlan(n, SplitLayout.packed_at(0x1000 * (n + 1), self.size), n + 3) for n in range(2)]

    def plan(self, device_id: int = DeviceId.NET, features: int = FEATURES | 1 << 60) -> DevicePlan:
        return DevicePlan(device_id, features, self.queues)

    async def serve(self, epoch: int) -> None:
        self.server = LinkServer(
            role="nic", token="", epoch=epoch, accept=lambda _hello: self.nic, metrics=Metrics("nic")
        )
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port

    async def start(self) -> None:
        await self.serve(1)
        self.client = LinkClient(
            role="guest", peer="nic", host="127.0.0.1", port=self.port, token="", epoch=2, handler=self,
            metrics=Metrics("guest"), guest="vm",
        )  # fmt: skip
        await self.client.start()
        await within(self.client.wait_up())

    async def renew(self, epoch: int, queue_size: int = 64, odd: dict[str, Any] | None = None) -> None:
        """Another NIC comes up in the place of the old one."""
        await self.server.close()
        self.nic = Nic(queue_size)
        self.nic.odd = odd or {}
        await self.serve(epoch)

    def alive(self) -> bool:
        return all(queue.state == ObjectState.RDY for queue in self.device_port.queues)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    await made.client.close()
    await made.server.close()
    await made.world.close()


QUEUE_CALLS = ["get_vq_num_max", "set_vq_num", "set_vq_address", "set_vq_cb", "set_vq_ready"]
CONFIGURE = ["set_status", "set_driver_features", "set_status", *QUEUE_CALLS * 2, "set_status"]


async def test_the_order_of_initialisation(bench: Bench) -> None:
    """virtio 1.3 §3.1.1: reset, ACKNOWLEDGE and DRIVER, features, FEATURES_OK, queues, DRIVER_OK."""
    assert await within(bench.bus.probe(bench.plan())) == FEATURES, "what both have"
    assert bench.nic.ops == ["set_status", "get_device_id", "get_device_features", *CONFIGURE]
    assert [call.args[0] for call in bench.nic.heard if call.op == "set_status"] == [0, 3, 11, 15]
    assert set(bench.nic.ops) <= set(OPS)
    assert bench.nic.device.vectors[:2] == [3, 4]
    assert bench.nic.device.features == bench.bus.features == FEATURES
    await until(bench.alive)
    assert bench.made == [FEATURES]


async def test_a_second_probe_begins_with_a_reset_on_both_sides(bench: Bench) -> None:
    await within(bench.bus.probe(bench.plan()))
    await until(bench.alive)
    queue = bench.device_port.queues[0]
    queue.in_flight[5] = (0, (), 0)
    await within(bench.bus.probe(bench.plan()))
    assert not len(queue.in_flight), "what the old objects had in flight is nobody's"
    assert bench.nic.device.stats.resets == 2
    await until(bench.alive)


async def test_a_device_that_was_another_process_meanwhile_is_configured_again(bench: Bench) -> None:
    """The service is the same, so its epoch is; only the device can say."""
    await within(bench.bus.probe(bench.plan()))
    await bench.renew(1)
    await until(lambda: bench.nic.ops[-len(CONFIGURE) :] == CONFIGURE and bench.alive())
    assert (bench.restarted, bench.bus.restarts) == (1, 1)


async def test_the_owner_may_want_no_device_that_was_another_process_meanwhile(bench: Bench) -> None:
    replaced = asyncio.Event()
    bench.bus = VirtioBus(
        "nic", bench.device_port, spawn=bench.world.spawn, log=bench.log, on_restart=bench.restart,
        on_replaced=replaced.set,
    )  # fmt: skip
    assert bench.to is not None
    bench.bus.link_up(bench.to)
    await within(bench.bus.probe(bench.plan()))
    await bench.renew(1)
    await within(replaced.wait())
    assert bench.restarted == 0
    assert "set_status" not in bench.nic.ops


async def test_another_device(bench: Bench) -> None:
    with pytest.raises(RemoteError) as caught:
        await within(bench.bus.probe(bench.plan(DeviceId.SCMI)))
    assert (caught.value.field, caught.value.value, caught.value.limit) == ("device_id", DeviceId.NET, DeviceId.SCMI)
    assert bench.made == []


async def test_features_that_are_refused(bench: Bench) -> None:
    with pytest.raises(CallError, match="VERSION_1"):
        await within(bench.bus.probe(bench.plan(features=Feature.EVENT_IDX.bit)))


async def test_features_that_do_not_stick(bench: Bench) -> None:
    bench.nic.device.op_set_driver_features = lambda features: None  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="does not take them"):
        await within(bench.bus.probe(bench.plan()))


async def test_more_entries_than_the_device_has(bench: Bench) -> None:
    bench.size = 128
    with pytest.raises(RemoteError) as caught:
        await within(bench.bus.probe(bench.plan()))
    assert (caught.value.field, caught.value.value, caught.value.limit) == ("vq_num", 128, 64)


async def test_the_same_device_is_not_configured_again(bench: Bench) -> None:
    await within(bench.bus.probe(bench.plan()))
    calls = len(bench.nic.heard)
    assert bench.nic.link is not None
    bench.nic.link.close("test")
    await within(bench.client.wait_up())
    await until(bench.alive)
    assert len(bench.nic.heard) == calls
    assert (bench.bus.restarts, bench.restarted) == (0, 0)


async def test_a_device_that_restarted_is(bench: Bench) -> None:
    await within(bench.bus.probe(bench.plan()))
    await bench.renew(2)
    await until(lambda: bench.nic.device.status == 15)
    assert bench.nic.ops == ["get_status", *CONFIGURE], "without a reset: the rings go on where they stand"
    await until(bench.alive)
    assert (bench.bus.restarts, bench.restarted) == (1, 1)
    assert bench.made == [FEATURES]
    assert bench.nic.device.vectors[:2] == [3, 4]


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("at", range(14))
async def test_the_link_breaks_while_a_restarted_device_is_configured(bench: Bench, at: int, answered: bool) -> None:
    """At call ``at``, before or after the device carried it out: the same device gets the rest, and one restart."""
    await within(bench.bus.probe(bench.plan()))
    await bench.server.close()
    bench.nic = nic = Nic(64)

    def cut(call: Call) -> bool:
        if len(nic.heard) != at + 1:
            return False
        if answered:
            nic.device.answer(call)
        return True

    nic.cut_at = cut
    await bench.serve(2)
    await until(lambda: nic.device.status == 15)
    await until(bench.alive)
    await until(lambda: bench.bus.configured)
    assert (bench.bus.restarts, bench.restarted) == (1, 1)
    assert nic.device.vectors[:2] == [3, 4]
    assert nic.device.stats.calls_refused == 0
    calls = len(nic.heard)
    assert nic.link is not None
    nic.link.close("again")
    await within(bench.client.wait_up())
    await until(bench.alive)
    assert len(nic.heard) == calls


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("at", [0, 2, 5, 9, 16])
async def test_the_link_breaks_during_probe(bench: Bench, at: int, answered: bool) -> None:
    """The caller probes again, from a reset on; the queues that were made are used again."""

    def cut(call: Call) -> bool:
        if len(bench.nic.heard) != at + 1:
            return False
        if answered:
            bench.nic.device.answer(call)
        return True

    bench.nic.cut_at = cut
    with pytest.raises(LinkDownError):
        await within(bench.bus.probe(bench.plan()))
    await within(bench.client.wait_up())
    await within(bench.bus.probe(bench.plan()))
    assert bench.nic.device.status == 15
    await until(bench.alive)
    assert bench.made == [FEATURES]
    assert (bench.bus.restarts, bench.device_port.stats.rings_broken) == (0, 0)


async def test_a_device_that_comes_back_smaller_is_an_error_and_no_crash(bench: Bench) -> None:
    await within(bench.bus.probe(bench.plan()))
    await bench.renew(2, queue_size=8)
    await until(lambda: any(level == "error" for level, _, _ in bench.log.lines))
    await until(lambda: not bench.world.actors)
    assert bench.nic.device.status == 11
    await bench.renew(3)
    await until(lambda: bench.nic.device.status == 15)
    assert bench.bus.restarts == 2


@pytest.mark.parametrize("op", ["get_status", "set_status", "get_vq_num_max"])
async def test_a_device_that_comes_back_talking_nonsense_is_an_error_and_no_crash(bench: Bench, op: str) -> None:
    await within(bench.bus.probe(bench.plan()))
    await bench.renew(2, odd={op: None})
    await until(lambda: any(level == "error" for level, _, _ in bench.log.lines))
    await until(lambda: not bench.world.actors)
    await bench.renew(3)
    await until(lambda: bench.nic.device.status == 15)


@pytest.mark.parametrize("op", ["get_device_id", "get_device_features", "get_vq_num_max"])
async def test_a_probe_refuses_a_value_of_another_type(bench: Bench, op: str) -> None:
    bench.nic.odd = {op: "1"}
    with pytest.raises(RemoteError, match=op):
        await within(bench.bus.probe(bench.plan()))


async def test_notices(bench: Bench) -> None:
    bench.nic.send(Notice("config"))
    bench.nic.send(Notice("needs_reset", "queue 1: odd"))
    await until(lambda: bench.log.lines)
    assert bench.bus.needs_reset == 1
    assert bench.log.lines[0][2] == {"device": "nic", "what": "needs_reset", "detail": "queue 1: odd"}
