"""common.runtime.clock."""

from __future__ import annotations

import time

from common.runtime.clock import ManualClock, monotonic, wall


def test_clocks_count_seconds() -> None:
    assert abs(monotonic() - time.monotonic()) < 1.0
    assert abs(wall() - time.time()) < 1.0
    assert monotonic() <= monotonic()


def test_a_manual_clock_moves_when_told() -> None:
    clock = ManualClock(5.0)
    assert clock() == 5.0
    clock.advance(0.5)
    assert clock() == 5.5
