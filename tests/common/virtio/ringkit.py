"""What the ring tests share: the services' world, a small echo device, and the transport's calls.

Imported as ``tests.common.virtio.ringkit``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from hypothesis import HealthCheck, settings

from common.memory import ACCESS_RW, GuestMemory, Mapping, MemoryKey, MemoryMap
from common.runtime.world import AsyncWorld
from common.virtio.device import VirtioDevice
from common.virtio.features import DESC_F_WRITE, Feature, Status, mask
from common.virtio.msi_source import MsiSource
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Call, Chain, Message, Resync, Saved

#: One profile for every property of the rings; deadlines say nothing on a shared machine.
PROFILE: Final = settings(max_examples=150, deadline=None)
STATEFUL: Final = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

OFFERED: Final = mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC)
WORLD: Final = AsyncWorld()


def reply(data: bytes, room: int) -> bytes:
    """What the echo device writes: the request backwards, repeated to fill ``room``, so that every byte is known."""
    if not data:
        return b"\xa5" * room
    turned = data[::-1]
    return (turned * (room // len(turned) + 1))[:room]


def identity_key(memory: GuestMemory, generation: int) -> MemoryKey:
    return MemoryKey(MemoryMap(Mapping(r.base, r.size, r.base, ACCESS_RW) for r in memory.regions), generation)


class EchoDevice(VirtioDevice):
    """Holds every chain until the test answers it, in any order; changes its memory key as the NIC does."""

    device_id = 63

    def __init__(self, sent: list[Message], msis: list[Message], sizes: list[int], key: MemoryKey | None) -> None:
        super().__init__(
            send=sent.append,
            msi=MsiSource("vm", 7, msis.append),
            clock=lambda: 1.0,
            offered=OFFERED,
            queue_sizes=sizes,
            log=lambda event, **fields: None,
        )
        self.config += bytes(range(16))
        self.the_key = key
        #: (queue, head) → answer
        self.held: dict[tuple[int, int], bytes] = {}
        self.changing: tuple[MemoryKey, set[int]] | None = None

    def key(self, _queue: int) -> MemoryKey | None:
        return self.the_key

    def on_reset(self) -> None:
        self.held.clear()
        self.changing = None

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        for head, data, segments in chains:
            assert (queue, head) not in self.held, "a chain was given twice"
            room = sum(length for _, length, flags in segments if flags & DESC_F_WRITE)
            self.held[queue, head] = reply(data, room)

    def answer_one(self, queue: int, head: int) -> None:
        self.queues[queue].complete(head, self.held.pop((queue, head)))

    def change_key(self, key: MemoryKey) -> None:
        live = {queue.index for queue in self.queues if queue.live and not queue.broken}
        if not live:
            self.the_key = key
            if self.status & Status.DRIVER_OK:
                self.start()
            return
        self.changing = (key, live)
        for index in sorted(live):
            self.queues[index].suspend()

    def on_saved(self, message: Saved) -> None:
        if self.changing is None:
            return
        key, waiting = self.changing
        waiting.discard(message.queue)
        if waiting:
            return
        self.changing = None
        self.the_key = key
        for queue in self.queues:
            if not queue.live or queue.broken:
                continue
            back = queue.tail()
            for at, head in list(self.held):
                if at == queue.index and head in back:
                    del self.held[at, head]
                elif at == queue.index:
                    self.answer_one(at, head)
            queue.hand_back(back)
            queue.flush()
            queue.destroy()
            queue.create(key)
            queue.resume()

    def on_resynced(self, message: Resync) -> None:
        if self.changing is not None:
            self.queues[message.queue].flush()
            self.on_saved(Saved(message.queue, 0, 0, 0, 0))
        else:
            super().on_resynced(message)


def bring_up(layouts: list[SplitLayout], features: int, status: int = 0) -> Generator[tuple[str, list[Any]], Any, None]:
    """The calls of virtio 1.3 §3.1.1 from where ``status`` says that the device stands."""
    if not status & Status.FEATURES_OK:
        yield "set_status", [3]
        yield "set_driver_features", [features]
        yield "set_status", [11]
    if not status & Status.DRIVER_OK:
        for index, layout in enumerate(layouts):
            yield "set_vq_num", [index, layout.size]
            yield "set_vq_address", [index, layout.desc, layout.driver, layout.device]
            yield "set_vq_cb", [index, 40 + index]
            yield "set_vq_ready", [index, True]
        yield "set_status", [15]


def configure(device: VirtioDevice, layouts: list[SplitLayout], features: int = OFFERED) -> None:
    """Bring ``device`` up to DRIVER_OK at once."""
    for op, args in bring_up(layouts, features):
        answer = device.answer(Call(0, op, args))
        assert answer is not None
        assert answer.errno == 0, answer
