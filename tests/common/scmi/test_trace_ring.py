"""The ring of a trace: bounded, read or drained, resized."""

from __future__ import annotations

from common.scmi.trace_ring import TraceRing, TraceStats


def line(number: int, text: str) -> str:
    return f"{number} {text}"


def test_the_newest_stay_and_the_others_are_counted() -> None:
    ring = TraceRing(line, 2)
    for number in range(5):
        ring.record((number, "x"))
    assert (len(ring), ring.stats) == (2, TraceStats(5, 3))
    assert ring.lines() == ring.lines() == ["3 x", "4 x"]
    assert ring.drain() == ["3 x", "4 x"]
    assert (ring.drain(), len(ring), ring.stats.overwritten) == ([], 0, 3)


def test_its_size_changes() -> None:
    ring = TraceRing(line, 3)
    for number in range(3):
        ring.record((number, "x"))
    ring.resize(2)
    assert (ring.capacity, ring.lines()) == (2, ["1 x", "2 x"])
    ring.resize(0)
    ring.record((3, "x"))
    assert (ring.capacity, ring.lines(), ring.stats) == (0, [], TraceStats(4, 1))
