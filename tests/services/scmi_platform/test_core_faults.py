"""Faults that come and go while the device of a guest runs, frame by frame."""

from __future__ import annotations

import pytest

from common.errors import RemoteError
from common.scmi import header, sensor
from common.virtio.policy import PortPolicy
from services.scmi_platform.core import CMDQ, EVENTQ
from services.scmi_platform.faults_plan import (
    Delay,
    FaultPlan,
    Never,
    Storm,
    Truncate,
    Twice,
    WrongProtocol,
    WrongToken,
)
from services.scmi_platform.faults_time import Constant
from tests.services.scmi_platform.scmi_rig import words
from tests.services.scmi_platform.test_core import DELAYED, GET, NOTIFICATION, Bench, chain

NOTIFY = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_TRIP_POINT_NOTIFY, 0, words(0, 1))
ANSWER = words(0, 300, 0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_plan_comes_and_goes(bench: Bench) -> None:
    bench.core.set_plan(FaultPlan(after=0, rules=(Delay(time=Constant(seconds=60.0)),)))
    bench.avail(CMDQ, [chain(3, GET, 16), chain(5, GET, 16)])
    assert bench.used(CMDQ) == []
    assert bench.core.faults.held == 2
    bench.core.set_plan(FaultPlan())
    assert bench.used(CMDQ) == [(3, GET[:4] + ANSWER), (5, GET[:4] + ANSWER)], "flushed at once"
    bench.avail(CMDQ, [chain(3, GET, 16)])
    assert bench.used(CMDQ) == [(3, GET[:4] + ANSWER)]


def test_wrong_answers(bench: Bench) -> None:
    rules = (WrongToken(by=1, count=1), Truncate(length=6, count=2), WrongProtocol(protocol=0x15, message=3))
    bench.core.set_plan(FaultPlan(after=0, rules=rules))
    bench.avail(CMDQ, [chain(head, GET, 16) for head in (1, 2, 3)])
    wrong = header.HEADER.pack
    assert bench.used(CMDQ) == [
        (1, (wrong(header.pack(0x15, 3, 1)) + ANSWER)[:6]),
        (2, (wrong(header.pack(0x15, 3, 0)) + ANSWER)[:6]),
        (3, wrong(header.pack(0x15, 3, 0)) + ANSWER),
    ]


def test_a_chain_is_used_twice_by_a_plan_that_came_later(bench: Bench) -> None:
    assert bench.created[0].policy & PortPolicy.UNCHECKED, "the port was told when the queue was made"
    bench.core.set_plan(FaultPlan(after=0, rules=(Twice(count=1),)))
    bench.avail(CMDQ, [chain(3, GET, 16), chain(5, GET, 16)])
    assert [head for head, _ in bench.used(CMDQ)] == [3, 3, 5]


def test_rules_about_what_is_sent_unasked(bench: Bench) -> None:
    rules = (Truncate(of="notification", length=8), WrongToken(of="delayed_response"))
    bench.core.set_plan(FaultPlan(rules=rules, after=0))
    bench.avail(CMDQ, [chain(0, GET, 16)])
    bench.buffers(136, 136, 0 + 136)
    assert bench.core.emit(NOTIFICATION)
    assert bench.core.emit(DELAYED)
    (_, event), (_, late) = bench.used(EVENTQ)
    assert event == NOTIFICATION[:8]
    assert header.unpack(int.from_bytes(late[:4], "little")).token == 5 + 512


def test_a_storm_reaches_who_asked_for_it(bench: Bench) -> None:
    bench.buffers(*[136] * 6)
    bench.core.set_plan(FaultPlan(rules=(Storm(protocol="sensor", burst=4),)))
    bench.device.tick(bench.now)
    assert bench.used(EVENTQ) == []
    bench.avail(CMDQ, [chain(0, NOTIFY, 16)])
    bench.used(CMDQ)
    bench.device.tick(bench.now)
    assert [message for _, message in bench.used(EVENTQ)] == [header.notification(0x15, 0, words(0, 0, 0))] * 4
    bench.core.set_plan(FaultPlan(rules=(Storm(protocol="clock", burst=4, unasked=True),)))
    assert len(bench.used(EVENTQ)) == 2, "at once, as far as there are buffers"
    stats = bench.core.faults.stats
    assert (stats.storm, stats.storm_dropped) == (6, 2)
    assert bench.core.stats.notifications_dropped == 1


def test_a_storm_needs_an_eventq() -> None:
    bench = Bench(features=1 << 32)
    bench.core.set_plan(FaultPlan(rules=(Storm(protocol="sensor", burst=4, unasked=True),)))
    bench.device.tick(bench.now + 1)
    assert bench.core.faults.stats.storm_dropped == 0
    assert not bench.core.notify(NOTIFICATION)


def test_a_plan_that_would_leave_the_guest_without_a_message(bench: Bench) -> None:
    plan = FaultPlan(after=0, rules=(Never(count=100),))
    bench.core.check_plan(plan)
    bench.core.set_plan(plan)
    bench.avail(CMDQ, [chain(head, GET, 16) for head in range(100)])
    with pytest.raises(RemoteError, match=r"100.*27"):
        bench.core.check_plan(plan)
    bench.device.op_set_status(0)
    bench.core.check_plan(FaultPlan(never=400))  # nobody knows yet how many it will have
    bench.core.check_plan(plan)


def test_commands_are_counted_from_the_reset_of_the_device(bench: Bench) -> None:
    bench.avail(CMDQ, [chain(head, GET, 16) for head in range(5)])
    bench.used(CMDQ)
    bench.core.set_plan(FaultPlan(after=6, rules=(Never(count=1),)))
    bench.avail(CMDQ, [chain(head, GET, 16) for head in range(3)])
    assert [head for head, _ in bench.used(CMDQ)] == [0, 2]
    bench.device.op_set_status(0)
    bench.core.set_plan(FaultPlan(after=6, double_used=1))
    bench.core.give = bench.core.give_again = lambda head, reply: bench.waits.append((head, 0.0))  # type: ignore[method-assign]
    bench.waits.clear()
    bench.core.faults.answer(9, GET)
    assert [head for head, _ in bench.waits] == [9, 9], "it is the first again"
