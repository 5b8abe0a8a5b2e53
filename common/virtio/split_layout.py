"""Where the three areas of a split virtqueue lie (virtio 1.3 §2.7), and the views that both halves index.

================  ==========================================  =========  ======
area              layout                                      bytes      align
================  ==========================================  =========  ======
descriptor table  size × {u64 addr, u32 len, u16 flags, next} 16 × size  16
driver (avail)    u16 flags, idx, ring[size], used_event      6 + 2×size 2
device (used)     u16 flags, idx, size × {u32 id, len},       6 + 8×size 4
                  u16 avail_event
================  ==========================================  =========  ======
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import LocalError
from common.memory import ACCESS_RW
from common.virtio.features import MAX_QUEUE_SIZE
from common.world import Memory, View

#: Index of ``addr`` of descriptor i in the u64 view is ``2*i``, of ``len`` in the u32 view ``4*i + 2``,
#: of ``flags`` and ``next`` in the u16 view ``8*i + 6`` and ``8*i + 7``.
DESC_BYTES = 16


@dataclass(slots=True, frozen=True)
class SplitLayout:
    """Addresses (bytes) of the areas of one queue of ``size`` entries, a power of two up to 32768.

    Raises LocalError for a size or alignment that virtio 1.3 §2.7 does not allow.
    """

    size: int
    desc: int
    driver: int
    device: int

    def __post_init__(self) -> None:
        if not 0 < self.size <= MAX_QUEUE_SIZE or self.size & (self.size - 1):
            raise LocalError(f"queue size {self.size}: not a power of two up to {MAX_QUEUE_SIZE}")
        for name, addr, align in (("desc", self.desc, 16), ("driver", self.driver, 2), ("device", self.device, 4)):
            if addr < 0 or addr % align:
                raise LocalError(f"{name} area at {addr:#x}: not aligned to {align} bytes")

    @staticmethod
    def sizes(size: int) -> tuple[int, int, int]:
        """Bytes of the descriptor table, the driver area and the device area."""
        return DESC_BYTES * size, 6 + 2 * size, 6 + 8 * size

    @classmethod
    def packed_at(cls, base: int, size: int) -> SplitLayout:
        """The three areas one behind the other from ``base`` (16-byte aligned), each on a 64-byte line."""
        desc, driver, _ = cls.sizes(size)
        second = (base + desc + 63) & ~63
        third = (second + driver + 63) & ~63
        return cls(size, base, second, third)

    @property
    def end(self) -> int:
        """First byte after the device area when made by :meth:`packed_at`."""
        return self.device + self.sizes(self.size)[2]


class SplitViews:
    """The ring's memory as cells, shared by nobody in another width: see :class:`SplitLayout`.

    A device writes its own area only (virtio 1.3 §2.7): a memory map must grant that, and reading of the others.
    """

    __slots__ = ("addr", "avail", "avail_event", "half", "length", "used", "used_ring")

    def __init__(self, memory: Memory, layout: SplitLayout) -> None:
        size = layout.size
        self.addr: View = memory.view(layout.desc, 2 * size, "Q")
        self.length: View = memory.view(layout.desc, 4 * size, "I")
        self.half: View = memory.view(layout.desc, 8 * size, "H")
        #: flags, idx, ring[size], used_event
        self.avail: View = memory.view(layout.driver, 3 + size, "H")
        #: flags, idx
        self.used: View = memory.view(layout.device, 2, "H", ACCESS_RW)
        #: id, len of each element
        self.used_ring: View = memory.view(layout.device + 4, 2 * size, "I", ACCESS_RW)
        self.avail_event: View = memory.view(layout.device + 4 + 8 * size, 1, "H", ACCESS_RW)


def need_event(event: int, new: int, old: int) -> bool:
    """Did an index that moved from ``old`` to ``new`` (u16) pass ``event``? (virtio 1.3 §2.7.10)"""
    return ((new - event - 1) & 0xFFFF) < ((new - old) & 0xFFFF)
