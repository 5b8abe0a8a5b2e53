"""The device half of a split virtqueue (virtio 1.3 §2.7).

Nothing that the driver wrote is trusted: each ring field is read once, checked, and a violation breaks this queue
alone, with a :class:`RingError` that names the field. Indices are read when the caller says so, never behind its back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.errors import LocalError, MemoryFaultError, RingError
from common.virtio.features import (
    AVAIL_F_NO_INTERRUPT,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    USED_F_NO_NOTIFY,
)
from common.virtio.split_layout import DESC_BYTES, SplitLayout, SplitViews, need_event
from common.world import Memory, View, World

Segment = tuple[int, int, int]
"""``(addr, len, flags)`` of one descriptor, as read."""

Popped = tuple[int, tuple[Segment, ...], int]
"""``(head, segments, readable)``: the first ``readable`` segments are device-readable, the others writable."""


class SplitDevice:
    """What a device does with a split virtqueue: ``world.new(SplitDevice, world, memory, layout)``.

    ``memory`` is guest memory as this device may reach it (through its memory key, where it has one); indirect
    tables are read from it. With ``check`` every segment is checked against it when popped; a caller that translates
    each segment anyway passes False. ``avail`` and ``used`` are the indices (u16) at which to go on.
    """

    __slots__ = (
        "_addr", "_avail", "_avail_event", "_half", "_length", "_mb", "_memory", "_rmb", "_used", "_used_ring",
        "_wmb", "broken", "check", "event_idx", "indirect", "last_avail_idx", "notify_off", "signalled",
        "signalled_valid", "size", "used_idx",
    )  # fmt: skip

    size: Final[int]
    event_idx: Final[bool]
    indirect: Final[bool]
    check: Final[bool]
    _memory: Final[Memory]
    _addr: Final[View]
    _length: Final[View]
    _half: Final[View]
    _avail: Final[View]
    _avail_event: Final[View]
    _used: Final[View]
    _used_ring: Final[View]

    def __init__(
        self,
        world: World,
        memory: Memory,
        layout: SplitLayout,
        *,
        event_idx: bool = False,
        indirect: bool = True,
        check: bool = True,
        avail: int = 0,
        used: int = 0,
    ) -> None:
        views = SplitViews(memory, layout)
        self.size = layout.size
        self.event_idx = event_idx
        self.indirect = indirect
        self.check = check
        self._memory = memory
        self._addr = views.addr
        self._length = views.length
        self._half = views.half
        self._avail = views.avail
        self._avail_event = views.avail_event
        self._used = views.used
        self._used_ring = views.used_ring
        self._wmb: Final = world.wmb
        self._rmb: Final = world.rmb
        self._mb: Final = world.mb
        #: u16, the next avail entry to take
        self.last_avail_idx = avail & 0xFFFF
        #: u16, what used->idx holds
        self.used_idx = used & 0xFFFF
        #: used index at the last decision whether to interrupt (§2.7.10)
        self.signalled = used & 0xFFFF
        self.signalled_valid = False
        self.notify_off = False
        self.broken = False

    def _fail(self, field: str, value: object, limit: object, detail: str) -> RingError:
        self.broken = True
        return RingError(field, value, limit, detail)

    # --- taking available buffers ------------------------------------------------------------------------------------

    def available(self) -> int:
        """Reads avail->idx: how many entries wait. Raises RingError if the index jumped by more than the size."""
        if self.broken:
            raise RingError("broken")
        count = (self._avail[1] - self.last_avail_idx) & 0xFFFF
        if count > self.size:
            raise self._fail("avail.idx", count, self.size, "available index jumped")
        # entries must be read after the index that exposes them
        if count and self._rmb is not None:
            self._rmb()
        return count

    @property
    def waiting(self) -> int:
        """Reads avail->idx and believes it: how many entries wait, for those who only count."""
        return (self._avail[1] - self.last_avail_idx) & 0xFFFF

    def pop(self) -> Popped | None:
        """The next available chain, or None. Raises RingError for a malformed one; the queue is broken then."""
        if not self.available():
            return None
        return self._take()

    def pop_batch(self, limit: int) -> list[Popped]:
        """Up to ``limit`` chains after one look at avail->idx.

        Chains before a malformed one are returned; the malformed one raises on the next call.
        """
        return self.take_batch(min(self.available(), limit))

    def take_batch(self, count: int) -> list[Popped]:
        """The next ``count`` chains, which the caller knows to be available: avail->idx is not looked at.

        Chains before a malformed one are returned; the malformed one raises on the next call.
        """
        if self.broken:
            raise RingError("broken")
        chains = []
        take = self._take
        try:
            for _ in range(count):
                chains.append(take())
        except RingError:
            if not chains:
                raise
            # the queue's next pop meets the same entry again and raises
            self.broken = False
        return chains

    def _take(self) -> Popped:
        size = self.size
        head = self._avail[2 + (self.last_avail_idx & (size - 1))]
        if head >= size:
            raise self._fail("head", head, size - 1, "available ring names no descriptor")
        half = self._half
        flags = half[8 * head + 6]
        if not flags & (DESC_F_NEXT | DESC_F_INDIRECT):
            segment = (self._addr[2 * head], self._length[4 * head + 2], flags)
            if self.check:
                self._check(segment)
            self.last_avail_idx = (self.last_avail_idx + 1) & 0xFFFF
            return head, (segment,), 0 if flags & DESC_F_WRITE else 1
        popped = self._walk(head, flags)
        self.last_avail_idx = (self.last_avail_idx + 1) & 0xFFFF
        return popped

    def _walk(self, head: int, flags: int) -> Popped:
        """Follow a chain, into an indirect table where it points to one (§2.7.5.3)."""
        addr, length, half = self._addr, self._length, self._half
        limit = size = self.size
        segments: list[Segment] = []
        readable = 0
        writable = False
        in_table = False
        i = head
        while True:
            a, n = addr[2 * i], length[4 * i + 2]
            if flags & DESC_F_INDIRECT:
                if not self.indirect or in_table or flags & DESC_F_NEXT:
                    raise self._fail("indirect", hex(flags), None, "not negotiated, nested, or chained on")
                if n == 0 or n % DESC_BYTES or n // DESC_BYTES > size:
                    raise self._fail("indirect", n, size * DESC_BYTES, "bytes of an indirect table")
                limit = n // DESC_BYTES
                try:
                    addr = self._memory.view(a, 2 * limit, "Q")
                    length = self._memory.view(a, 4 * limit, "I")
                    half = self._memory.view(a, 8 * limit, "H")
                except (MemoryFaultError, LocalError) as error:  # outside memory, or cells not aligned
                    raise self._fail("indirect", hex(a), None, str(error)) from None
                in_table = True
                i = 0
                flags = half[6]
                continue
            if len(segments) >= size:
                raise self._fail("chain", len(segments) + 1, size, "descriptor loop or a chain longer than the queue")
            if flags & DESC_F_WRITE:
                writable = True
            elif writable:
                raise self._fail("flags", hex(flags), None, "readable descriptor after a writable one")
            else:
                readable += 1
            segment = (a, n, flags)
            if self.check:
                self._check(segment)
            segments.append(segment)
            if not flags & DESC_F_NEXT:
                return head, tuple(segments), readable
            i = half[8 * i + 7]
            if i >= limit:
                raise self._fail("next", i, limit - 1, "chain leaves its table")
            flags = half[8 * i + 6]

    def _check(self, segment: Segment) -> None:
        try:
            self._memory.check(segment[0], segment[1])
        except MemoryFaultError as fault:
            raise self._fail("addr", hex(segment[0]), None, str(fault)) from None

    def hand_back(self, count: int) -> None:
        """The last ``count`` entries taken count as never taken (what is fetched but not processed at a suspend)."""
        self.last_avail_idx = (self.last_avail_idx - count) & 0xFFFF

    @property
    def published(self) -> int:
        """u16, used->idx as it stands in memory."""
        return self._used[1]

    # --- giving buffers back -----------------------------------------------------------------------------------------

    def push(self, head: int, written: int) -> None:
        """Publish one used element: ``written`` bytes were written into the chain's device-writable part (§2.7.8)."""
        idx = self.used_idx
        slot = 2 * (idx & (self.size - 1))
        self._used_ring[slot] = head
        self._used_ring[slot + 1] = written
        if self._wmb is not None:
            self._wmb()
        self.used_idx = idx = (idx + 1) & 0xFFFF
        if idx == self.signalled:
            self.signalled_valid = False  # 2^16 elements since: the distance to it says nothing any more
        self._used[1] = idx

    def push_batch(self, elems: Sequence[tuple[int, int]]) -> None:
        """Publish several used elements ``(head, written)`` with one store of used->idx."""
        if not elems:
            return
        idx, wrap, ring = self.used_idx, self.size - 1, self._used_ring
        for head, written in elems:
            slot = 2 * (idx & wrap)
            ring[slot] = head
            ring[slot + 1] = written
            idx += 1
        if self._wmb is not None:
            self._wmb()
        idx &= 0xFFFF
        if (idx - self.signalled) & 0xFFFF < len(elems):
            self.signalled_valid = False
        self.used_idx = idx
        self._used[1] = idx

    def need_interrupt(self) -> bool:
        """Does the driver want to hear of what was published since the last call? (§2.7.7, §2.7.10)"""
        if self._mb is not None:
            self._mb()
        if not self.event_idx:
            return not self._avail[0] & AVAIL_F_NO_INTERRUPT
        old, new = self.signalled, self.used_idx
        self.signalled = new
        if not self.signalled_valid:
            self.signalled_valid = True
            return True
        return need_event(self._avail[2 + self.size], new, old)

    # --- notifications from the driver --------------------------------------------------------------------------------

    def disable_notify(self) -> None:
        """Ask for no kicks while this side polls: a hint."""
        self.notify_off = True
        if not self.event_idx:
            self._used[0] = USED_F_NO_NOTIFY

    def arm_notify(self) -> None:
        """Ask for a kick at the next available entry, without the last look of :meth:`enable_notify`."""
        self.notify_off = False
        if self.event_idx:
            self._avail_event[0] = self.last_avail_idx
        else:
            self._used[0] = 0

    def enable_notify(self) -> bool:
        """Ask for a kick at the next available entry. True: something came meanwhile, look before you sleep."""
        self.arm_notify()
        # the request must be visible before the last look
        if self._mb is not None:
            self._mb()
        return self.available() > 0
