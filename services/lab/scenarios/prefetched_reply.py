"""``prefetched-reply``: a polling loop dequeues the reply of a command whose sender sleeps.

Cristian Marussi, December 2021: nobody can ask the ring for one reply, so a loop takes what comes, puts what is not
its own on a list for a deferred worker, and has that worker look again where callbacks were off. The changelogs of the
patch say what the versions before it lacked: the worker (v8), ``list_del`` on the list (v7).
"""

from __future__ import annotations

from typing import Final

from services.lab.scenario import Scenario, Settings, Variant, register
from services.lab.scenarios.vio_pieces import Pieces
from services.lab.scenarios.vio_rig import Classes, Input, build

#: cpu0 polls, cpu1 sleeps
_CPUS: Final = (True, False)
INPUTS: Final = (
    Input("cpu1's reply first", _CPUS, (1, 0), sent=2),
    Input("cpu0's reply first", _CPUS, (0, 1), sent=2),
    Input("nobody takes interrupts", _CPUS, (1, 0), masked=True, sent=2),
)


class NoWorker(Pieces):
    """Before v8: only the callback looks at the list."""

    __slots__ = ()

    def kick_worker(self) -> None:
        """There is none."""

    def complete_cb(self) -> None:
        while self.pending_cmds_list:
            with self.pending_lock:
                msg = self.pending_cmds_list.popleft() if self.pending_cmds_list else None
            if msg is not None:
                self.rx_callback(msg)
                self.msg_release(msg)
        super().complete_cb()


class NoListDel(Pieces):
    """As in v6: what the worker has handed over stays on the list."""

    __slots__ = ()

    def deferred_tx_worker(self) -> None:
        if self.acquire():
            with self.pending_lock:
                msgs = list(self.pending_cmds_list)
            for msg in msgs:
                self.rx_callback(msg)
                self.msg_release(msg)
            self.release()
            self.complete_cb()


class NoRearm(Pieces):
    """The loop that has found its own leaves callbacks off."""

    __slots__ = ()

    def leave(self) -> bool:
        return False


class NoRecheck(Pieces):
    """It enables them, and does not look at what came while they were off."""

    __slots__ = ()

    def leave(self) -> bool:
        self.vqueue.enable_cb_prepare()
        return False


class CallbackUnderLock(Pieces):
    """As posted: the worker calls back with the channel's lock held."""

    __slots__ = ()

    def deferred_tx_worker(self) -> None:
        if not self.acquire():
            return
        with self.lock:
            while self.pending_cmds_list:
                msg = self.pending_cmds_list.popleft()
                self.rx_callback(msg)
                self.msg_release(msg)
        self.release()
        self.complete_cb()


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)
#: for what needs two preemptions
RANDOM: Final = Settings(strategy="random", runs=20_000)

SCENARIO: Final = register(
    Scenario(
        name="prefetched-reply",
        thread="PATCH v8 09/11 firmware: arm_scmi: atomic mode for virtio (C. Marussi, December 2021)",
        about="a polling loop dequeues the reply of a command whose sender sleeps: who hands it over?",
        variants=(
            Variant(
                "no-worker",
                "fails",
                build(INPUTS, Classes(NoWorker)),
                "before v8: only the callback looks at the list",
                BUDGET,
            ),
            Variant(
                "no-list-del",
                "fails",
                build(INPUTS, Classes(NoListDel)),
                "as in v6: what was handed over stays on the list",
                BUDGET,
            ),
            Variant("no-rearm", "fails", build(INPUTS, Classes(NoRearm)), "the loop leaves callbacks off", BUDGET),
            Variant(
                "no-recheck",
                "fails",
                build(INPUTS, Classes(NoRecheck)),
                "the loop enables callbacks and does not look again",
                RANDOM,
            ),
            Variant(
                "callback-under-lock",
                "holds",
                build(INPUTS, Classes(CallbackUnderLock)),
                "as posted: the worker calls back under the channel's lock",
                BUDGET,
            ),
            Variant("shipped", "holds", build(INPUTS), "pending list, deferred worker, a second look", BUDGET),
        ),
    )
)
