"""common.virtio.depth: a mean since the last read."""

from __future__ import annotations

from common.virtio.depth import Depth


def test_the_mean_since_the_last_read() -> None:
    depth = Depth()
    assert depth.read(7) == 7
    for entries in (64, 0, 32, 0):
        depth.seen(entries)
    assert depth.read(0) == 24
    assert depth.read(3) == 3
