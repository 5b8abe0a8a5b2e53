"""The channel in pieces is the channel that ships: every schedule takes the same steps."""

from __future__ import annotations

from typing import Any

import pytest

from services.guest_driver.scmi_virtio import TxChannel
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios import poll_index_order, prefetched_reply, timed_out_leak
from services.lab.scenarios.vio_pieces import Pieces
from services.lab.scenarios.vio_rig import Classes, Input, build

WHOLE = (Input("whole commands", (True, False), (1, 0)),)


@pytest.mark.parametrize(
    "inputs", [WHOLE, prefetched_reply.INPUTS, timed_out_leak.INPUTS, poll_index_order.INPUTS, poll_index_order.LONE]
)
@pytest.mark.parametrize(
    "settings", [Settings(preemptions=0, runs=300), Settings(preemptions=1, runs=300)], ids=["0", "1"]
)
def test_same_schedules_same_steps(inputs: Any, settings: Settings) -> None:
    whole, pieces = (explore(build(inputs, Classes(cls)), settings) for cls in (TxChannel, Pieces))
    assert whole.verdict == "holds", whole
    assert pieces == whole
