"""A virtqueue as a device in another process sees it: the far end of a port.

The port (in the guest's process) reads and writes the ring; here its frames become chains to process and answers to
send. Answers are kept until the port has shown, by the ``used_idx`` of a later frame, that it wrote them, so that a
lost connection loses nothing; there are never more of them than the queue has entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from common.errors import MemoryFaultError, RingError
from common.memory import ACCESS_RO, ACCESS_WO, MemoryKey
from common.virtio.features import DESC_F_WRITE
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.wire.limits import MAX_FRAME
from common.wire.messages import Avail, Chain, Create, Message, Resync, Used

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
        "_answers", "_batch", "_batch_first", "_in_hand", "again", "areas", "broken", "confirmed_idx", "features",
        "index", "irq_number", "key", "live", "next_idx", "policy", "send", "size", "used_idx",
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
        #: heads that came marked ``again``: an earlier incarnation of this device may have processed them
        self.again: set[int] = set()
        self._in_hand: set[int] = set()
        self._answers: deque[tuple[int, bytes]] = deque()
        self._batch: list[tuple[int, bytes]] = []
        self._batch_first = 0

    @property
    def in_hand(self) -> int:
        """Chains received and not answered."""
        return len(self._in_hand)

    # --- the queue object ---------------------------------------------------------------------------------------------

    def create(self, key: MemoryKey, *, refetch: bool = False) -> None:
        """Have the port make the queue object under ``key`` at ``next_idx``/``used_idx``, or attach to it."""
        self.key = key
        self.live = True
        self.broken = False
        policy = self.policy | PortPolicy.REFETCH if refetch else self.policy
        desc, driver, device = self.areas
        self.send(
            Create(
                self.index, key.generation, self.next_idx, self.used_idx, self.size, desc, driver, device,
                self.features, int(policy),
            )
        )  # fmt: skip

    def hand_back(self, heads: list[int]) -> None:
        """The chains with these heads, the last ones received, count as never received: the next create() begins
        with them. Only with the port suspended."""
        self._in_hand.difference_update(heads)
        self.again.difference_update(heads)
        self.next_idx = (self.next_idx - len(heads)) & 0xFFFF

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
        if message.again:
            self.again.update(chain[0] for chain in message.chains)
        elif message.first_idx != self.next_idx:
            raise self._fail("avail.first_idx", message.first_idx, self.next_idx, "frames lost or doubled")
        else:
            self.next_idx = (self.next_idx + len(message.chains)) & 0xFFFF
        self.confirm(message.used_idx)
        in_hand = self._in_hand
        translate = self.key.translate
        try:
            for head, _, segments in message.chains:
                if head in in_hand or not 0 <= head < self.size:
                    raise self._fail("head", head, self.size - 1, "already in hand or out of range")
                in_hand.add(head)
                for addr, length, flags in segments:
                    translate(addr, length, ACCESS_WO if flags & DESC_F_WRITE else ACCESS_RO)
        except MemoryFaultError:
            self.broken = True
            raise
        return message.chains

    def confirm(self, used_idx: int) -> None:
        """The port's used index stands at ``used_idx``: answers before it need not be kept."""
        count = (used_idx - self.confirmed_idx) & 0xFFFF
        if count > len(self._answers):
            raise self._fail("avail.used_idx", used_idx, self.used_idx, "beyond what was answered")
        for _ in range(count):
            self._answers.popleft()
        self.confirmed_idx = used_idx

    def on_resync(self, message: Resync, *, fresh: bool) -> None:
        """The port says where it stands after a reconnect.

        A ``fresh`` device takes the port's indices over and will be given what is in flight; one that kept its state
        repeats the answers that the port has not seen.
        """
        self.irq_number = max(self.irq_number, message.irq_number)
        if fresh:
            self.next_idx = message.avail_idx
            self.used_idx = self.confirmed_idx = message.used_idx
            return
        self.confirm(message.used_idx)
        # what waits in the batch is the tail of the kept answers: one frame says all
        self._batch = list(self._answers)
        self._batch_first = self.confirmed_idx

    # --- to the port --------------------------------------------------------------------------------------------------

    def complete(self, head: int, written: bytes) -> None:
        """Answer the chain at ``head`` with the bytes for its device-writable part; goes out at :meth:`flush`."""
        self._in_hand.discard(head)
        self.again.discard(head)
        if not self._batch:
            self._batch_first = self.used_idx
        elem = (head, written)
        self._batch.append(elem)
        self._answers.append(elem)
        self.used_idx = (self.used_idx + 1) & 0xFFFF

    def flush(self) -> None:
        """Send what complete() collected, as one frame where it fits."""
        batch = self._batch
        if not batch:
            return
        self._batch = []
        first = self._batch_first
        total = 0
        for _, written in batch:
            total += len(written)
        if total + _ELEM_OVERHEAD * len(batch) <= _FRAME_PAYLOAD:
            self.send(Used(self.index, first, batch))
            return
        part: list[tuple[int, bytes]] = []
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

    def _fail(self, field: str, value: object, limit: object, detail: str) -> RingError:
        self.broken = True
        return RingError(field, value, limit, detail)
