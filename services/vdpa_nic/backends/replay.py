"""A back end that plays a capture, round and round, and swallows what it is sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Final, TypeAlias

from common.errors import RemoteError
from common.virtio.flow import flow_hash
from common.virtio.net_header import RX_PLAIN
from services.vdpa_nic.backends.backend import BACKLOG_LIMIT, Waiting, empty_backlog

#: Seconds since the replay began → how many frames are to have been played by then; never falls.
Pace: TypeAlias = Callable[[float], int]


def at_rate(rate: float) -> Pace:
    """``rate`` frames a second, evenly; the first one after ``1 / rate`` seconds."""
    return lambda elapsed: int(elapsed * rate)


def as_captured(times: Sequence[float], speed: float) -> Pace:
    """The capture's own gaps, ``speed`` times as fast; the first frame at once.

    ``times`` are the frames' time stamps in seconds; one that lies before its predecessor's counts as equal to it.
    Between two rounds stands the mean gap. Raises RemoteError if all frames are of one instant: there is no gap.
    """
    offsets = [0.0]
    for before, after in pairwise(times):
        offsets.append(offsets[-1] + max(0.0, after - before))
    length = offsets[-1]
    if not length > 0:
        raise RemoteError("pcap.time", length, None, "all frames are of one instant: only a rate can pace them")
    count = len(offsets)
    period = length * count / (count - 1)

    def played(elapsed: float) -> int:
        rounds, rest = divmod(elapsed * speed, period)
        return int(rounds) * count + bisect_right(offsets, rest)

    return played


@dataclass(slots=True)
class ReplayStats:
    """What a replay counts, in packets."""

    played: int = 0
    #: the backlog was full when they were due
    dropped: int = 0
    #: sent by the driver
    sunk: int = 0


class Replay:
    """Plays Ethernet frames (at least one) as ``pace`` says.

    A frame goes to the queue pair that its flow hashes to. At most ``limit`` packets wait on a pair; when one is due
    on a full pair nothing is played and the pair goes on where it stopped. So what comes on a pair is always that
    pair's part of the capture without a gap; with one pair, the capture.
    """

    answers = False

    def __init__(self, frames: Sequence[bytes], pace: Pace, *, max_pairs: int = 1, limit: int = BACKLOG_LIMIT) -> None:
        self.backlog: Sequence[Waiting] = empty_backlog(max_pairs)
        self.stats: Final = ReplayStats()
        self._packets: Final = [RX_PLAIN + frame for frame in frames]
        self._hashes: Final = [flow_hash(frame) for frame in frames]
        self._pace: Final = pace
        self._limit: Final = limit
        self._began: float | None = None
        #: frames that were due since
        self._due = 0
        #: the frame of the capture that is due next
        self._next = 0
        self._pairs = 1
        self._lanes = self._split()

    @property
    def pairs(self) -> int:
        """Queue pairs to play on. A change splits the capture anew, from where it stands."""
        return self._pairs

    @pairs.setter
    def pairs(self, pairs: int) -> None:
        if pairs != self._pairs:
            self._pairs = pairs
            self._lanes = self._split()

    def _split(self) -> list[Iterator[bytes]]:
        """By pair, its packets round and round."""
        lanes: list[list[bytes]] = [[] for _ in range(self._pairs)]
        count = len(self._packets)
        for turn in range(self._next, self._next + count):
            lanes[self._hashes[turn % count] % self._pairs].append(self._packets[turn % count])
        return [cycle(lane) for lane in lanes]

    def transmit(self, pair: int, packets: list[bytes], now: float) -> None:
        self.stats.sunk += len(packets)

    def tick(self, now: float) -> None:
        if self._began is None:
            self._began = now
        count = self._pace(now - self._began) - self._due
        self._due += count
        stats, backlog, lanes, hashes, limit, pairs = (
            self.stats, self.backlog, self._lanes, self._hashes, self._limit, self._pairs
        )  # fmt: skip
        most = limit * pairs
        if count > most:  # after a long pause: no need to look at each
            stats.dropped += count - most
            count = most
        for _ in range(count):
            pair = hashes[self._next] % pairs
            self._next = (self._next + 1) % len(hashes)
            if len(backlog[pair]) < limit:
                backlog[pair].append((next(lanes[pair]), now))
                stats.played += 1
            else:
                stats.dropped += 1
