"""The bench of the transport's scenarios: it runs what ships, and its checks see what they are for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from common.virtio.split_driver import SplitDriver
from common.workqueue import WorkQueue
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_message import VioMsg
from services.guest_driver.scmi_response import Responses
from services.guest_driver.scmi_virtio import Transfer, TxChannel
from services.guest_driver.scmi_xfer import Xfer
from services.lab.explore import explore
from services.lab.scenario import Settings
from services.lab.scenarios.vio_rig import Classes, Input, Rig, accounted, build, start
from services.lab.scheduler import Run
from services.lab.strategies import Replay
from services.lab.world import LabWorld

POLLS = (True, False)
#: nothing is on the ring when the run begins
WHOLE = Input("whole commands", POLLS, (1, 0))
SENT = replace(WHOLE, sent=2)
MASKED = replace(WHOLE, masked=True)
BOUND = Settings(preemptions=0)


def rig_of(given: Input = SENT, classes: Classes | None = None) -> Rig:
    """As it is before the first step."""
    world = LabWorld(Run(Replay([]), 100))
    rig = start(world, given, classes or Classes())
    for actor in world.run.actors:
        actor.coro.close()
    return rig


@pytest.mark.parametrize("given", [WHOLE, SENT, MASKED, replace(MASKED, sent=1), replace(SENT, looks=2)])
def test_what_ships_holds(given: Input) -> None:
    result = explore(build([given]), Settings(preemptions=0, runs=600))
    assert result.verdict == "holds", result


@pytest.mark.parametrize("cls", [TxChannel, VioMsg, ScmiAgent, Responses, SplitDriver, WorkQueue, Xfer])
def test_the_lab_runs_the_classes_that_services_run(cls: type[Any]) -> None:
    rig = rig_of()
    things: tuple[Any, ...] = (
        rig.tx,
        rig.tx.messages[0],
        rig.agent,
        rig.agent.responses,
        rig.vqueue,
        rig.workqueue,
        rig.agent.in_flight[0],
    )
    made = [thing for thing in things if isinstance(thing, cls)]
    assert len(made) == 1
    functions = [n for n, f in vars(cls).items() if callable(f) and n != "__class__"]
    assert functions
    for name in functions:
        assert getattr(type(made[0]), name) is getattr(cls, name), name


# --- replies ---------------------------------------------------------------------------------------------------------


class Liar(Rig):
    """A platform that answers every command with the bytes of another."""

    __slots__ = ()

    def answer(self, chain: Any) -> None:
        super().answer(chain)
        _, segments, readable = chain
        addr, length, _ = segments[readable]
        whole = self.memory.read(addr, length)
        self.memory.write(addr, whole[:-4] + bytes((whole[-4] ^ 1, 0, 0, 0)))


@pytest.mark.parametrize("given", [WHOLE, SENT, replace(SENT, looks=3, order=(0, 1))])
def test_a_wrong_reply_is_seen(given: Input) -> None:
    result = explore(build([given], Classes(rig=Liar)), BOUND)
    assert result.failure is not None
    assert re.match(r"exception: cpu.: AssertionError: command \d got the reply 0\d000000", str(result.failure))


class Hasty(TxChannel):
    """Says that a wait is over when it is not."""

    __slots__ = ()

    def poll_done(self, xfer: Transfer) -> bool:
        return True


@pytest.mark.parametrize(("given", "text"), [(WHOLE, "XferTimeoutError"), (SENT, "ended without its reply")])
def test_only_a_finite_time_runs_out(given: Input, text: str) -> None:
    result = explore(build([given], Classes(Hasty)), BOUND)
    assert result.failure is not None
    assert text in result.failure.detail
    assert explore(build([replace(given, timeouts=(1.0, inf))], Classes(Hasty)), BOUND).verdict == "holds"


def test_the_order_is_the_platforms() -> None:
    """cpu1's reply never comes: it is not among those answered."""
    result = explore(build([replace(SENT, order=(0,))]), BOUND)
    assert result.failure is not None
    assert "cpu1 waits in xfer1.done.wait()" in result.failure.detail


def test_every_input_is_explored() -> None:
    assert explore(build([SENT, replace(SENT, order=(0,))]), BOUND).verdict == "fails"


# --- where the messages are ------------------------------------------------------------------------------------------


def take_away(rig: Rig) -> None:
    rig.tx.free_list.popleft()


def free_twice(rig: Rig) -> None:
    rig.tx.free_list.append(rig.tx.messages[1])


def still_pending(rig: Rig) -> None:
    rig.tx.pending_cmds_list.append(rig.tx.free_list.popleft())


def free_and_pending(rig: Rig) -> None:
    rig.tx.pending_cmds_list.append(rig.tx.messages[1])


def free_and_on_the_ring(rig: Rig) -> None:
    rig.vqueue.add((), ((0x1000, 4),), rig.tx.messages[0])


def used(rig: Rig) -> None:
    rig.tx.messages[1].users.add(1)


def borrowed(rig: Rig) -> None:
    """On the ring with two users."""
    message = rig.tx.get_free_msg()
    rig.vqueue.add((), ((0x1000, 4),), message)
    assert message is not None
    message.users.add(1)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (take_away, "msg0 is lost"),
        (free_twice, "msg1 is 2 times on free_list"),
        (still_pending, "msg0 has 0 users"),
        (free_and_pending, "msg1 is 1 times on free_list, 1 on pending_cmds_list"),
        (free_and_on_the_ring, "msg0 is 1 times on free_list, 0 on pending_cmds_list, 1 on the ring"),
        (used, "msg1 has 1 users"),
        (borrowed, "msg0 has 2 users"),
    ],
)
def test_a_message_out_of_place_is_seen(damage: Callable[[Rig], None], text: str) -> None:
    rig = rig_of(replace(WHOLE, masked=True))
    assert accounted(rig) is None
    damage(rig)
    wrong = accounted(rig)
    assert wrong is not None
    assert text in wrong


def test_what_waits_for_a_worker_that_has_ended_is_seen() -> None:
    rig = rig_of(WHOLE)
    message = rig.tx.get_free_msg()
    assert message is not None
    rig.tx.pending_cmds_list.append(message)
    assert accounted(rig) == "free 1 + on the ring 0 + pending 1, max_msg 2"


def test_a_message_on_the_ring_counts() -> None:
    assert accounted(rig_of(replace(SENT, polls=(False, False)))) is None
