"""The port's copies: readable bytes of chains gathered into Avail frames, answers scattered into writable segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from common.errors import RemoteError, RingError
from common.memory import MappedMemory
from common.virtio.split_device import Segment
from common.wire.limits import MAX_FRAME
from common.wire.messages import Avail, Chain, Message
from services.guest_driver.port_queue import PortQueue

#: Payload bytes after which an Avail frame is closed and another begun.
_FRAME_PAYLOAD: Final = MAX_FRAME * 3 // 4
#: Upper bounds of the msgpack overhead of a chain and of one of its segments.
_CHAIN_OVERHEAD: Final = 16
_SEGMENT_OVERHEAD: Final = 24


def send_chains(queue: PortQueue, heads: Sequence[int], *, again: bool, send: Callable[[Message], None]) -> None:
    """Gather the readable parts of the chains in flight at ``heads`` and send them, in as few frames as they fit.

    The chains of a frame are consecutive avail entries, so that each has a place that both sides know. Raises RingError
    for a chain that no frame can hold, MemoryFaultError for an address that the queue's key does not map.
    """
    memory, ring, in_flight = queue.memory, queue.ring, queue.in_flight
    assert memory is not None
    assert ring is not None
    read = memory.read
    chains: list[Chain] = []
    first = following = in_flight[heads[0]][0]
    room = _FRAME_PAYLOAD
    for head in heads:
        index, segments, readable = in_flight[head]
        need = _CHAIN_OVERHEAD + _SEGMENT_OVERHEAD * len(segments)
        for i in range(readable):
            need += segments[i][1]
        if need > room or index != following:
            if need > _FRAME_PAYLOAD:  # before anything is read: a chain may name the same megabytes many times
                raise RingError("chain", need, _FRAME_PAYLOAD, "bytes of one chain exceed a frame")
            if chains:
                send(Avail(queue.index, queue.generation, first, chains, ring.used_idx, again))
            first, chains, room = index, [], _FRAME_PAYLOAD
        if readable == 1:
            data = read(segments[0][0], segments[0][1])
        elif readable:
            data = b"".join([read(addr, length) for addr, length, _ in segments[:readable]])
        else:
            data = b""
        chains.append((head, data, segments))
        room -= need
        following = (index + 1) & 0xFFFF
    send(Avail(queue.index, queue.generation, first, chains, ring.used_idx, again))


def scatter(memory: MappedMemory, segments: Sequence[Segment], readable: int, written: bytes) -> None:
    """Write ``written`` into the device-writable segments, those from ``readable`` on, in order. Raises RemoteError
    where the device sent more than fits, MemoryFaultError for an address that the key does not map."""
    size = len(written)
    at = 0
    for i in range(readable, len(segments)):
        addr, length, _ = segments[i]
        if size - at <= length:
            memory.write(addr, written[at:] if at else written)
            return
        if length:
            memory.write(addr, written[at : at + length])
            at += length
    raise RemoteError("used.written", size, at, "bytes do not fit the writable segments")
