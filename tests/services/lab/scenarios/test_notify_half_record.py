"""notify-half-record: the scenario's own claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.workqueue import WorkQueue
from services.guest_driver.notify_fifo import EventFifo
from services.guest_driver.notify_queue import EventsQueue
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.notify_half_record import (
    INPUTS,
    SCENARIO,
    EmptyPayload,
    FlushUnlocked,
    NotKept,
    Unlocked,
)
from services.lab.scenarios.notify_rig import Rig
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.scenarios.claims import fails, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "notify-half-record.md"

LOST = "deadlock: worker waits in wq.wake.wait(); consumer waits in all 2 delivered.wait()"
HOW = {
    "not-kept": LOST,
    "empty-payload": LOST,
    "two-writers": "final: sent [1], handed over []",
    "flush-unlocked": "final: handed over, and sent by nobody: (9, b'', 9)",
}


@pytest.mark.parametrize("name", HOW)
def test_failing_variants_fail_and_replay(name: str) -> None:
    assert str(fails(SCENARIO.variant(name), PAGE)) == HOW[name]


@pytest.mark.parametrize("name", ["shipped", "flush-locked"])
def test_holding_variants_within_a_smaller_bound(name: str) -> None:
    """The declared bound (two preemptions) is run by `lab run`."""
    variant = SCENARIO.variant(name)
    result = explore(variant.build, Settings(preemptions=1))
    assert (result.verdict, result.exhaustive) == ("holds", True), result
    assert variant.expect == "holds"


def test_shipped_under_more_preemptions() -> None:
    result = explore(SCENARIO.variant("shipped").build, Settings(strategy="random", runs=500, seed=7))
    assert result.verdict == "holds", result


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("not-kept"), PAGE)


def test_the_lab_runs_the_classes_that_services_run() -> None:
    world = LabWorld(Run(Replay([]), 100))
    rig: Any = world.new(Rig, world, INPUTS[0], EventsQueue, WorkQueue)
    for made, cls in ((rig.queue, EventsQueue), (rig.queue.fifo, EventFifo)):
        functions = [n for n, f in vars(cls).items() if callable(f) and n != "__class__"]
        assert len(functions) > 3
        for name in functions:
            assert getattr(type(made), name) is getattr(cls, name), name


def test_variants_override_only_what_differs() -> None:
    own = {cls: {n for n, f in vars(cls).items() if callable(f)} for cls in EventsQueue.__subclasses__()}
    assert own[NotKept] == {"dispatch"}
    assert own[EmptyPayload] == {"_payload"}
    assert own[Unlocked] == {"put"}
    assert own[FlushUnlocked] == {"_flush"}
