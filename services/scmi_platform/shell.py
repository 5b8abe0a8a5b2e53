"""The SCMI platform as a service of the mesh: one platform, one :class:`ScmiDevice` a guest."""

from __future__ import annotations

from common.runtime.clock import monotonic
from common.runtime.device_service import Attachment, DeviceService
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.host import QUEUE_NAMES, PlatformHost
from services.scmi_platform.mesh_device import ScmiDevice


class ScmiService(DeviceService[ScmiConfig, ScmiDevice]):
    """``ringmesh serve scmi``. Raises ConfigError for a board that cannot be read or contradicts itself."""

    role = "scmi"
    queue_names = QUEUE_NAMES

    def __init__(self, config: ScmiConfig) -> None:
        super().__init__(config)
        self.host = PlatformHost(config, self.metrics, self.log)
        self.agents = self.host.agents

    async def start(self) -> None:
        await super().start()
        self.host.start()
        self.host.serve(self.admin)
        await self.host.open()
        self.world.spawn("platform tick", self.host.ticks())

    async def stop(self) -> None:
        await super().stop()
        await self.host.close()

    def make_device(self, attachment: Attachment[ScmiDevice]) -> ScmiDevice:
        return ScmiDevice(
            lambda device: self.host.core(attachment.guest, device, self.observe),
            send=attachment.send,
            msi=attachment.msi,
            clock=monotonic,
            log=self.log.bind(guest=attachment.guest, agent=self.agents.allot(attachment.guest)).warning,
        )
