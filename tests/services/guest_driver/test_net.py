"""The net driver over several queue pairs: which queue is whose, and which pairs are active."""

from __future__ import annotations

import pytest

from common.errors import LocalError
from common.memory import GuestMemory
from common.virtio.net_header import RX_PLAIN, TX_PLAIN
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.guest_driver.buffers import BufferPool
from services.guest_driver.net import NetDriver, queue_names
from services.guest_driver.net_pair import BUFFER_BYTES, RX, TX
from tests.common.virtio.ringkit import WORLD

SIZE = 4
PAIRS = 3


class Bench:
    """Three pairs and the device halves of their six queues, all buffers in one pool."""

    def __init__(self) -> None:
        self.memory = GuestMemory(1 << 17)
        self.pool = BufferPool(self.memory, BUFFER_BYTES)
        self.pool.add_bank(0x8000, 2 * PAIRS * SIZE * BUFFER_BYTES)
        at = [SplitLayout.packed_at(0x1000 * n + 0x1000, SIZE) for n in range(2 * PAIRS)]
        rings = [SplitDriver(WORLD, self.memory, layout) for layout in at]
        self.devices = [SplitDevice(WORLD, self.memory, layout) for layout in at]
        self.bells: list[int] = []
        self.got: list[tuple[int, list[bytes]]] = []
        self.net = NetDriver(
            list(zip(rings[::2], rings[1::2], strict=True)),
            (self.pool, self.pool),
            iova=0,
            notify=self.bells.append,
            receive=lambda pair, frames: self.got.append((pair, frames)),
        )

    def waiting(self) -> list[int]:
        return [device.available() for device in self.devices]


def test_one_pair_is_active_at_first() -> None:
    bench = Bench()
    bench.net.start()
    assert bench.waiting() == [SIZE, 0, 0, 0, 0, 0]
    assert bench.bells == [RX]
    assert bench.net.transmit(0, [b"a" * 20]) == 1
    with pytest.raises(LocalError, match="queue pair 1 of 1"):
        bench.net.transmit(1, [b"a" * 20])


def test_pairs_that_become_active_are_filled_once() -> None:
    bench = Bench()
    bench.net.start()
    bench.net.set_active(3)
    assert bench.waiting() == [SIZE, 0] * 3
    assert bench.bells == [RX, 2 + RX, 4 + RX]
    bench.net.set_active(2)
    bench.net.set_active(2)
    assert len(bench.bells) == 3
    for pair in (2, -1):
        with pytest.raises(LocalError):
            bench.net.transmit(pair, [b"a" * 20])


@pytest.mark.parametrize("count", [0, PAIRS + 1, -1])
def test_pairs_there_are_not(count: int) -> None:
    bench = Bench()
    with pytest.raises(LocalError, match="of 1 to 3"):
        bench.net.set_active(count)
    assert bench.net.active == 1


def test_each_pair_has_its_queues_and_counts() -> None:
    bench = Bench()
    bench.net.set_active(3)
    bench.net.start()
    bench.bells.clear()
    for pair in range(3):
        frame = bytes([pair]) * 30
        assert bench.net.transmit(pair, [frame] * (pair + 1)) == pair + 1
        for head, ((addr, length, _),), _ in bench.devices[2 * pair + TX].pop_batch(pair + 1):
            assert bench.memory.read(addr, length) == TX_PLAIN + frame
            bench.devices[2 * pair + TX].push(head, 0)
        ((head, ((addr, _, _),), _),) = bench.devices[2 * pair + RX].pop_batch(1)
        bench.memory.write(addr, RX_PLAIN + frame)
        bench.devices[2 * pair + RX].push(head, len(RX_PLAIN + frame))
        assert bench.net.pairs[pair].rx_callback() == 1
        assert bench.net.pairs[pair].tx_callback() == pair + 1
    assert bench.got == [(pair, [bytes([pair]) * 30]) for pair in range(3)]
    assert bench.bells == [1, 0, 3, 2, 5, 4]
    assert [pair.stats.tx_buffers for pair in bench.net.pairs] == [1, 2, 3]
    assert bench.pool.free == PAIRS * SIZE


def test_names_of_queues() -> None:
    assert queue_names(2) == ["rx0", "tx0", "rx1", "tx1", "ctrl"]
