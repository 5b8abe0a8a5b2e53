"""The net driver on its rings: batches, refill, suppression, buffers that come back odd."""

from __future__ import annotations

import pytest

from common.histogram import Histogram
from common.memory import GuestMemory
from common.virtio.features import DESC_F_WRITE
from common.virtio.net_header import MAX_ETHERNET, NET_HEADER_BYTES, RX_PLAIN, TX_PLAIN
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.guest_driver.net import BUFFER_BYTES, RX, TX, NetDriver
from tests.common.virtio.ringkit import WORLD

SIZE = 4
IOVA = 0x100000


class Bench:
    """The driver against the device half of its rings, on the same memory."""

    def __init__(self, event_idx: bool = True) -> None:
        self.memory = GuestMemory(1 << 16)
        layouts = [SplitLayout.packed_at(0x1000 * (n + 1), SIZE) for n in range(2)]
        rx, tx = (SplitDriver(WORLD, self.memory, at, event_idx=event_idx) for at in layouts)
        self.rx, self.tx = (
            SplitDevice(WORLD, self.memory, at, event_idx=event_idx, check=False) for at in layouts
        )  # the device would see IOVAs; here the test takes them apart
        self.bells: list[int] = []
        self.got: list[list[bytes]] = []
        self.net = NetDriver(
            WORLD,
            self.memory,
            (rx, tx),
            (0x4000, 0x8000),
            iova=IOVA,
            notify=self.bells.append,
            receive=self.got.append,
        )

    def fill(self, frame: bytes, length: int | None = None) -> None:
        """The device receives a frame."""
        ((head, segments, readable),) = self.rx.pop_batch(1)
        assert readable == 0
        ((addr, room, flags),) = segments
        assert (room, flags) == (BUFFER_BYTES, DESC_F_WRITE)
        self.memory.write(addr - IOVA, RX_PLAIN + frame)
        self.rx.push_batch([(head, NET_HEADER_BYTES + len(frame) if length is None else length)])


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.net.start()
    return made


def test_a_buffer_holds_a_frame() -> None:
    assert BUFFER_BYTES >= NET_HEADER_BYTES + MAX_ETHERNET
    assert BUFFER_BYTES % 64 == 0


def test_start_gives_every_receive_buffer(bench: Bench) -> None:
    assert bench.bells == [RX]
    popped = bench.rx.pop_batch(SIZE)
    assert [segments[0][0] for _, segments, _ in popped] == [IOVA + 0x4000 + n * BUFFER_BYTES for n in range(SIZE)]
    assert bench.net.rx_kicks == 1
    assert bench.net.rings[RX].num_free == 0


def test_transmit_takes_what_fits(bench: Bench) -> None:
    frames = [bytes([n]) * (14 + n) for n in range(SIZE + 2)]
    assert bench.net.transmit([]) == 0
    assert bench.net.transmit(frames) == SIZE
    assert bench.net.room == 0
    assert bench.net.transmit(frames) == 0
    assert (bench.net.kicks, bench.bells) == (1, [RX, TX]), "one doorbell a batch"
    popped = bench.tx.pop_batch(SIZE)
    for frame, (_, segments, readable) in zip(frames, popped, strict=False):
        ((addr, length, _),) = segments
        assert readable == 1
        assert bench.memory.read(addr - IOVA, length) == TX_PLAIN + frame
    bench.tx.push_batch([(head, 0) for head, _, _ in popped[:3]])
    assert bench.net.tx_callback() == 3
    assert bench.net.room == 3
    assert bench.net.tx_callback() == 0


def test_no_doorbell_where_the_device_wants_none() -> None:
    bench = Bench(event_idx=False)
    bench.tx.disable_notify()
    bench.net.transmit([b"x" * 20])
    assert (bench.bells, bench.net.kicks) == ([], 0)


def test_receive_in_order_and_refill(bench: Bench) -> None:
    for n in range(3):
        bench.fill(bytes([n]) * (20 + n))
    assert bench.net.rx_callback() == 3
    assert bench.got == [[bytes([n]) * (20 + n) for n in range(3)]]
    assert bench.net.rings[RX].num_free == 0, "refilled"
    for n in range(9):  # round the ring
        bench.fill(bytes([n]) * 60)
        assert bench.net.rx_callback() == 1
    assert len(bench.got) == 10
    assert bench.net.rx_callback() == 0


def test_what_arrives_during_the_callback_is_taken_too(bench: Bench) -> None:
    """Between the last look and switching interrupts on again: no interrupt comes for it."""
    bench.fill(b"a" * 20)
    plain = bench.net._receive

    def receive(frames: list[bytes]) -> None:
        plain(frames)
        if len(bench.got) < 3:
            bench.fill(b"b" * 20)

    object.__setattr__(bench.net, "_receive", receive)
    assert bench.net.rx_callback() == 3
    assert len(bench.got) == 3


@pytest.mark.parametrize("length", [0, 5, NET_HEADER_BYTES])
def test_a_buffer_without_a_frame_goes_back(bench: Bench, length: int) -> None:
    bench.fill(b"a" * 20)
    bench.fill(b"", length)
    bench.fill(b"c" * 20)
    assert bench.net.rx_callback() == 2
    assert bench.got == [[b"a" * 20, b"c" * 20]]
    assert bench.net.rx_short == 1
    assert bench.net.rings[RX].num_free == 0
    assert Histogram().count == 0
