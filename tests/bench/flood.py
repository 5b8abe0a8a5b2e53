"""A platform that has news all the time: CLOCK_RATE_CHANGED of one clock, as long as an agent asked for it.

``python -m tests.bench.flood PER_SECOND`` is the SCMI service with a source of so many notifications a second, or with
0 of as many as the eventq has buffers. The rate that a notification tells is its number, so gaps are what was lost.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from itertools import count
from typing import ClassVar

from common.runtime.clock import monotonic
from common.runtime.config import load
from common.runtime.device_service import Attachment
from common.runtime.service import run_service
from common.scmi import clock
from common.wire.messages import Chain
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.mesh_device import ScmiDevice
from services.scmi_platform.shell import ScmiService

CLOCK = 0
TICK = 0.001


class FloodDevice(ScmiDevice):
    """``per_second`` 0: a notification for every buffer that there is."""

    per_second: ClassVar[int] = 0
    numbers: ClassVar[Iterator[int]] = count()

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        super().on_chains(queue, chains)
        if not self.per_second:
            # also behind a command, which may have been the one that asks for notifications
            self.offer(len(self.core.buffers))

    def offer(self, many: int) -> None:
        core = self.core
        if core.agent in core.platform.subscribed(clock.PROTOCOL, clock.Notification.CLOCK_RATE_CHANGED, CLOCK):
            for _ in range(many):
                payload = clock.RATE_EVENT.pack(0, CLOCK, next(self.numbers))
                core.platform.notify(clock.PROTOCOL, clock.Notification.CLOCK_RATE_CHANGED, CLOCK, payload)


class FloodService(ScmiService):
    """The SCMI service with FloodDevice in the place of its device."""

    async def start(self) -> None:
        await super().start()
        self.world.spawn("flood", self._flood())

    def make_device(self, attachment: Attachment[ScmiDevice]) -> ScmiDevice:
        device = super().make_device(attachment)
        device.__class__ = FloodDevice  # it adds methods, no state of its own
        return device

    async def _flood(self) -> None:
        last = monotonic()
        while FloodDevice.per_second:
            await asyncio.sleep(TICK)
            now = monotonic()
            many = int((now - last) * FloodDevice.per_second)
            last += many / FloodDevice.per_second
            for attachment in self.attachments.values():
                assert isinstance(attachment.device, FloodDevice)
                attachment.device.offer(many)


if __name__ == "__main__":
    FloodDevice.per_second = int(sys.argv[1])
    sys.exit(run_service(FloodService, load(ScmiConfig)))
