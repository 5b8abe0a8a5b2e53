"""timed-out-leak: the scenario's own claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.lab.explore import explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import Settings
from services.lab.scenarios.timed_out_leak import BY_DEADLINE, INPUTS, SCENARIO, DoneWhateverPolled
from services.lab.scenarios.vio_rig import Classes, Input, build

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "timed-out-leak.md"


def test_v8_loses_the_message_and_the_page_shows_it() -> None:
    variant = SCENARIO.variant("v8")
    result = explore(variant.build, variant.settings)
    assert (variant.expect, result.verdict) == ("fails", "fails"), result
    assert str(result.failure) == "final: msg0 is lost"
    again = replay(variant.build, result.schedule, 2000)
    assert again.run.failure == result.failure
    page = PAGE.read_text(encoding="utf-8")
    assert f"| fails | {result.schedules:,} | {result.steps:,} |" in page
    assert ladder(again) in page


@pytest.mark.parametrize(("given", "verdict"), [(INPUTS[0], "fails"), (INPUTS[1], "holds"), (BY_DEADLINE[0], "fails")])
def test_it_takes_another_loop_after_the_late_reply(given: Input, verdict: str) -> None:
    """Used last, it stays on the ring: nobody polls any more."""
    assert explore(build([given], Classes(DoneWhateverPolled)), Settings(preemptions=0)).verdict == verdict


def test_shipped_within_a_smaller_bound() -> None:
    """The declared bound (one preemption, every schedule) is run by `lab run`."""
    variant = SCENARIO.variant("shipped")
    result = explore(variant.build, Settings(preemptions=0))
    assert (result.verdict, result.exhaustive) == ("holds", True), result
    assert explore(variant.build, replace(variant.settings, runs=1500)).verdict == "holds"
    assert explore(variant.build, Settings(strategy="random", runs=500)).verdict == "holds"


def test_the_agents_own_loop() -> None:
    variant = SCENARIO.variant("by-deadline")
    assert explore(variant.build, replace(variant.settings, runs=1500)).verdict == "holds"
    assert explore(variant.build, Settings(strategy="random", runs=500)).verdict == "holds"
    late = build(BY_DEADLINE, Classes(DoneWhateverPolled))
    assert explore(late, variant.settings).verdict == "fails"


def test_the_variant_overrides_only_what_differs() -> None:
    assert {n for n, f in vars(DoneWhateverPolled).items() if callable(f)} == {"is_polled"}
