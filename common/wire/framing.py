"""Length-prefixed frames: u32 little-endian length of the body, then the body."""

from __future__ import annotations

from common.errors import FrameError
from common.wire.limits import MAX_FRAME, PREFIX


class Splitter:
    """Cuts a byte stream into frame bodies; keeps at most one unfinished frame.

    Invariant: feeding a stream whole or byte by byte gives the same bodies and the same error.
    """

    __slots__ = ("_buffer", "least", "limit")

    def __init__(self, limit: int = MAX_FRAME, least: int = 1) -> None:
        self.limit = limit  # may be raised between two feeds: a peer that has said hello gets more
        self.least = least
        self._buffer = b""

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._buffer)

    def feed(self, data: bytes, bodies: list[bytes]) -> None:
        """Append to ``bodies`` every body that ``data`` completes.

        Raises FrameError as soon as a length prefix is below ``least`` or over ``limit``, whatever follows it; bodies
        completed before it have been appended.
        """
        if self._buffer:
            data = self._buffer + data
        size = len(data)
        at = 0
        while size - at >= PREFIX:
            length = int.from_bytes(data[at : at + PREFIX], "little")
            if not self.least <= length <= self.limit:
                self._buffer = b""
                raise FrameError("frame.length", length, self.limit)
            end = at + PREFIX + length
            if end > size:
                break
            bodies.append(data[at + PREFIX : end])
            at = end
        self._buffer = data[at:] if at else data


def frame(body: bytes) -> bytes:
    """``body`` with its length prefix."""
    return len(body).to_bytes(PREFIX, "little") + body
