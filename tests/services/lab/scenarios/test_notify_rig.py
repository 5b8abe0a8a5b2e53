"""The rig of the notification scenarios: its checks see what they are for, and it runs on the services' world."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from common.runtime.world import AsyncWorld
from common.workqueue import WorkQueue
from services.guest_driver.notify_queue import EventsQueue
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.notify_rig import MAX_PAYLOAD, Input, Notification, Rig, build, delivered_once, queued_once
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld

A: Notification = (1, b"\x01", 10)
B: Notification = (2, b"", 20)
C: Notification = (3, b"\x03" * MAX_PAYLOAD, 30)
GIVEN = Input("two interrupts", ((A, B), (C,)), size=128, start=120)


def after(got: tuple[Notification, ...]) -> Rig:
    """A finished run in which the worker handed over ``got``."""
    world = LabWorld(Run(Replay([]), 100))
    rig = world.new(Rig, world, GIVEN, EventsQueue, WorkQueue)
    for event in got:
        rig.deliver(*event)
    rig.queue.stats.queued = rig.queue.stats.delivered = len(got)
    return rig


@pytest.mark.parametrize("got", [(A, B, C), (C, A, B), (A, C, B)])
def test_events_of_one_interrupt_keep_their_order(got: tuple[Notification, ...]) -> None:
    assert delivered_once(after(got), GIVEN) is None


@pytest.mark.parametrize(
    ("got", "text"),
    [
        ((A, C), r"sent \[1, 2\], handed over \[1\]"),
        ((B, A, C), r"sent \[1, 2\], handed over \[2, 1\]"),
        ((A, B, B, C), r"handed over \[1, 2, 2\]"),
        ((A, B, (3, b"\x04", 30)), r"sent \[3\], handed over \[\]"),
        ((A, B, C, (9, b"", 0)), r"3 sent; .*\(4, 4, 4\)"),
    ],
)
def test_what_went_wrong_is_said(got: tuple[Notification, ...], text: str) -> None:
    wrong = delivered_once(after(got), GIVEN)
    assert wrong is not None
    assert re.search(text, wrong), wrong


def left_over(rig: Rig) -> None:
    rig.queue.fifo.put(b"x")


def in_flight(rig: Rig) -> None:
    rig.queue.in_flight = (0, 0, 0)


def flushed(rig: Rig) -> None:
    rig.queue.stats.flushed = 1


def uncounted(rig: Rig) -> None:
    rig.queue.stats.queued -= 1


@pytest.mark.parametrize("damage", [left_over, in_flight, flushed, uncounted])
def test_nothing_is_left_and_the_counts_are_right(damage: Callable[[Rig], None]) -> None:
    rig = after((A, B, C))
    damage(rig)
    assert delivered_once(rig, GIVEN) is not None


def test_an_item_that_is_queued_twice_is_seen() -> None:
    rig = after(())
    assert rig.wq.queue_work(rig.queue.notify_work)
    assert queued_once(rig) is None
    rig.wq._items.append(rig.queue.notify_work)
    assert queued_once(rig) is not None


def test_every_input_is_explored() -> None:
    """The second input cannot fit into its fifo: the search comes to it."""
    result = explore(build((GIVEN, Input("too large", ((C,),), size=16))), Settings(preemptions=0))
    assert result.failure is not None
    assert "isr waits in relax(), until a change of" in result.failure.detail


@pytest.mark.parametrize("drain", [False, True])
def test_the_rig_runs_on_asyncio(drain: bool) -> None:
    """One algorithm, two worlds: the same coroutines, driven by the services' world."""
    given = Input("async", GIVEN.sent, size=64, start=60, drain=drain)

    async def main() -> str | None:
        world: Any = AsyncWorld()
        rig = world.new(Rig, world, given, EventsQueue, WorkQueue)
        actors = [*map(rig.isr, given.sent), rig.wq.run(), rig.consume()]
        await asyncio.wait_for(asyncio.gather(*actors), 10)
        return delivered_once(rig, given)

    assert asyncio.run(main()) is None
