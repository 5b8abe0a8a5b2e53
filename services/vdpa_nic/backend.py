"""Packet back ends: what the NIC is plugged into.

A back end is plain code. It is handed each frame that the driver transmits and leaves what the driver shall receive
in its backlog.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol


class Backend(Protocol):
    """The far side of one NIC. Frames are bytes from the destination MAC on, without header and check sequence."""

    #: frames that wait for receive buffers, and since when (monotonic seconds)
    backlog: deque[tuple[bytes, float]]
    #: each transmitted frame makes one to receive: it leaves the transmit queue only when a buffer is there
    answers: bool

    def transmit(self, frame: bytes, now: float) -> None:
        """The driver sent ``frame``."""
        ...

    def tick(self, now: float) -> None:
        """Time went on (monotonic seconds)."""
        ...


class Echo:
    """Every frame comes back unchanged, once, in order."""

    answers = True

    def __init__(self) -> None:
        self.backlog: deque[tuple[bytes, float]] = deque()

    def transmit(self, frame: bytes, now: float) -> None:
        self.backlog.append((frame, now))

    def tick(self, now: float) -> None:
        """An echo needs no clock."""


class Replay:
    """Plays ``frames`` round and round at ``rate`` frames a second; what the driver sends is dropped, as by a sink.

    At most ``limit`` frames wait for receive buffers; those beyond are not played (counted in ``dropped``).
    """

    answers = False

    def __init__(self, frames: list[bytes], rate: float, limit: int = 1024) -> None:
        self.frames: Final = frames
        self.rate: Final = rate
        self.limit: Final = limit
        self.backlog: deque[tuple[bytes, float]] = deque()
        self.dropped = 0
        self.sunk = 0
        self._next = 0
        self._due: float | None = None

    def transmit(self, frame: bytes, now: float) -> None:
        self.sunk += 1

    def tick(self, now: float) -> None:
        if self._due is None:
            self._due = now
        count = int((now - self._due) * self.rate)
        if count <= 0:
            return
        self._due += count / self.rate
        room = self.limit - len(self.backlog)
        if count > room:
            self.dropped += count - room
            count = room
        for _ in range(count):
            self.backlog.append((self.frames[self._next], now))
            self._next = (self._next + 1) % len(self.frames)
