"""virtio-net as a vDPA device (virtio 1.3 §5.1): receive and transmit queues, and a memory map that may change.

A change of map goes as in mlx5: suspend every queue → each port says where it stands → what was fetched and not
processed is handed back → the queue objects go → a key is made of the new map → new objects begin where the old ones
stood. No frame is lost, because a frame leaves the transmit queue only together with its answer.

A NIC that dies may drop a frame, never double it: what it took from the transmit queue is shown to the driver before
what it put into the receive queue. So answers always leave transmit queue first, also after a lost connection, when
no queue is attached before the port has said where all of them stand.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from common.errors import MemoryFaultError, RingError
from common.memory import Mapping, MemoryKey, MemoryMap
from common.virtio.device import Op, Phase, Refusal, VirtioDevice
from common.virtio.features import DESC_F_WRITE, DeviceId, Feature, Status, mask
from common.virtio.msi_source import MsiSource
from common.virtio.net_header import MAX_ETHERNET, NET_HEADER_BYTES, RX_PLAIN
from common.virtio.remote_queue import RemoteQueue
from common.wire.messages import Chain, Destroy, Message, Resync, Return, Saved, Suspend
from services.vdpa_nic.backend import Backend

RX: Final = 0
TX: Final = 1

FEATURES: Final = mask(
    Feature.VERSION_1,
    Feature.ACCESS_PLATFORM,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.NET_MAC,
    Feature.NET_STATUS,
)

#: struct virtio_net_config up to status: u8 mac[6], le16 status (§5.1.4)
_CONFIG: Final = struct.Struct("<6sH")
LINK_UP: Final = 1

#: What a VMM may call: the rest is the driver's.
VMM_OPS: Final = frozenset({"set_map", "get_generation"})
#: More mappings than this in one map are refused.
MAX_MAPPINGS: Final = 1024


@dataclass(slots=True)
class NicStats:
    """What the NIC counts beside :class:`common.virtio.device.DeviceStats`."""

    tx_frames: int = 0
    tx_bytes: int = 0
    tx_malformed: int = 0
    rx_frames: int = 0
    rx_bytes: int = 0
    rx_too_long: int = 0
    #: frames for a receive queue that is broken or was never set up
    rx_dropped: int = 0
    map_changes: int = 0
    map_refused: int = 0
    chains_handed_back: int = 0


class NicDevice(VirtioDevice):
    """The NIC of one guest. ``answer_vmm`` sends to the guest's VMM, which changes the memory map."""

    device_id = DeviceId.NET
    more_ops = {  # noqa: RUF012  (a constant table)
        "set_map": Op(tuple[int, list[tuple[int, int, int, int]]], Phase.ANY),
        "get_generation": Op(tuple[()], Phase.ANY),
    }

    def __init__(
        self,
        *,
        send: Callable[[Message], None],
        answer_vmm: Callable[[Message], None],
        msi: MsiSource,
        clock: Callable[[], float],
        backend: Backend,
        queue_size: int,
        mac: bytes,
        log: Callable[..., None],
        observe: Callable[[int, float], None] = lambda _queue, _seconds: None,
    ) -> None:
        super().__init__(
            send=send,
            msi=msi,
            clock=clock,
            offered=FEATURES,
            queue_sizes=[queue_size, queue_size],
            log=log,
            observe=observe,
        )
        self.answer_vmm = answer_vmm
        self.backend: Final = backend
        self.config += _CONFIG.pack(mac, LINK_UP)
        self.nic_stats = NicStats()
        self._key: MemoryKey | None = None
        #: the VMM's call that is being answered, None while it is the guest's
        self._vmm_call: int | None = None
        #: transmit chains that wait for a receive buffer: (head, frame, when they arrived)
        self.tx_waiting: deque[tuple[int, bytes, float]] = deque()
        #: receive buffers: (head, bytes of room)
        self.rx_buffers: deque[tuple[int, int]] = deque()
        #: the change of map under way: its call, the new key, the queues that have not said where they stand
        self._change: tuple[int, MemoryKey, set[int]] | None = None
        #: queues of which the port will say by itself where they stand: the link is back, its Resync is not here yet.
        #: Nothing moves and no queue object is made as long as there are any.
        self._awaited: set[int] = set()

    # --- traffic ------------------------------------------------------------------------------------------------------

    def key(self) -> MemoryKey | None:
        return self._key

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        if queue == RX:
            buffers = self.rx_buffers
            for head, _, segments in chains:
                room = 0
                for _, length, flags in segments:
                    if flags & DESC_F_WRITE:
                        room += length
                if room <= NET_HEADER_BYTES:  # at the head of the queue it would have every frame dropped
                    raise RingError("chain", room, NET_HEADER_BYTES, "writable bytes of a receive buffer")
                buffers.append((head, room))
        else:
            now = self.clock()
            waiting = self.tx_waiting
            for head, data, _ in chains:
                if not NET_HEADER_BYTES < len(data) <= NET_HEADER_BYTES + MAX_ETHERNET:
                    self.nic_stats.tx_malformed += 1
                    data = b""  # completed in its turn: the queue is served in order
                waiting.append((head, data[NET_HEADER_BYTES:], now))

    def batch_end(self) -> None:
        if self._awaited:
            return
        self.work()
        self._flush()

    def _flush(self) -> None:
        """Send the answers, those of the transmit queue first: a frame whose reception the driver has seen must not be
        transmitted again if this NIC dies in between."""
        for queue in reversed(self.queues):
            self.stats.used += queue.flush()

    def work(self) -> None:
        """Move frames: a transmitted frame is completed together with what the back end makes of it."""
        if self._change is not None:
            return
        stats, backend, waiting = self.nic_stats, self.backend, self.tx_waiting
        # nobody will ever receive again: frames go where they go on a NIC whose receive queue is off
        deaf = self.queues[RX].broken or not self.queues[RX].live
        while True:
            if deaf:
                stats.rx_dropped += len(backend.backlog)
                backend.backlog.clear()
            elif backend.backlog and self.rx_buffers:
                self._receive()
            bounded = backend.answers and not deaf
            count = min(len(waiting), len(self.rx_buffers)) if bounded else len(waiting)
            if not count:
                break
            self._transmit(count)

    def _transmit(self, count: int) -> None:
        """Hand ``count`` waiting frames to the back end; an empty one stands for a malformed chain."""
        stats, popleft, transmit = self.nic_stats, self.tx_waiting.popleft, self.backend.transmit
        now = self.clock()
        self.observe(TX, now - self.tx_waiting[0][2])
        done = []
        for _ in range(count):
            head, frame, _ = popleft()
            done.append((head, b""))
            if frame:
                transmit(frame, now)
                stats.tx_frames += 1
                stats.tx_bytes += len(frame)
        self.queues[TX].complete_batch(done)

    def _receive(self) -> None:
        """Put the back end's frames into receive buffers, as far as both go."""
        stats, backlog, buffers = self.nic_stats, self.backend.backlog, self.rx_buffers
        done = []
        size = 0
        oldest = backlog[0][1]
        while backlog and buffers:
            frame, _ = backlog.popleft()
            if NET_HEADER_BYTES + len(frame) > buffers[0][1]:
                # §5.1.6.3.1: without MRG_RXBUF a frame that does not fit its buffer is dropped
                stats.rx_too_long += 1
                continue
            done.append((buffers.popleft()[0], RX_PLAIN + frame))
            size += len(frame)
        self.queues[RX].complete_batch(done)
        if done:
            self.observe(RX, self.clock() - oldest)
        stats.rx_frames += len(done)
        stats.rx_bytes += size

    def tick(self, now: float) -> None:
        """Let the back end play and move what it has."""
        self.backend.tick(now)
        if self.backend.backlog:
            self.batch_end()

    def on_reset(self) -> None:
        self.tx_waiting.clear()
        self.rx_buffers.clear()
        self.backend.backlog.clear()
        self._awaited.clear()
        if self._change is not None:  # no queue object is left that could hold the old key
            self._finish()

    def _broke(self, queue: int, field: str, reason: str) -> None:
        super()._broke(queue, field, reason)
        (self.tx_waiting if queue == TX else self.rx_buffers).clear()
        self._heard_of(queue)
        self._stands(queue)  # a change of map does not wait for what is dead

    # --- the memory map -----------------------------------------------------------------------------------------------

    def vmm_frame(self, call: Any) -> None:
        """A call of the VMM, :data:`VMM_OPS` only; ``set_map`` is answered when the new map is in force."""
        self._vmm_call = call.seq
        answer = self.answer(call)
        self._vmm_call = None
        if answer.value is not _LATER:
            self.answer_vmm(answer)

    def _call(self, name: str, args: list[Any]) -> Any:
        if self._vmm_call is not None and name not in VMM_OPS:
            raise Refusal(errno.EPERM, f"{name[:40]}: is the driver's to call")
        return super()._call(name, args)

    def reconnected(self) -> None:
        """The guest's link is back; nothing was sent or received on it yet.

        From here until a queue's Resync the port must not be asked to suspend it: Resync says that it is, and an
        answer on top of that would be taken for the answer to a later Suspend. A change of map under way waits for
        those Resyncs too, also of queues that had said where they stand: the port may have been attached since.
        """
        self._awaited = {q.index for q in self.queues if (q.live or q.index in self.resumed) and not q.broken}
        if self._change is not None:
            self._change[2].update(self._awaited)

    def start(self) -> None:
        if not self._awaited:  # else when the last Resync is in: the port may not stand where it stood
            super().start()

    def op_get_generation(self) -> int:
        return self._key.generation if self._key is not None else 0

    def op_set_map(self, generation: int, ranges: list[tuple[int, int, int, int]]) -> Any:
        """A new memory map ``[(iova, size, guest address, access)]`` under ``generation``, which must grow."""
        if self._vmm_call is None:
            raise self._refuse_map(errno.EPERM, "is the VMM's to call")
        if self._change is not None:
            raise self._refuse_map(errno.EBUSY, "a change of map is under way")
        if len(ranges) > MAX_MAPPINGS:
            raise self._refuse_map(errno.E2BIG, f"{len(ranges)} ranges, at most {MAX_MAPPINGS}")
        before = self._key.generation if self._key is not None else 1
        if generation < before:
            raise self._refuse_map(errno.EINVAL, f"generation {generation} is before {before}")
        try:
            key = MemoryKey(MemoryMap(Mapping(*r) for r in ranges), generation)
        except MemoryFaultError as fault:
            raise self._refuse_map(errno.EINVAL, str(fault)) from None
        if self._key is not None and generation == self._key.generation:
            if key.map != self._key.map:
                raise self._refuse_map(errno.EINVAL, f"generation {generation} already has another map")
            return None
        live = {queue.index for queue in self.queues if queue.live and not queue.broken}
        if not live:
            self._key = key
            self.nic_stats.map_changes += 1
            if self.status & Status.DRIVER_OK:
                self.start()
            return None
        self._change = (self._vmm_call, key, live)
        if not self._awaited:
            for index in sorted(live):
                self.send(Suspend(index))
        return _LATER

    def _refuse_map(self, code: int, reason: str) -> Refusal:
        self.nic_stats.map_refused += 1
        return Refusal(code, f"set_map: {reason}")

    def on_saved(self, message: Saved) -> None:
        self._stands(message.queue)

    def _resync(self, message: Resync) -> None:
        super()._resync(message)
        self._heard_of(message.queue)

    def on_resynced(self, message: Resync) -> None:
        """Attached when all Resyncs are in."""

    def _heard_of(self, index: int) -> None:
        """The port said where queue ``index`` stands, or it is dead. After the last one all go on."""
        if index not in self._awaited:
            return
        self._awaited.discard(index)
        if self._awaited:
            return
        self._flush()
        if self._change is not None:
            # where the port stands is what Saved would have said; attached, it would fetch under the old key
            self._finish()
            return
        for queue in reversed(self.queues):
            if queue.live and not queue.broken and queue.key is not None:
                queue.create(queue.key)
        if self.phase == Phase.RUNNING:
            self.start()

    def _stands(self, index: int) -> None:
        """Queue ``index`` fetches no more, and everything it had fetched has arrived."""
        if self._change is None:
            return
        waiting = self._change[2]
        waiting.discard(index)
        if not waiting:
            self._finish()

    def _finish(self) -> None:
        """All queues stand: put the new key in force."""
        assert self._change is not None
        seq, key, _ = self._change
        self._change = None
        self._key = key
        self._flush()
        for queue in self.queues:
            if queue.live and not queue.broken:
                self._hand_back(queue)
                self.send(Destroy(queue.index))
                queue.create(key)
        self.nic_stats.map_changes += 1
        self.answer_vmm(Return(seq, 0))

    def _hand_back(self, queue: RemoteQueue) -> None:
        """Chains fetched under the old key and not processed: the new object fetches them again.

        A connection lost while a restarted device was being given what is in flight leaves the first of it here
        without the rest: those chains are not the last ones received, and are kept.
        """
        back = queue.tail()
        queue.hand_back(back)
        self.nic_stats.chains_handed_back += len(back)
        gone = set(back)
        if queue.index == RX:
            kept = [buffer for buffer in self.rx_buffers if buffer[0] not in gone]
            self.rx_buffers.clear()
            self.rx_buffers.extend(kept)
        else:
            stay = [chain for chain in self.tx_waiting if chain[0] not in gone]
            self.tx_waiting.clear()
            self.tx_waiting.extend(stay)


#: Value of an answer that is sent when the change of map is done.
_LATER: Final = object()
