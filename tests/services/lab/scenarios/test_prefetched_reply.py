"""prefetched-reply: the scenario's own claims, and what the callback under the lock cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ChannelBusyError
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_message import VioMsg
from services.guest_driver.scmi_virtio import TxChannel
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.prefetched_reply import (
    INPUTS,
    SCENARIO,
    CallbackUnderLock,
    NoListDel,
    NoRearm,
    NoRecheck,
    NoWorker,
)
from services.lab.scenarios.vio_rig import MESSAGE, PROTOCOL, Classes, build
from tests.services.lab.scenarios.claims import fails, holds, holds_at_first, is_drawn

PAGE = Path(__file__).resolve().parents[4] / "docs" / "races" / "prefetched-reply.md"
NOBODY_COMES = (
    "deadlock: cpu1 waits in xfer1.done.wait(); irq waits in interrupt.wait(); worker waits in wq.wake.wait()"
)
SHOWN = {
    "no-worker": "deadlock: cpu1 waits in xfer1.done.wait(); worker waits in wq.wake.wait()",
    "no-list-del": "final: msg1 is 1 times on free_list, 1 on pending_cmds_list, 0 on the ring",
    "no-rearm": NOBODY_COMES,
    "no-recheck": NOBODY_COMES,
}


@pytest.mark.parametrize("name", SHOWN)
def test_failing_variants_fail_and_replay(name: str) -> None:
    assert str(fails(SCENARIO.variant(name), PAGE)) == SHOWN[name]


@pytest.mark.parametrize("name", [v.name for v in SCENARIO.variants if v.expect == "holds"])
def test_holding_variants_within_a_smaller_bound(name: str) -> None:
    """The declared bound (one preemption, every schedule) is run by `lab run`."""
    variant = SCENARIO.variant(name)
    holds(variant.build)
    holds_at_first(variant, 1500)


def test_shipped_under_more_preemptions() -> None:
    """What `no-recheck` shows needs two."""
    settings = Settings(strategy="random", runs=1000)
    late = build(INPUTS[1:2], Classes(NoRecheck))
    one = explore(late, Settings(preemptions=1))
    assert (one.verdict, one.exhaustive) == ("holds", True), one
    assert explore(late, settings).verdict == "fails"
    assert explore(build(INPUTS[1:2]), settings).verdict == "holds"
    assert explore(SCENARIO.variant("shipped").build, settings).verdict == "holds"


def test_the_page_shows_what_the_tool_prints() -> None:
    is_drawn(SCENARIO.variant("no-worker"), PAGE)


def test_variants_override_only_what_differs() -> None:
    def own(cls: type[Any]) -> set[str]:
        return {n for n, f in vars(cls).items() if callable(f)}

    assert own(NoWorker) == {"kick_worker", "complete_cb"}
    assert own(NoListDel) == own(CallbackUnderLock) == {"deferred_tx_worker"}
    assert own(NoRearm) == own(NoRecheck) == {"leave"}


class Chatty(ScmiAgent):
    """Who hears of a reply sends the next command at once."""

    __slots__ = ()

    def rx_callback(self, msg: VioMsg) -> None:
        super().rx_callback(msg)
        assert self.tx is not None
        try:
            self.tx.send_message(self._begin(PROTOCOL, MESSAGE, b"next", 4, False, self._world.event(), False))
        except ChannelBusyError:
            return


def test_a_callback_that_sends_needs_the_lock_free() -> None:
    settings = Settings(preemptions=0)
    result = explore(build(INPUTS[2:], Classes(CallbackUnderLock, agent=Chatty)), settings)
    assert str(result.failure) == "deadlock: worker: takes vioch.lock, which it holds"
    assert explore(build(INPUTS[2:], Classes(TxChannel, agent=Chatty)), settings).verdict == "holds"
