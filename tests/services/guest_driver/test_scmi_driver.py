"""The driver's composition on a port and a real device in one process: bring-up, interrupts, restart, end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from common.errors import LinkDownError, LocalError, ScmiError
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from common.scmi.status import Status
from common.virtio.features import Feature, mask
from common.virtio.msi_source import MsiSource
from common.wire.messages import Call, Irq, Message
from services.guest_driver.layout import Layout
from services.guest_driver.port import Port
from services.guest_driver.scmi_driver import CMDQ, EVENTQ, FEATURES, ScmiDriver, key_of
from services.guest_driver.scmi_notify import QUEUED
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.core import ScmiCore
from services.scmi_platform.mesh_device import ScmiDevice
from tests.common.virtio.ringkit import bring_up
from tests.services.scmi_platform.scmi_rig import SMALL

T = TypeVar("T")


def quiet(_event: str, **_fields: object) -> None:
    """A log that nobody reads."""


class Rig:
    """A driver and a device; :meth:`settle` moves messages, interrupts go to the driver at once."""

    def __init__(self, features: int = FEATURES) -> None:
        self.now = 100.0
        self.world = AsyncWorld()
        self.memory = GuestMemory(1 << 20)
        self.to_device: deque[Message] = deque()
        self.to_guest: deque[Message] = deque()
        self.irqs: list[int] = []
        #: interrupts are lost
        self.muted = False
        self.port = Port(
            self.world, self.memory, queues=2, send=self._send, key_of=key_of, clock=lambda: self.now
        )  # fmt: skip
        self.driver: ScmiDriver = self.world.new(
            ScmiDriver, self.world, self.memory, Layout(0, 1 << 20), self.port.doorbell, quiet,
            cmdq_size=16, eventq_size=8, timeout=5.0,
        )  # fmt: skip
        self.features = features
        self.port.link_up()

    def _send(self, message: Message) -> None:
        if isinstance(message, Irq) and self.muted:
            return
        if isinstance(message, Irq):
            self.irqs.append(message.queue)
            (self.driver.cmdq_irq if message.queue == CMDQ else self.driver.eventq_irq)()
        else:
            self.to_device.append(message)

    def new_device(self) -> None:
        self.agents = Agents(Board.load(SMALL), lambda: self.now)
        agent = self.agents.allot("vm0")
        self.device = ScmiDevice(
            lambda device: ScmiCore(self.agents.platform, agent, device, clock=lambda: self.now),
            send=self.to_guest.append, msi=MsiSource("vm0", 16, lambda _m: None), clock=lambda: self.now, log=quiet,
        )  # fmt: skip
        self.agents.attach(agent, self.device.core)

    def bring_up(self) -> None:
        self.new_device()
        self.plans = self.driver.make_queues(self.features)
        self.configure()
        self.driver.start("vm0")

    def configure(self) -> None:
        for op, args in bring_up([plan.layout for plan in self.plans], self.features):
            answer = self.device.answer(Call(0, op, args))
            assert answer is not None
            assert answer.errno == 0, answer
        self.device.batch_end()

    def settle(self) -> None:
        while self.to_device or self.to_guest:
            if self.to_device:
                self.device.frame(self.to_device.popleft())
                self.device.batch_end()
            if self.to_guest:
                self.port.frame(self.to_guest.popleft())
            self.world.stir()

    async def run(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        async with asyncio.timeout(20):
            while not task.done():
                self.settle()
                await asyncio.sleep(0)
        return task.result()

    async def close(self) -> None:
        await self.driver.stop()
        await self.world.close()


async def test_commands_and_notifications() -> None:
    rig = Rig()
    rig.bring_up()
    agent = rig.driver.agent
    assert await rig.run(agent.base.vendor()) == "acme"
    assert await rig.run(agent.clock.rate_get(0, poll=True)) == 300
    heard: list[Any] = []
    await rig.run(agent.notifications.register(0x14, 0, heard.append, 0))
    await rig.run(agent.clock.rate_set(0, 400))
    for _ in range(10):
        rig.settle()
        await asyncio.sleep(0)
    assert [one.report.rate for one in heard] == [400]
    assert set(rig.irqs) == {CMDQ, EVENTQ}
    await rig.close()


async def test_the_sizes_are_what_was_asked_for() -> None:
    rig = Rig()
    rig.bring_up()
    assert [plan.layout.size for plan in rig.plans] == [16, 8]
    assert [(plan.index, plan.event) for plan in rig.plans] == [(CMDQ, CMDQ), (EVENTQ, EVENTQ)]
    assert set(rig.driver.rings) == {"cmdq", "eventq"}
    assert rig.driver.tx_channel.max_msg == 8
    await rig.close()


async def test_without_event_idx() -> None:
    rig = Rig(mask(Feature.VERSION_1))
    rig.bring_up()
    assert not rig.driver.rings["cmdq"].event_idx
    assert await rig.run(rig.driver.agent.base.vendor()) == "acme"
    await rig.close()


async def test_without_an_eventq() -> None:
    """A device without P2A_CHANNELS has one queue: commands go, what would come by the other is not supported."""
    rig = Rig(mask(Feature.VERSION_1))
    rig.bring_up()
    driver = rig.driver
    assert [plan.index for plan in rig.plans] == [CMDQ]
    assert list(driver.rings) == ["cmdq"]
    assert await rig.run(driver.agent.base.vendor()) == "acme"
    for asked in (driver.agent.clock.on_rate_changed(print, 0), driver.agent.sensor.reading_get_async(0)):
        with pytest.raises(ScmiError) as error:
            await rig.run(asked)
        assert error.value.status == Status.NOT_SUPPORTED
    driver.eventq_irq()
    driver.restarted()
    assert await rig.run(driver.agent.clock.rate_get(0, poll=True)) == 300
    await asyncio.wait_for(rig.close(), 20)


async def test_before_the_queues_are_there() -> None:
    rig = Rig()
    with pytest.raises(LinkDownError):
        await rig.driver.agent.base.vendor()
    await rig.close()  # nothing was started: nothing to wait for


async def test_queues_made_but_never_started() -> None:
    rig = Rig()
    rig.new_device()
    rig.driver.make_queues(FEATURES)
    await asyncio.wait_for(rig.close(), 20)
    with pytest.raises(LinkDownError):
        await rig.driver.agent.base.vendor()


async def test_a_guest_too_small() -> None:
    world = AsyncWorld()
    driver = ScmiDriver(world, GuestMemory(4096), Layout(0, 4096), lambda _q: None, quiet)
    with pytest.raises(LocalError, match="guest memory used up"):
        driver.make_queues(FEATURES)


async def test_the_platform_restarts_with_a_delayed_response_owed() -> None:
    """What the old one had put on the rings is taken off first; what it still owed ends with COMMS_ERROR."""
    rig = Rig()
    rig.bring_up()
    agent = rig.driver.agent
    owed = asyncio.ensure_future(agent.sensor.reading_get_async(0))
    for _ in range(4):
        await asyncio.sleep(0)
        rig.settle()
    rig.port.link_down()
    rig.to_device.clear()
    rig.to_guest.clear()
    rig.new_device()
    rig.port.link_up()
    rig.driver.restarted()
    while rig.to_device:
        rig.device.frame(rig.to_device.popleft())
    rig.configure()
    with pytest.raises(ScmiError) as error:
        await rig.run(owed)
    assert error.value.status == Status.COMMS_ERROR
    assert await rig.run(agent.clock.rate_get(0)) == 300
    await rig.close()


async def test_what_was_answered_before_a_restart_is_taken_without_an_interrupt() -> None:
    rig = Rig()
    rig.bring_up()
    waiting = asyncio.ensure_future(rig.driver.agent.base.vendor())
    await asyncio.sleep(0)
    rig.muted = True
    rig.settle()
    await asyncio.sleep(0)
    assert not waiting.done()
    rig.driver.restarted()
    assert await asyncio.wait_for(waiting, 20) == "acme"
    rig.muted = False
    await rig.close()


async def test_stop_ends_every_wait() -> None:
    rig = Rig()
    rig.bring_up()
    waiting = asyncio.ensure_future(rig.driver.agent.base.vendor())
    await asyncio.sleep(0)
    await asyncio.wait_for(rig.driver.stop(), 20)
    with pytest.raises(LinkDownError):
        await asyncio.wait_for(waiting, 20)
    await rig.driver.stop()
    await rig.world.close()


def test_the_device_has_no_iommu() -> None:
    assert key_of(0) is not None
    assert key_of(1) is None


async def test_a_platform_that_restarts_is_asked_for_notifications_again() -> None:
    rig = Rig()
    rig.bring_up()
    agent = rig.driver.agent
    heard: list[Any] = []
    await rig.run(agent.clock.on_rate_changed(heard.append, 0))
    rig.port.link_down()
    rig.new_device()
    rig.port.link_up()
    rig.driver.restarted()
    while rig.to_device:
        rig.device.frame(rig.to_device.popleft())
    rig.configure()
    await rig.run(agent.clock.rate_set(0, 400))
    await rig.run(agent.base.vendor())
    assert [one.report.rate for one in heard] == [400]
    await rig.close()


async def test_stop_ends_the_workers_after_what_came() -> None:
    rig = Rig()
    rig.bring_up()
    agent = rig.driver.agent
    heard: list[Any] = []
    await rig.run(agent.clock.on_rate_changed(heard.append, 0))
    asyncio.ensure_future(agent.clock.rate_set(0, 400)).add_done_callback(lambda task: task.exception())
    await asyncio.sleep(0)
    rig.settle()  # the notification is queued, its handler has not been called
    assert agent.stats.notification_ok == 1
    assert heard == []
    await asyncio.wait_for(rig.driver.stop(), 20)
    assert len(heard) == 1
    await asyncio.sleep(0)
    assert rig.world.actors == 0
    await rig.close()


@pytest.mark.parametrize("entries", [16, 64, 256, 1024])
def test_a_fifo_holds_what_the_eventq_brings_at_once(entries: int) -> None:
    """The interrupt empties the eventq before the worker runs, both on one loop: nothing may be dropped for that."""
    world = AsyncWorld()
    driver = world.new(
        ScmiDriver, world, GuestMemory(1 << 20), Layout(0, 1 << 20), lambda _queue: None, quiet, eventq_size=entries
    )
    notifications = driver.agent.notifications
    for client in (driver.agent.base, driver.agent.clock, driver.agent.sensor):
        table = client.events()
        event = max(table.events, key=lambda one: one.max_payload)
        word = event.event | 3 << 8 | table.protocol << 10
        message = word.to_bytes(4, "little") + bytes(event.max_payload)
        assert [notifications.notify(word, message) for _ in range(entries)] == [QUEUED] * entries
        assert table.queue_size <= notifications.queues[table.protocol].fifo.size
