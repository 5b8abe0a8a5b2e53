"""One queue pair of the net driver against the device half of its rings, on the same memory.

Imported as ``tests.services.guest_driver.net_bench``.
"""

from __future__ import annotations

from typing import Final

from common.memory import GuestMemory
from common.virtio.features import DESC_F_WRITE
from common.virtio.net_header import GSO_NONE, NET_HEADER, NET_HEADER_BYTES
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.guest_driver.buffers import BufferPool
from services.guest_driver.net_pair import BUFFER_BYTES, NetPair
from tests.common.virtio.ringkit import WORLD

IOVA: Final = 0x100000
#: RAM holds the rings and the first bank, another one for small receive buffers; a further bank lies in a DIMM.
BANK: Final = 0x4000
RX_BANK: Final = 0x7_0000
DIMM: Final = 0x8_0000


def header(flags: int = 0, num_buffers: int = 1) -> bytes:
    return NET_HEADER.pack(flags, GSO_NONE, 0, 0, 0, 0, num_buffers)


class Bench:
    """Rings of ``size`` entries; receive buffers of ``small`` bytes that are merged, or whole ones without."""

    def __init__(self, size: int = 4, *, event_idx: bool = True, small: int = 0) -> None:
        self.memory = GuestMemory(DIMM)
        self.layouts = [SplitLayout.packed_at(0x1000 * (n + 1), size) for n in range(2)]
        rx, tx = (SplitDriver(WORLD, self.memory, at, event_idx=event_idx) for at in self.layouts)
        self.event_idx = event_idx
        self.rx, self.tx = self.device(0), self.device(1)
        self.bells: list[int] = []
        self.got: list[list[bytes]] = []
        self.pool = BufferPool(self.memory, BUFFER_BYTES)
        self.pool.add_bank(BANK, 2 * size * BUFFER_BYTES)
        self.rx_pool = self.pool
        if small:
            self.rx_pool = BufferPool(self.memory, small)
            self.rx_pool.add_bank(RX_BANK, size * small)
        self.net = NetPair(
            (rx, tx), (self.rx_pool, self.pool), iova=IOVA, notify=self.bells.append, receive=self.got.append,
            mergeable=bool(small),
        )  # fmt: skip

    def device(self, queue: int) -> SplitDevice:
        """A device that begins with the queue; it would see IOVAs, here the test takes them apart."""
        return SplitDevice(WORLD, self.memory, self.layouts[queue], event_idx=self.event_idx, check=False)

    def frames(self) -> list[bytes]:
        """What was received, in order."""
        return [frame for batch in self.got for frame in batch]

    def place(self, packet: bytes, buffers: int = 1, lengths: dict[int, int] | None = None) -> list[int]:
        """The device puts a packet (header and frame) into the next ``buffers`` receive buffers, as much as fits into
        each, and shows them at once. ``lengths`` is what it says instead of the truth. Returns the guest addresses."""
        popped = self.rx.pop_batch(buffers)
        assert len(popped) == buffers
        used, addrs = [], []
        for number, (head, ((addr, room, flags),), readable) in enumerate(popped):
            assert (readable, flags, room) == (0, DESC_F_WRITE, self.rx_pool.size)
            piece, packet = packet[:room], packet[room:]
            self.memory.write(addr - IOVA, piece)
            used.append((head, (lengths or {}).get(number, len(piece))))
            addrs.append(addr - IOVA)
        assert not packet
        self.rx.push_batch(used)
        return addrs

    def fill(self, frame: bytes, length: int | None = None, flags: int = 0) -> int:
        """The device receives a frame into one buffer; its guest address."""
        lengths = None if length is None else {0: length}
        return self.place(header(flags) + frame, 1, lengths)[0]

    def merge(self, frame: bytes, flags: int = 0) -> list[int]:
        """The device receives a frame into as many buffers as it needs."""
        count = -(-(len(frame) + NET_HEADER_BYTES) // self.rx_pool.size)
        return self.place(header(flags, count) + frame, count)

    def sent(self, limit: int = 64) -> list[bytes]:
        """The device takes what was transmitted, and is done with it at once."""
        popped = self.tx.pop_batch(limit)
        packets = []
        for _, ((addr, length, _),), readable in popped:
            assert readable == 1
            packets.append(self.memory.read(addr - IOVA, length))
        self.tx.push_batch([(head, 0) for head, _, _ in popped])
        return packets
