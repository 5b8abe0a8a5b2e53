"""The virtio-net driver (virtio 1.3 §5.1) over all its queue pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from common.errors import LocalError
from common.virtio.split_driver import SplitDriver
from services.guest_driver.buffers import BufferPool
from services.guest_driver.net_pair import NetPair


def queue_names(pairs: int) -> list[str]:
    """The names of a NIC's queues in metrics: those of ``pairs`` queue pairs by index, and the control queue's."""
    return [f"{kind}{pair}" for pair in range(pairs) for kind in ("rx", "tx")] + ["ctrl"]


class NetDriver:
    """A queue pair for each of ``rings``, the receive and the transmit ring each; one pair is active at first (§5.1.5).

    All pairs take their buffers from ``pools`` (receive, transmit), see NetPair. ``receive(pair, frames)`` is handed
    the frames of one poll in the order received on that pair.
    """

    __slots__ = ("active", "pairs")

    def __init__(
        self,
        rings: Sequence[tuple[SplitDriver, SplitDriver]],
        pools: tuple[BufferPool, BufferPool],
        *,
        iova: int,
        notify: Callable[[int], None],
        receive: Callable[[int, list[bytes]], None],
        mergeable: bool = False,
    ) -> None:
        self.pairs: Final = [
            NetPair(
                pair, pools, iova=iova, notify=notify, receive=partial(receive, index), index=index, mergeable=mergeable
            )
            for index, pair in enumerate(rings)
        ]
        #: pairs that frames may be sent on
        self.active = 1

    def start(self) -> None:
        """Give the device the receive buffers of the pairs that are active."""
        for pair in self.pairs[: self.active]:
            pair.start()

    def set_active(self, count: int) -> None:
        """The device uses the first ``count`` pairs from now on (it took VQ_PAIRS_SET, §5.1.6.5.6): their receive rings
        are filled. Pairs that are given up keep what lies in their rings. Raises LocalError for pairs there are not."""
        if not 1 <= count <= len(self.pairs):
            raise LocalError(f"{count} queue pairs of 1 to {len(self.pairs)}")
        for pair in self.pairs[self.active : count]:
            pair.start()
        self.active = count

    def transmit(self, pair: int, frames: Sequence[bytes]) -> int:
        """Send frames on ``pair``, as NetPair.transmit(). Raises LocalError where that pair is not active."""
        if not 0 <= pair < self.active:
            raise LocalError(f"queue pair {pair} of {self.active}")
        return self.pairs[pair].transmit(frames)
