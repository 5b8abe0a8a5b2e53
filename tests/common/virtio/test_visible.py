"""The moment at which a queue became non-empty."""

from __future__ import annotations

from common.virtio.visible import Visible


def test_the_oldest_of_a_burst_counts_once() -> None:
    visible = Visible()
    assert visible.take(1.0) is None
    visible.mark(2.0)
    visible.mark(3.0)
    assert visible.take(5.0) == 3.0
    assert visible.take(6.0) is None
