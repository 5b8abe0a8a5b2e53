"""state-after-teardown: the scenario's own claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.lab.scenarios.state_after_teardown import (
    INPUTS,
    SCENARIO,
    AsPosted,
    Bench,
    CountsInHand,
    Eager,
    Unsent,
)
from services.lab.scenarios.vdpa_rig import Classes, Device, Input, build
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "state-after-teardown.md"


@pytest.mark.parametrize("name", ["as-posted", "counts-in-hand", "unsent-answers"])
def test_failing_variants_fail_and_replay(name: str) -> None:
    # with two buffers used, or one that was said to be
    assert "the device gave up: queue 0: create.used = " in str(fails(SCENARIO.variant(name), PAGE))


@pytest.mark.parametrize("name", ["eager", "shipped"])
def test_holding_variants_within_a_smaller_bound(name: str) -> None:
    variant = SCENARIO.variant(name)
    holds_at_first(variant, 800)
    holds(variant.build, runs=400)


@pytest.mark.parametrize("device", [Device, Eager])
def test_shipped_with_more_buffers(device: type[Device]) -> None:
    calls = INPUTS[0].calls
    more = (Input("two to come", calls), Input("much on its way", calls, buffers=4, sent=3, worked=1))
    setup = build(more, Classes(device=device, rig=Bench))
    holds(setup, runs=400)


def test_variants_override_only_what_differs() -> None:
    def own(cls: type[Any]) -> set[str]:
        return {n for n, f in vars(cls).items() if callable(f)}

    assert own(AsPosted) == own(CountsInHand) == {"teardown_vq"}
    assert own(Eager) == {"on_chains"}
    assert own(Unsent) == {"send_answers"}


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("as-posted"), PAGE)
