"""Since when has work been waiting in a queue? The measure behind ``ringmesh_poll_latency_seconds``."""

from __future__ import annotations


class Visible:
    """Marks the moment at which a queue became non-empty, until its consumer looks."""

    __slots__ = ("since",)

    def __init__(self) -> None:
        #: monotonic seconds, 0 while nothing waits
        self.since = 0.0

    def mark(self, now: float) -> None:
        """Work became visible; only the first of a burst counts."""
        if not self.since:
            self.since = now

    def take(self, now: float) -> float | None:
        """The consumer looked: seconds that the oldest work waited, or None if there was none."""
        since = self.since
        if not since:
            return None
        self.since = 0.0
        return now - since
