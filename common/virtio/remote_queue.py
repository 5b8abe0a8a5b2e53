"""A virtqueue as a device in another process sees it: the far end of a port.

The port (in the guest's process) reads and writes the ring; here its frames become chains to process and answers to
send. Answers are kept until the port has shown, by the ``used_idx`` of a later frame, that it wrote them, so that a
lost connection loses nothing; there are never more of them than the queue has entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from common.errors import LocalError, MemoryFaultError, RingError
from common.memory import ACCESS_RO, ACCESS_WO, MemoryKey
from common.virtio.depth import Depth
from common.virtio.features import DESC_F_WRITE
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.wire.limits import MAX_FRAME
from common.wire.messages import (
    Avail,
    Chain,
    Create,
    Destroy,
    Message,
    Resume,
    Resync,
    Saved,
    Suspend,
    Used,
    UsedElem,
)

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
        "_answers", "_batch_first", "_behind", "_glued", "_in_hand", "_owed", "_unseen", "again", "areas", "avail_idx",
        "batch", "broken", "confirmed_idx", "depth", "features", "index", "irq_number", "key", "live", "next_idx",
        "policy", "running", "saved_idx", "send", "size", "used_idx",
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
        #: and it was told to fetch (mlx5: RDY)
        self.running = False
        self.broken = False
        #: u16, the avail index of the next chain that has not been received
        self.next_idx = 0
        #: u16, how far the driver had got when the port last said where it stands (vhost: ``avail_idx``)
        self.avail_idx = 0
        #: u16, where the queue had got when it last stopped; None before (see :meth:`state`)
        self.saved_idx: int | None = None
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
        #: how many of those, and u16, how far this queue's used index is behind its avail index when all is done
        self._owed = 0
        self._behind = 0
        self._answers: deque[UsedElem] = deque()
        #: answers that wait for :meth:`flush`
        self.batch: list[UsedElem] = []
        self._batch_first = 0
        #: heads of answers that the driver must not see without the answer before them
        self._glued: set[int] = set()

    @property
    def in_hand(self) -> int:
        """Chains received and not answered."""
        return len(self._in_hand)

    # --- the queue object ---------------------------------------------------------------------------------------------

    def create(self, key: MemoryKey, *, refetch: bool = False) -> None:
        """Have the port make the queue object under ``key`` at ``next_idx``/``used_idx``, or attach to it; it fetches
        after :meth:`resume`.

        What :meth:`complete` collected goes out first: its bytes belong to the object that stands, and the new one
        begins behind it. ``refetch`` asks for what an earlier incarnation had been given; it is implied while
        :meth:`on_resync` knows of such chains.
        """
        self.flush()
        self.key = key
        self.live = True
        self.running = False
        self.broken = False
        policy = self.policy | PortPolicy.REFETCH if refetch or self._unseen else self.policy
        self._unseen = False  # if this is lost with the connection, the next Resync tells again
        desc, driver, device = self.areas
        self.send(
            Create(
                self.index, key.generation, self.next_idx, self.avail_idx, self.used_idx, self.size, desc, driver,
                device, self.features, int(policy),
            )
        )  # fmt: skip

    def resume(self) -> None:
        """The queue object may fetch."""
        self.running = True
        self.send(Resume(self.index))

    def suspend(self) -> None:
        """Have the port stop fetching; it answers with Saved: :meth:`on_saved`."""
        self.running = False
        self.send(Suspend(self.index))

    def on_saved(self, message: Saved) -> None:
        """The port fetches no more, and everything that it had fetched has arrived. Raises RingError where it says
        otherwise: what it fetched and this side has not would be lost."""
        if self.live and not self.broken and message.index != self.next_idx:
            raise self._fail("saved.index", message.index, self.next_idx, "not where what was fetched ends")
        self.avail_idx = message.avail & 0xFFFF

    def save(self) -> int:
        """The queue stops, or is about to: remember where it has got, all that is in hand counting as not processed.
        Returns that avail index (u16)."""
        if self._owed:  # what is in flight has not all come again: only what was answered counts
            self.saved_idx = (self.used_idx + self._behind) & 0xFFFF
            return self.saved_idx
        self.saved_idx = (self.next_idx - len(self.tail())) & 0xFFFF
        return self.saved_idx

    def destroy(self) -> None:
        """Have the port drop the queue object. What it had got to stays known."""
        self.live = self.running = False
        self.send(Destroy(self.index))

    @property
    def state(self) -> int:
        """u16, the avail index that vDPA's ``get_vq_state`` answers: of a queue object that stands the next entry that
        it takes, of one that is gone what was remembered of it when it stopped (mlx5 answers so too: a VMM asks after
        the reset of a device, which is not the end of the virtual machine)."""
        if self.live or self.saved_idx is None:
            return self.next_idx
        return self.saved_idx

    def set_state(self, avail: int, used: int) -> None:
        """Begin there when the queue object is made: u16 avail index of the next entry to take, u16 used index of the
        next element to write. Raises RingError where more would be under way than the queue has entries."""
        self.check_state(avail, used, self.size)
        if used != self.used_idx:  # what was answered belongs to another place
            self._answers.clear()
            self.batch = []
            self._glued.clear()
            self.used_idx = self.confirmed_idx = used
        self.next_idx = self.avail_idx = avail
        self.saved_idx = avail

    def check_state(self, avail: int, used: int, size: int) -> None:
        """Raise RingError unless a queue of ``size`` entries can stand at these u16 indices."""
        if (avail - used) & 0xFFFF > size:
            raise RingError("vq_state.used", used, avail, f"more than {size} entries behind the avail index")

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

    def forget(self, heads: list[int]) -> None:
        """Chains in hand that nothing was done with and that are not the last ones received: the next create() has the
        port send them again, marked ``again``."""
        for head in heads:
            del self._in_hand[head]
        self.again.difference_update(heads)
        self._unseen = self._unseen or bool(heads)
        self._owed += len(heads)

    def reset(self) -> None:
        """Forget everything but the place in the floor plan, and where the queue had got."""
        saved, policy = self.saved_idx, self.policy
        self.__init__(self.index, self.send)  # type: ignore[misc]
        self.saved_idx, self.policy = saved, policy

    # --- from the port ------------------------------------------------------------------------------------------------

    def on_avail(self, message: Avail) -> list[Chain]:
        """The chains of a frame, checked against the key and against what is in hand."""
        if not self.live or self.broken:
            # in flight while the queue was torn down or broke: the port fetches it again or is told at reset
            return []
        assert self.key is not None
        if message.generation != self.key.generation:
            self.broken = True
            raise MemoryFaultError(
                "avail.generation", message.generation, self.key.generation, "stale memory key", kind="stale_key"
            )
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
            self._owed = max(0, self._owed - len(fresh))
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
        if self._glued:
            self._glued.intersection_update([answer[0] for answer in self._answers])
        self.confirmed_idx = used_idx

    def on_resync(self, message: Resync, *, fresh: bool) -> None:
        """The port says where it stands after a reconnect.

        A ``fresh`` device takes the port's indices over and will be given what is in flight; one that kept its state
        repeats the answers that the port has not seen. Raises RingError for a place where the port cannot be.
        """
        if not all(0 <= index <= 0xFFFF for index in (message.index, message.avail, message.used)):
            raise self._fail("resync.index", (message.index, message.avail, message.used), 0xFFFF, "not a u16")
        self.irq_number = max(self.irq_number, message.irq_number)
        self.avail_idx = message.avail
        self.running = False
        if fresh:
            self.next_idx = message.index
            self.used_idx = self.confirmed_idx = message.used
            self._unseen = message.in_flight > 0
            # what is in flight this incarnation takes again
            self.saved_idx = (message.index - message.in_flight) & 0xFFFF
            self._owed = message.in_flight
            self._behind = (self.saved_idx - message.used) & 0xFFFF
            return
        if not self.live and not self._answers and self.next_idx == self.used_idx == 0 != message.used:
            return  # this queue was reset: the port hears of it when the driver does, whose answer was lost
        self.confirm(message.used)
        ahead = (message.index - self.next_idx) & 0xFFFF
        if self.live and ahead > self.size:
            raise self._fail("resync.index", message.index, self.next_idx, "not where the port can be")
        # a refetch that the last connection lost on its way: this device's own share is what is in hand or answered
        self._unseen = message.in_flight > ahead + len(self._in_hand) + len(self._answers)
        # what waits in the batch is the tail of the kept answers: one frame says all
        self.batch = list(self._answers)
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

    def complete_together(self, elems: list[UsedElem]) -> None:
        """:meth:`complete_batch`, and the driver sees all of them or none (§5.1.6.4.1: the buffers of one packet)."""
        self.complete_batch(elems)
        self._glued.update([head for head, _ in elems[1:]])

    def complete_again(self, head: int, written: bytes) -> None:
        """A fault on purpose: use a chain that is used already. Only with PortPolicy.UNCHECKED does it get as far as
        the ring; other ports close the link."""
        self._answer([(head, written)])

    def hush(self) -> None:
        """Nothing: the port interrupts as the ring says."""

    def _answer(self, elems: list[UsedElem]) -> None:
        if not self.batch:
            self._batch_first = self.used_idx
        self.batch += elems
        self._answers.extend(elems)
        self.used_idx = (self.used_idx + len(elems)) & 0xFFFF

    def flush(self) -> int:
        """Send what complete() collected, as one frame where it fits. Returns how many answers."""
        batch = self.batch
        if not batch:
            return 0
        self.batch = []
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
        for elems in self._units(batch):
            need = sum(len(written) + _ELEM_OVERHEAD for _, written in elems)
            if part and need > room:
                self.send(Used(self.index, first, part))
                first = (first + len(part)) & 0xFFFF
                part, room = [], _FRAME_PAYLOAD
            part += elems
            room -= need
        self.send(Used(self.index, first, part))
        return len(batch)

    def _units(self, batch: list[UsedElem]) -> Iterator[list[UsedElem]]:
        """What must not be parted by the end of a frame."""
        unit: list[UsedElem] = []
        for elem in batch:
            if unit and elem[0] not in self._glued:
                yield unit
                unit = []
            unit.append(elem)
        yield unit

    def _fail(self, field: str, value: object, limit: object, detail: str) -> RingError:
        self.broken = True
        return RingError(field, value, limit, detail)
