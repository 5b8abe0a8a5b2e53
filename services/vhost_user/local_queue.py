"""A virtqueue in memory that its driver shares with us: the device half of the ring, and the bytes of its chains.

What a remote queue does by frames happens here on the memory itself. Chains that :meth:`LocalQueue.take` hands out stay
*in hand* until they are completed; answers are collected, and :meth:`LocalQueue.flush` writes them, publishes them with
one store of the used index and interrupts the driver where it asked for that.

The driver is not trusted: what breaks the rules of the ring breaks this queue, is told to ``on_broken``, and nothing of
the queue is touched any more until it is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import LocalError, MemoryFaultError, RemoteError, RingError
from common.virtio.depth import Depth
from common.virtio.features import Feature
from common.virtio.split_device import Segment, SplitDevice
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Chain
from common.world import Memory, World

#: Bytes that are gathered of one chain unless a device type needs more: no SCMI message is that long.
MAX_READABLE: Final = 4096

_EVENT_IDX: Final = Feature.EVENT_IDX.bit
_INDIRECT: Final = Feature.INDIRECT_DESC.bit


@dataclass(slots=True)
class QueueStats:
    """What a queue counts."""

    chains: int = 0
    used: int = 0
    interrupts: int = 0
    broken: int = 0
    #: chains taken that an earlier incarnation of the device may have processed
    again: int = 0
    #: chains that went back unprocessed when the queue stopped
    handed_back: int = 0


class LocalQueue:
    """Queue ``index``. ``interrupt()`` tells the driver; ``on_broken(index, error)`` hears why a queue broke.

    ``whole()`` is asked before memory is touched: False when the memory is not there any more, and the queue is broken
    then. Of a chain at most ``max_readable`` bytes are gathered: no message of the device may be that long.
    """

    __slots__ = (
        "_again_left", "_batch", "_in_hand", "_interrupt", "_max_readable", "_memory", "_on_broken", "_ring", "_silent",
        "_whole", "_world", "again", "broken", "depth", "index", "owed", "stats",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        world: World,
        *,
        interrupt: Callable[[], None],
        on_broken: Callable[[int, RemoteError], None],
        whole: Callable[[], bool] = lambda: True,
        max_readable: int = MAX_READABLE,
    ) -> None:
        self.index: Final = index
        self._world: Final = world
        self._interrupt: Final = interrupt
        self._on_broken: Final = on_broken
        self._whole: Final = whole
        self._max_readable: Final = max_readable
        self.stats: Final = QueueStats()
        self.depth: Final = Depth()
        self.broken = False
        #: the driver asked to be interrupted for what was published last
        self.owed = False
        #: heads in hand that an earlier incarnation of the device may have processed
        self.again: set[int] = set()
        #: how many of the next chains are such; -1: those that are available at the next look
        self._again_left = 0
        self._memory: Memory | None = None
        self._ring: SplitDevice | None = None
        #: head → (u16 avail index, writable segments), in the order of arrival
        self._in_hand: dict[int, tuple[int, Sequence[Segment]]] = {}
        #: answers to write: head, writable segments (None: nothing is written), bytes
        self._batch: list[tuple[int, Sequence[Segment] | None, bytes]] = []
        #: how many of them want no interrupt
        self._silent = 0

    # --- the ring -----------------------------------------------------------------------------------------------------

    @property
    def in_hand(self) -> int:
        """Chains taken and not completed."""
        return len(self._in_hand)

    def start(self, memory: Memory, layout: SplitLayout, features: int, base: int, *, again: bool = False) -> None:
        """Begin at avail index ``base`` and at the used index that stands in memory.

        ``again``: chains that are available at the first look may have been processed by another. Raises
        MemoryFaultError where the areas are not in ``memory``; the queue is as before then.
        """
        used = memory.view(layout.device, 2, "H")[1]
        ring = self._make(memory, layout, features, base, used)
        self._memory, self._ring = memory, ring
        self.broken = self.owed = False
        self.again.clear()
        self._in_hand.clear()
        self._batch.clear()
        self._silent = 0
        self._again_left = -1 if again else 0

    def _make(self, memory: Memory, layout: SplitLayout, features: int, avail: int, used: int) -> SplitDevice:
        return self._world.new(
            SplitDevice, self._world, memory, layout, event_idx=bool(features & _EVENT_IDX),
            indirect=bool(features & _INDIRECT), avail=avail, used=used,
        )  # fmt: skip

    def moved(self, memory: Memory, layout: SplitLayout) -> Callable[[], None]:
        """The ring as it is found in another table of memory; calling the result makes the queue go on there.

        Raises MemoryFaultError where the areas are not in ``memory``; nothing has changed then.
        """
        old = self._ring
        assert old is not None
        features = (_EVENT_IDX if old.event_idx else 0) | (_INDIRECT if old.indirect else 0)
        ring = self._make(memory, layout, features, old.last_avail_idx, old.used_idx)
        ring.signalled, ring.signalled_valid = old.signalled, old.signalled_valid
        ring.notify_off, ring.broken = old.notify_off, old.broken

        def go_on() -> None:
            self._memory, self._ring = memory, ring

        return go_on

    def stop(self, unprocessed: Sequence[int] = ()) -> int:
        """Publish what was answered and let the ring go. Returns the avail index (u16) at which to go on.

        ``unprocessed`` are the heads in hand that nothing was done with: where nothing behind them was processed they
        count as never taken; the others come back unwritten. What else is in hand is lost to the driver.
        """
        ring = self._ring
        if ring is None:
            return 0
        if not self.broken:
            left = set(unprocessed)
            tail = 0
            place = ring.last_avail_idx
            for head, (at, _) in reversed(self._in_hand.items()):
                if head not in left or at != (place - 1) & 0xFFFF:
                    break
                left.discard(head)
                place = at
                tail += 1
            ring.hand_back(tail)
            self.stats.handed_back += len(unprocessed)
            for head in [head for head in self._in_hand if head in left]:
                self.complete(head, b"")
            self.flush()
        self._ring = self._memory = None
        self.owed = False
        self._in_hand.clear()
        self._batch.clear()
        self._silent = 0
        self.again.clear()
        return ring.last_avail_idx

    # --- from the driver ----------------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Chain]:
        """Up to ``limit`` chains that the driver made available; none where there is none, or the queue broke."""
        ring, memory = self._ring, self._memory
        if ring is None or memory is None or self.broken or not self._check():
            return []
        place = ring.last_avail_idx
        chains: list[Chain] = []
        in_hand = self._in_hand
        try:
            if self._again_left < 0:
                self._again_left = ring.available()
            for head, segments, readable in ring.pop_batch(limit):
                if head in in_hand:
                    raise RingError("head", head, None, "made available twice")
                if readable == 1 and segments[0][1] <= self._max_readable:
                    request = memory.read(segments[0][0], segments[0][1])
                else:
                    request = self._gather(memory, segments[:readable])
                in_hand[head] = (place, segments[readable:])
                chains.append((head, request, segments))
                place = (place + 1) & 0xFFFF
        except RemoteError as error:
            self.fail(error)
            return []
        self.stats.chains += len(chains)
        self.depth.seen(len(in_hand))
        if self._again_left:
            repeated = [head for head, _, _ in chains[: self._again_left]]
            self._again_left -= len(repeated)
            self.stats.again += len(repeated)
            self.again.update(repeated)
        return chains

    def _gather(self, memory: Memory, segments: Sequence[Segment]) -> bytes:
        parts = []
        room = self._max_readable
        for addr, length, _ in segments:
            size = min(length, room)
            parts.append(memory.read(addr, size))
            room -= size
            if not room:
                break
        return b"".join(parts)

    def pending(self) -> bool:
        """Are there chains to take, kicked for or not?"""
        if self._ring is None or self.broken or not self._check():
            return False
        try:
            return self._ring.available() > 0
        except RingError as error:
            self.fail(error)
            return False

    def disable_notify(self) -> None:
        """Ask for no kicks."""
        if self._ring is not None and not self.broken:
            self._ring.disable_notify()

    def enable_notify(self) -> bool:
        """Ask for a kick at the next chain. True: one came meanwhile, take it."""
        if self._ring is None or self.broken:
            return False
        try:
            return self._ring.enable_notify()
        except RingError as error:
            self.fail(error)
            return False

    # --- to the driver ------------------------------------------------------------------------------------------------

    def complete(self, head: int, written: bytes) -> None:
        """Answer the chain at ``head`` with the bytes for its device-writable part; goes out at :meth:`flush`.

        Raises LocalError for a head that is not in hand.
        """
        chain = self._in_hand.pop(head, None)
        if chain is None:
            raise LocalError(f"queue {self.index}: head {head} is not in hand")
        if self.again:
            self.again.discard(head)
        self._batch.append((head, chain[1], written))

    def complete_batch(self, elems: list[tuple[int, bytes]]) -> None:
        """:meth:`complete` of several chains, in this order."""
        for head, written in elems:
            self.complete(head, written)

    def complete_together(self, elems: list[tuple[int, bytes]]) -> None:
        """:meth:`complete_batch`: what is flushed at once is published with one store of the used index."""
        self.complete_batch(elems)

    def complete_again(self, head: int, written: bytes) -> None:
        """A fault on purpose: a used element for a chain that is used already. Nothing is written into it."""
        self._batch.append((head, None, written))

    def hush(self) -> None:
        """A fault on purpose: no interrupt for the answer that was completed last. A driver that waits hears of it with
        the next one that goes out."""
        self._silent += bool(self._batch)

    def flush(self) -> int:
        """Write and publish what was completed, interrupt the driver if it wants that. Returns how many answers."""
        batch, silent = self._batch, self._silent
        if not batch:
            return 0
        self._batch, self._silent = [], 0
        ring, memory = self._ring, self._memory
        if ring is None or memory is None or self.broken or not self._check():
            return 0
        elems = []
        try:
            for head, segments, written in batch:
                size = len(written)
                if segments and size <= segments[0][1]:
                    memory.write(segments[0][0], written)
                elif segments is not None:
                    self._scatter(memory, segments, written)
                elems.append((head, size))
        except MemoryFaultError as error:  # the table changed under a chain in hand
            self.fail(error)
            return 0
        ring.push_batch(elems)
        self.stats.used += len(elems)
        self.depth.seen(len(self._in_hand))
        # not even asked for: what the ring remembers of the last interrupt stays, so that the next one is for these too
        self.owed = silent < len(batch) and ring.need_interrupt()
        if self.owed:
            self.interrupt()
        return len(elems)

    def _scatter(self, memory: Memory, segments: Sequence[Segment], written: bytes) -> None:
        at = 0
        for addr, length, _ in segments:
            if at >= len(written):
                return
            memory.write(addr, written[at : at + length])
            at += length
        if at < len(written):
            raise LocalError(f"queue {self.index}: {len(written)} bytes for a chain with room for {at}")

    def interrupt(self) -> None:
        """Tell the driver that there are used buffers."""
        self.stats.interrupts += 1
        self._interrupt()

    # --- errors -------------------------------------------------------------------------------------------------------

    def _check(self) -> bool:
        if self._whole():
            return True
        self.fail(MemoryFaultError("memory", None, None, "a shared file became shorter than its mapping"))
        return False

    def fail(self, error: RemoteError) -> None:
        """The driver broke the queue: nothing of it is touched until it is started again."""
        self.broken = True
        self.stats.broken += 1
        self._in_hand.clear()
        self._batch.clear()
        self._silent = 0
        self._on_broken(self.index, error)
