"""Do a device and its port agree on how far each queue has got? Asked while traffic runs, so bounds are what can hold.

An answer of ``get_vq_state`` (the next avail index that the device takes) is of some moment between the question and
its arrival here. At that moment the device had received whatever it had used before the question, and nothing that the
port had not fetched when the answer came. That holds in the middle of a change of map too: the port goes back to where
the device stands when it hears of the new queue object, not before. A queue that stands leaves no room: both ends meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.virtio.split_device import SplitDevice
from services.guest_driver.port import Port


@dataclass(slots=True, frozen=True)
class Asked:
    """What was known when the device was asked: ``used`` is queue → its u16 used index, of the queues that it knew."""

    used: Mapping[int, int]
    #: turn of the link to the device
    turn: int


class IndexCheck:
    """The checks of ``port``."""

    def __init__(self, port: Port) -> None:
        self._port: Final = port
        self.checked = 0
        self.wrong = 0

    def ask(self, turn: int) -> Asked:
        """Before the question. ``turn`` changes whenever the link to the device has gone down."""
        rings = {queue.index: self._known(queue.index) for queue in self._port.queues}
        return Asked({index: ring.used_idx for index, ring in rings.items() if ring is not None}, turn)

    def answered(self, asked: Asked, states: Mapping[int, int], turn: int) -> list[str]:
        """After the answers: what is wrong, a sentence a queue. Nothing is said of queues that broke or were reset
        meanwhile, nor where the link went down: the device is told where they stand when it is back."""
        if turn != asked.turn:
            return []
        found = []
        for index, state in states.items():
            ring = self._known(index)
            if ring is None:
                continue
            self.checked += 1
            low, high = asked.used[index], ring.last_avail_idx
            if (state - low) & 0xFFFF > (high - low) & 0xFFFF:
                found.append(f"queue {index}: the device stands at {state}, used were {low}, the port fetched {high}")
        self.wrong += len(found)
        return found

    def _known(self, index: int) -> SplitDevice | None:
        """The ring of a queue whose indices the device knows."""
        queue = self._port.queues[index]
        return None if queue.broken or queue.resyncing or not self._port.online else queue.ring
