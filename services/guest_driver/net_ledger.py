"""Who is owed which frame: sequence numbers on real frames, and the books of what came back.

Each frame that is sent is a captured one with a 16-byte trailer behind it (an Ethernet trailer, as padding is): a
sequence number and the time of sending. What comes back is compared byte by byte with what was sent, and a queue pair
keeps the order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from common.histogram import Histogram

#: le64 sequence number, le64 nanoseconds
TRAILER: Final = struct.Struct("<QQ")
TRAILER_BYTES: Final = TRAILER.size

#: Bits of a sequence number below the number of the queue pair.
PAIR_SHIFT: Final = 48


class NetLedger:
    """The books of queue pair ``pair`` against a NIC that echoes. Times are integers in nanoseconds.

    The sequence numbers of a pair begin at ``pair`` << PAIR_SHIFT, so that a frame which comes back on another pair is
    none of that one's (``corrupted`` there, lost here). A frame that comes after a later one is ``reordered``, as RFC
    4737 counts it: one that is lost makes none of its followers so.
    """

    __slots__ = (
        "_back", "_due", "_exposed", "_expected", "_first", "_frames", "_next", "_turn", "corrupted", "duplicated",
        "re_executed", "reordered", "reset_dropped", "rtt", "rx", "tx",
    )  # fmt: skip

    def __init__(self, frames: Sequence[bytes], rtt: Histogram, pair: int = 0) -> None:
        self._frames: Final = list(frames)
        self._turn = 0
        self._first: Final = pair << PAIR_SHIFT
        self._next = self._first
        #: one more than the highest number that came back
        self._due = self._first
        #: sequence number → the frame as sent
        self._expected: dict[int, bytes] = {}
        #: frames that were outstanding when the NIC was reset, and the numbers of those that came back since
        self._exposed: dict[int, bytes] = {}
        self._back: set[int] = set()
        self.tx = 0
        self.rx = 0
        self.duplicated = 0
        self.corrupted = 0
        self.reordered = 0
        self.re_executed = 0
        self.reset_dropped = 0
        #: seconds
        self.rtt: Final = rtt

    @property
    def outstanding(self) -> int:
        """Frames sent that may still come back, those a reset put in doubt aside."""
        return len(self._expected)

    def use(self, frames: Sequence[bytes]) -> None:
        """Send these round and round from now on."""
        self._frames[:] = frames
        self._turn = 0

    def make(self, count: int, now: int) -> list[bytes]:
        """The next ``count`` frames to send."""
        frames, turn, seq, expected = self._frames, self._turn, self._next, self._expected
        made = []
        for _ in range(count):
            frame = frames[turn] + TRAILER.pack(seq, now)
            expected[seq] = frame
            made.append(frame)
            seq += 1
            turn += 1
            if turn == len(frames):
                turn = 0
        self._turn, self._next = turn, seq
        self.tx += count
        return made

    def came(self, frames: Sequence[bytes], now: int) -> None:
        """Frames came back."""
        expected, observe, unpack, due = self._expected, self.rtt.observe, TRAILER.unpack_from, self._due
        self.rx += len(frames)
        for frame in frames:
            try:
                seq, sent = unpack(frame, -TRAILER_BYTES)
            except struct.error:  # too short for a trailer
                self.corrupted += 1
                continue
            want = expected.pop(seq, None)
            if want == frame:
                observe((now - sent) * 1e-9)
                if seq >= due:
                    due = seq + 1
                else:
                    self.reordered += 1
            else:
                self._odd(seq, frame, want)
        self._due = due

    def _odd(self, seq: int, frame: bytes, want: bytes | None) -> None:
        """Not the ordinary case: damaged, repeated, or put in doubt by a reset."""
        exposed = self._exposed.get(seq)
        if want is not None or not self._first <= seq < self._next:
            self.corrupted += 1
        elif exposed is None:
            self.duplicated += 1
        else:
            self.corrupted += exposed != frame
            self.re_executed += seq in self._back
            self._back.add(seq)

    def device_reset(self) -> None:
        """The NIC lost its memory: what is outstanding may be dropped, or done twice."""
        self._exposed.update(self._expected)
        self._expected.clear()

    def close(self) -> int:
        """After the drain: settles what a reset dropped; returns how many frames are lost for no such reason."""
        self.reset_dropped = len(self._exposed) - len(self._back)
        return len(self._expected)
