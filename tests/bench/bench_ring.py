"""Microseconds of the split ring and of the port: ``python tests/bench/bench_ring.py``. Not collected by pytest.

One line a case; each is the best of several rounds, the figure least disturbed by the machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.memory import GuestMemory, MemoryKey, MemoryMap
from common.runtime.world import AsyncWorld
from common.virtio.policy import DEFAULT_POLICY
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Avail, Create, Message, Used
from services.guest_driver.port import Port

SIZE = 256
ROUNDS = 7


def best(name: str, work: Callable[[], int]) -> float:
    """``work`` returns how many items it did; prints the best µs an item."""
    figures = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        items = work()
        figures.append((time.perf_counter() - start) / items * 1e6)
    print(f"{name:58} {min(figures):7.2f} µs")
    return min(figures)


def ring(*, event_idx: bool) -> tuple[SplitDriver, SplitDevice]:
    world, layout = AsyncWorld(), SplitLayout.packed_at(0x1000, SIZE)
    memory = GuestMemory(1 << 20)
    driver = SplitDriver(world, memory, layout, event_idx=event_idx)
    return driver, SplitDevice(world, memory, layout, event_idx=event_idx, check=False)


def single() -> int:
    driver, device = ring(event_idx=True)
    out = [(0x8000, 100)]
    for _ in range(20_000):
        driver.add(out, (), 1)
        driver.kick_prepare()
        popped = device.pop()
        assert popped is not None
        device.push(popped[0], 0)
        device.need_interrupt()
        driver.get_buf()
    return 20_000


def batch(size: int) -> Callable[[], int]:
    def work() -> int:
        driver, device = ring(event_idx=True)
        buffers = [(0x8000, 100, i + 1) for i in range(size)]
        turns = 60_000 // size
        for _ in range(turns):
            driver.add_batch(buffers, 0)
            driver.kick_prepare()
            device.push_batch([(popped[0], 0) for popped in device.pop_batch(size)])
            device.need_interrupt()
            driver.get_bufs(size)
        return turns * size

    return work


def port(size: int, payload: int, *, write: bool) -> Callable[[], int]:
    """Doorbell → Avail → Used → driver: what a port costs a chain, without the codec."""

    def work() -> int:
        world, layout = AsyncWorld(), SplitLayout.packed_at(0x1000, SIZE)
        memory = GuestMemory(1 << 20)
        memory.add_region(1 << 32, 1 << 20)  # a DIMM: lookups have more than one region to look at
        key = MemoryKey(MemoryMap.identity(memory), 1)
        sent: list[Message] = []
        port = Port(world, memory, queues=1, send=sent.append, key_of={1: key}.get, clock=lambda: 1.0)
        port.link_up()
        driver = SplitDriver(world, memory, layout)
        areas = (layout.desc, layout.driver, layout.device)
        port.frame(Create(0, 1, 0, 0, 0, SIZE, *areas, 0, int(DEFAULT_POLICY)))
        base = (1 << 32) + 0x100
        buffers = [(base + 2048 * i, payload, i + 1) for i in range(size)]
        answer = bytes(payload) if write else b""
        used, turns = 0, max(1, 30_000 // size)
        for _ in range(turns):
            driver.add_batch(buffers, 2 if write else 0)
            port.doorbell(0)
            for message in sent:
                if type(message) is Avail:
                    port.frame(Used(0, used & 0xFFFF, [(chain[0], answer) for chain in message.chains]))
                    used += len(message.chains)
            sent.clear()
            assert len(driver.get_bufs(size)) == size
        return turns * size

    return work


def main() -> None:
    best("split ring, a descriptor, one by one", single)
    for size in (8, 64, 256):
        best(f"split ring, a descriptor, batches of {size}", batch(size))
    for payload in (100, 1500):
        for size in (1, 8, 64):
            best(f"port, a readable chain of {payload} bytes, batches of {size}", port(size, payload, write=False))
            best(f"port, a writable chain of {payload} bytes, batches of {size}", port(size, payload, write=True))


if __name__ == "__main__":
    main()
