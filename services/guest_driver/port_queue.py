"""What a port knows of one queue: its queue object, what is in flight, and what outlives both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from common.memory import MappedMemory
from common.virtio.depth import Depth
from common.virtio.split_device import Segment, SplitDevice
from common.virtio.visible import Visible
from common.world import Table, World


class ObjectState(IntEnum):
    """Where a queue object stands; the names are those of mlx5's virtio queue object."""

    NONE = 0
    """there is none: not made yet, or torn down"""
    INIT = 1
    """made, does not fetch yet"""
    RDY = 2
    SUSPEND = 3
    ERR = 4
    """broken until the driver resets the device or the queue"""


@dataclass(slots=True)
class PortStats:
    """What a port counts, all queues together."""

    kicks: int = 0
    fetched: int = 0
    used: int = 0
    irqs: int = 0
    resent: int = 0
    rings_broken: int = 0
    mkeys_created: int = 0
    mkeys_refused: int = 0
    #: doorbells that rang while the queue could not fetch: replayed at Resume, or forgotten
    kicks_replayed: int = 0
    kicks_forgotten: int = 0


class PortQueue:
    """The queue object of one queue, and what outlives it: ``world.new(PortQueue, world, index)``."""

    __slots__ = (
        "again_sent", "avail", "depth", "fault", "generation", "in_flight", "index", "irq_number", "kicked", "memory",
        "policy", "resend_from", "resyncing", "ring", "state", "visible",
    )  # fmt: skip

    index: Final[int]
    depth: Final[Depth]
    visible: Final[Visible]

    def __init__(self, world: World, index: int) -> None:
        self.index = index
        #: chains that the device holds, as fetches and answers left them
        self.depth = world.new(Depth)
        #: since when used elements have been waiting for the driver
        self.visible = world.new(Visible)
        #: interrupts asked for since the queue first lived: the ITS and the vCPUs take a number that they have seen
        #: for a repeat
        self.irq_number = 0
        self.reset(world)

    def reset(self, world: World) -> None:
        """The driver reset the device or this queue: no queue object is left, and nothing in flight."""
        self.state = ObjectState.NONE
        #: None until the device first made the queue object
        self.ring: SplitDevice | None = None
        self.memory: MappedMemory | None = None
        self.generation = 0
        self.policy = 0
        #: u16, how far the port knows the driver to have got (vhost: ``avail_idx``); it fetches up to there
        self.avail = 0
        #: the link came back and the device has not attached yet: answers that it sends may not fit, and are repeated
        self.resyncing = False
        #: why the queue broke (field, reason), whichever side found it; a device that restarted is told
        self.fault: tuple[str, str] | None = None
        #: a doorbell rang while nobody could look
        self.kicked = False
        #: what Resume has to send again: (avail index that the device attached at, is it to see what is before it)
        self.resend_from: tuple[int, bool] | None = None
        #: head → (u16 avail index, segments, number of readable ones), in the order fetched
        self.in_flight: Table[tuple[int, tuple[Segment, ...], int]] = world.table()
        #: chains given to a restarted device that its predecessor had been given
        self.again_sent = 0

    @property
    def broken(self) -> bool:
        return self.state == ObjectState.ERR

    @property
    def alive(self) -> bool:
        """There is a queue object that is not broken."""
        return self.state in (ObjectState.INIT, ObjectState.RDY, ObjectState.SUSPEND)
