"""The device core on a transport that stops its queues and goes on later, as vhost-user does."""

from __future__ import annotations

from typing import Any

import pytest

from common.scmi import clock, header, sensor
from common.virtio.features import DESC_F_WRITE
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.core import CMDQ, EVENTQ, ScmiCore
from services.scmi_platform.faults import FaultPlan
from tests.services.scmi_platform.scmi_rig import SMALL, words
from tests.services.scmi_platform.test_host import Wire

GET = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_GET, 0, words(0))
DELAYED = header.HEADER.pack(header.as_delayed(header.pack(sensor.PROTOCOL, 6, 5))) + words(0, 0)
LATE = FaultPlan(after=0, late=1.0, late_seconds=2.0)


class Stopping(Wire):
    """Queues that are stopped are neither live nor broken."""

    stopped = False

    def live(self, queue: int) -> bool:
        return not self.stopped


class Bench:
    def __init__(self, **about: Any) -> None:
        self.now = 10.0
        self.wire = Stopping()
        self.agents = Agents(Board.load(SMALL), lambda: self.now)
        self.core = ScmiCore(
            self.agents.platform, 1, self.wire, clock=lambda: self.now, dice=lambda: 0.5, **about
        )  # fmt: skip
        self.agents.attach(1, self.core)

    def command(self, head: int) -> None:
        self.core.on_chains(CMDQ, [(head, GET, [(0, 8, 0), (64, 64, DESC_F_WRITE)])])

    def buffers(self, *heads: int) -> None:
        self.core.on_chains(EVENTQ, [(head, b"", [(0, 64, DESC_F_WRITE)]) for head in heads])


def test_buffers_go_back() -> None:
    bench = Bench()
    bench.buffers(3, 1, 2)
    assert bench.core.emit(DELAYED)
    assert bench.core.on_stop(EVENTQ) == [1, 2]
    bench.wire.stopped = True
    assert not bench.core.emit(DELAYED)
    bench.wire.stopped = False
    bench.buffers(1, 2)
    assert bench.core.emit(DELAYED)
    assert bench.core.emit(DELAYED)
    assert [head for head, _ in bench.wire.queues[EVENTQ].sent] == [3, 1, 2]
    assert bench.core.on_stop(EVENTQ) == []


def test_what_waits_for_a_buffer_keeps_waiting() -> None:
    bench = Bench()
    assert bench.core.emit(DELAYED)
    bench.core.on_stop(EVENTQ)
    bench.buffers(7)
    assert bench.wire.queues[EVENTQ].sent == [(7, DELAYED)]


def test_held_answers_are_given_when_the_cmdq_stops() -> None:
    bench = Bench(plan=LATE)
    for head in range(3):
        bench.command(head)
    assert bench.wire.queues[CMDQ].sent == []
    assert bench.core.on_stop(CMDQ) == []
    assert sorted(head for head, _ in bench.wire.queues[CMDQ].sent) == [0, 1, 2]
    bench.now += 5
    bench.core.tick(bench.now)
    assert len(bench.wire.queues[CMDQ].sent) == 3


@pytest.mark.parametrize("broken", [False, True])
def test_a_held_delayed_response_outlives_a_stop_but_not_a_queue_that_broke(broken: bool) -> None:
    bench = Bench(plan=LATE)
    bench.command(0)
    bench.buffers(4)
    assert bench.core.emit(DELAYED)
    bench.core.on_stop(EVENTQ)
    bench.wire.stopped = True
    bench.wire.queues[EVENTQ].broken = broken
    bench.now += 5
    bench.core.tick(bench.now)
    bench.wire.stopped = bench.wire.queues[EVENTQ].broken = False
    bench.buffers(4)
    bench.now += 5
    bench.core.tick(bench.now)
    assert bench.wire.queues[EVENTQ].sent == ([] if broken else [(4, DELAYED)])
