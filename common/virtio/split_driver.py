"""The driver half of a split virtqueue (virtio 1.3 §2.7), named as in Linux's ``virtio_ring.c``.

The *poll snapshot* is the full count of consumed entries, not a 16-bit index: a 16-bit snapshot taken before 2^16
further completions compares equal although a reply waits in the ring (ABA). :meth:`SplitDriver.poll` reads
``used->idx`` first and the count after it; the other order would call a wrap between the two reads "nothing new".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from common.errors import LocalError, RingError, RingFullError
from common.virtio.features import (
    AVAIL_F_NO_INTERRUPT,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    USED_F_NO_NOTIFY,
)
from common.virtio.split_layout import DESC_BYTES, SplitLayout, SplitViews, need_event
from common.world import Array, Memory, View, World

Buffer = Sequence[tuple[int, int]]
"""``[(addr, len), …]``: the pieces of one side of a buffer, as addresses that the device understands."""


class SplitDriver:
    """What a Linux driver uses of a split virtqueue: make one with ``world.new(SplitDriver, world, memory, layout)``.

    ``start`` is the index (u16) at which all indices begin, in memory too; the device half must start at the same.
    ``indirect`` is the guest address of ``size * indirect_max`` descriptors (16 bytes each) for indirect tables, one
    table a head; without it no chain is ever indirect. No table is longer than the queue (§2.7.5.3.1). Not thread-safe:
    callers serialise, as Linux's do with their lock.
    """

    __slots__ = (
        "_addr", "_avail", "_avail_event", "_half", "_indirect", "_indirect_max", "_length", "_memory", "_mb", "_rmb",
        "_used", "_used_ring", "_wmb", "avail_flags", "avail_idx", "broken", "chain_len", "consumed", "event_idx",
        "free_head", "last_used_idx", "next_free", "num_added", "num_free", "size", "tokens",
    )  # fmt: skip

    size: Final[int]
    event_idx: Final[bool]
    _memory: Final[Memory]
    _addr: Final[View]
    _length: Final[View]
    _half: Final[View]
    _avail: Final[View]
    _avail_event: Final[View]
    _used: Final[View]
    _used_ring: Final[View]
    _indirect: Final[int | None]
    _indirect_max: Final[int]
    tokens: Final[Array[Any]]
    chain_len: Final[Array[int]]
    next_free: Final[Array[int]]

    def __init__(
        self,
        world: World,
        memory: Memory,
        layout: SplitLayout,
        *,
        event_idx: bool = False,
        start: int = 0,
        indirect: int | None = None,
        indirect_max: int = 0,
    ) -> None:
        views = SplitViews(memory, layout)
        size = self.size = layout.size
        self.event_idx = event_idx
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
        self._indirect = indirect
        self._indirect_max = min(indirect_max, size)
        #: the caller's token of the buffer whose chain starts at this head, None where no chain does
        self.tokens = world.array(size)
        #: descriptors in the table that the chain at this head takes
        self.chain_len = world.array(size, 0)
        #: the free list and the order inside chains, kept privately: the device cannot change it
        self.next_free = world.array(size, 0)
        self._begin(start & 0xFFFF)
        #: full count of used elements taken; its low 16 bits are last_used_idx
        self.consumed = start & 0xFFFF

    def _begin(self, begin: int) -> None:
        """An empty ring at index ``begin``."""
        size = self.size
        # the areas begin as a device expects them, whatever an earlier queue left in this memory (§2.7.6, §2.7.8)
        for area in (self._avail, self._used):
            area[0] = 0
            area[1] = begin
        self._avail[2 + size] = self._avail_event[0] = begin
        for i in range(size):
            self.next_free[i] = (i + 1) % size
        self.free_head = 0
        self.num_free = size
        #: u16, what avail->idx holds
        self.avail_idx = begin
        #: buffers added since the last kick_prepare()
        self.num_added = 0
        #: u16, the next used element to take
        self.last_used_idx = begin
        #: what avail->flags holds
        self.avail_flags = 0
        self.broken = False

    def reinit(self, start: int = 0) -> list[Any]:
        """After a reset of this queue (§2.6.1), before it is enabled again: an empty ring at index ``start``, as new.

        Returns the tokens of the buffers that were in the ring, by head. What the device had used and nobody taken
        counts among them: take it first. A broken queue is whole again. Snapshots taken before differ from later ones.
        """
        tokens = []
        for head in range(self.size):
            token = self.tokens[head]
            if token is not None:
                tokens.append(token)
                self.tokens[head] = None
        self._begin(start & 0xFFFF)
        self.consumed = (self.consumed | 0xFFFF) + 1 + self.last_used_idx
        return tokens

    # --- making buffers available (§2.7.13) ----------------------------------------------------------------------

    def add(self, outs: Buffer, ins: Buffer, token: Any) -> int:
        """Expose one buffer: device-readable ``outs`` before device-writable ``ins`` (§2.7.4.2). Returns the head.

        ``token`` comes back from :meth:`get_buf`; it must not be None. Raises RingFullError (nothing added),
        LocalError for an empty buffer, RingError once the queue is broken.
        """
        count = len(outs) + len(ins)
        if count == 0 or token is None:
            raise LocalError("add: a buffer needs a piece and a token")
        if self.broken:
            raise RingError("broken")
        if self._indirect is not None and 1 < count <= self._indirect_max:
            return self._add_indirect(outs, ins, token)
        if count > self.num_free:
            raise RingFullError(f"{count} descriptors needed, {self.num_free} free")
        head = i = self.free_head
        addr, length, half, following = self._addr, self._length, self._half, self.next_free
        left = count
        for a, n in outs:
            left -= 1
            addr[2 * i] = a
            length[4 * i + 2] = n
            after = following[i]
            if left:
                half[8 * i + 6] = DESC_F_NEXT
                half[8 * i + 7] = after
            else:
                half[8 * i + 6] = 0
            i = after
        for a, n in ins:
            left -= 1
            addr[2 * i] = a
            length[4 * i + 2] = n
            after = following[i]
            if left:
                half[8 * i + 6] = DESC_F_WRITE | DESC_F_NEXT
                half[8 * i + 7] = after
            else:
                half[8 * i + 6] = DESC_F_WRITE
            i = after
        self.free_head = i
        self.num_free -= count
        self.tokens[head] = token
        self.chain_len[head] = count
        self._publish(head)
        return head

    def _add_indirect(self, outs: Buffer, ins: Buffer, token: Any) -> int:
        """One descriptor that points to a table of them (§2.7.5.3)."""
        if not self.num_free:
            raise RingFullError("1 descriptor needed, 0 free")
        assert self._indirect is not None
        count = len(outs) + len(ins)
        head = self.free_head
        table = self._indirect + head * self._indirect_max * DESC_BYTES
        addr = self._memory.view(table, 2 * count, "Q")
        length = self._memory.view(table, 4 * count, "I")
        half = self._memory.view(table, 8 * count, "H")
        for i, (a, n) in enumerate((*outs, *ins)):
            flags = DESC_F_WRITE if i >= len(outs) else 0
            addr[2 * i] = a
            length[4 * i + 2] = n
            half[8 * i + 6] = flags | DESC_F_NEXT if i + 1 < count else flags
            half[8 * i + 7] = i + 1 if i + 1 < count else 0
        self._addr[2 * head] = table
        self._length[4 * head + 2] = count * DESC_BYTES
        self._half[8 * head + 6] = DESC_F_INDIRECT
        self.free_head = self.next_free[head]
        self.num_free -= 1
        self.tokens[head] = token
        self.chain_len[head] = 1
        self._publish(head)
        return head

    def _publish(self, head: int) -> None:
        idx = self.avail_idx
        self._avail[2 + (idx & (self.size - 1))] = head
        # descriptors and the ring entry must be visible before the index that exposes them (§2.7.13.2)
        if self._wmb is not None:
            self._wmb()
        self.avail_idx = idx = (idx + 1) & 0xFFFF
        self._avail[1] = idx
        self.num_added += 1

    def add_batch(self, buffers: Iterable[tuple[int, int, Any]], flags: int) -> int:
        """Expose buffers of one descriptor each, ``(addr, len, token)``, with one store of avail->idx for all.

        ``flags`` is 0 for device-readable, DESC_F_WRITE for device-writable buffers. Returns how many were added:
        fewer than given where the ring is full. Equal in effect to :meth:`add` one by one (a property test says so).
        """
        if self.broken:
            raise RingError("broken")
        addr, length, half, following = self._addr, self._length, self._half, self.next_free
        avail, tokens, chain_len, wrap = self._avail, self.tokens, self.chain_len, self.size - 1
        idx = first = self.avail_idx
        free, i = self.num_free, self.free_head
        try:
            for a, n, token in islice(buffers, free):
                if token is None:
                    raise LocalError("add_batch: a buffer needs a token")
                addr[2 * i] = a
                length[4 * i + 2] = n
                half[8 * i + 6] = flags
                tokens[i] = token
                chain_len[i] = 1
                avail[2 + (idx & wrap)] = i
                idx += 1
                i = following[i]
        finally:  # what came before a buffer that raises is added, as it would be one by one
            self.free_head = i
            added = idx - first
            self.num_free = free - added
            if added:
                if self._wmb is not None:
                    self._wmb()
                self.avail_idx = idx = idx & 0xFFFF
                avail[1] = idx
                self.num_added += added
        return added

    def kick_prepare(self) -> bool:
        """Must the device be notified of what was added since the last call? (§2.7.13.4, with EVENT_IDX §2.7.10)"""
        # the index must be visible before the suppression is looked at, or both sides go to sleep
        if self._mb is not None:
            self._mb()
        new, added = self.avail_idx, self.num_added
        self.num_added = 0
        if self.event_idx:
            # 2^16 buffers without a look pass every event index there is
            return added > 0xFFFF or need_event(self._avail_event[0], new, new - added)
        return not self._used[0] & USED_F_NO_NOTIFY

    # --- taking used buffers (§2.7.14) -------------------------------------------------------------------------------

    def get_buf(self) -> tuple[Any, int] | None:
        """The next used buffer: ``(token, bytes written)``, or None. Raises RingError if the device lies."""
        if self.broken:
            raise RingError("broken")
        last = self.last_used_idx
        pending = (self._used[1] - last) & 0xFFFF
        if not pending:
            return None
        if pending > self.size:
            self.broken = True
            raise RingError("used.idx", pending, self.size, "used index jumped")
        # the element must be read after the index that exposes it
        if self._rmb is not None:
            self._rmb()
        slot = 2 * (last & (self.size - 1))
        head = self._used_ring[slot]
        length = self._used_ring[slot + 1]
        token = self._detach(head)
        self.last_used_idx = last = (last + 1) & 0xFFFF
        self.consumed += 1
        if self.event_idx and not self.avail_flags & AVAIL_F_NO_INTERRUPT:
            self._avail[2 + self.size] = last
            # the event index must be visible before the next look at used->idx
            if self._mb is not None:
                self._mb()
        return token, length

    def get_bufs(self, limit: int) -> list[tuple[Any, int]]:
        """Up to ``limit`` used buffers in used order: :meth:`get_buf` in a batch, one event-index store for all.

        Buffers before an element that lies are returned; that element raises on the next call.
        """
        if self.broken:
            raise RingError("broken")
        last = self.last_used_idx
        pending = (self._used[1] - last) & 0xFFFF
        if not pending:
            return []
        if pending > self.size:
            self.broken = True
            raise RingError("used.idx", pending, self.size, "used index jumped")
        if self._rmb is not None:
            self._rmb()
        ring, size, tokens, chain_len = self._used_ring, self.size, self.tokens, self.chain_len
        following, wrap = self.next_free, size - 1
        count = min(pending, limit)
        taken: list[tuple[Any, int]] = []
        try:
            for i in range(last, last + count):
                slot = 2 * (i & wrap)
                head = ring[slot]
                token = tokens[head] if head < size else None
                if token is None or chain_len[head] != 1:
                    token = self._detach(head)
                else:  # _detach() of a single descriptor
                    tokens[head] = None
                    following[head] = self.free_head
                    self.free_head = head
                    self.num_free += 1
                taken.append((token, ring[slot + 1]))
        except RingError:
            if not taken:
                raise
            # the next call meets the same element again and raises
            self.broken = False
            count = len(taken)
        self.last_used_idx = last = (last + count) & 0xFFFF
        self.consumed += count
        if self.event_idx and not self.avail_flags & AVAIL_F_NO_INTERRUPT:
            self._avail[2 + self.size] = last
            if self._mb is not None:
                self._mb()
        return taken

    def _detach(self, head: int) -> Any:
        """Return the chain at ``head`` to the free list; gives its token."""
        token = self.tokens[head] if head < self.size else None
        if token is None:
            self.broken = True
            raise RingError("used.id", head, self.size, "is not a head in flight")
        self.tokens[head] = None
        count = self.chain_len[head]
        tail = head
        for _ in range(count - 1):
            tail = self.next_free[tail]
        self.next_free[tail] = self.free_head
        self.free_head = head
        self.num_free += count
        return token

    def detach_unused(self) -> Any | None:
        """Take back one buffer that the device never used, after the queue was stopped; its token, or None at the
        end (Linux ``virtqueue_detach_unused_buf``). Works on a broken queue too."""
        for head in range(self.size):
            if self.tokens[head] is not None:
                token = self._detach(head)
                self.avail_idx = (self.avail_idx - 1) & 0xFFFF
                self._avail[1] = self.avail_idx
                return token
        return None

    @property
    def in_flight(self) -> int:
        """Descriptors that the device may own."""
        return self.size - self.num_free

    # --- interrupts and polling (§2.7.7, §2.7.8) ---------------------------------------------------------------------

    def disable_cb(self) -> None:
        """Ask for no interrupts: a hint, the driver must still accept them."""
        if not self.avail_flags & AVAIL_F_NO_INTERRUPT:
            self.avail_flags |= AVAIL_F_NO_INTERRUPT
            if self.event_idx:
                # an event index just behind: not reached for another 2^16 - 1 elements
                self._avail[2 + self.size] = (self.last_used_idx - 1) & 0xFFFF
            else:
                self._avail[0] = self.avail_flags

    def enable_cb_prepare(self) -> int:
        """Ask for an interrupt at the next used element. Returns the snapshot for :meth:`poll`."""
        if self.avail_flags & AVAIL_F_NO_INTERRUPT:
            self.avail_flags &= ~AVAIL_F_NO_INTERRUPT
            if not self.event_idx:
                self._avail[0] = self.avail_flags
        if self.event_idx:
            self._avail[2 + self.size] = self.last_used_idx
        return self.snapshot()

    def snapshot(self) -> int:
        """Where the driver stands: the full count of consumed elements."""
        return self.consumed

    def poll(self, snapshot: int) -> bool:
        """Did anything come since ``snapshot`` that a caller should look for with get_buf()?

        May be called without the caller's lock. True is a hint (another CPU may have taken it); False is a promise:
        at the moment when used->idx was read, every used element had been consumed, and none since the snapshot.
        """
        if self._mb is not None:
            self._mb()
        idx = self._used[1]
        if self._rmb is not None:
            self._rmb()
        count = self.consumed
        return count != snapshot or idx != count & 0xFFFF

    def enable_cb(self) -> bool:
        """Ask for interrupts again. False: something came meanwhile, look before you sleep."""
        return not self.poll(self.enable_cb_prepare())
