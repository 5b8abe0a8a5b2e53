"""The registry under the explorer: two interrupts, the worker, two who register, and a platform that is reset."""

from __future__ import annotations

from typing import Final

import pytest

from common.scmi import header
from common.world import Atomic, Event, World
from services.guest_driver.notify_events import Event as NotifyEvent
from services.guest_driver.notify_events import Notification, ProtocolEvents
from services.guest_driver.notify_handlers import Handlers
from services.guest_driver.scmi_notify import QUEUED, Notifications
from services.lab.explore import explore
from services.lab.scenario import Build, Checks, Settings
from services.lab.world import LabWorld
from tests.services.guest_driver.notify_bench import SOME, VENDOR, parse, payload


def unlogged(_event: str, **_fields: object) -> None:
    """The lab shows steps."""


class Rig:
    """One protocol with two sources, and everybody who has to do with it."""

    __slots__ = ("after", "heard", "left", "notifications", "on", "put", "took_back", "world")

    world: Final[World]
    notifications: Final[Notifications]
    on: Final[tuple[Atomic, Atomic]]
    heard: Final[Atomic]
    left: Final[Atomic]
    put: Final[Event]

    def __init__(self, world: LabWorld, interrupts: int) -> None:
        self.world = world
        self.notifications = world.new(Notifications, world, unlogged, lambda: 0)
        #: what the platform was told of each source
        self.on = (world.atomic(), world.atomic())
        self.heard = world.atomic()
        #: interrupts that are to come
        self.left = world.atomic(interrupts)
        self.put = world.event()
        self.took_back = False
        #: the handler was called after it had been taken back
        self.after = False

    def protocol(self) -> None:
        event = NotifyEvent(SOME, 16, parse, lambda report: int(report), self.enable)
        self.notifications.register_protocol_events(ProtocolEvents(VENDOR, (event,), 2, 64))

    async def enable(self, source: int, on: bool) -> None:
        self.on[source].store(on)

    async def late(self) -> None:
        self.protocol()

    async def isr(self, source: int) -> None:
        message = header.notification(VENDOR, SOME, payload(source))
        outcome = self.notifications.notify(int.from_bytes(message[:4], "little"), message)
        assert outcome == QUEUED
        if self.left.add(-1) == 0:
            self.put.set()

    async def isr_and_worker(self, source: int) -> None:
        await self.isr(source)
        self.notifications.queues[VENDOR].dispatch()

    def all_sources(self, _notification: Notification) -> None:
        if self.took_back:
            self.after = True

    def one_source(self, _notification: Notification) -> None:
        self.heard.add(1)

    async def comes_and_goes(self) -> None:
        await self.notifications.register(VENDOR, SOME, self.all_sources)
        assert await self.notifications.unregister(VENDOR, SOME, self.all_sources)
        self.took_back = True

    async def stays(self) -> None:
        await self.notifications.register(VENDOR, SOME, self.one_source, 0)

    async def reset(self) -> None:
        await self.notifications.restore()

    async def end(self) -> None:
        await self.put.wait()
        await self.notifications.close()


def checks(rig: Rig, on: list[int], count: int) -> Checks:
    def final() -> str | None:
        if rig.after:
            return "a handler was called after it had been taken back"
        told = [one.load() for one in rig.on]
        if told != on:
            return f"wanted is {on}, the platform was told {told}"
        stats = rig.notifications.queues[VENDOR].stats
        if (stats.queued, stats.delivered) != (count, count):
            return f"{stats.queued} queued, {stats.delivered} delivered"
        return None

    return Checks(final)


def everything(world: LabWorld) -> Checks:
    rig = world.new(Rig, world, 2)
    rig.protocol()
    rig.notifications.start("lab")
    for source in range(2):
        world.spawn(f"isr{source}", rig.isr(source))
    world.spawn("end", rig.end())
    world.spawn("stays", rig.stays())
    world.spawn("comes and goes", rig.comes_and_goes())
    world.spawn("reset", rig.reset())
    return checks(rig, [1, 0], 2)


def late(world: LabWorld) -> Checks:
    rig = world.new(Rig, world, 0)
    world.spawn("late", rig.late())
    world.spawn("stays", rig.stays())
    world.spawn("comes and goes", rig.comes_and_goes())
    return checks(rig, [1, 0], 0)


def taken_back(world: LabWorld) -> Checks:
    rig = world.new(Rig, world, 1)
    rig.protocol()
    world.spawn("isr and worker", rig.isr_and_worker(0))
    world.spawn("comes and goes", rig.comes_and_goes())
    return checks(rig, [0, 0], 1)


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (everything, Settings("random", runs=500)),
        (late, Settings("random", runs=500)),
        (late, Settings(preemptions=1)),
        (taken_back, Settings(preemptions=2)),
    ],
)
def test_registrations_and_interrupts_in_any_order(build: Build, settings: Settings) -> None:
    result = explore(build, settings)
    assert result.verdict == "holds", result


class Snapshot(Handlers):
    """Calls what the chain was when it looked: the lock is not held across the calls."""

    __slots__ = ()

    def call(self, notification: Notification) -> tuple[int, int]:
        with self._lock:
            chains = [self._chains.get(key) or () for key in self._chains]
        for chain in chains:
            for handler in chain:
                handler(notification)
        return 1, 0


def test_the_explorer_sees_a_handler_that_outlives_its_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.guest_driver.scmi_notify.Handlers", Snapshot)
    result = explore(taken_back, Settings(preemptions=2))
    assert result.verdict == "fails"
    assert result.failure is not None
    assert "taken back" in str(result.failure)
