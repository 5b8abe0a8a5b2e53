"""A driver half and a local queue on the same memory: what the tests of queues and devices share."""

from __future__ import annotations

import itertools
from typing import Final

from common.errors import RemoteError
from common.memory import GuestMemory
from common.virtio.features import Feature
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from services.vhost_user.local_queue import LocalQueue
from services.vhost_user.world import FencedWorld

EVENT_IDX: Final = Feature.EVENT_IDX.bit
INDIRECT: Final = Feature.INDIRECT_DESC.bit
#: where payload buffers begin
DATA: Final = 0x8000


class QueueRig:
    """One queue of ``size`` entries from index ``start`` on; memory at guest address 0."""

    def __init__(self, size: int = 8, features: int = EVENT_IDX | INDIRECT, start: int = 0) -> None:
        self.world = FencedWorld()
        self.memory = GuestMemory(1 << 17)
        self.layout = SplitLayout.packed_at(0, size)
        self.features = features
        self.driver = SplitDriver(
            self.world, self.memory, self.layout, event_idx=bool(features & EVENT_IDX), start=start,
            indirect=0x4000 if features & INDIRECT else None, indirect_max=8,
        )  # fmt: skip
        self.interrupts = 0
        self.broken: list[RemoteError] = []
        self.intact = True
        self.queue = LocalQueue(
            0, self.world, interrupt=self.interrupt, on_broken=lambda _index, error: self.broken.append(error),
            whole=lambda: self.intact,
        )  # fmt: skip
        self.queue.start(self.memory, self.layout, features, start)
        self._places = itertools.cycle(range(DATA, (1 << 17) - 0x2000, 0x40))

    def interrupt(self) -> None:
        self.interrupts += 1

    def place(self) -> int:
        """Where 64 bytes are free; used again after a while."""
        return next(self._places)

    def add(self, request: bytes, *rooms: int, pieces: int = 1, token: object = None) -> list[tuple[int, int]]:
        """Make a chain available: ``request`` in so many pieces, a piece for each of ``rooms``; returns the latter."""
        outs = []
        step = -(-len(request) // pieces) or 1
        for at in range(0, len(request), step):
            piece = request[at : at + step]
            outs.append((self.place(), len(piece)))
            self.memory.write(outs[-1][0], piece)
        ins = [(self.place(), room) for room in rooms]
        self.driver.add(outs, ins, ins if token is None else token)
        return ins

    def written(self, ins: list[tuple[int, int]], length: int) -> bytes:
        """The first ``length`` bytes of the pieces ``ins``."""
        return b"".join(self.memory.read(addr, size) for addr, size in ins)[:length]

    def got(self) -> list[bytes]:
        """What came back since the last look, for chains without a token of their own."""
        return [self.written(ins, length) for ins, length in self.driver.get_bufs(1 << 16)]
