"""virtio-net (virtio 1.3 §5.1), whatever carries its queues: packets between a driver and a packet back end.

======  ===========  ================================================================================
queue   name         chains
======  ===========  ================================================================================
2i      receiveq i+1   writable: struct virtio_net_hdr, frame; with MRG_RXBUF a packet may take several
2i+1    transmitq i+1  readable: struct virtio_net_hdr, frame
2N      controlq     readable: class, command, data; writable: ack
======  ===========  ================================================================================

N is max_virtqueue_pairs where MQ was negotiated, 1 otherwise (§5.1.2).

A packet is completed on its transmit queue in the step in which the back end has it. A NIC that dies may drop a packet,
never double it: what it took from a transmit queue is to be shown to the driver before what it put into a receive
queue, so a transport flushes transmit queues first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import RemoteError, RingError
from common.virtio.device_core import PacketTransport
from common.virtio.features import DESC_F_WRITE, Feature, mask
from common.virtio.net_header import (
    MAX_ETHERNET,
    NET_HEADER_BYTES,
    RX_PLAIN,
    TX_PLAIN,
    as_received,
    check_header,
)
from common.wire.messages import Chain
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.ctrl import Control, CtrlStats
from services.vdpa_nic.net_state import NetState

#: The queues of the first pair.
RX: Final = 0
TX: Final = 1

FEATURES: Final = mask(
    Feature.VERSION_1,
    Feature.ACCESS_PLATFORM,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.RING_RESET,
    Feature.NET_CSUM,
    Feature.NET_GUEST_CSUM,
    Feature.NET_CTRL_GUEST_OFFLOADS,
    Feature.NET_MTU,
    Feature.NET_MAC,
    Feature.NET_MRG_RXBUF,
    Feature.NET_STATUS,
    Feature.NET_CTRL_VQ,
    Feature.NET_CTRL_RX,
    Feature.NET_CTRL_VLAN,
    Feature.NET_CTRL_RX_EXTRA,
    Feature.NET_GUEST_ANNOUNCE,
    Feature.NET_MQ,
    Feature.NET_CTRL_MAC_ADDR,
)

#: Entries of the control queue at most: Linux sends one command at a time.
CTRL_QUEUE_SIZE: Final = 64

#: Offset and width of num_buffers in the header.
_NUM_BUFFERS_AT: Final = 10
#: End of what the receive filter looks at: addresses and one VLAN tag.
_ADDRESSED: Final = NET_HEADER_BYTES + 16
_LONGEST: Final = NET_HEADER_BYTES + MAX_ETHERNET


def offered(max_pairs: int) -> int:
    """The features (u64) of a NIC with so many queue pairs."""
    return FEATURES if max_pairs > 1 else FEATURES & ~Feature.NET_MQ.bit


def queue_sizes(max_pairs: int, size: int) -> tuple[int, ...]:
    """The largest size of each queue, entries: ``size`` of those for packets."""
    return (*(size for _ in range(2 * max_pairs)), CTRL_QUEUE_SIZE)


@dataclass(slots=True)
class NicStats:
    """What the NIC counts of its packets; a transport counts chains."""

    tx_frames: int = 0
    tx_bytes: int = 0
    #: shorter than a header and a byte, longer than a frame, or a header that asks for what was not negotiated
    tx_malformed: int = 0
    #: the link is down
    tx_link_down: int = 0
    rx_frames: int = 0
    rx_bytes: int = 0
    #: receive buffers used: more than rx_frames where packets were spread over several
    rx_buffers: int = 0
    rx_too_long: int = 0
    #: the receive filter said no (§5.1.6.5.1 to .3)
    rx_filtered: int = 0
    #: packets for a receive queue that is broken, disabled or was never set up, or while the link is down
    rx_dropped: int = 0


class Pair:
    """What is in hand of one queue pair."""

    __slots__ = ("buffers", "size", "waiting")

    def __init__(self) -> None:
        #: receive buffers: (head, bytes of room, descriptors)
        self.buffers: Final[deque[tuple[int, int, int]]] = deque()
        #: entries of the receive queue, as the driver set it up
        self.size = 0
        #: transmit chains that wait for a receive buffer: (head, packet, when they arrived)
        self.waiting: Final[deque[tuple[int, bytes, float]]] = deque()


class NicCore:
    """The NIC of one driver on ``transport``, plugged into ``backend``, with ``state`` (its MAC, pairs, MTU).

    ``observe(queue, seconds)`` hears how long the oldest packet of a batch waited; ``log(event, **context)`` writes one
    line. While :attr:`paused` nothing moves between queues and back end.
    """

    def __init__(
        self,
        transport: PacketTransport,
        backend: Backend,
        state: NetState,
        *,
        queue_size: int,
        clock: Callable[[], float],
        log: Callable[..., None],
        observe: Callable[[int, float], None] = lambda _queue, _seconds: None,
    ) -> None:
        self.transport: Final = transport
        self.backend: Final = backend
        self.state: Final = state
        self.clock: Final = clock
        self.observe: Final = observe
        self._log: Final = log
        self.offered: Final = offered(state.max_pairs)
        self.queue_sizes: Final = queue_sizes(state.max_pairs, queue_size)
        self.stats = NicStats()
        self.ctrl_stats = CtrlStats()
        self.pairs: Final = [Pair() for _ in range(state.max_pairs)]
        self.paused = False
        self._features = 0
        self._control = self._new_control(0)
        #: index of the control queue; none before features are negotiated
        self.ctrl_queue = -1
        #: receive queues whose buffers may be joined
        self._mergeable = False
        #: a header that was refused is in the log
        self._told = False

    def _new_control(self, features: int) -> Control:
        return Control(self.state, features, on_pairs=self._on_pairs, log=self._log, stats=self.ctrl_stats)

    def negotiated(self, features: int) -> None:
        """The driver settled on ``features`` (u64)."""
        self._features = features
        self.state.negotiated(features)
        self._control = self._new_control(features)
        self._mergeable = bool(features & Feature.NET_MRG_RXBUF.bit)
        count = self.state.max_pairs if features & Feature.NET_MQ.bit else 1
        self.ctrl_queue = 2 * count if features & Feature.NET_CTRL_VQ.bit else -1

    def _on_pairs(self, pairs: int) -> None:
        """The driver set the number of pairs in use: what waits for one that is not goes to one that is."""
        backlog = self.backend.backlog
        self.backend.pairs = pairs
        for pair in range(pairs, len(backlog)):
            backlog[pair % pairs].extend(backlog[pair])
            backlog[pair].clear()

    # --- from the driver ----------------------------------------------------------------------------------------------

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        """See :class:`common.virtio.device_core.DeviceCore`. The packets move at the next :meth:`work`."""
        if self.transport.features != self._features:
            self.negotiated(self.transport.features)
        if queue == self.ctrl_queue:
            self._commands(chains)
        elif queue >> 1 >= len(self.pairs):
            raise RingError("queue", queue, 2 * len(self.pairs) - 1, "a control queue was not negotiated there")
        elif queue & 1:
            self._transmits(self.pairs[queue >> 1].waiting, chains)
        else:
            self._buffers(self.pairs[queue >> 1].buffers, chains)

    def _buffers(self, buffers: deque[tuple[int, int, int]], chains: list[Chain]) -> None:
        # a chain in an indirect table takes one entry of the ring
        indirect = bool(self._features & Feature.INDIRECT_DESC.bit)
        for head, _, segments in chains:
            room = 0
            for _, length, flags in segments:
                if flags & DESC_F_WRITE:
                    room += length
            if room <= NET_HEADER_BYTES:  # at the head of the queue it would have every packet dropped
                raise RingError("chain", room, NET_HEADER_BYTES, "writable bytes of a receive buffer")
            buffers.append((head, room, 1 if indirect else len(segments)))

    def _transmits(self, waiting: deque[tuple[int, bytes, float]], chains: list[Chain]) -> None:
        now = self.clock()
        for head, packet, _ in chains:
            if not NET_HEADER_BYTES < len(packet) <= _LONGEST or ((packet[0] or packet[1]) and not self._good(packet)):
                packet = b""  # counted and completed in its turn: the queue is served in order
            waiting.append((head, packet, now))

    def _good(self, packet: bytes) -> bool:
        try:
            check_header(packet, self._features)
        except RemoteError as error:
            if not self._told:
                self._told = True
                self._log("packet_refused", error=str(error))
            return False
        return True

    def _commands(self, chains: list[Chain]) -> None:
        queue = self.transport.queues[self.ctrl_queue]
        for head, command, segments in chains:
            if not any(flags & DESC_F_WRITE and length for _, length, flags in segments):
                raise RingError("chain", 0, 1, "writable bytes for the ack of a control command")
            queue.complete(head, bytes([self._control.handle(command)]))

    # --- packets ------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Move packets: a transmitted one is completed together with what the back end makes of it."""
        if self.paused:
            return
        backlog = self.backend.backlog
        for index, pair in enumerate(self.pairs):
            if pair.waiting or backlog[index]:
                self._work(index, pair)

    def _work(self, index: int, pair: Pair) -> None:
        backend, waiting = self.backend, pair.waiting
        # a driver that transmits on a pair that is not in use receives on one that is
        target = index if index < self.state.pairs else index % self.state.pairs
        backlog, buffers = backend.backlog[target], self.pairs[target].buffers
        # nobody will ever receive again: packets go where they go on a NIC whose receive queue is off
        deaf = not self.transport.live(2 * target) or not self.state.link_up
        while True:
            if deaf:
                self.stats.rx_dropped += len(backlog)
                backlog.clear()
            elif backlog and buffers:
                self._receive(target)
            count = len(waiting)
            if count and backend.answers and not deaf:
                # with a packet in the backlog that waits for more buffers the driver's have to wait too
                count = 0 if backlog else min(count, len(buffers))
            if not count:
                return
            self._transmit(index, target, count)

    def _transmit(self, index: int, target: int, count: int) -> None:
        """Hand ``count`` waiting packets to the back end; an empty one stands for a malformed chain."""
        waiting, stats = self.pairs[index].waiting, self.stats
        popleft = waiting.popleft
        now = self.clock()
        queue = 2 * index + 1
        self.observe(queue, now - waiting[0][2])
        done = []
        packets = []
        size = 0
        for _ in range(count):
            head, packet, _ = popleft()
            done.append((head, b""))
            if packet:
                packets.append(packet)
                size += len(packet)
            else:
                stats.tx_malformed += 1
        if packets and self.state.link_up:
            stats.tx_frames += len(packets)
            stats.tx_bytes += size - NET_HEADER_BYTES * len(packets)
            self.backend.transmit(target, packets, now)
        else:
            stats.tx_link_down += len(packets)
        self.transport.queues[queue].complete_batch(done)

    def _receive(self, index: int) -> None:
        """Put the back end's packets into receive buffers, as far as both go."""
        stats, state = self.stats, self.state
        backlog, buffers = self.backend.backlog[index], self.pairs[index].buffers
        queue = self.transport.queues[2 * index]
        longest, filtering, mergeable = NET_HEADER_BYTES + state.max_frame, state.filtering, self._mergeable
        oldest = backlog[0][1]
        done: list[tuple[int, bytes]] = []
        size = 0
        next_packet, next_buffer = backlog.popleft, buffers.popleft
        # what is ordinary, nearly all, the quick way; without a flag nothing in the header means anything (§5.1.6.2)
        for _ in range(0 if filtering else min(len(backlog), len(buffers))):
            waiting, buffer = next_packet(), next_buffer()
            packet, (head, room, _) = waiting[0], buffer
            length = len(packet)
            if length > room or length > longest or packet[0]:
                backlog.appendleft(waiting)
                buffers.appendleft(buffer)
                break
            done.append((head, RX_PLAIN + packet[NET_HEADER_BYTES:]))
            size += length - NET_HEADER_BYTES
        frames = len(done)
        while backlog and buffers:
            packet = backlog[0][0]
            length = len(packet)
            if length > longest or (length > buffers[0][1] and not mergeable):
                # §5.1.6.3.1: without MRG_RXBUF a packet that does not fit its buffer is dropped
                stats.rx_too_long += 1
                backlog.popleft()
                continue
            if filtering and not state.accepts(packet[NET_HEADER_BYTES:_ADDRESSED]):
                stats.rx_filtered += 1
                backlog.popleft()
                continue
            if packet[0]:
                packet = as_received(packet, state.guest_csum)
            if length <= buffers[0][1]:
                if packet.startswith(TX_PLAIN):
                    packet = RX_PLAIN + packet[NET_HEADER_BYTES:]
                else:
                    packet = _with_buffers(packet, 1)
                done.append((buffers.popleft()[0], packet))
            else:
                needed = self._needed(index, length)
                if needed > len(buffers):
                    if sum(descriptors for _, _, descriptors in buffers) < self.pairs[index].size:
                        break  # until there are more
                    stats.rx_too_long += 1  # the driver has no more to give
                    backlog.popleft()
                    continue
                queue.complete_batch(done)
                stats.rx_buffers += len(done) + needed
                done = []
                queue.complete_together(_spread(_with_buffers(packet, needed), buffers, needed))
            backlog.popleft()
            frames += 1
            size += length - NET_HEADER_BYTES
        queue.complete_batch(done)
        if frames:
            self.observe(2 * index, self.clock() - oldest)
        stats.rx_frames += frames
        stats.rx_buffers += len(done)
        stats.rx_bytes += size

    def _needed(self, index: int, length: int) -> int:
        """How many of the next buffers hold ``length`` bytes; one more than there are where these do not."""
        buffers = self.pairs[index].buffers
        for count, (_, room, _) in enumerate(buffers, 1):
            length -= room
            if length <= 0:
                return count
        return len(buffers) + 1

    # --- life ---------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The device is about to be suspended: what can be finished is."""
        paused, self.paused = self.paused, False
        self.work()
        self.paused = paused

    def on_stop(self, queue: int) -> Sequence[int]:
        """See :class:`common.virtio.device_core.DeviceCore`: buffers without a packet, packets that were not sent."""
        if queue == self.ctrl_queue or queue >> 1 >= len(self.pairs):
            return []
        pair = self.pairs[queue >> 1]
        if queue & 1:
            heads = [head for head, _, _ in pair.waiting]
            pair.waiting.clear()
        else:
            heads = [head for head, _, _ in pair.buffers]
            pair.buffers.clear()
        return heads

    def on_reset(self) -> None:
        """The driver begins anew."""
        for pair in self.pairs:
            pair.waiting.clear()
            pair.buffers.clear()
        for backlog in self.backend.backlog:
            backlog.clear()
        self.backend.pairs = 1
        self.state.reset()
        self.negotiated(0)

    def check_size(self, queue: int, size: int) -> None:
        """Any size that the queue may have will do; a receive queue's says when the driver has no more buffers."""
        if not queue & 1 and queue >> 1 < len(self.pairs):
            self.pairs[queue >> 1].size = size

    def tick(self, now: float) -> bool:
        """Let the back end play. True: there is something to move."""
        self.backend.tick(now)
        return any(self.backend.backlog)


def _with_buffers(packet: bytes, count: int) -> bytes:
    """The packet with num_buffers ``count``."""
    return packet[:_NUM_BUFFERS_AT] + count.to_bytes(2, "little") + packet[NET_HEADER_BYTES:]


def _spread(packet: bytes, buffers: deque[tuple[int, int, int]], count: int) -> list[tuple[int, bytes]]:
    """The packet over the next ``count`` buffers, which are taken (§5.1.6.4)."""
    done = []
    at = 0
    for _ in range(count):
        head, room, _ = buffers.popleft()
        done.append((head, packet[at : at + room]))
        at += room
    return done
