"""shutdown: the declared verdicts over the declared budgets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.guest_driver.scmi_virtio import Transfer, TxChannel
from services.lab.explore import explore, replay
from services.lab.ladder import ladder
from services.lab.scenario import Settings
from services.lab.scenarios.shutdown import POLLER, SCENARIO, SENDER, SLEEPER, LookThenCount, build

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "shutdown.md"
WRONG = {
    "v8-poller": "free of vq while cpu0 is at it: read",
    "v8-worker-kick": "use after free of PENDING",
    "look-then-count": "use after free of vioch.lock",
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_fails_as_declared(name: str) -> None:
    variant = SCENARIO.variant(name)
    result = explore(variant.build, variant.settings)
    assert result.verdict == variant.expect == "fails"
    assert result.failure is not None
    assert WRONG[name] in result.failure.detail
    outcome = replay(variant.build, result.schedule, variant.settings.limit)
    assert outcome.run.failure == result.failure
    if name == "v8-worker-kick":
        assert ladder(outcome) in PAGE.read_text(encoding="utf-8")


def test_the_flag_under_its_lock_keeps_the_callback_out() -> None:
    variant = SCENARIO.variant("v8-callback")
    result = explore(variant.build, variant.settings)
    assert (result.verdict, result.exhaustive) == ("holds", True)


def test_shipped_holds() -> None:
    """Every schedule without preemption, and a slice of the declared budget, which is `lab run`'s."""
    made = SCENARIO.variant("shipped").build
    result = explore(made, Settings(preemptions=0))
    assert (result.verdict, result.exhaustive) == ("holds", True)
    assert explore(made, Settings(preemptions=1, runs=2000)).verdict == "holds"


def test_variant_overrides_only_what_differs() -> None:
    assert {name for name, thing in vars(LookThenCount).items() if callable(thing)} == {"acquire"}


class PollersUncounted(TxChannel):
    """A polling loop is counted while it dequeues only: it looks at the ring before."""

    __slots__ = ()

    def send_message(self, xfer: Transfer) -> None:
        super().send_message(xfer)
        if xfer.poll:
            self.users.add(-1)

    def mark_txdone(self, timed_out: bool, xfer: Transfer) -> bool:
        if xfer.priv is not None:
            self.users.add(1)
        return super().mark_txdone(timed_out, xfer)


class NoReclaim(TxChannel):
    __slots__ = ()

    def reclaim(self) -> None:
        """Forgets what the device never answered."""


class WorkerLeft(TxChannel):
    """Frees without ending the worker."""

    __slots__ = ()

    async def close(self) -> None:
        await super(TxChannel, self).close()


@pytest.mark.parametrize(
    ("cls", "given", "said"),
    [
        (PollersUncounted, POLLER, "free of vq while cpu0 is at it"),
        (NoReclaim, replace(SLEEPER, order=()), "1 of 2 messages are free"),
        (WorkerLeft, SENDER, "free of wq.wake while worker is at it"),
    ],
)
def test_what_is_left_out_is_noticed(cls: type[TxChannel], given: Any, said: str) -> None:
    result = explore(build(cls, given), Settings(preemptions=1, runs=3000))
    assert result.failure is not None
    assert said in result.failure.detail


def test_sleepers_end_without_a_reply() -> None:
    result = explore(build(TxChannel, replace(SLEEPER, order=())), Settings(preemptions=1))
    assert (result.verdict, result.exhaustive) == ("holds", True)
