"""forced-free: the declared verdicts, what becomes of the two commands, and exhaustion instead of reuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ChannelBusyError
from services.guest_driver.scmi_virtio import TxChannel
from services.lab.explore import explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import Settings
from services.lab.scenarios.forced_free import SCENARIO, Forced, LatePlatform, build
from services.lab.scenarios.vio_rig import Rig
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "forced-free.md"
WRONG = {
    "forced": "AssertionError: the platform is asked for command 1 twice",
    "forced-reply": "ScmiError: 0x80/0x3 = -10: PROTOCOL_ERROR",
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_fails_as_declared(name: str) -> None:
    variant = SCENARIO.variant(name)
    result = explore(variant.build, variant.settings)
    assert result.verdict == variant.expect == "fails"
    assert result.failure is not None
    assert (result.failure.kind, result.failure.detail) == ("exception", WRONG[name])
    outcome = replay(variant.build, result.schedule, variant.settings.limit)
    assert outcome.run.failure == result.failure
    if name == "forced":
        assert ladder(outcome) in PAGE.read_text(encoding="utf-8")


def test_shipped_holds() -> None:
    """Every schedule without preemption; the declared budget is `lab run`'s."""
    result = explore(SCENARIO.variant("shipped").build, Settings(preemptions=0))
    assert result.verdict == "holds"
    assert result.exhaustive


def test_the_late_platform_is_no_failure_of_its_own() -> None:
    """Interrupts are taken: the late reply frees the message, the second command goes through."""
    result = explore(build(TxChannel, LatePlatform, False), Settings(preemptions=0))
    assert result.verdict == "holds"
    assert result.exhaustive


def test_exhausted_not_reused() -> None:
    """The platform never answers: with one message the next command is refused, time after time."""
    world = LabWorld(Run(Replay([]), 100))
    rig = world.new(Rig, world, TxChannel, size=2)
    first = rig.sent(0, True)
    message = first.priv
    assert rig.tx.mark_txdone(True, first), "the platform still owns it"
    for number in (1, 2):
        with pytest.raises(ChannelBusyError, match="all 1 messages"):
            rig.sent(number, True)
    assert [t for i in range(rig.vqueue.size) if (t := rig.vqueue.tokens[i]) is not None] == [message]


def test_variant_overrides_only_what_differs() -> None:
    assert {name for name, thing in vars(Forced).items() if callable(thing)} == {"mark_txdone"}
