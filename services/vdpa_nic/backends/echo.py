"""A back end that sends back what it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from services.vdpa_nic.backends.backend import Waiting, empty_backlog


class Echo:
    """Every packet comes back on its queue pair, unchanged, once, in order."""

    answers = True

    def __init__(self, max_pairs: int = 1) -> None:
        self.backlog: Sequence[Waiting] = empty_backlog(max_pairs)
        #: an echo has no choice of pair
        self.pairs = 1

    def transmit(self, pair: int, packets: list[bytes], now: float) -> None:
        self.backlog[pair].extend(zip(packets, repeat(now)))

    def tick(self, now: float) -> None:
        """An echo needs no clock."""
