"""Recording what links carry: a tap, bounded buffers, and the record format.

A capture is a msgpack stream of records ``[time, link, direction, frame]``: seconds since 1970, the link's name,
``"in"`` or ``"out"`` as the recording service saw it, and the frame's body as bytes. Handshake frames are never
recorded: a hello carries the token.

While nobody records, ``hub.tap`` is None and a link pays one test for a batch of frames.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec

from common.errors import BackpressureError
from common.runtime.clock import Clock, wall
from common.runtime.metrics import Metrics
from common.wire.framing import Splitter

#: Bytes of records that may wait for one recorder before further ones are dropped and counted.
BUFFER_LIMIT: Final = 16 * 1024 * 1024
#: Recorders at a time.
MAX_RECORDERS: Final = 4

IN: Final = "in"
OUT: Final = "out"
DIRECTIONS: Final = (IN, OUT)

_pack: Final = msgspec.msgpack.Encoder().encode


def link_matches(name: str, wanted: str) -> bool:
    """Whether the link ``name`` is meant: ``guest/vm0`` is by ``""``, ``guest`` and ``guest/vm0``."""
    return not wanted or name == wanted or name.startswith(wanted + "/")


class Recorder:
    """What one recorder asked for, and the records that wait for it."""

    def __init__(self, hub: CaptureHub, link: str, direction: str, limit: int) -> None:
        self._hub = hub
        self._link = link
        self._direction = direction
        self._limit = limit
        self._records: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self.taken = 0
        self.dropped = 0

    def wants(self, link: str, direction: str) -> bool:
        return (not self._direction or direction == self._direction) and link_matches(link, self._link)

    def put(self, record: bytes) -> bool:
        """Keep ``record``; False if the buffer is full and it was dropped."""
        if self._bytes + len(record) > self._limit:
            self.dropped += 1
            return False
        self._bytes += len(record)
        self._records.append(record)
        self.taken += 1
        self._wake.set()
        return True

    async def chunk(self, timeout: float) -> bytes:
        """Everything that waits, joined; empty if nothing came within ``timeout`` seconds."""
        if not self._records:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        joined = b"".join(self._records)
        self._records.clear()
        self._bytes = 0
        return joined

    def close(self) -> None:
        self._hub.close(self)


class CaptureHub:
    """The tap that all links of a service share. ``tap`` is the hub itself while somebody records, else None."""

    def __init__(
        self,
        metrics: Metrics | None = None,
        clock: Clock = wall,
        buffer_limit: int = BUFFER_LIMIT,
        max_recorders: int = MAX_RECORDERS,
    ) -> None:
        self.tap: CaptureHub | None = None
        self._clock = clock
        self._buffer_limit = buffer_limit
        self._max_recorders = max_recorders
        self._recorders: list[Recorder] = []
        self._recorded = self._dropped = None
        if metrics is not None:
            self._recorded = metrics.counter("ringmesh_capture_records_total", "Frames recorded by captures.")
            self._dropped = metrics.counter(
                "ringmesh_capture_dropped_total", "Frames that a capture missed because its buffer was full."
            )

    def open(self, link: str = "", direction: str = "") -> Recorder:
        """Begin to record frames of ``link`` and ``direction`` (empty: all). Raises BackpressureError if too many
        record already."""
        if len(self._recorders) >= self._max_recorders:
            raise BackpressureError(f"{self._max_recorders} captures are running")
        recorder = Recorder(self, link, direction, self._buffer_limit)
        self._recorders.append(recorder)
        self.tap = self
        return recorder

    def close(self, recorder: Recorder) -> None:
        if recorder in self._recorders:
            self._recorders.remove(recorder)
        if not self._recorders:
            self.tap = None

    def received(self, link: str, bodies: list[bytes]) -> None:
        """Called by links for a batch of received frames."""
        self._record(link, IN, bodies)

    def sent(self, link: str, frames: bytes | bytearray) -> None:
        """Called by links with joined frames, prefixes included, that are about to be written."""
        bodies: list[bytes] = []
        Splitter().feed(bytes(frames), bodies)
        self._record(link, OUT, bodies)

    def _record(self, link: str, direction: str, bodies: list[bytes]) -> None:
        recorders = [r for r in self._recorders if r.wants(link, direction)]
        if not recorders:
            return
        now = self._clock()
        for body in bodies:
            record = _pack((now, link, direction, body))
            for recorder in recorders:
                counter = self._recorded if recorder.put(record) else self._dropped
                if counter is not None:
                    counter.value += 1
