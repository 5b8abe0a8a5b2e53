"""vCPUs: LPIs in, handlers run, and the books of what came of each interrupt."""

from __future__ import annotations

import pytest

from common.errors import RingError
from common.histogram import Histogram
from services.guest_driver.vcpu import IrqLine, IrqStats, Vcpus


class Bench:
    def __init__(self) -> None:
        self.now = 1.0
        self.ran: list[str] = []
        self.latency = Histogram()
        self.vcpus = Vcpus(lambda: self.now, self.latency)
        self.a = IrqLine("a", 16, 0, 8192, 0, lambda: self.ran.append("a"))
        self.b = IrqLine("b", 16, 1, 8193, 1, lambda: self.ran.append("b"))
        self.vcpus.request_irq(self.a)
        self.vcpus.request_irq(self.b)

    def raise_(self, line: IrqLine, upto: int) -> None:
        for number in range(line.raised + 1, upto + 1):
            self.vcpus.raised(line, number)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_delivery_and_latency(bench: Bench) -> None:
    bench.raise_(bench.a, 1)
    bench.now = 1.25
    assert not bench.vcpus.settled()
    assert bench.vcpus.take(0, 8192, 1)
    assert bench.ran == ["a"]
    assert (bench.latency.count, bench.latency.max) == (1, 0.25)
    assert bench.vcpus.settled()
    assert bench.vcpus.close() == IrqStats(raised=1, delivered=1)
    assert bench.vcpus.lines == [bench.a, bench.b]


def test_a_later_number_covers_the_earlier_ones(bench: Bench) -> None:
    bench.raise_(bench.a, 5)
    assert bench.vcpus.take(0, 8192, 3)
    assert not bench.vcpus.settled()
    bench.now = 2.0
    assert bench.vcpus.take(0, 8192, 5)
    assert bench.vcpus.close() == IrqStats(raised=5, delivered=2, coalesced=3)
    assert bench.latency.max == 1.0, "what the first left was asked for before it was taken"


def test_lost(bench: Bench) -> None:
    bench.raise_(bench.a, 4)
    bench.raise_(bench.b, 2)
    bench.vcpus.take(0, 8192, 1)
    assert bench.vcpus.close() == IrqStats(raised=6, delivered=1, lost=5)


def test_duplicate(bench: Bench) -> None:
    bench.raise_(bench.a, 2)
    for number in (2, 2, 1):
        assert bench.vcpus.take(0, 8192, number), "ended all the same, or the ITS would never let go of it"
    assert bench.ran == ["a"] * 3, "a handler copes with nothing to do"
    assert bench.vcpus.close() == IrqStats(raised=2, delivered=1, coalesced=1, duplicated=2)


def test_a_repeat_after_the_its_came_back(bench: Bench) -> None:
    bench.raise_(bench.a, 2)
    bench.vcpus.take(0, 8192, 2)
    bench.vcpus.expect_repeats()
    bench.raise_(bench.a, 3)
    bench.vcpus.take(0, 8192, 2)
    bench.vcpus.take(0, 8192, 3)
    bench.vcpus.take(0, 8192, 3)
    assert bench.a.repeated == 1
    assert bench.vcpus.close() == IrqStats(raised=3, delivered=2, coalesced=1, duplicated=1)


@pytest.mark.parametrize(
    ("vcpu", "intid", "number"),
    [(0, 8194, 1), (1, 8192, 1), (0, 8192, 3), (0, 0, 1)],
    ids=["unknown INTID", "wrong vCPU", "never raised", "no LPI at all"],
)
def test_corrupted(bench: Bench, vcpu: int, intid: int, number: int) -> None:
    bench.raise_(bench.a, 2)
    assert not bench.vcpus.take(vcpu, intid, number)
    assert bench.ran == []
    assert bench.vcpus.close() == IrqStats(raised=2, lost=2, corrupted=1)


def test_a_line_that_moves_may_come_where_it_was_until_it_has_moved(bench: Bench) -> None:
    line, vcpus = bench.a, bench.vcpus
    bench.raise_(line, 9)
    with vcpus.moving(line, 1):
        assert vcpus.take(0, 8192, 1), "on its way when it was moved"
        assert vcpus.take(1, 8192, 2)
        assert not vcpus.take(2, 8192, 3)
        again = vcpus.moving(line, 2)
        again.__enter__()
    assert not vcpus.take(0, 8192, 3), "the first move is over"
    assert vcpus.take(1, 8192, 3)
    again.__exit__(None, None, None)
    assert not vcpus.take(1, 8192, 4)
    assert vcpus.take(2, 8192, 4)
    with pytest.raises(RuntimeError), vcpus.moving(line, 0):
        raise RuntimeError
    assert vcpus.take(2, 8192, 5), "nobody knows whether it moved"
    assert vcpus.take(0, 8192, 6)
    assert vcpus.close().corrupted == 3


def test_a_handler_that_fails_is_counted_and_told_once(bench: Bench) -> None:
    told: list[tuple[str, dict[str, object]]] = []

    def handler() -> None:
        raise RingError("used.idx", 9, 4)

    vcpus = Vcpus(lambda: 1.0, Histogram(), lambda event, **fields: told.append((event, fields)))
    line = IrqLine("scmi0", 16, 0, 8192, 0, handler)
    vcpus.request_irq(line)
    vcpus.raised(line, 2)
    assert [vcpus.take(0, 8192, number) for number in (1, 2, 2)] == [True] * 3, "each is ended"
    assert line.failed == 3
    assert [(event, fields["line"]) for event, fields in told] == [("interrupt handler failed", "scmi0")]
    assert vcpus.close() == IrqStats(raised=2, delivered=2, duplicated=1)
    bench.a.handler = handler
    bench.raise_(bench.a, 1)
    assert bench.vcpus.take(0, 8192, 1), "without anybody to tell"
