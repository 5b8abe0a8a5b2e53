"""notify-pending: the scenario's own claims, and what is wrong with the mail's retries, one fault at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.workqueue import Work, WorkQueue
from services.guest_driver.notify_queue import EventsQueue
from services.lab.explore import explore
from services.lab.scenario import Checks, Settings
from services.lab.scenarios.notify_pending import (
    COUNTERS,
    INPUTS,
    ONE,
    SCENARIO,
    ClearedAfter,
    LookThenSet,
    Retry,
    RetryCounter,
    RetryDelay,
    build_retry,
)
from services.lab.scenarios.notify_rig import MAX_PAYLOAD, Classes, build
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.scenarios.claims import fails, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "notify-pending.md"
LOST = "deadlock: worker waits in wq.wake.wait(); consumer waits in all 2 delivered.wait()"


@pytest.mark.parametrize("variant", [v for v in SCENARIO.variants if v.expect == "fails"], ids=lambda v: v.name)
def test_failing_variants_fail_and_replay(variant: Any) -> None:
    twice = "invariant: isr1: the work item is in the work queue twice"
    assert str(fails(variant, PAGE)) == (twice if variant.name == "pending-not-atomic" else LOST)


@pytest.mark.parametrize("name", ["shipped", "retry-on-real-wq"])
def test_holding_variants_within_a_smaller_bound(name: str) -> None:
    """The declared bound (two preemptions) is run by `lab run`."""
    result = explore(SCENARIO.variant(name).build, Settings(preemptions=1))
    assert (result.verdict, result.exhaustive) == ("holds", True), result


def test_shipped_under_more_preemptions() -> None:
    result = explore(SCENARIO.variant("shipped").build, Settings(strategy="random", runs=500, seed=7))
    assert result.verdict == "holds", result


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("cleared-after"), PAGE)


@pytest.mark.parametrize("cls", [WorkQueue, EventsQueue, Work])
def test_the_lab_runs_the_classes_that_services_run(cls: type[Any]) -> None:
    world = LabWorld(Run(Replay([]), 100))
    rig = Classes().rig
    made: Any = world.new(rig, world, INPUTS[0], Classes().queue, Classes().wq)
    thing = {WorkQueue: made.wq, EventsQueue: made.queue, Work: made.queue.notify_work}[cls]
    functions = [n for n, f in vars(cls).items() if callable(f) and n != "__class__"]
    assert functions
    for name in functions:
        assert getattr(type(thing), name) is getattr(cls, name), name


def test_variants_override_only_what_differs() -> None:
    def own(cls: type[Any]) -> set[str]:
        return {n for n, f in vars(cls).items() if callable(f)}

    assert own(ClearedAfter) == {"run"}
    assert own(LookThenSet) == {"queue_work"}
    assert own(Retry) == {"__init__", "dispatch", "notify", "_exiting", "mdelay"}
    assert own(RetryCounter) == own(RetryDelay) == set()


# --- what the pending bit has to do with events --------------------------------------------------------------------


def test_an_item_queued_twice_loses_no_event_with_one_worker() -> None:
    """What breaks is what relies on the item being queued once: a list of the kernel, or a second worker."""
    twice = build(INPUTS[2:3], Classes(wq=LookThenSet))

    def events_only(world: LabWorld) -> Checks:
        return replace(twice(world), step=None)

    result = explore(events_only, Settings(preemptions=1))
    assert (result.verdict, result.exhaustive) == ("holds", True), result


# --- the retries -----------------------------------------------------------------------------------------------------


class NoFault(Retry):
    """The flag is not looked at, the counter is fresh, the delay is long enough."""

    __slots__ = ()
    FLAG = False
    FRESH = True


class OnlyFlag(Retry):
    __slots__ = ()
    FRESH = True


@pytest.mark.parametrize("cnt", COUNTERS)
def test_the_static_counter_loses_an_event_when_it_is_at_one(cnt: int) -> None:
    result = explore(build_retry(RetryCounter, counters=(cnt,)), Settings(preemptions=2, runs=1000))
    assert result.verdict == ("fails" if cnt == 1 else "holds"), result


def test_each_fault_alone_is_enough_and_without_any_it_holds() -> None:
    assert explore(build_retry(NoFault), Settings(preemptions=2, runs=1000)).verdict == "holds"
    for cls in (OnlyFlag, RetryDelay):
        assert explore(build_retry(cls), Settings(preemptions=2)).verdict == "fails", cls


class Busy(WorkQueue):
    """Every second call finds the item pending: each event needs one retry."""

    __slots__ = ("queued",)

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.queued = True

    def queue_work(self, work: Work) -> bool:
        self.queued = not self.queued
        return self.queued


def test_which_events_the_static_u8_loses() -> None:
    """Three, then every 256th: the byte wraps below zero."""
    world: Any = LabWorld(Run(Replay([]), 100))
    wq = world.new(Busy, world)
    queue = world.new(RetryCounter, world, 64, MAX_PAYLOAD, wq, print)
    lost = []
    for number in range(1, 600):
        wq.queued = True
        with pytest.raises(StopIteration):
            queue.notify(*ONE).send(None)
        if not wq.queued:
            lost.append(number)
        queue.fifo.reset_out()
    assert lost == [3, 259, 515]
