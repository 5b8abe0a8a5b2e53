"""How many entries a queue held: the measure behind ``ringmesh_queue_depth``.

A scrape finds an event loop between two batches, where a queue is always as full or as empty as the last time. So the
depth is looked at where it changes, and a scrape reads the mean since the one before.
"""

from __future__ import annotations


class Depth:
    """The mean of what was seen since the last read."""

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._count = 0
        self._total = 0

    def seen(self, entries: int) -> None:
        """The queue holds ``entries`` now, after some came or went."""
        self._count += 1
        self._total += entries

    def read(self, now: int) -> float:
        """Mean since the last read; ``now``, the entries that the queue holds, where nothing came or went."""
        if not self._count:
            return now
        mean = self._total / self._count
        self._count = self._total = 0
        return mean
