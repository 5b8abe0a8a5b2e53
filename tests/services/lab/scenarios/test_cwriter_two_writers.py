"""cwriter-two-writers: the scenario's own claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.gic_its.profile import QEMU
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.cwriter_two_writers import (
    HALVES,
    INPUTS,
    ORDERED,
    PAST,
    SCENARIO,
    THREE,
    AsPosted,
    Input,
    Mutex,
    NoLock,
    Write,
    Writers,
    build,
    no_batch_of_others,
    to,
)
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "cwriter-two-writers.md"


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        ("no-lock", "invariant", "the INT of LPI 8207 runs where"),
        ("as-posted", "invariant", "the INT of LPI 8207 runs where"),
        ("first-runs-all", "final", "vcpu0 waits for 2 commands; when its write was done 3 had run"),
        ("mutex-wait", "final", "a writer waits while 2 commands of another run"),
    ],
)
def test_failing_variants_fail_and_replay(name: str, kind: str, detail: str) -> None:
    failure = fails(SCENARIO.variant(name), PAGE)
    assert failure.kind == kind
    assert failure.detail.startswith(detail)


@pytest.mark.parametrize("name", ["mutex", "shipped"])
def test_holding_variants_within_a_smaller_bound(name: str) -> None:
    variant = SCENARIO.variant(name)
    holds_at_first(variant, 400)
    holds(variant.build, runs=300)


def test_shipped_with_three_writers() -> None:
    holds(build(Writers, (THREE,)), runs=300)


def test_shipped_over_tables_in_guest_memory() -> None:
    holds(build(Writers, [replace(given, profile=QEMU) for given in (ORDERED, HALVES)]), runs=100)


@pytest.mark.parametrize("rig", [NoLock, AsPosted])
def test_variants_hold_where_one_vcpu_writes(rig: type[Writers]) -> None:
    """What is wrong with them needs a second one."""
    holds(build(rig, (Input("alone", (Write(to(2), 2),)),)))


@pytest.mark.parametrize("rig", [NoLock, AsPosted])
def test_what_is_posted_needs_a_preemption(rig: type[Writers]) -> None:
    given = ORDERED if rig is NoLock else HALVES
    holds(build(rig, (given,)))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_mutex_is_held_for_the_whole_batch(count: int) -> None:
    given = replace(PAST, writes=(Write(to(count), count), PAST.writes[1]))
    result = explore(build(Mutex, (given,), (no_batch_of_others,)), Settings(preemptions=0))
    want = None if count == 1 else f"a writer waits while {count} commands of another run"
    assert (result.failure.detail if result.failure else None) == want


def test_inputs_say_what_they_are() -> None:
    assert [(given.name, given.commands) for given in INPUTS] == [("in order", 3), ("halves", 2), ("past the queue", 2)]


def test_variants_override_only_what_differs() -> None:
    def own(cls: type[Any]) -> set[str]:
        return {n for n, f in vars(cls).items() if callable(f)}

    assert own(NoLock) == {"trap"}
    assert own(AsPosted) == own(Mutex) == {"__init__", "trap"}


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("as-posted"), PAGE)
