"""What a port knows of one queue: its queue object, what is in flight, and what outlives both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.memory import MappedMemory
from common.virtio.depth import Depth
from common.virtio.split_device import Segment, SplitDevice
from common.virtio.visible import Visible
from common.wire.messages import Broken
from common.world import Table, World


@dataclass(slots=True)
class PortStats:
    """What a port counts, all queues together."""

    kicks: int = 0
    fetched: int = 0
    used: int = 0
    irqs: int = 0
    resent: int = 0
    rings_broken: int = 0


class PortQueue:
    """The queue object of one queue, and what outlives it."""

    __slots__ = (
        "again_sent", "alive", "broken", "depth", "fault", "generation", "in_flight", "index", "irq_number", "kicked",
        "memory", "policy", "resyncing", "ring", "suspended", "visible",
    )  # fmt: skip

    def __init__(self, world: World, index: int) -> None:
        self.index: Final = index
        #: None until the device first made the queue object
        self.ring: SplitDevice | None = None
        self.memory: MappedMemory | None = None
        self.generation = 0
        self.policy = 0
        self.alive = False
        self.suspended = False
        #: the link came back and the device has not attached yet: answers that it sends may not fit, and are repeated
        self.resyncing = False
        self.broken = False
        #: why the queue broke, whichever side found it; a device that restarted is told
        self.fault: Broken | None = None
        #: a doorbell rang while nobody could look
        self.kicked = False
        #: head → (u16 avail index, segments, number of readable ones), in the order fetched
        self.in_flight: Table[tuple[int, list[Segment], int]] = world.table()
        #: chains given to a restarted device that its predecessor had been given
        self.again_sent = 0
        #: interrupts asked for since the queue first lived
        self.irq_number = 0
        #: chains that the device holds, as fetches and answers left them
        self.depth: Final = Depth()
        #: since when used elements have been waiting for the driver
        self.visible = Visible()
