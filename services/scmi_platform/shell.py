"""The SCMI platform as a service: one platform, one :class:`ScmiDevice` a guest."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import msgspec

from common.runtime.clock import monotonic
from common.runtime.device_service import Attachment, DeviceService
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.core import ScmiDevice

#: Seconds between two ticks of the platform: how late a delayed response or a sensor's event may be.
PLATFORM_TICK: Final = 0.01


class ScmiService(DeviceService[ScmiConfig, ScmiDevice]):
    """``ringmesh serve scmi``. Raises ConfigError for a board that cannot be read or contradicts itself."""

    role = "scmi"
    queue_names = ("cmdq", "eventq")

    def __init__(self, config: ScmiConfig) -> None:
        super().__init__(config)
        self.agents = Agents(Board.load(config.board), monotonic)

    async def start(self) -> None:
        await super().start()
        if self.config.faults.any:
            self.log.warning("faults on purpose", **msgspec.structs.asdict(self.config.faults))
        self.metrics.counters_of("scmi", "SCMI platform", self.agents.platform.stats)
        self.world.spawn("platform tick", self._platform_ticks())

    def make_device(self, attachment: Attachment[ScmiDevice]) -> ScmiDevice:
        agent = self.agents.allot(attachment.guest)
        device = ScmiDevice(
            self.agents.platform,
            agent,
            send=attachment.send,
            msi=attachment.msi,
            clock=monotonic,
            log=self.log.bind(guest=attachment.guest, agent=agent).warning,
            observe=self.observe,
            plan=self.config.faults,
            dice=random.Random(f"{self.config.faults.seed} {attachment.guest}").random,
        )
        self.agents.attach(agent, device)
        return device

    def measure(self, attachment: Attachment[ScmiDevice]) -> None:
        super().measure(attachment)
        self.metrics.counters_of("scmi_device", "SCMI device", attachment.device.scmi_stats, guest=attachment.guest)
        faults = attachment.device.faults
        if faults is not None:
            self.metrics.counters_of("scmi_faults", "Faults on purpose", faults.stats, guest=attachment.guest)
            self.metrics.gauge(
                "ringmesh_scmi_faults_held",
                "Responses and delayed responses that are held on purpose.",
                fn=lambda: faults.held,
                guest=attachment.guest,
            )

    async def _platform_ticks(self) -> None:
        while True:
            await asyncio.sleep(PLATFORM_TICK)
            self.agents.platform.tick(monotonic())
