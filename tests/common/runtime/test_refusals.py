"""common.runtime.refusals: closed reasons, quiet repeats."""

from __future__ import annotations

import pytest
import structlog

from common.errors import FrameError, HandshakeError, RemoteError, RingError
from common.runtime.clock import ManualClock
from common.runtime.metrics import Metrics
from common.runtime.refusals import REASONS, REPEAT, LinkBook, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FrameError("frame.length", 1, 0), "length"),
        (FrameError("frame.body"), "body"),
        (FrameError("frame.tag"), "tag"),
        (FrameError("frame.backlog"), "backlog"),
        (FrameError("frame.surprise"), "handler"),
        (HandshakeError("token"), "token"),
        (HandshakeError("hello_timeout"), "hello_timeout"),
        (HandshakeError("nonsense"), "role"),
        (RingError("avail.idx", 7, 4), "handler"),
        (RemoteError("token"), "handler"),
    ],
)
def test_reasons_are_a_closed_set(error: RemoteError, reason: str) -> None:
    assert reason_of(error) == reason


def test_repeats_are_counted_but_said_once_in_a_while(metrics: Metrics) -> None:
    clock = ManualClock()
    book = LinkBook(metrics, clock)
    error = FrameError("frame.tag", "kick")
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            book.refused("guest", "guest@a", error)
        book.refused("guest", "guest@b", error)
        book.refused("guest", "guest@a", FrameError("frame.body"))
        clock.advance(REPEAT)
        book.refused("guest", "guest@a", error)
    assert [(log["peer"], log["reason"], log["repeats"]) for log in logs] == [
        ("guest@a", "tag", 0),
        ("guest@b", "tag", 0),
        ("guest@a", "body", 0),
        ("guest@a", "tag", 4),
    ]
    assert metrics.value("ringmesh_frames_refused_total", link="guest", reason="tag") == 7


def test_memory_of_peers_is_bounded(metrics: Metrics) -> None:
    book = LinkBook(metrics, ManualClock())
    with structlog.testing.capture_logs():
        for i in range(3000):
            book.refused("", f"peer {i}", FrameError("frame.body"))
    assert len(book._said) == 1024
    assert metrics.value("ringmesh_frames_refused_total", link="unknown", reason="body") == 3000


def test_expected_refusals_are_there_before_the_first() -> None:
    metrics = Metrics("its", "test")
    LinkBook(metrics).expect(["guest"])
    text = metrics.render().decode()
    for link in ("guest", "unknown"):
        for reason in REASONS:
            assert f'ringmesh_frames_refused_total{{link="{link}",reason="{reason}",service="its"}} 0.0' in text
