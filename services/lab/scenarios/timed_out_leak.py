"""``timed-out-leak``: another polling loop dequeues the late reply of a polled command that has timed out.

In v8 of the patch (Cristian Marussi, December 2021) a message is polled for or not, and nothing says that the poller
has gone: the loop marks the late one POLL_DONE, and nobody is left to free it. The transport that was merged has a
fourth state, POLL_TIMEOUT: a late one goes to the pending list, and the worker frees it.
"""

from __future__ import annotations

from math import inf
from typing import Final

from services.guest_driver.scmi_message import NOT_POLLED, VioMsg
from services.lab.scenario import Scenario, Settings, Variant, register
from services.lab.scenarios.vio_pieces import Pieces
from services.lab.scenarios.vio_rig import Classes, Input, build

#: cpu0 gives up after a look, cpu1 waits for ever; in the first two interrupts are off, the loops are alone
INPUTS: Final = (
    Input("the late reply first", (True, True), (0, 1), masked=True, sent=2, looks=1),
    Input("the late reply last", (True, True), (1, 0), masked=True, sent=2, looks=1),
    Input("cpu1 sleeps, interrupts", (True, False), (0, 1), sent=2, looks=1),
)
#: the agent's own loop, whose deadline may expire at any time
BY_DEADLINE: Final = (
    Input("the late reply first", (True, True), (0, 1), masked=True, timeouts=(1.0, inf), sent=2),
    Input("the late reply last", (True, True), (1, 0), masked=True, timeouts=(1.0, inf), sent=2),
)


class DoneWhateverPolled(Pieces):
    """As posted: every message that was sent for polling is marked done, whether its poller waits or not."""

    __slots__ = ()

    def is_polled(self, msg: VioMsg) -> bool:
        return msg.poll_status != NOT_POLLED


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)

SCENARIO: Final = register(
    Scenario(
        name="timed-out-leak",
        thread="PATCH v8 09/11 firmware: arm_scmi: atomic mode for virtio (C. Marussi, December 2021)",
        about="a polling loop dequeues the late reply of a command that has timed out: who frees the message?",
        variants=(
            Variant(
                "v8",
                "fails",
                build(INPUTS, Classes(DoneWhateverPolled)),
                "as posted: marked POLL_DONE for a poller that has gone",
                BUDGET,
            ),
            Variant(
                "by-deadline",
                "holds",
                build(BY_DEADLINE),
                "as shipped, the agent's own loop with its deadline",
                BUDGET,
            ),
            Variant("shipped", "holds", build(INPUTS), "POLL_TIMEOUT: to the worker, which frees it", BUDGET),
        ),
    )
)
