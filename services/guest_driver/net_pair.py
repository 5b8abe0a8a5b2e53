"""One queue pair of a virtio-net driver (virtio 1.3 §5.1.6): transmit in batches, receive as Linux's NAPI does, refill,
kick; and what a reset of one of its queues needs (§2.6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import LocalError, RingError
from common.virtio.features import DESC_F_WRITE
from common.virtio.net_header import (
    GSO_NONE,
    HDR_F_DATA_VALID,
    HDR_F_NEEDS_CSUM,
    MAX_ETHERNET,
    NET_HEADER,
    NET_HEADER_BYTES,
    TX_PLAIN,
)
from common.virtio.split_driver import SplitDriver
from services.guest_driver.buffers import BufferPool

RX: Final = 0
TX: Final = 1

#: Used buffers that one turn of a poll takes (Linux: NAPI_POLL_WEIGHT): they are refilled and kicked before the next
#: turn, so that the device works on while the driver does.
NAPI_BUDGET: Final = 64

#: Bytes of one packet buffer: header and a full frame, rounded up to lines.
BUFFER_BYTES: Final = (NET_HEADER_BYTES + MAX_ETHERNET + 63) & ~63

_NUM_BUFFERS: Final = 10


@dataclass(slots=True)
class NetStats:
    """What one queue pair counts."""

    #: doorbells rung
    tx_kicks: int = 0
    rx_kicks: int = 0
    #: transmit buffers made available; receive buffers that came back used
    tx_buffers: int = 0
    rx_buffers: int = 0
    tx_interrupts: int = 0
    rx_interrupts: int = 0
    #: frames received with NEEDS_CSUM, with DATA_VALID (§5.1.6.4.1)
    rx_csum_partial: int = 0
    rx_csum_valid: int = 0
    #: frames received that several buffers held
    rx_merged: int = 0
    #: packets dropped: less than a header and a byte, more than the buffer holds, or num_buffers that cannot be
    rx_length_errors: int = 0
    #: times that the pool had too few buffers for the receive queue
    rx_oom: int = 0


class NetPair:
    """Queue pair ``index``: its queues are 2 * ``index`` + RX and 2 * ``index`` + TX (§5.1.2).

    ``rings`` are the receive and the transmit ring, ``pools`` where their buffers come from: they may be one pool, and
    pairs may share them. A transmit buffer, and a receive buffer too unless ``mergeable`` (MRG_RXBUF was negotiated),
    has BUFFER_BYTES at least. The device sees guest address ``a`` at I/O virtual address ``a + iova``.
    ``notify(queue)`` is the doorbell, ``receive(frames)`` is handed the frames of one poll in the order received.
    Raises LocalError for buffers that are too small.

    A queue is reset thus: ``rx_pause()``, the device resets the queue, ``rx_reset()``, the device enables it again at
    index 0, ``rx_resume()``; the same with ``tx``. A device that dies is no case for it: its successor goes on with the
    ring as it is.
    """

    __slots__ = (
        "_iova", "_mergeable", "_receive", "_rx", "_rx_paused", "_rx_pool", "_rx_starved", "_tx", "_tx_paused",
        "_tx_pool", "index", "notify", "stats",
    )  # fmt: skip

    def __init__(
        self,
        rings: tuple[SplitDriver, SplitDriver],
        pools: tuple[BufferPool, BufferPool],
        *,
        iova: int,
        notify: Callable[[int], None],
        receive: Callable[[list[bytes]], None],
        index: int = 0,
        mergeable: bool = False,
    ) -> None:
        self._rx, self._tx = rings
        self._rx_pool, self._tx_pool = pools
        least = NET_HEADER_BYTES + 1 if mergeable else BUFFER_BYTES
        if self._rx_pool.size < least or self._tx_pool.size < BUFFER_BYTES:
            raise LocalError(f"buffers of {self._rx_pool.size} and {self._tx_pool.size} bytes hold no frame")
        self._iova: Final = iova
        self._receive: Final = receive
        self._mergeable: Final = mergeable
        self.notify = notify
        self.index: Final = index
        self.stats: Final = NetStats()
        self._rx_paused = self._tx_paused = False
        #: the pool will call when it has buffers for the receive queue
        self._rx_starved = False

    @property
    def rings(self) -> tuple[SplitDriver, SplitDriver]:
        """The receive and the transmit ring."""
        return self._rx, self._tx

    def start(self) -> None:
        """Give the device every receive buffer that the ring has room for."""
        self._refill()
        if not self._rx_paused:
            self._kick_rx()

    def held(self, start: int, stop: int) -> tuple[int, int]:
        """Receive and transmit buffers at guest addresses ``start`` … ``stop`` - 1 that lie in the rings."""
        rx, tx = (
            sum(1 for head in range(ring.size) if start <= (ring.tokens[head] or -1) < stop) for ring in self.rings
        )
        return rx, tx

    # --- transmit -----------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Frames that transmit() would take now."""
        return 0 if self._tx_paused else min(self._tx.num_free, self._tx_pool.free)

    def transmit(self, frames: Sequence[bytes], *, xmit_more: bool = False) -> int:
        """Send frames (destination MAC on, no check sequence, at most MAX_ETHERNET bytes). Returns how many fitted.
        With ``xmit_more`` (Linux: ``netdev_xmit_more()``) no doorbell rings; kick_tx() does that.
        Raises LocalError, with nothing sent, for a frame that is too long."""
        return self._send([TX_PLAIN + frame for frame in frames], xmit_more=xmit_more)

    def transmit_csum(self, frames: Sequence[tuple[bytes, int, int]]) -> int:
        """Send ``(frame, csum_start, csum_offset)``: the device completes the checksum at ``csum_start + csum_offset``
        over what begins at ``csum_start`` (§5.1.6.2; CSUM must have been negotiated). Otherwise as transmit()."""
        pack = NET_HEADER.pack
        return self._send(
            [pack(HDR_F_NEEDS_CSUM, GSO_NONE, 0, 0, start, offset, 0) + frame for frame, start, offset in frames]
        )

    def _send(self, packets: list[bytes], *, xmit_more: bool = False) -> int:
        if self._tx_paused:
            return 0
        ring, pool, iova = self._tx, self._tx_pool, self._iova
        addrs = pool.take_batch(min(len(packets), ring.num_free))
        if not addrs:
            return 0
        views = pool.views
        batch = []
        try:
            for addr, packet in zip(addrs, packets, strict=False):
                length = len(packet)
                views[addr][:length] = packet
                batch.append((addr + iova, length, addr))
            ring.add_batch(batch, 0)
        except ValueError:
            pool.give_batch(addrs)
            raise LocalError(f"a packet of {length} bytes in a buffer of {pool.size}") from None
        except RingError:
            pool.give_batch(addrs)
            raise
        self.stats.tx_buffers += len(batch)
        if not xmit_more:
            self.kick_tx()
        return len(batch)

    def tx_callback(self) -> int:
        """The transmit queue's interrupt: take back what was sent. Returns how many buffers."""
        self.stats.tx_interrupts += 1
        return 0 if self._tx_paused else self._reclaim()

    def _reclaim(self) -> int:
        ring, pool = self._tx, self._tx_pool
        total = 0
        while True:
            ring.disable_cb()
            taken = ring.get_bufs(ring.size)
            pool.give_batch([token for token, _ in taken])
            total += len(taken)
            if ring.enable_cb():
                return total

    def kick_tx(self) -> bool:
        """Ring the transmit queue's doorbell where the device asked for it. Returns whether it rang."""
        if not self._tx.kick_prepare():
            return False
        self.stats.tx_kicks += 1
        self.notify(2 * self.index + TX)
        return True

    # --- receive ------------------------------------------------------------------------------------------------------

    def rx_callback(self) -> int:
        """The receive queue's interrupt: NAPI polls until the ring is empty, refilling. Returns how many frames."""
        self.stats.rx_interrupts += 1
        return 0 if self._rx_paused else self._poll()

    def _poll(self) -> int:
        ring, iova, pool = self._rx, self._iova, self._rx_pool
        size, stats = pool.size, self.stats
        total = 0
        while True:
            ring.disable_cb()
            taken = ring.get_bufs(NAPI_BUDGET)
            if taken:
                frames = self._merge(taken) if self._mergeable else self._frames(taken)
                stats.rx_buffers += len(taken)
                addrs = pool.exchange([addr for addr, _ in taken])
                ring.add_batch([(addr + iova, size, addr) for addr in addrs], DESC_F_WRITE)
                if ring.num_free:
                    self._refill()
                self._kick_rx()
                total += len(frames)
                self._receive(frames)
            if ring.enable_cb():
                return total

    def _frames(self, taken: list[tuple[int, int]]) -> list[bytes]:
        """The frames in buffers that hold one each."""
        views, size = self._rx_pool.views, self._rx_pool.size
        frames = []
        for addr, length in taken:
            view = views[addr]
            if NET_HEADER_BYTES < length <= size:
                frames.append(view[NET_HEADER_BYTES:length].tobytes())
                if view[0]:
                    self._count_csum(view[0])
            else:
                self.stats.rx_length_errors += 1
        return frames

    def _merge(self, taken: list[tuple[int, int]]) -> list[bytes]:
        """The frames in buffers of which num_buffers make one (§5.1.6.4). The device shows all of them at once: pieces
        that the budget left in the ring are taken too, and put to ``taken``."""
        views, size, stats = self._rx_pool.views, self._rx_pool.size, self.stats
        frames = []
        at = 0
        while at < len(taken):
            addr, length = taken[at]
            at += 1
            view = views[addr]
            count = view[_NUM_BUFFERS] | view[_NUM_BUFFERS + 1] << 8
            if not NET_HEADER_BYTES < length <= size or not 0 < count <= self._rx.size:
                stats.rx_length_errors += 1
                continue
            frame = view[NET_HEADER_BYTES:length].tobytes()
            if count > 1:
                end = at + count - 1
                if end > len(taken):
                    taken += self._pieces(end - len(taken))
                rest = taken[at:end]
                at += len(rest)
                if len(rest) < count - 1 or not all(0 < n <= size for _, n in rest):
                    stats.rx_length_errors += 1
                    continue
                frame += b"".join([views[piece][:n] for piece, n in rest])
                stats.rx_merged += 1
            frames.append(frame)
            if view[0]:
                self._count_csum(view[0])
        return frames

    def _pieces(self, count: int) -> list[tuple[int, int]]:
        """The next ``count`` used buffers, fewer where the device shows no more."""
        try:
            return self._rx.get_bufs(count)
        except RingError:
            # what was taken before is not lost for it: the next look meets the same element again and raises
            self._rx.broken = False
            return []

    def _count_csum(self, flags: int) -> None:
        if flags & HDR_F_NEEDS_CSUM:
            self.stats.rx_csum_partial += 1
        if flags & HDR_F_DATA_VALID:
            self.stats.rx_csum_valid += 1

    def _refill(self) -> None:
        """Fill the receive ring from the pool; where that has too few buffers, again when it has."""
        ring, pool, iova = self._rx, self._rx_pool, self._iova
        ring.add_batch([(addr + iova, pool.size, addr) for addr in pool.take_batch(ring.num_free)], DESC_F_WRITE)
        if ring.num_free and not self._rx_starved:
            self._rx_starved = True
            self.stats.rx_oom += 1
            pool.when_free(self._feed)

    def _feed(self) -> None:
        """The pool has buffers again."""
        self._rx_starved = False
        if not self._rx.broken:
            self.start()

    def _kick_rx(self) -> None:
        if self._rx.kick_prepare():
            self.stats.rx_kicks += 1
            self.notify(2 * self.index + RX)

    # --- reset of a queue (§2.6.1) ------------------------------------------------------------------------------------

    def rx_pause(self) -> None:
        """Leave the receive ring alone: before the device is asked to reset the queue."""
        self._rx_paused = True

    def rx_reset(self) -> int:
        """The device has reset the queue: takes what it had used, takes back what it never used, and fills the ring
        anew from index 0. No doorbell rings. Returns how many frames were received. Raises LocalError unless paused."""
        if not self._rx_paused:
            raise LocalError("rx_reset: the receive queue is not paused")
        used = self._drain(self._rx)
        frames = self._merge(used) if self._mergeable else self._frames(used)
        self.stats.rx_buffers += len(used)
        self._rx_pool.give_batch([addr for addr, _ in used] + self._rx.reinit())
        self._refill()
        self._receive(frames)
        return len(frames)

    def rx_resume(self) -> None:
        """The device has enabled the queue again."""
        self._rx_paused = False
        self._kick_rx()
        self._poll()

    def tx_pause(self) -> None:
        """Send nothing more: before the device is asked to reset the queue."""
        self._tx_paused = True

    def tx_reset(self) -> int:
        """The device has reset the queue: takes every buffer back; the ring begins anew from index 0, empty. Returns
        how many frames the device did not say that it sent: it may have. Raises LocalError unless paused."""
        if not self._tx_paused:
            raise LocalError("tx_reset: the transmit queue is not paused")
        used = [addr for addr, _ in self._drain(self._tx)]
        dropped = self._tx.reinit()
        self._tx_pool.give_batch(used + dropped)
        return len(dropped)

    def tx_resume(self) -> None:
        """The device has enabled the queue again."""
        self._tx_paused = False
        self.kick_tx()
        self._reclaim()

    @staticmethod
    def _drain(ring: SplitDriver) -> list[tuple[int, int]]:
        """What the device had used before the reset. Where it lies the rest counts as never used."""
        used: list[tuple[int, int]] = []
        try:
            while got := ring.get_bufs(ring.size):
                used += got
        except RingError:
            pass
        return used
