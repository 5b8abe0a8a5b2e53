"""The virtio-net driver (virtio 1.3 §5.1): transmit in batches, receive as Linux's NAPI does, refill, kick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from common.virtio.features import DESC_F_WRITE
from common.virtio.net_header import MAX_ETHERNET, NET_HEADER_BYTES, TX_PLAIN
from common.virtio.split_driver import SplitDriver
from common.world import Memory, World

RX: Final = 0
TX: Final = 1

#: Used buffers that one turn of a poll takes (Linux: NAPI_POLL_WEIGHT): they are refilled and kicked before the next
#: turn, so that the device works on while the driver does.
NAPI_BUDGET: Final = 64

#: Bytes of one packet buffer: header and a full frame, rounded up to lines.
BUFFER_BYTES: Final = (NET_HEADER_BYTES + MAX_ETHERNET + 63) & ~63


class NetDriver:
    """One queue pair.

    ``rings`` are the receive and the transmit ring; ``buffers`` the guest addresses of two pools of ``ring.size``
    buffers of BUFFER_BYTES each; the device sees guest address ``a`` at I/O virtual address ``a + iova``.
    ``notify(queue)`` is the doorbell, ``receive(frames)`` is handed the frames of one poll in the order received.
    """

    __slots__ = (
        "_buffers", "_free", "_iova", "_memory", "_receive", "_rx", "_tx", "kicks", "notify", "rx_kicks", "rx_short",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        memory: Memory,
        rings: tuple[SplitDriver, SplitDriver],
        buffers: tuple[int, int],
        *,
        iova: int,
        notify: Callable[[int], None],
        receive: Callable[[list[bytes]], None],
    ) -> None:
        self._memory: Final = memory
        self._rx, self._tx = rings
        self._buffers: Final = buffers
        self._iova: Final = iova
        self._receive: Final = receive
        self.notify = notify
        #: transmit buffers that are free, by guest address
        self._free: list[int] = [buffers[1] + i * BUFFER_BYTES for i in range(self._tx.size)]
        self.kicks = 0
        self.rx_kicks = 0
        #: receive buffers that came back with less than a header and a byte: there is no frame in them
        self.rx_short = 0

    @property
    def rings(self) -> tuple[SplitDriver, SplitDriver]:
        """The receive and the transmit ring."""
        return self._rx, self._tx

    def start(self) -> None:
        """Give the device every receive buffer."""
        base, iova = self._buffers[0], self._iova
        addrs = [base + i * BUFFER_BYTES for i in range(self._rx.size)]
        self._rx.add_batch([(a + iova, BUFFER_BYTES, a) for a in addrs], DESC_F_WRITE)
        self._kick_rx()

    # --- transmit -----------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Frames that transmit() would take now."""
        return len(self._free)

    def transmit(self, frames: Sequence[bytes]) -> int:
        """Send frames (destination MAC on, no check sequence, at most MAX_ETHERNET bytes). Returns how many fitted."""
        free, iova, write = self._free, self._iova, self._memory.write
        batch = []
        for frame in frames:
            if not free:
                break
            addr = free.pop()
            write(addr, TX_PLAIN + frame)
            batch.append((addr + iova, NET_HEADER_BYTES + len(frame), addr))
        if batch:
            self._tx.add_batch(batch, 0)
            if self._tx.kick_prepare():
                self.kicks += 1
                self.notify(TX)
        return len(batch)

    def tx_callback(self) -> int:
        """The transmit queue's interrupt: take back what was sent. Returns how many buffers."""
        ring, free = self._tx, self._free
        total = 0
        while True:
            ring.disable_cb()
            taken = ring.get_bufs(ring.size)
            free.extend([token for token, _ in taken])
            total += len(taken)
            if ring.enable_cb():
                return total

    # --- receive ------------------------------------------------------------------------------------------------------

    def rx_callback(self) -> int:
        """The receive queue's interrupt: NAPI polls until the ring is empty, refilling. Returns how many frames."""
        ring, iova, read = self._rx, self._iova, self._memory.read
        total = 0
        while True:
            ring.disable_cb()
            taken = ring.get_bufs(NAPI_BUDGET)
            if taken:
                frames = [
                    read(addr + NET_HEADER_BYTES, length - NET_HEADER_BYTES)
                    for addr, length in taken
                    if length > NET_HEADER_BYTES
                ]
                self.rx_short += len(taken) - len(frames)
                ring.add_batch([(addr + iova, BUFFER_BYTES, addr) for addr, _ in taken], DESC_F_WRITE)
                self._kick_rx()
                total += len(frames)
                self._receive(frames)
            if ring.enable_cb():
                return total

    def _kick_rx(self) -> None:
        if self._rx.kick_prepare():
            self.rx_kicks += 1
            self.notify(RX)
