"""double-free: the declared verdicts over the declared budgets, and that the lab runs what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.guest_driver.scmi_virtio import TxChannel
from services.lab.explore import explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import Settings
from services.lab.scenarios.double_free import SCENARIO, V8, UpstreamMarkTxdone, build, doubled
from services.lab.scenarios.vio_rig import Rig
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "double-free.md"
WRONG = {"v8": "a message is on the free list twice", "upstream-mark-txdone": "a message is free and on the ring"}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_fails_as_declared(name: str) -> None:
    variant = SCENARIO.variant(name)
    result = explore(variant.build, variant.settings)
    assert result.verdict == variant.expect == "fails"
    assert result.failure is not None
    assert (result.failure.kind, result.failure.detail) == ("invariant", WRONG[name])
    outcome = replay(variant.build, result.schedule, variant.settings.limit)
    assert outcome.run.failure == result.failure
    if name == "v8":
        assert ladder(outcome) in PAGE.read_text(encoding="utf-8")


def test_shipped_holds() -> None:
    """Every schedule without preemption, and a slice of the declared budget, which is `lab run`'s."""
    made = SCENARIO.variant("shipped").build
    result = explore(made, Settings(preemptions=0))
    assert result.verdict == "holds"
    assert result.exhaustive
    assert explore(made, Settings(preemptions=1, runs=1000)).verdict == "holds"


@pytest.mark.parametrize("cls", [V8, UpstreamMarkTxdone])
def test_variants_override_only_what_differs(cls: type[Any]) -> None:
    own = {name for name, thing in vars(cls).items() if callable(thing)}
    assert own <= {"mark_txdone", "msg_release"}


def test_the_lab_runs_the_classes_that_services_run() -> None:
    made: list[Any] = []

    class Kept(Rig):
        __slots__ = ()

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self.tx)

    world = LabWorld(Run(Replay([]), 100))
    world.new(Kept, world, TxChannel, size=2)
    (tx,) = made
    for name, function in vars(TxChannel).items():
        if callable(function):
            assert getattr(type(tx), name) is function, name


def test_the_check_sees_both_harms() -> None:
    world = LabWorld(Run(Replay([]), 100))
    rig = world.new(Rig, world, TxChannel, size=4)
    assert doubled(rig.tx) is None
    free = rig.tx.free_list.popleft()
    rig.tx.free_list.append(free)
    rig.tx.free_list.append(free)
    assert doubled(rig.tx) == "a message is on the free list twice"
    rig = world.new(Rig, world, TxChannel, size=4)
    rig.sent(0, False)
    (token,) = [t for i in range(rig.vqueue.size) if (t := rig.vqueue.tokens[i]) is not None]
    rig.tx.free_list.append(token)
    assert doubled(rig.tx) == "a message is free and on the ring"


def test_a_message_that_is_never_freed_is_noticed() -> None:
    class Leaks(TxChannel):
        __slots__ = ()

        def finalize(self, msg: Any) -> None:
            """Forgets it."""

    result = explore(build(Leaks, ((False,),)), Settings(preemptions=0))
    assert result.failure is not None
    assert result.failure.detail == "0 of 1 messages are free"
