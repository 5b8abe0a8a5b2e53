"""Where things lie in guest memory: a bump allocator, as a boot loader would lay out static areas."""

from __future__ import annotations

from typing import Final

from common.errors import LocalError
from common.virtio.split_layout import SplitLayout

#: Bytes that the alignment of a ring's areas may take.
_RING_GAPS: Final = 128


class Layout:
    """Hands out areas of ``size`` bytes of guest memory that begin at ``base``; nothing is ever given back."""

    __slots__ = ("_next", "base", "end")

    def __init__(self, base: int, size: int) -> None:
        self.base: Final = base
        self.end: Final = base + size
        self._next = base

    def alloc(self, size: int, align: int = 64) -> int:
        """Guest address of ``size`` bytes aligned to ``align`` (a power of two). Raises LocalError when memory is
        used up."""
        addr = (self._next + align - 1) & ~(align - 1)
        if addr + size > self.end:
            raise LocalError(f"guest memory used up: {size} bytes wanted, {self.end - addr} left")
        self._next = addr + size
        return addr

    def ring(self, size: int) -> SplitLayout:
        """The three areas of a split virtqueue of ``size`` entries, on a page of their own. Raises LocalError when
        memory is used up."""
        return SplitLayout.packed_at(self.alloc(sum(SplitLayout.sizes(size)) + _RING_GAPS, 4096), size)

    @property
    def used(self) -> int:
        """Bytes handed out, gaps included."""
        return self._next - self.base
