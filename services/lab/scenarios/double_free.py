"""``double-free``: the sender of a polled command frees its message while the interrupt's callback still has it.

The interrupt may bring the reply to a polled command: its callback marks the transaction as done, and only then gives
the message back. In between the polling sender sees that it is done and calls ``mark_txdone``. As posted in December
2021 that puts the message on the free list if it is on no list, and the callback does so again. What Linux does since
counts the users of a message, but takes the callback's use for the poller's own in the same window.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from services.guest_driver.scmi_message import POLL_DONE, POLL_TIMEOUT, POLLING, VioMsg
from services.guest_driver.scmi_virtio import Transfer, TxChannel
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.vio_rig import Rig, name_things
from services.lab.world import LabWorld

#: commands of cpu0, one after the other, polled or not
Input = tuple[bool, ...]
ONE: Final[Input] = (True,)
NEXT: Final[Input] = (True, False)
POLLED: Final[Input] = (True, True)


class V8(TxChannel):
    """As posted: no count of users; a message is in use as long as it is on no list."""

    __slots__ = ()

    def msg_release(self, msg: VioMsg) -> bool:
        with self.lock, self.free_lock:
            self.free_list.append(msg)
        return True

    def mark_txdone(self, timed_out: bool, xfer: Transfer) -> bool:
        msg = xfer.priv
        if msg is None:
            return timed_out
        xfer.priv = None
        with self.lock:
            if not timed_out and msg not in self.free_list and msg not in self.pending_cmds_list:
                with self.free_lock:
                    self.free_list.append(msg)
        self.release()
        return timed_out


class UpstreamMarkTxdone(TxChannel):
    """As Linux has it since February 2022: no time-out, so the ring's use is the poller's to give back too."""

    __slots__ = ()

    def mark_txdone(self, timed_out: bool, xfer: Transfer) -> bool:
        msg = xfer.priv
        if msg is None:
            return timed_out
        xfer.priv = None
        owed = False
        if not self.msg_release(msg):
            with msg.poll_lock:
                if not timed_out or msg.poll_status == POLL_DONE:
                    self.msg_release(msg)
                else:
                    owed = True
                    if msg.poll_status == POLLING:
                        msg.poll_status = POLL_TIMEOUT
        self.release()
        return owed


def doubled(tx: TxChannel) -> str | None:
    """Is a message free twice, or free while the device may still write to it?

    Looks past the lab: what is wrong here stays so until the device answers, so no preemption point is lost.
    """
    free: Any = tx.free_list
    seen: list[Any] = list(free.items)
    tokens: Any = tx.vqueue.tokens
    for at, msg in enumerate(seen):
        if any(msg is other for other in islice(seen, at)):
            return "a message is on the free list twice"
        if any(msg is token for token in tokens.items):
            return "a message is free and on the ring"
    return None


async def commands(rig: Rig, polls: Input) -> None:
    """One after the other; again where the callback has not let go of the message yet."""
    for number, poll in enumerate(polls):
        await rig.insist(number, poll)


def build(cls: type[TxChannel], inputs: Sequence[Input]) -> Build:
    """The scenario over one channel class. The ring has room for one message."""

    def setup(world: LabWorld) -> Checks:
        polls = inputs[world.choice(len(inputs), "commands")]
        rig = world.new(Rig, world, cls, size=2, commands=len(polls))
        name_things(world, rig)
        world.spawn("cpu0", commands(rig, polls))
        world.spawn("device", rig.serve(len(polls)))
        world.spawn("irq", rig.take_interrupts())

        def final() -> str | None:
            free = len(rig.tx.free_list)
            return None if free == rig.tx.max_msg else f"{free} of {rig.tx.max_msg} messages are free"

        return Checks(final=final, step=lambda: doubled(rig.tx))

    return setup


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)

SCENARIO: Final = register(
    Scenario(
        name="double-free",
        thread="PATCH v8 09/11 firmware: arm_scmi: atomic mode for virtio (C. Marussi, December 2021)",
        about="mark_txdone between the callback's delivery and its finalisation: one message freed twice",
        variants=(
            Variant("v8", "fails", build(V8, (ONE,)), "on no list: free it", BUDGET),
            Variant(
                "upstream-mark-txdone",
                "fails",
                build(UpstreamMarkTxdone, (NEXT,)),
                "users counted; without a time-out the poller gives two uses back",
                BUDGET,
            ),
            Variant(
                "shipped",
                "holds",
                build(TxChannel, (ONE, NEXT, POLLED)),
                "users counted; POLL_DONE says whose",
                BUDGET,
            ),
        ),
    )
)
