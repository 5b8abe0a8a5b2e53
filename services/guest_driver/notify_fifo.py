"""A bounded byte fifo for one reader and one writer at a time, without a lock between them (Linux: ``kfifo``)."""

from __future__ import annotations

from typing import Final

from common.errors import LocalError
from common.world import Fence, Memory, World


class EventFifo:
    """``world.new(EventFifo, world, size)``: ``size`` bytes, a power of two.

    ``in_`` and ``out`` count all bytes ever written and read. The writer alone moves ``in_``, after the bytes are
    there; the reader alone moves ``out``, after it has copied them. Several writers take turns under a lock of theirs.
    """

    __slots__ = ("_mb", "_memory", "_rmb", "_wmb", "in_", "out", "size")

    size: Final[int]
    _memory: Final[Memory]
    _wmb: Final[Fence]
    _rmb: Final[Fence]
    _mb: Final[Fence]

    def __init__(self, world: World, size: int) -> None:
        if size <= 0 or size & (size - 1):
            raise LocalError(f"fifo of {size} bytes: a power of two is wanted")
        self.size = size
        self._memory = world.memory(size)
        self._wmb = world.wmb
        self._rmb = world.rmb
        self._mb = world.mb
        self.in_ = 0
        self.out = 0

    @property
    def avail(self) -> int:
        """Bytes that the writer may add."""
        return self.size - (self.in_ - self.out)

    def put(self, data: bytes) -> None:
        """Add ``data`` whole (``kfifo_in``). Raises LocalError where it does not fit: look at :attr:`avail` first."""
        if len(data) > self.avail:
            raise LocalError(f"fifo: {len(data)} bytes, {self.avail} free")
        if self._mb is not None:
            self._mb()  # the reader has copied what `out` says before it is overwritten
        at = self.in_ & (self.size - 1)
        head = data[: self.size - at]
        self._memory.write(at, head)
        if len(head) < len(data):
            self._memory.write(0, data[len(head) :])
        if self._wmb is not None:
            self._wmb()
        self.in_ += len(data)

    def get(self, count: int) -> bytes:
        """Take up to ``count`` bytes (``kfifo_out``)."""
        count = min(count, self.in_ - self.out)
        if not count:
            return b""
        if self._rmb is not None:
            self._rmb()
        at = self.out & (self.size - 1)
        data = self._memory.read(at, min(count, self.size - at))
        if len(data) < count:
            data += self._memory.read(0, count - len(data))
        if self._mb is not None:
            self._mb()
        self.out += count
        return data

    def reset_out(self) -> int:
        """The reader drops everything that is there (``kfifo_reset_out``). Returns how many bytes."""
        end = self.in_
        dropped = end - self.out
        self.out = end
        return dropped
