"""Whatever bytes guest memory holds, each half of a split queue either works or raises RingError once and stays broken,
after a bounded number of steps.

Run: ``python -m tests.fuzz.fuzz_ring [COUNT] [SEED]``; ``test_fuzz_rings.py`` runs a short round.
"""

from __future__ import annotations

import random
import sys

import pytest

from common.errors import RingError
from common.memory import GuestMemory
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from tests.common.virtio.ringkit import WORLD

SIZE = 0x1000


def _memory(rng: random.Random, layout: SplitLayout) -> GuestMemory:
    """Random bytes, made plausible here and there so that the deeper checks are reached."""
    memory = GuestMemory(SIZE)
    memory.write(0, rng.randbytes(SIZE))
    for i in range(layout.size):
        if rng.random() < 0.8:
            addr = rng.choice([rng.randrange(SIZE), rng.randrange(SIZE) & ~15, 2**64 - rng.randrange(1, 99)])
            length = rng.choice([rng.randrange(64), 16 * rng.randrange(6), rng.randrange(1 << 32)])
            memory.write(
                layout.desc + 16 * i,
                addr.to_bytes(8, "little")
                + length.to_bytes(4, "little")
                + rng.choice([0, 1, 2, 3, 4, 4, 5, rng.randrange(1 << 16)]).to_bytes(2, "little")
                + rng.randrange(layout.size + 1).to_bytes(2, "little"),
            )
    for i in range(layout.size):
        if rng.random() < 0.9:
            memory.write(layout.driver + 4 + 2 * i, rng.randrange(layout.size).to_bytes(2, "little"))
    return memory


def _device(rng: random.Random) -> None:
    layout = SplitLayout.packed_at(16 * rng.randrange(8), 1 << rng.randrange(5))
    memory = _memory(rng, layout)
    start = rng.randrange(1 << 16)
    device = SplitDevice(
        WORLD, memory, layout, event_idx=rng.random() < 0.5, check=rng.random() < 0.8, avail=start, used=start
    )
    memory.write(layout.driver + 2, ((start + rng.randrange(layout.size + 2)) & 0xFFFF).to_bytes(2, "little"))
    taken = 0
    try:
        while popped := device.pop_batch(3) if rng.random() < 0.5 else [p for p in [device.pop()] if p]:
            for head, segments, readable in popped:
                taken += 1
                assert head < layout.size
                assert 0 < len(segments) <= layout.size
                assert 0 <= readable <= len(segments)
                device.push(head, rng.randrange(1 << 32))
            device.need_interrupt()
            device.enable_notify()
    except RingError:
        assert device.broken
        with pytest.raises(RingError):
            device.pop()
    assert taken <= layout.size


def _driver(rng: random.Random) -> None:
    layout = SplitLayout.packed_at(0, 1 << rng.randrange(5))
    memory = GuestMemory(SIZE)
    driver = SplitDriver(WORLD, memory, layout, event_idx=rng.random() < 0.5, start=rng.randrange(1 << 16))
    added = set(range(1, rng.randrange(1, layout.size + 2)))
    for wanted in added:
        driver.add([(0, 1)], [], wanted)
    for i in range(8 * layout.size):
        memory.write(layout.device + 4 + i, bytes([rng.choice([0, 0, 0, rng.randrange(256)])]))
    moved = (driver.last_used_idx + rng.randrange(layout.size + 2)) & 0xFFFF
    memory.write(layout.device + 2, moved.to_bytes(2, "little"))
    got: list[int] = []
    try:
        while taken := driver.get_bufs(3) if rng.random() < 0.5 else [b for b in [driver.get_buf()] if b]:
            got += [token for token, _ in taken]
    except RingError:
        assert driver.broken
    while (token := driver.detach_unused()) is not None:
        got.append(token)
    assert sorted(got) == sorted(added), "a token was lost or doubled"
    assert driver.num_free == layout.size


def fuzz(count: int, seed: int) -> None:
    for i in range(count):
        rng = random.Random(f"{seed}/{i}")
        try:
            _device(rng)
            _driver(rng)
        except BaseException:
            print(f"seed {seed}, round {i}", file=sys.stderr)
            raise


if __name__ == "__main__":
    fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
