"""Reset of receive queues (RING_RESET, virtio 1.3 §2.6.1): the driver gets back what it has made available there.

Every step may fail because the link goes down. Whoever asked then asks again, and the queue is reset again: nothing is
in it but what the driver itself put there.
"""

from __future__ import annotations

import errno
from typing import Final

from common.errors import CallError
from services.guest_driver.net_pair import RX, NetPair
from services.guest_driver.virtio_bus import VirtioBus, set_up_queue


class RxReset:
    """Resets receive queues of the device on ``bus``."""

    def __init__(self, bus: VirtioBus) -> None:
        self._bus: Final = bus
        #: pairs that the reset has begun for
        self.under_way: set[int] = set()
        #: receive queues that were reset and run again
        self.done = 0

    async def reset(self, pair: NetPair) -> None:
        """Raises LinkDownError or CallError (EBUSY where the bus is just configuring the device); the receive queue
        rests until another call has succeeded."""
        if not self._bus.configured:
            raise CallError("reset_vq", errno.EBUSY, "the device is being configured")
        call = self._bus.calls.call
        queue = 2 * pair.index + RX
        self.under_way.add(pair.index)
        pair.rx_pause()
        await call("reset_vq", queue)
        self._bus.port.reset_queue(queue)
        pair.rx_reset()
        await set_up_queue(call, self._bus.queue_plan(queue))
        await call("set_vq_ready", queue, True)
        self.under_way.discard(pair.index)
        self.done += 1
        pair.rx_resume()
