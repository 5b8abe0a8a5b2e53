"""Hold points of a port: a driver's store of ``avail->idx``, and its doorbell, at chosen places of a change of map.

A driver knows nothing of the VMM's changes, so both may happen anywhere in one. An armed hold makes them happen at one
place each, in the port itself: one buffer is made available at the point ``store``, the doorbell rings at the point
``kick``, both at the next change of map of that queue. What the port then does with them is the firmware's policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from common.errors import RemoteError
from services.guest_driver.port import HOLD_POINTS, Port

#: Queue that :attr:`Port.hook` names for a memory key, which is no queue's.
_ANY: Final = -1


class Driver(Protocol):
    """The driver of the queues that are held."""

    def store(self, queue: int) -> int:
        """Make one buffer available on ``queue``, without a doorbell. Returns how many the ring took: 1 or 0."""

    def kick(self, queue: int) -> bool:
        """Ring the doorbell of ``queue`` if a driver has to (§2.7.13.4). Returns whether it rang."""


@dataclass(slots=True)
class Hold:
    """One hold of ``queue``, and what has become of it."""

    queue: int
    store: str
    kick: str
    state: Literal["armed", "changing", "done"] = "armed"
    #: the points that the change of map has reached
    points: list[str] = field(default_factory=list)
    #: buffers made available: 0 until the place ``store`` is reached, and where the ring was full there
    stored: int = 0
    #: did the doorbell ring? None until the place ``kick`` is reached, and where nothing was stored; False where the
    #: device had not asked for one
    rang: bool | None = None

    def report(self) -> dict[str, Any]:
        """As the admin route shows it."""
        return {
            "store": self.store,
            "kick": self.kick,
            "state": self.state,
            "points": list(self.points),
            "stored": self.stored,
            "rang": self.rang,
        }


class PortHolds:
    """The holds of ``port``, one a queue. The port's hook is taken while one is armed."""

    def __init__(self, port: Port, driver: Driver) -> None:
        self._port: Final = port
        self._driver: Final = driver
        #: queue → its last hold
        self.holds: Final[dict[int, Hold]] = {}

    def arm(self, queue: int, store: str, kick: str) -> Hold:
        """Hold ``queue`` at the next change of map that begins. A hold that it had before is forgotten.

        Raises RemoteError for places that do not exist and for a doorbell before the store.
        """
        for name, point in (("store", store), ("kick", kick)):
            if point not in HOLD_POINTS:
                raise RemoteError(name, point, ", ".join(HOLD_POINTS))
        if HOLD_POINTS.index(kick) < HOLD_POINTS.index(store):
            raise RemoteError("kick", kick, store, "a driver rings after its store")
        self.holds[queue] = hold = Hold(queue, store, kick)
        self._port.hook = self._at
        return hold

    def _at(self, point: str, queue: int) -> None:
        for hold in self.holds.values():
            if queue in (hold.queue, _ANY) and hold.state != "done":
                self._reached(hold, point)
        if all(hold.state == "done" for hold in self.holds.values()):
            self._port.hook = None

    def _reached(self, hold: Hold, point: str) -> None:
        if hold.state == "armed":
            if point != HOLD_POINTS[0]:
                return  # a change that had begun before
            hold.state = "changing"
        hold.points.append(point)
        # a link that breaks may have the device go through some points again: one store and one doorbell all the same
        if point == hold.store and not hold.stored:
            hold.stored = self._driver.store(hold.queue)
        if point == hold.kick and hold.stored and hold.rang is None:
            hold.rang = self._driver.kick(hold.queue)
        if point == HOLD_POINTS[-1]:
            hold.state = "done"
