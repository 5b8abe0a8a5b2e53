"""What the NIC is plugged into: the contract that the packet back ends keep.

A packet is ``bytes``: the 12 bytes of struct virtio_net_hdr (virtio 1.3 §5.1.6), then the Ethernet frame from the
destination MAC on, without check sequence. ``num_buffers`` in it means nothing: the NIC sets it when it places the
packet in receive buffers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

#: Packets that wait for receive buffers of one queue pair, and since when (monotonic seconds).
Waiting: TypeAlias = deque[tuple[bytes, float]]

#: Packets that may wait on one queue pair where the far side does not wait for the driver.
BACKLOG_LIMIT: Final = 1024


class Backend(Protocol):
    """The far side of one NIC."""

    #: each packet sent makes one to receive on the same pair: the NIC transmits only as far as receive buffers go
    answers: bool
    #: by queue pair. A back end puts packets in by ``append`` and ``extend`` only and takes none out: the NIC does. It
    #: may put them back at the left, and move all that wait on one pair to another by ``extend``. The sequence may be
    #: exchanged for another of the same length before the first packet (a recorder does).
    backlog: Sequence[Waiting]
    #: queue pairs that the driver has switched on (§5.1.6.5.6), 1 to ``len(backlog)``: where a back end chooses the
    #: pair of a packet it chooses among the first so many
    pairs: int

    def transmit(self, pair: int, packets: list[bytes], now: float) -> None:
        """The driver sent ``packets`` on queue pair ``pair``, in this order, at ``now`` (monotonic seconds)."""
        ...

    def tick(self, now: float) -> None:
        """Time went on (monotonic seconds)."""
        ...


def empty_backlog(max_pairs: int) -> list[Waiting]:
    """The backlog of a NIC with ``max_pairs`` queue pairs (§5.1.4, max_virtqueue_pairs)."""
    return [deque() for _ in range(max_pairs)]
