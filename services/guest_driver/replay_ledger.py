"""The books of a queue pair against a NIC that replays a capture: what comes must be the capture, round and round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.histogram import Histogram

#: Frames that a NIC may have for the first pair when it hears of the others: more than it keeps.
STRANGERS: Final = 2048


class ReplayLedger:
    """Compares every received frame with the next one of ``frames``; what is sent goes to a sink.

    A NIC throws frames away as long as the receive queue is not on. So at the start and after a reset of the NIC the
    capture may go on anywhere: what is left out is counted in ``skipped``. Later on it is lost. Of several queue pairs
    each has its part of ``capture``; until the NIC knows of the others it gives the first pair all of it, so the first
    STRANGERS frames that are another pair's are counted there too.
    """

    __slots__ = (
        "_anywhere", "_at", "_frames", "_lost", "_others", "_strangers", "_turn", "_where", "corrupted", "duplicated",
        "re_executed", "reordered", "reset_dropped", "rtt", "rx", "skipped", "tx",
    )  # fmt: skip

    def __init__(self, frames: Sequence[bytes], rtt: Histogram, capture: Sequence[bytes] = ()) -> None:
        self._frames: Final = list(frames)
        self._others: Final = frozenset(capture).difference(frames)
        self._strangers = 0
        #: frame → the places in the capture where it is
        self._where: Final[dict[bytes, list[int]]] = {}
        for place, frame in enumerate(self._frames):
            self._where.setdefault(frame, []).append(place)
        self._turn = 0
        #: where the capture may stand: more than one place while equal frames leave it open
        self._at = {0} if self._frames else set()
        #: the next frame that does not fit may be any
        self._anywhere = True
        self._lost = 0
        self.tx = 0
        self.rx = 0
        self.skipped = 0
        self.duplicated = 0
        self.corrupted = 0
        # as the ledger of an echo has them: a reset repeats or drops nothing that a replay owes, and a frame out of
        # turn is one that others before it are lost for
        self.reordered = 0
        self.re_executed = 0
        self.reset_dropped = 0
        self.rtt: Final = rtt

    @property
    def empty(self) -> bool:
        """No frame of the capture is this pair's."""
        return not self._frames

    @property
    def outstanding(self) -> int:
        """Nothing that is sent comes back."""
        return 0

    def make(self, count: int, now: int) -> list[bytes]:
        """The next ``count`` frames to send."""
        frames, turn = self._frames, self._turn
        if not frames:
            return []
        self._turn = (turn + count) % len(frames)
        self.tx += count
        return [frames[(turn + i) % len(frames)] for i in range(count)]

    def came(self, frames: Sequence[bytes], now: int) -> None:
        """Frames came."""
        self.rx += len(frames)
        capture = self._frames
        length = len(capture)
        for frame in frames:
            after = {(place + 1) % length for place in self._at if capture[place] == frame}
            if after:
                self._at = after
            else:
                self._odd(frame)

    def _odd(self, frame: bytes) -> None:
        """Not the next frame: the capture goes on elsewhere, or the frame is repeated, left out others, or is none."""
        length = len(self._frames)
        places = self._where.get(frame)
        if places is None and frame in self._others and self._strangers < STRANGERS:
            self._strangers += 1
            self.skipped += 1
            return
        if places is None:
            self.corrupted += 1
            self._at = {(place + 1) % length for place in self._at}
            return
        after = {(place + 1) % length for place in places}
        left_out = min((place - at) % length for place in places for at in self._at)
        if self._anywhere:
            self._anywhere = False
            self.skipped += left_out
        elif after & self._at:
            self.duplicated += 1
            return
        else:
            self._lost += left_out
        self._at = after

    def device_reset(self) -> None:
        """The NIC begins anew, behind what it had sent before."""
        self._anywhere = True

    def close(self) -> int:
        """How many frames of the capture are missing."""
        return self._lost
