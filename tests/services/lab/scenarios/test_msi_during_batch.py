"""msi-during-batch: the scenario's own claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.msi_during_batch import (
    INPUTS,
    SCENARIO,
    Msis,
    NoLock,
    NoMutex,
    WholeBatch,
    build,
    none_lost,
    short_holds,
)
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "msi-during-batch.md"


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("no-lock", "the event leads to vCPU 1, pending elsewhere: [8192]"),
        ("no-mutex", "the event leads to vCPU 1, pending elsewhere: [8192]"),
        ("lock-over-batch", "MSIs wait while 2 commands run"),
    ],
)
def test_failing_variants_fail_and_replay(name: str, detail: str) -> None:
    assert fails(SCENARIO.variant(name), PAGE).detail == detail


def test_shipped_within_a_smaller_bound() -> None:
    holds_at_first(SCENARIO.variant("shipped"), 300)
    holds(SCENARIO.variant("shipped").build, runs=300)


@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.name)
def test_every_input_alone(given: Any) -> None:
    holds(build(Msis, (given,)))


def test_an_msi_can_find_its_event_unmapped_between_two_looks() -> None:
    """The other way in which looks that are not one go wrong."""
    moved = next(given for given in INPUTS if given.name == "moved, looked up")
    result = explore(build(NoMutex, (moved,)), Settings(preemptions=1))
    assert result.failure is not None
    assert result.failure.detail == "an MSI is dropped (unmapped), though its event is mapped at any time"


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_lock_over_the_batch_is_held_for_all_of_it(count: int) -> None:
    back = next(given for given in INPUTS if given.name == "there and back").batch
    given = replace(INPUTS[0], batch=(back * 4)[:count], held=False)
    for rig, most in ((WholeBatch, count), (Msis, 1)):
        result = explore(build(rig, (given,)), Settings(preemptions=0))
        want = None if most == 1 else f"MSIs wait while {most} commands run"
        assert (result.failure.detail if result.failure else None) == want


def test_what_is_left_over_is_said() -> None:
    def made() -> Msis:
        return Msis(LabWorld(Run(Replay([]), 100)), INPUTS[1])

    rig = made()
    assert none_lost(rig) == "0 of 1 commands ran"
    assert short_holds(rig) is None
    rig = made()
    rig.notes.taken = 3
    assert "MSI 3 was taken, 1 is confirmed" in str(none_lost(rig))
    rig = made()
    rig.notes.lpis.append((1, 9000, 1))
    assert "of which the ITS knows nothing" in str(none_lost(rig))
    rig = made()
    rig.its.hold()
    for event in (1, 2):
        assert rig.its.try_msi(1, event, 1)
    assert "pending: [[8193, 8194], []]" in str(none_lost(rig))


def test_variants_override_only_what_differs() -> None:
    def own(cls: type[Any]) -> set[str]:
        return {n for n, f in vars(cls).items() if callable(f) and n != "its_class"}

    assert own(NoLock) == own(WholeBatch) == {"spinlock"}
    assert own(NoMutex) == {"mutex"}


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("no-lock"), PAGE)
