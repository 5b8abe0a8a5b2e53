"""Packet back ends: an echo, and a replay that keeps its rate and its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.vdpa_nic.backend import Echo, Replay


def test_echo() -> None:
    echo = Echo()
    for frame in (b"a", b"b", b"a"):
        echo.transmit(frame, 2.0)
    echo.tick(5.0)
    assert list(echo.backlog) == [(b"a", 2.0), (b"b", 2.0), (b"a", 2.0)]
    assert echo.answers


def test_replay_goes_round_at_its_rate() -> None:
    replay = Replay([b"0", b"1", b"2"], rate=10.0)
    replay.tick(100.0)
    assert not replay.backlog, "the clock starts at the first tick"
    replay.tick(100.05)
    assert not replay.backlog
    replay.tick(100.75)
    assert b"".join(frame for frame, _ in replay.backlog) == b"0120120"
    assert not replay.answers


def test_replay_drops_what_nobody_fetches() -> None:
    replay = Replay([b"0", b"1"], rate=10.0, limit=3)
    replay.tick(0.0)
    replay.tick(1.05)
    assert (len(replay.backlog), replay.dropped) == (3, 7)
    replay.tick(2.05)
    assert (len(replay.backlog), replay.dropped) == (3, 17)
    replay.backlog.popleft()
    replay.tick(2.15)
    assert b"".join(frame for frame, _ in replay.backlog) == b"101", "goes on where it stopped"
    replay.transmit(b"x", 9.0)
    assert replay.sunk == 1


@given(steps=st.lists(st.floats(0, 0.3), max_size=60))
def test_replay_neither_gains_nor_loses_time(steps: list[float]) -> None:
    replay = Replay([b"f"], rate=100.0, limit=1 << 20)
    now = 7.0
    replay.tick(now)
    for step in steps:
        now += step
        replay.tick(now)
    assert abs(len(replay.backlog) - (now - 7.0) * 100.0) < 1.01
