"""What the admin routes of the guest service do with hold points, and the metric that shows what they did.

============= =======================================================================================================
GET /holds    ``{guest: {queue: {"store", "kick", "state": "armed" | "changing" | "done", "points": [reached],
              "stored": buffers, "rang": bool or null}}}``, see :class:`services.guest_driver.port_holds.Hold`
POST /holds   ``{"guest": name, "queue": "tx0", "store": POINT, "kick": POINT}``: at the next change of map of that
              queue one frame is made available at ``store``, its doorbell rings at ``kick``. Answers as GET does.
POST /map     ``{"guest": name}``: one change of the map of that guest's NIC. Answers when the NIC has made it.
============= =======================================================================================================

The points, in the order of a change: :data:`services.guest_driver.port.HOLD_POINTS`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from common.errors import RemoteError
from services.guest_driver.net import queue_names
from services.guest_driver.net_pair import TX
from services.guest_driver.port import Port
from services.guest_driver.port_holds import Driver, PortHolds


class HoldRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /holds."""

    guest: str
    #: a transmit queue
    queue: str = "tx0"
    store: str
    kick: str


class MapRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /map."""

    guest: str


@dataclass(slots=True)
class Held:
    """One guest: the port of its NIC, the driver, what makes a change of map, and how many queue pairs are driven."""

    port: Port
    driver: Driver
    change_map: Callable[[], Awaitable[object]]
    pairs: Callable[[], int]


class HoldRoutes:
    """``guests``: name → what is held. ``ready()``: may the drivers be used yet?"""

    def __init__(self, guests: Mapping[str, Held], ready: Callable[[], bool]) -> None:
        self._guests: Final = guests
        self._ready: Final = ready
        self._holds: Final = {name: PortHolds(held.port, held.driver) for name, held in guests.items()}

    def _named(self, guest: str) -> Held:
        held = self._guests.get(guest)
        if held is None:
            raise RemoteError("guest", guest, ", ".join(self._guests))
        if not self._ready():
            raise RemoteError("guest", guest, None, "the guests are not up yet")
        return held

    def arm(self, request: HoldRequest) -> dict[str, Any]:
        """Raises RemoteError for a guest, queue or place that does not exist; then nothing changes."""
        transmit = queue_names(self._named(request.guest).pairs())[TX::2]
        if request.queue not in transmit:
            raise RemoteError("queue", request.queue, ", ".join(transmit))
        self._holds[request.guest].arm(2 * transmit.index(request.queue) + TX, request.store, request.kick)
        return self.state()

    async def change_map(self, request: MapRequest) -> dict[str, Any]:
        """Raises RemoteError for a guest that does not exist, LinkDownError or CallError as the NIC answers."""
        await self._named(request.guest).change_map()
        return {"guest": request.guest}

    def state(self) -> dict[str, Any]:
        return {
            guest: {f"tx{index >> 1}": hold.report() for index, hold in holds.holds.items()}
            for guest, holds in self._holds.items()
        }
