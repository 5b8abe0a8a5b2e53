"""stale-avail: eight kinds of firmware, and the patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.stale_avail import SCENARIO, policy_of
from services.lab.scenarios.vdpa_rig import Classes, Input, build
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "stale-avail.md"
HOLD = {"011", "111"}
#: a change of map with other things on their way
OTHERS = (
    Input("a buffer on its way", sent=1),
    Input("an answer on its way", sent=1, worked=1),
    Input("three buffers", buffers=3, event_idx=True),
)


def test_there_is_a_variant_for_each_combination() -> None:
    digits = {f"{n:03b}" for n in range(8)}
    assert {v.alias for v in SCENARIO.variants if v.alias} == digits
    for digit in digits:
        assert SCENARIO.variant(digit).expect == ("holds" if digit in HOLD else "fails"), digit
    assert policy_of("111") == DEFAULT_POLICY
    assert policy_of("011") == PortPolicy.READ_AT_KICK | PortPolicy.REPLAY_KICK
    assert policy_of("100") == PortPolicy.READ_AT_CREATE
    assert policy_of("000") == 0


@pytest.mark.parametrize("variant", [v for v in SCENARIO.variants if v.expect == "fails"], ids=lambda v: v.alias)
def test_failing_variants_strand_buffers_and_replay(variant: Any) -> None:
    failure = fails(variant, PAGE)
    assert failure.kind == "deadlock"
    assert [part.split(" waits")[0] for part in failure.detail.split("; ")] == ["driver", "port", "vdpa"]


@pytest.mark.parametrize("variant", [v for v in SCENARIO.variants if v.expect == "holds"], ids=lambda v: v.name)
def test_holding_variants_within_a_smaller_bound(variant: Any) -> None:
    """The declared bound (one preemption, every schedule) is run by `lab run`."""
    holds_at_first(variant, 800)
    holds(variant.build, runs=400)


@pytest.mark.parametrize("digits", sorted(HOLD))
def test_with_other_things_on_their_way(digits: str) -> None:
    setup = build(OTHERS, Classes(policy=policy_of(digits)))
    holds(setup, runs=600)


def test_without_a_look_at_the_kick_no_change_of_map_is_needed() -> None:
    """What the page says of the four combinations without the second switch."""
    quiet = (Input("no change", calls=(), buffers=1),)
    for digits in (f"{n:03b}" for n in range(8)):
        result = explore(build(quiet, Classes(policy=policy_of(digits))), Settings(preemptions=0))
        assert result.verdict == ("holds" if digits[1] == "1" else "fails"), digits


def test_what_a_read_at_creation_leaves_needs_a_preemption() -> None:
    assert explore(SCENARIO.variant("110").build, Settings(preemptions=0)).verdict == "holds"


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("create+kick"), PAGE)
