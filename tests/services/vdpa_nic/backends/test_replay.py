"""The replay: its paces, its bound, and the order that a capture keeps on each queue pair."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from common.virtio.flow import flow_hash
from common.virtio.net_header import NET_HEADER_BYTES
from services.vdpa_nic.backends.replay import Replay, ReplayStats, as_captured, at_rate


def frames(count: int) -> list[bytes]:
    """Different frames of different flows."""
    return [bytes((2, 0, 0, 0, 0, n)) + b"\x02\0\0\0\0\xff\x88\xb5" + bytes((n,)) * 46 for n in range(count)]


def numbers(replay: Replay, pair: int = 0) -> list[int]:
    return [packet[-1] for packet, _ in replay.backlog[pair]]


def test_goes_round_at_its_rate() -> None:
    replay = Replay(frames(3), at_rate(10.0))
    replay.tick(100.0)
    assert not replay.backlog[0], "the clock starts at the first tick"
    replay.tick(100.05)
    assert not replay.backlog[0]
    replay.tick(100.75)
    assert numbers(replay) == [0, 1, 2, 0, 1, 2, 0]
    packet, since = replay.backlog[0][1]
    assert (len(packet[:NET_HEADER_BYTES]), packet[NET_HEADER_BYTES:], since) == (12, frames(3)[1], 100.75)
    assert packet[:10] == bytes(10), "nothing left to do: no flags, no segmentation, no checksum"


def test_drops_what_nobody_fetches() -> None:
    replay = Replay(frames(2), at_rate(10.0), limit=3)
    replay.tick(0.0)
    replay.tick(1.05)
    assert (numbers(replay), replay.stats.dropped) == ([0, 1, 0], 7)
    replay.tick(2.05)
    assert (numbers(replay), replay.stats.dropped) == ([0, 1, 0], 17)
    replay.backlog[0].popleft()
    replay.tick(2.15)
    assert numbers(replay) == [1, 0, 1], "goes on where it stopped"
    replay.transmit(0, [b"x", b"y"], 9.0)
    assert replay.stats == ReplayStats(played=4, dropped=17, sunk=2)


def test_a_long_pause() -> None:
    replay = Replay(frames(2), at_rate(1e9))
    replay.tick(0.0)
    replay.tick(1e9)  # looking at each of these frames would take years
    assert (replay.stats.played, replay.stats.dropped) == (1024, 10**18 - 1024)


@given(steps=st.lists(st.floats(0, 0.3), max_size=60))
def test_a_rate_neither_gains_nor_loses_time(steps: list[float]) -> None:
    replay = Replay([bytes(60)], at_rate(100.0), limit=1 << 20)
    now = 7.0
    replay.tick(now)
    for step in steps:
        now += step
        replay.tick(now)
    assert abs(len(replay.backlog[0]) - (now - 7.0) * 100.0) < 1.01


def test_the_captures_own_timing() -> None:
    played = as_captured([50.0, 50.1, 50.5, 51.0], 1.0)
    assert [played(t) for t in (0.0, 0.09, 0.11, 0.49, 0.51, 0.99, 1.01)] == [1, 1, 2, 2, 3, 3, 4]
    assert [played(t) for t in (1.33, 1.34, 1.42, 1.44)] == [4, 5, 5, 6], "the mean gap, a third, before the next round"
    twice = as_captured([50.0, 50.1, 50.5, 51.0], 2.0)
    assert [twice(t) for t in (0.04, 0.06, 0.26, 0.49, 0.51, 0.67)] == [1, 2, 3, 3, 4, 5]
    backwards = as_captured([1.0, 3.0, 2.0, 4.0], 1.0)
    assert [backwards(t) for t in (0.0, 1.9, 2.1, 3.9, 4.1)] == [1, 1, 3, 3, 4]


@pytest.mark.parametrize("times", [[3.0], [3.0, 3.0], [3.0, 2.0]])
def test_no_timing_in_the_capture(times: list[float]) -> None:
    with pytest.raises(RemoteError, match="one instant") as caught:
        as_captured(times, 1.0)
    assert caught.value.field == "pcap.time"


@given(
    gaps=st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda gaps: sum(gaps) > 1e-3),
    steps=st.lists(st.floats(0, 50), max_size=20),
    speed=st.sampled_from([0.5, 1.0, 7.0]),
)
def test_a_capture_is_played_frame_by_frame(gaps: list[float], steps: list[float], speed: float) -> None:
    times = [100.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    played = as_captured(times, speed)
    period = (times[-1] - times[0]) * len(times) / len(gaps)
    elapsed, before = 0.0, 0
    for step in steps:
        elapsed += step
        count = played(elapsed)
        assert count >= before
        before = count
        # the frame played last was due, the next is not; a hair for rounding
        for frame, due in ((count - 1, True), (count, False)):
            at = (frame // len(times) * period + times[frame % len(times)] - 100.0) / speed
            assert at <= elapsed + 1e-6 if due else at >= elapsed - 1e-6


def test_flows_keep_their_pair_and_order() -> None:
    capture = frames(8)
    replay = Replay(capture, at_rate(1.0), max_pairs=4)
    replay.pairs = 4
    replay.tick(0.0)
    replay.tick(16.0)
    wanted = [[n for n in [*range(8)] * 2 if flow_hash(capture[n]) % 4 == pair] for pair in range(4)]
    assert [numbers(replay, pair) for pair in range(4)] == wanted
    assert sum(map(bool, wanted)) > 1, "else nothing was tested"


def test_pairs_come_and_go() -> None:
    capture = frames(6)
    replay = Replay(capture, at_rate(1.0), max_pairs=2)
    replay.tick(0.0)
    replay.tick(4.0)
    replay.pairs = 2
    replay.tick(10.0)
    split = [[n for n in (4, 5, 0, 1, 2, 3) if flow_hash(capture[n]) % 2 == pair] for pair in range(2)]
    assert [numbers(replay), numbers(replay, 1)] == [[0, 1, 2, 3, *split[0]], split[1]]
    replay.pairs = 1
    replay.tick(13.0)
    assert numbers(replay)[-3:] == [4, 5, 0]
    assert all(split)


def test_the_same_pairs_said_again() -> None:
    replay = Replay(frames(3), at_rate(1.0), limit=1)
    for now in (0.0, 1.0, 2.0):
        replay.tick(now)
    replay.pairs = 1
    replay.backlog[0].clear()
    replay.tick(3.0)
    assert numbers(replay) == [1], "no frame is left out"


def test_a_full_pair_holds_up_no_other() -> None:
    capture = frames(8)
    replay = Replay(capture, at_rate(1.0), max_pairs=2, limit=16)
    replay.pairs = 2
    replay.tick(0.0)
    for now in range(1, 400):
        replay.tick(float(now))
        replay.backlog[1].clear()
    assert len(replay.backlog[0]) == 16
    assert replay.stats.played == 399 - replay.stats.dropped
    first = [n for n in range(8) if flow_hash(capture[n]) % 2 == 0]
    kept = [packet[-1] for packet, _ in replay.backlog[0]]
    assert kept == (first * 16)[:16]
    replay.backlog[0].clear()
    replay.tick(408.0)
    after = numbers(replay)
    assert after == (first * 16)[16 : 16 + len(after)], "no gap on the pair that was full"
    assert after


@given(
    turns=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 6)), max_size=30),
    limit=st.integers(1, 5),
)
def test_each_pair_is_a_part_without_a_gap(turns: list[tuple[int, int, int]], limit: int) -> None:
    capture = frames(5)
    replay = Replay(capture, at_rate(1.0), max_pairs=2, limit=limit)
    replay.pairs = 2
    replay.tick(0.0)
    now, taken = 0, [[], []]  # type: tuple[int, list[list[int]]]
    for step, pair, fetched in turns:
        now += step
        replay.tick(float(now))
        assert max(map(len, replay.backlog)) <= limit
        for _ in range(min(fetched, len(replay.backlog[pair]))):
            taken[pair].append(replay.backlog[pair].popleft()[0][-1])
    for pair in range(2):
        part = [n for n in range(5) if flow_hash(capture[n]) % 2 == pair]
        assert taken[pair] == (part * 400)[: len(taken[pair])]
    assert replay.stats.played + replay.stats.dropped == now
