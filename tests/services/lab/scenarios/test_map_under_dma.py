"""map-under-dma: the scenario's own claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.map_under_dma import (
    MOVED,
    SCENARIO,
    Bench,
    StrictPort,
    Writer,
    _AtOnce,
    _KeyFirst,
    _LiveSwap,
    _NoWait,
    untouched,
)
from services.lab.scenarios.vdpa_rig import PLUGGED, Classes, Input, build
from tests.services.lab.scenarios.claims import fails, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "map-under-dma.md"
WROTE = "final: the VMM had been given the bank, and the device wrote 1111111111111111eeeeeeeeeeeeeeee"
SHOWN = {
    "live-swap": WROTE,
    "no-wait": WROTE,
    "key-first": "exception: port: AssertionError: the device gave up: queue 0: generation = 1: no such key",
    "at-once": WROTE,
}


@pytest.mark.parametrize("name", SHOWN)
def test_failing_variants_fail_and_replay(name: str) -> None:
    assert str(fails(SCENARIO.variant(name), PAGE)) == SHOWN[name]


@pytest.mark.parametrize("name", ["strict", "shipped"])
def test_holding_variants(name: str) -> None:
    variant = SCENARIO.variant(name)
    assert variant.expect == "holds"
    result = explore(variant.build, variant.settings)
    assert (result.verdict, result.exhaustive) == ("holds", True), result
    assert explore(variant.build, Settings(strategy="random", runs=400)).verdict == "holds"


def test_shipped_with_more_buffers() -> None:
    more = Input("the bank moves", (("set_map", 0, MOVED),), buffers=3, sent=2, worked=1, first=PLUGGED)
    setup = build((more, replace(more, sent=0, worked=0)), Classes(device=Writer, rig=Bench), untouched)
    assert explore(setup, Settings(preemptions=1, runs=1000)).verdict == "holds"
    assert explore(setup, Settings(strategy="random", runs=400)).verdict == "holds"


def test_variants_override_only_what_differs() -> None:
    def own(cls: type[Any]) -> set[str]:
        return {n for n, f in vars(cls).items() if callable(f)}

    assert own(_LiveSwap) == {"suspend_vqs", "save_channels_info", "teardown_vqs"}
    assert own(_NoWait) == {"create_mkey"}
    assert own(_KeyFirst) == {"suspend_vqs"}
    assert own(_AtOnce) == {"create_mkey", "put_in_force"}
    assert own(StrictPort) == {"_used"}


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("no-wait"), PAGE)
