"""A NIC with two queue pairs of which the first is attacked, by whoever writes its rings by hand.

Imported as ``tests.services.vdpa_nic.victim``.
"""

from __future__ import annotations

from typing import Any, Final

from common.memory import ACCESS_RO
from common.virtio.features import Feature
from common.virtio.net_ctrl import CtrlClass, RxCommand
from tests.services.vdpa_nic.mesh_rig import WHOLE, Mesh, Queue
from tests.services.vdpa_nic.wire_rig import WINDOW

RX, TX, CTRL = 0, 1, 4
#: Where a page is mapped that may only be read.
READ_ONLY: Final = 1 << 20
Desc = tuple[int, int, int, int]
"""``(addr, len, flags, next)``"""


class Victim(Mesh):
    """Two pairs of which the first is attacked; three entries of memory to put things into."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(pairs=2, size=8, features=Feature.INDIRECT_DESC.bit, **kwargs)
        self.table = self.layout.alloc(16 * 64, 16)
        self.room = self.layout.alloc(1 << 17)
        #: queues whose driver is the test: what they complete is no buffer of the rig's
        self.by_hand: set[int] = set()

    def start(self) -> Victim:
        self.vmm("set_map", 0, [*WHOLE, (READ_ONLY, 0x1000, WINDOW[0] + 0x1000, ACCESS_RO)])
        self.do(*self.bring_up())
        self.connect()
        self.settle()
        self.give(1)
        self.kick(self.queues[2])
        self.settle()
        assert self.echoes(1)
        return self

    def put(self, at: int, descs: list[Desc]) -> None:
        """Descriptors ``(addr, len, flags, next)`` into a table at guest address ``at``."""
        for i, (addr, length, flags, following) in enumerate(descs):
            self.memory.write(
                at + 16 * i,
                addr.to_bytes(8, "little")
                + length.to_bytes(4, "little")
                + flags.to_bytes(2, "little")
                + following.to_bytes(2, "little"),
            )

    def poll(self, queue: Queue) -> None:
        if queue.index not in self.by_hand:
            super().poll(queue)

    def offer(self, queue: Queue, heads: list[int], jump: int = 0) -> None:
        """Make heads available by hand, and kick."""
        self.by_hand.add(queue.index)
        idx = queue.ring.avail_idx
        for i, head in enumerate(heads):
            at = queue.layout.driver + 4 + 2 * ((idx + i) % self.size)
            self.memory.write(at, head.to_bytes(2, "little"))
        idx = (idx + len(heads) + jump) & 0xFFFF
        self.memory.write(queue.layout.driver + 2, idx.to_bytes(2, "little"))
        queue.ring.avail_idx = idx
        self.port.doorbell(queue.index)

    def used(self, queue: Queue) -> int:
        return int.from_bytes(self.memory.read(queue.layout.device + 2, 2), "little")

    def others_run(self) -> None:
        """The second pair does; so do the transmit and the control queue where they are not the broken ones."""
        assert self.echoes(1), "the other pair stands still"
        if not self.device.queues[CTRL].broken:
            before = self.used(self.ctrl)
            self.command(CtrlClass.RX, RxCommand.ALLMULTI, b"\1")
            self.settle()
            assert self.used(self.ctrl) == before + 1
