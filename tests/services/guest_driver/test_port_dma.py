"""Gathering and scattering: what travels in which frame, and which bytes land where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RemoteError
from common.memory import GuestMemory, MappedMemory
from common.virtio.features import DESC_F_WRITE
from common.virtio.split_driver import SplitDriver
from common.wire.codec import encode
from common.wire.messages import Avail, Broken
from services.guest_driver.port import Port
from services.guest_driver.port_dma import scatter
from tests.common.virtio.ringkit import WORLD, identity_key
from tests.services.guest_driver.test_port import LAYOUT, Rig


def test_large_payload_splits_frames() -> None:
    rig = Rig(size=1 << 18)
    for i in range(4):
        rig.memory.fill(0x10000, 40_000, 7)
        rig.driver.add([(0x10000, 40_000)], [], i + 1)
    rig.create()
    frames = [m for m in rig.take() if isinstance(m, Avail)]
    assert [(m.first_idx, len(m.chains)) for m in frames] == [(0, 2), (2, 2)]
    for message in frames:
        encode(message)


def test_a_chain_that_names_more_than_a_frame_is_refused_before_it_is_read() -> None:
    rig, reads = Rig(size=1 << 20), []

    class Counting(GuestMemory):
        def read(self, addr: int, length: int) -> bytes:
            reads.append(length)
            return super().read(addr, length)

    rig.memory = Counting(1 << 20)
    rig.port = Port(WORLD, rig.memory, queues=1, send=rig.sent.append, key_of=rig.keys.get, clock=lambda: 5.0)
    rig.driver = SplitDriver(WORLD, rig.memory, LAYOUT)
    rig.driver.add([(0, 1 << 20)] * 4, [], "t")
    rig.create()
    sent = rig.take()
    assert [type(m) for m in sent] == [Broken]
    assert reads == []
    assert rig.queue.broken


@given(lengths=st.lists(st.integers(0, 6), max_size=5), data=st.binary(max_size=20))
def test_bytes_land_in_order_in_the_writable_segments(lengths: list[int], data: bytes) -> None:
    memory = GuestMemory(0x1000)
    mapped = MappedMemory(memory, identity_key(memory, 1))
    segments = [(0x20, 4, 0), *((0x100 + 0x10 * i, length, DESC_F_WRITE) for i, length in enumerate(lengths))]
    if len(data) > sum(lengths):
        with pytest.raises(RemoteError, match=r"used\.written"):
            scatter(mapped, segments, 1, data)
        return
    if lengths:
        scatter(mapped, segments, 1, data)
    written = b"".join(memory.read(addr, length) for addr, length, _ in segments[1:])
    assert written == data.ljust(sum(lengths), b"\0")
    assert memory.read(0x20, 4) == bytes(4)
