"""poll-index-order: the scenario's own claims, and which index the fear is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.virtio.split_driver import SplitDriver
from services.lab.explore import explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import Settings
from services.lab.scenarios.aba_wrap import Index16
from services.lab.scenarios.poll_index_order import INPUTS, LONE, SCENARIO, AfterAdd, DeviceIndex, Unlocked
from services.lab.scenarios.vio_pieces import Pieces
from services.lab.scenarios.vio_rig import Classes, build

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "poll-index-order.md"
SHOWN = {
    "used-idx": "deadlock: cpu0 waits in relax(), until a change of ",
    "unlocked": "final: msg1 is 2 times on free_list, 0 on pending_cmds_list, 0 on the ring",
}


@pytest.mark.parametrize("name", SHOWN)
def test_failing_variants_fail_and_replay(name: str) -> None:
    variant = SCENARIO.variant(name)
    result = explore(variant.build, variant.settings)
    assert (variant.expect, result.verdict, result.preemptions) == ("fails", "fails", 1), result
    assert str(result.failure).startswith(SHOWN[name])
    again = replay(variant.build, result.schedule, 2000)
    assert again.run.failure == result.failure
    page = PAGE.read_text(encoding="utf-8")
    row = f"| fails | {result.schedules:,} | {result.steps:,} |"
    assert row in page, row
    if name == "unlocked":
        assert ladder(again) in page


@pytest.mark.parametrize("name", ["after-add", "shipped"])
def test_holding_variants_within_a_smaller_bound(name: str) -> None:
    """The declared bound (one preemption, every schedule) is run by `lab run`."""
    variant = SCENARIO.variant(name)
    result = explore(variant.build, Settings(preemptions=0))
    assert (result.verdict, result.exhaustive) == ("holds", True), result
    assert explore(variant.build, replace(variant.settings, runs=1000)).verdict == "holds"
    assert explore(variant.build, Settings(strategy="random", runs=500)).verdict == "holds"


class DeviceIndexBefore(Pieces):
    """The device's index, taken before the add."""

    __slots__ = ()

    def reference(self) -> int:
        super().reference()
        return self.vqueue._used[1]


def test_the_order_matters_for_the_devices_index_only() -> None:
    settings = Settings(preemptions=1)
    for channel in (AfterAdd, DeviceIndexBefore):
        result = explore(build(LONE, Classes(channel, Index16)), settings)
        assert (result.verdict, result.exhaustive) == ("holds", True), (channel, result)


def test_the_full_count_needs_no_good_reference() -> None:
    """poll() of the shipped ring compares the index with the driver's own count besides: an unconsumed reply shows."""
    assert explore(build(LONE, Classes(DeviceIndex, SplitDriver)), Settings(preemptions=1)).verdict == "holds"


def test_without_the_lock_the_full_count_does_not_help() -> None:
    result = explore(build(INPUTS[1:], Classes(Unlocked, SplitDriver)), Settings(preemptions=1))
    assert str(result.failure) == SHOWN["unlocked"]
