"""lost-kick: the scenario's own claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.virtio.policy import PortPolicy
from services.guest_driver.port_queue import ObjectState
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.lost_kick import SCENARIO, SUSPENDED, AsMerged, DeadIf, Flagged, LiveIf, Locked
from services.lab.scenarios.vdpa_rig import Classes, Input, Rig, build
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "lost-kick.md"


@pytest.mark.parametrize("name", ["dead-if", "live-if", "pending-kick"])
def test_failing_variants_fail_and_replay(name: str) -> None:
    failure = fails(SCENARIO.variant(name), PAGE)
    assert failure.kind == "deadlock"
    assert failure.detail.startswith("driver waits in relax()")


@pytest.mark.parametrize("name", ["pending-kick-locked", "shipped"])
def test_holding_variants_within_a_smaller_bound(name: str) -> None:
    variant = SCENARIO.variant(name)
    holds_at_first(variant, 800)
    holds(variant.build, runs=400)


def test_the_flag_without_a_lock_needs_a_preemption() -> None:
    holds(SCENARIO.variant("pending-kick").build)


class LateFlag(AsMerged):
    """As merged, but for work that finds the device stopped: it sets the flag too."""

    __slots__ = ()

    def kick(self) -> None:
        port: Any = self.port
        if port.queues[0].state != ObjectState.RDY:
            port.pending_kick = True
            return
        with self.hw:
            if port.queues[0].state == ObjectState.RDY:
                port.doorbell(0)
            else:
                port.pending_kick = True


class LateWork(Locked):
    """Question and flag under the lock, the work under a later one."""

    __slots__ = ()

    def kick(self) -> None:
        port: Any = self.port
        with self.hw:
            stopped = port.queues[0].state != ObjectState.RDY
            if stopped:
                port.pending_kick = True
        if not stopped:
            with self.hw:
                port.doorbell(0)


@pytest.mark.parametrize("rig", [LateFlag, LateWork])
def test_each_of_the_two_faults_of_the_flag_is_enough(rig: type[Rig]) -> None:
    one = build((replace(SUSPENDED, buffers=1),), Classes(port=Flagged, rig=rig))
    assert explore(one, Settings(preemptions=0)).verdict == "holds"
    result = explore(one, Settings(preemptions=1))
    assert result.verdict == "fails", result
    assert str(result.failure).startswith("deadlock: driver waits")


def test_shipped_needs_its_replay() -> None:
    """The switch that matters here is the third."""
    policy = PortPolicy.READ_AT_CREATE | PortPolicy.READ_AT_KICK
    assert explore(build((SUSPENDED,), Classes(policy=policy)), Settings(preemptions=1)).verdict == "fails"


def test_shipped_with_other_things_on_their_way() -> None:
    calls = SUSPENDED.calls
    others = (Input("a buffer", calls, sent=1), Input("an answer", calls, sent=1, worked=1), Input("3", calls, 3))
    result = explore(build(others, Classes()), Settings(preemptions=0))
    assert (result.verdict, result.exhaustive) == ("holds", True), result


def test_variants_override_only_what_differs() -> None:
    def own(cls: type[Any]) -> set[str]:
        return {n for n, f in vars(cls).items() if callable(f)}

    assert own(DeadIf) == {"doorbell", "_suspend"}
    assert own(LiveIf) == {"_suspend"}
    assert own(Flagged) == {"__init__", "_resume"}
    assert own(AsMerged) == own(Locked) == {"kick"}


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("pending-kick"), PAGE)
