"""restore-order: the scenario's own claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gic_its.core import Its
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.restore_order import (
    KVM_ITS,
    ORDER,
    QEMU_ITS,
    SCENARIO,
    UNKNOWN,
    Ordered,
    Restore,
    as_before,
    build,
    moved,
)
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "restore-order.md"


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("creadr-before-cbaser", "delivered after the restore: [8192, 8193, 8194], wanted [8193, 8194]"),
        ("creadr-after-ctlr", "the restore is refused: GITS_CREADR = 16"),
        ("ctlr-before-tables", "delivered after the restore: [8194], wanted [8193, 8194]"),
        ("redistributors-last", "delivered after the restore: [8194], wanted [8193, 8194]"),
        ("iidr-after-tables", "tables are read whose revision is not known"),
        ("collections-in-hardware", "the restore is refused: device 0x1 event 0 = 22: no collection 0"),
        ("collections-not-checked", "delivered after the restore: [], wanted [8193, 8194]"),
    ],
)
def test_failing_variants_fail_and_replay(name: str, detail: str) -> None:
    failure = fails(SCENARIO.variant(name), PAGE)
    assert failure.detail.startswith(detail)


def test_shipped_within_a_smaller_bound() -> None:
    holds_at_first(SCENARIO.variant("shipped"), 300)
    holds(SCENARIO.variant("shipped").build, runs=50)


def test_the_order_of_the_steps_is_all_that_the_variants_change() -> None:
    assert Ordered.order == ORDER
    holds(build(Ordered, (KVM_ITS, QEMU_ITS, UNKNOWN)))


def test_a_step_that_is_moved() -> None:
    assert moved("tables")[-1] == "tables"
    assert moved("GITS_CTLR", "tables")[-2:] == ("GITS_CTLR", "tables")
    assert sorted(moved("GITS_CREADR", "GITS_CBASER")) == sorted(ORDER)


class Unmapped(Restore):
    """An onlooker who sees no mappings."""

    __slots__ = ()

    def maps(self, its: Its) -> list[tuple[int, int, int]]:
        return []


class Never(Restore):
    """A restore that does nothing."""

    __slots__ = ()

    async def restore(self) -> None:
        return


def test_an_its_that_was_not_restored_is_seen() -> None:
    result = explore(build(Never), Settings(preemptions=0))
    assert result.failure is not None
    assert result.failure.detail.startswith("delivered after the restore: []")


@pytest.mark.parametrize("damage", ["mapped", "creadr", "unknown"])
def test_what_differs_is_said(damage: str) -> None:
    rig = (Unmapped if damage == "creadr" else Restore)(
        LabWorld(Run(Replay([]), 100)), UNKNOWN if damage == "unknown" else KVM_ITS
    )
    rig.notes.lpis += [(0, 8193, 0), (0, 8194, 1)]
    wrong = {"mapped": "mapped: [], before: [(0, 8192, 0)", "creadr": "CREADR, CWRITER are (0, 0)", "unknown": "None"}
    assert str(as_before(rig)).startswith(wrong[damage])


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("creadr-before-cbaser"), PAGE)
