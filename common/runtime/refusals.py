"""What links count, and what they say when they refuse a peer.

One :class:`LinkBook` for each link server and client. Counters go by the peer's role, a closed set, so that a peer
cannot grow the metrics. The log says each reason once a peer, then at most once in REPEAT seconds with the number of
repeats in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from common.errors import HandshakeError, RemoteError
from common.runtime.clock import Clock, monotonic
from common.runtime.metrics import Counter, Metrics

#: Why a peer is refused: the closed set of the label ``reason`` of ringmesh_frames_refused_total.
REASONS: Final = (
    "length", "body", "tag", "role", "guest", "token", "version", "handler", "backlog", "hello_timeout", "too_many",
)  # fmt: skip

#: Seconds for which repeats of the same reason from the same peer are counted but not logged.
REPEAT: Final = 10.0
#: Peers whose repeats are remembered; the oldest is forgotten first.
_REMEMBERED: Final = 1024


class Traffic:
    """Counters of all links to one peer role, kept at hand by each link."""

    __slots__ = ("bytes_in", "bytes_out", "dropped", "errors", "frames_in", "frames_out", "writes")

    def __init__(self, metrics: Metrics, link: str) -> None:
        frames = "ringmesh_link_frames_total", "Frames moved over a link."
        size = "ringmesh_link_bytes_total", "Bytes moved over a link, length prefixes included."
        self.frames_in: Final = metrics.counter(*frames, link=link, direction="in")
        self.frames_out: Final = metrics.counter(*frames, link=link, direction="out")
        self.bytes_in: Final = metrics.counter(*size, link=link, direction="in")
        self.bytes_out: Final = metrics.counter(*size, link=link, direction="out")
        self.writes: Final = metrics.counter(
            "ringmesh_link_writes_total",
            "Writes to the transport; frames a write say how well they join.",
            link=link,
        )
        self.dropped: Final = metrics.counter(
            "ringmesh_link_dropped_total", "Frames dropped because the link was down.", link=link
        )
        self.errors: Final = metrics.counter(
            "ringmesh_link_handler_errors_total", "Links closed because our own handler failed.", link=link
        )


class LinkBook:
    """Counts and logs for the links of one server or client; the counters are the service's."""

    def __init__(self, metrics: Metrics, clock: Clock = monotonic) -> None:
        self._metrics: Final = metrics
        self._clock: Final = clock
        self.log: Final = structlog.get_logger("link")
        self._traffic: dict[str, Traffic] = {}
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def traffic(self, role: str) -> Traffic:
        traffic = self._traffic.get(role)
        if traffic is None:
            traffic = self._traffic[role] = Traffic(self._metrics, role)
        return traffic

    def reconnects(self, role: str) -> Counter:
        return self._metrics.counter(
            "ringmesh_link_reconnects_total", "Times that a link came up again after it was down.", link=role
        )

    def up(self, role: str, change: int) -> None:
        """``change`` more links (or fewer) to ``role`` are up."""
        gauge = self._metrics.gauge("ringmesh_links_up", "Links that are up now, by role of the peer.", link=role)
        gauge.value += change

    def expect(self, roles: Iterable[str]) -> None:
        """Export the refusals of these peers from the first scrape on: a counter that appears with its first event
        hides that event from ``increase()``."""
        for role in (*roles, "unknown"):
            for reason in REASONS:
                self._refusals(role, reason)

    def _refusals(self, role: str, reason: str) -> Counter:
        return self._metrics.counter(
            "ringmesh_frames_refused_total",
            "Peers or frames refused; each closed its link.",
            link=role,
            reason=reason,
        )

    def refused(self, role: str, peer: str, error: RemoteError) -> str:
        """Count a refusal of ``peer`` (role and address); log it unless it repeats. Returns the reason counted."""
        reason = reason_of(error)
        self._refusals(role or "unknown", reason).value += 1
        now = self._clock()
        last, repeats = self._said.pop((peer, reason), (-REPEAT, 0))
        if now - last < REPEAT:
            self._said[peer, reason] = (last, repeats + 1)
            return reason
        self._said[peer, reason] = (now, 0)
        if len(self._said) > _REMEMBERED:
            del self._said[next(iter(self._said))]
        self.log.warning(
            "peer refused", link=role or "unknown", peer=peer, reason=reason, error=str(error), repeats=repeats
        )
        return reason


def reason_of(error: RemoteError) -> str:
    """The one of :data:`REASONS` that ``error`` counts under; whatever a handler refused is ``handler``."""
    if isinstance(error, HandshakeError):
        return error.field if error.field in REASONS else "role"
    place, _, reason = error.field.partition(".")
    return reason if place == "frame" and reason in REASONS else "handler"
