"""What a device's logic stands on, whatever carries its queues.

A *device core* (virtio-scmi's, say) is given the chains that its driver made available and answers them. Between it and
the driver stands a transport: the mesh (:class:`common.virtio.device.VirtioDevice` and its remote queues, frames to a
port) or vhost-user (rings in memory that the device shares with its driver). Both offer :class:`Transport`, both call
:class:`DeviceCore`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

from common.wire.messages import Chain


class DeviceQueue(Protocol):
    """One virtqueue, as a core uses it."""

    @property
    def broken(self) -> bool:
        """The driver broke it, or it never stood: nothing can be answered until it is set up again."""
        ...

    @property
    def again(self) -> Container[int]:
        """Heads in hand that an earlier incarnation of the device may have processed."""
        ...

    def complete(self, head: int, written: bytes) -> None:
        """Answer the chain at ``head`` with the bytes for its device-writable part; goes out at :meth:`flush`.

        ``written`` must fit. Raises LocalError for a head that is not in hand.
        """
        ...

    def complete_again(self, head: int, written: bytes) -> None:
        """A fault on purpose: use a chain that is used already."""
        ...

    def hush(self) -> None:
        """A fault on purpose: the driver is not interrupted for what was completed last, where that is the device's to
        say."""
        ...

    def flush(self) -> int:
        """Send what complete() collected; how many answers."""
        ...


class PacketQueue(DeviceQueue, Protocol):
    """One virtqueue, as a core uses it that answers many chains at a time."""

    def complete_batch(self, elems: list[tuple[int, bytes]]) -> None:
        """:meth:`complete` of several chains ``(head, written)``, in this order."""
        ...

    def complete_together(self, elems: list[tuple[int, bytes]]) -> None:
        """:meth:`complete_batch`, and the driver sees all of them or none: the buffers of one packet."""
        ...


class Transport(Protocol):
    """What a core is handed."""

    @property
    def features(self) -> int:
        """u64: what the driver accepted, 0 before."""
        ...

    @property
    def queues(self) -> Sequence[DeviceQueue]:
        """By index, the same objects all the time."""
        ...

    def live(self, queue: int) -> bool:
        """May the device use buffers of ``queue`` now: is it set up, running and not broken?"""
        ...

    def look(self, queue: int) -> None:
        """Buffers of ``queue`` are wanted: take what the driver made available, if it can be told without its kick;
        :meth:`DeviceCore.on_chains` is called with them. Not from within on_chains of that queue."""
        ...


class PacketTransport(Transport, Protocol):
    """What such a core is handed."""

    @property
    def queues(self) -> Sequence[PacketQueue]: ...


class DeviceCore(Protocol):
    """What a transport calls."""

    @property
    def offered(self) -> int:
        """u64: the features that the device has (virtio 1.3 §2.2)."""
        ...

    @property
    def queue_sizes(self) -> Sequence[int]:
        """The largest size of each queue, entries."""
        ...

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        """Chains ``(head, readable bytes, [(addr, len, flags), …])`` arrived. The transport flushes ``queue`` after
        it. Raises RemoteError for what breaks the queue."""
        ...

    def on_stop(self, queue: int) -> Sequence[int]:
        """``queue`` is about to stop, perhaps to go on later: give the answers that are held back; the transport
        flushes ``queue`` after it. Returns the heads in hand that nothing was done with, in the order of their
        arrival: they are not the core's any more, and come again when the queue goes on."""
        ...

    def on_reset(self) -> None:
        """The driver begins anew (virtio 1.3 §2.4)."""
        ...

    def check_size(self, queue: int, size: int) -> None:
        """Raise RemoteError for a size of ``queue`` with which the device cannot work."""
        ...

    def tick(self, now: float) -> bool:
        """Time is ``now`` (monotonic seconds); called some hundred times a second. True: flush all queues."""
        ...
