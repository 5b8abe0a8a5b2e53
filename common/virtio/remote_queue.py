"""A virtqueue as a device in another process sees it: the far end of a port.

The port (in the guest's process) reads and writes the ring; here its frames become chains to process and answers to
send. Answers are kept until the port has shown, by the ``used_idx`` of a later frame, that it wrote them, so that a
lost connection loses nothing; there are never more of them than the queue has entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from common.errors import LocalError, MemoryFaultError, RingError
from common.memory import ACCESS_RO, ACCESS_WO, MemoryKey
from common.virtio.depth import Depth
from common.virtio.features import DESC_F_WRITE
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.wire.limits import MAX_FRAME
from common.wire.messages import Avail, Chain, Create, Message, Resync, Used, UsedElem

#: Bytes of payload after which a Used frame is closed and another begun; leaves room for the array around it.
_FRAME_PAYLOAD: Final = MAX_FRAME * 3 // 4
#: Upper bound of the msgpack overhead of one used element.
_ELEM_OVERHEAD: Final = 16


class RemoteQueue:
    """Device end of queue ``index`` with ``size`` entries.

    ``send`` takes messages for the port; ``key`` is the memory key that this queue object holds. Every descriptor
    address is checked against it. Raises RingError or MemoryFaultError from :meth:`on_avail` for what the other side
    may not do; the queue is broken then until it is created again.
    """

    __slots__ = (
        "_answers", "_batch", "_batch_first", "_in_hand", "_unseen", "again", "areas", "broken", "confirmed_idx",
        "depth", "features", "index", "irq_number", "key", "live", "next_idx", "policy", "send", "size", "used_idx",
    )  # fmt: skip

    def __init__(self, index: int, send: Callable[[Message], None]) -> None:
        self.index: Final = index
        self.send = send
        self.size = 0
        #: IOVAs of the descriptor, driver and device areas
        self.areas = (0, 0, 0)
        self.features = 0
        self.policy = DEFAULT_POLICY
        self.key: MemoryKey | None = None
        #: a queue object stands at the port
        self.live = False
        self.broken = False
        #: u16, the avail index of the next chain that has not been received
        self.next_idx = 0
        #: u16, the used index that the next answer gets
        self.used_idx = 0
        #: u16, answers before this one are known to be in the ring
        self.confirmed_idx = 0
        #: the last interrupt number that the port asked for
        self.irq_number = 0
        #: chains in hand, as arrivals and answers left them
        self.depth: Final = Depth()
        #: heads that came marked ``again``: an earlier incarnation of this device may have processed them
        self.again: set[int] = set()
        #: head → u16 avail index of each chain received and not answered
        self._in_hand: dict[int, int] = {}
        #: the port holds chains from before next_idx that this incarnation has never received
        self._unseen = False
        self._answers: deque[UsedElem] = deque()
        self._batch: list[UsedElem] = []
        self._batch_first = 0

    @property
    def in_hand(self) -> int:
        """Chains received and not answered."""
        return len(self._in_hand)

    # --- the queue object ---------------------------------------------------------------------------------------------

    def create(self, key: MemoryKey, *, refetch: bool = False) -> None:
        """Have the port make the queue object under ``key`` at ``next_idx``/``used_idx``, or attach to it.

        What :meth:`complete` collected goes out first: its bytes belong to the object that stands, and the new one
        begins behind it. ``refetch`` asks for what an earlier incarnation had been given; it is implied while
        :meth:`on_resync` knows of such chains.
        """
        self.flush()
        self.key = key
        self.live = True
        self.broken = False
        policy = self.policy | PortPolicy.REFETCH if refetch or self._unseen else self.policy
        self._unseen = False  # if this is lost with the connection, the next Resync tells again
        desc, driver, device = self.areas
        self.send(
            Create(
                self.index, key.generation, self.next_idx, self.used_idx, self.size, desc, driver, device,
                self.features, int(policy),
            )
        )  # fmt: skip

    def tail(self) -> list[int]:
        """Heads of the longest run of last entries that are all in hand, oldest first: what hand_back() may take."""
        heads = {place: head for head, place in self._in_hand.items()}
        run: list[int] = []
        place = (self.next_idx - 1) & 0xFFFF
        while place in heads:
            run.append(heads.pop(place))
            place = (place - 1) & 0xFFFF
        return run[::-1]

    def hand_back(self, heads: list[int]) -> None:
        """The chains with these heads, the last ones received, count as never received: the next create() begins
        with them. Only with the port suspended.

        Raises LocalError unless they are exactly the last ``len(heads)`` avail entries, each still in hand: an entry
        that was answered in between would be fetched and completed twice.
        """
        in_hand, start = self._in_hand, (self.next_idx - len(heads)) & 0xFFFF
        places = {(in_hand[head] - start) & 0xFFFF for head in heads if head in in_hand}
        if places != set(range(len(heads))):
            raise LocalError(f"queue {self.index}: heads {heads} are not the last entries received and in hand")
        for head in heads:
            del in_hand[head]
        self.again.difference_update(heads)
        self.next_idx = start

    def reset(self) -> None:
        """Forget everything but the place in the floor plan."""
        self.__init__(self.index, self.send)  # type: ignore[misc]

    # --- from the port ------------------------------------------------------------------------------------------------

    def on_avail(self, message: Avail) -> list[Chain]:
        """The chains of a frame, checked against the key and against what is in hand."""
        if not self.live or self.broken:
            # in flight while the queue was torn down or broke: the port fetches it again or is told at reset
            return []
        assert self.key is not None
        if message.generation != self.key.generation:
            raise self._fail("avail.generation", message.generation, self.key.generation, "stale memory key")
        self.confirm(message.used_idx)
        chains, place, in_hand = message.chains, message.first_idx, self._in_hand
        if message.again:
            # a repeated refetch repeats what has arrived; an answer that is not confirmed is not in the ring yet, so
            # its head cannot have been made available anew
            known = in_hand.keys() | {answer[0] for answer in self._answers}
            fresh = [(chain, (place + i) & 0xFFFF) for i, chain in enumerate(chains) if chain[0] not in known]
            for chain, at in fresh:
                self._take(chain, at)
                self.again.add(chain[0])
            chains = [chain for chain, _ in fresh]
        else:
            if place != self.next_idx:
                raise self._fail("avail.first_idx", place, self.next_idx, "frames lost or doubled")
            for chain in chains:
                self._take(chain, place)
                place = (place + 1) & 0xFFFF
            self.next_idx = place
        flying = len(in_hand) + len(self._answers)
        if flying > self.size:
            raise self._fail("avail.chains", flying, self.size, "more chains in flight than the queue has entries")
        self.depth.seen(len(in_hand))
        return chains

    def _take(self, chain: Chain, place: int) -> None:
        """Check one chain (§2.7.4.2, §2.7.5) and take it in hand; nobody behind this needs to look again."""
        head, data, segments = chain
        if head in self._in_hand or not 0 <= head < self.size:
            raise self._fail("head", head, self.size - 1, "already in hand or out of range")
        if not 0 < len(segments) <= self.size:
            raise self._fail("chain", len(segments), self.size, "descriptors of one chain")
        assert self.key is not None
        translate = self.key.translate
        readable = 0
        writable = False
        try:
            for addr, length, flags in segments:
                if length < 0:
                    raise self._fail("chain", length, 0, "length of a descriptor")
                if flags & DESC_F_WRITE:
                    writable = True
                    translate(addr, length, ACCESS_WO)
                elif writable:
                    raise self._fail("flags", flags, None, "readable descriptor after a writable one")
                else:
                    readable += length
                    translate(addr, length, ACCESS_RO)
        except MemoryFaultError:
            self.broken = True
            raise
        if readable != len(data):
            raise self._fail("chain", len(data), readable, "bytes of the device-readable part")
        self._in_hand[head] = place

    def confirm(self, used_idx: int) -> None:
        """The port's used index stands at ``used_idx``: answers before it need not be kept."""
        if used_idx == self.confirmed_idx:
            return
        count = (used_idx - self.confirmed_idx) & 0xFFFF
        if not 0 <= used_idx <= 0xFFFF or count > len(self._answers):
            raise self._fail("avail.used_idx", used_idx, self.used_idx, "beyond what was answered")
        for _ in range(count):
            self._answers.popleft()
        self.confirmed_idx = used_idx

    def on_resync(self, message: Resync, *, fresh: bool) -> None:
        """The port says where it stands after a reconnect.

        A ``fresh`` device takes the port's indices over and will be given what is in flight; one that kept its state
        repeats the answers that the port has not seen. Raises RingError for a place where the port cannot be.
        """
        if not (0 <= message.avail_idx <= 0xFFFF and 0 <= message.used_idx <= 0xFFFF):
            raise self._fail("resync.index", (message.avail_idx, message.used_idx), 0xFFFF, "not a u16")
        self.irq_number = max(self.irq_number, message.irq_number)
        if fresh:
            self.next_idx = message.avail_idx
            self.used_idx = self.confirmed_idx = message.used_idx
            self._unseen = message.in_flight > 0
            return
        self.confirm(message.used_idx)
        ahead = (message.avail_idx - self.next_idx) & 0xFFFF
        if self.live and ahead > self.size:
            raise self._fail("resync.avail_idx", message.avail_idx, self.next_idx, "not where the port can be")
        # a refetch that the last connection lost on its way: this device's own share is what is in hand or answered
        self._unseen = message.in_flight > ahead + len(self._in_hand) + len(self._answers)
        # what waits in the batch is the tail of the kept answers: one frame says all
        self._batch = list(self._answers)
        self._batch_first = self.confirmed_idx

    # --- to the port --------------------------------------------------------------------------------------------------

    def complete(self, head: int, written: bytes) -> None:
        """Answer the chain at ``head`` with the bytes for its device-writable part; goes out at :meth:`flush`.

        Raises LocalError for a head that is not in hand.
        """
        self.complete_batch([(head, written)])

    def complete_batch(self, elems: list[UsedElem]) -> None:
        """:meth:`complete` of several chains, in this order."""
        pop = self._in_hand.pop
        for head, _ in elems:
            if pop(head, None) is None:
                raise LocalError(f"queue {self.index}: head {head} is not in hand")
        if self.again:
            self.again.difference_update([head for head, _ in elems])
        self._answer(elems)

    def complete_again(self, head: int, written: bytes) -> None:
        """A fault on purpose: use a chain that is used already. Only with PortPolicy.UNCHECKED does it get as far as
        the ring; other ports close the link."""
        self._answer([(head, written)])

    def hush(self) -> None:
        """Nothing: the port interrupts as the ring says."""

    def _answer(self, elems: list[UsedElem]) -> None:
        if not self._batch:
            self._batch_first = self.used_idx
        self._batch += elems
        self._answers.extend(elems)
        self.used_idx = (self.used_idx + len(elems)) & 0xFFFF

    def flush(self) -> int:
        """Send what complete() collected, as one frame where it fits. Returns how many answers."""
        batch = self._batch
        if not batch:
            return 0
        self._batch = []
        self.depth.seen(len(self._in_hand))
        first = self._batch_first
        total = 0
        for _, written in batch:
            total += len(written)
        if total + _ELEM_OVERHEAD * len(batch) <= _FRAME_PAYLOAD:
            self.send(Used(self.index, first, batch))
            return len(batch)
        part: list[UsedElem] = []
        room = _FRAME_PAYLOAD
        for elem in batch:
            need = len(elem[1]) + _ELEM_OVERHEAD
            if part and need > room:
                self.send(Used(self.index, first, part))
                first = (first + len(part)) & 0xFFFF
                part, room = [], _FRAME_PAYLOAD
            part.append(elem)
            room -= need
        self.send(Used(self.index, first, part))
        return len(batch)

    def _fail(self, field: str, value: object, limit: object, detail: str) -> RingError:
        self.broken = True
        return RingError(field, value, limit, detail)
