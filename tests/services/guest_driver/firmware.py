"""An SCMI service in this event loop, without an ITS, that may be stopped and started again at its port.

Imported as ``tests.services.guest_driver.firmware``.
"""

from __future__ import annotations

import asyncio
from typing import Final

from common.runtime.config import AdminConfig, ListenConfig, LogConfig, PeerConfig
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.shell import ScmiService
from tests.services.guest_driver.mesh_rig import port_to_keep, until, within
from tests.services.scmi_platform.scmi_rig import SMALL

TOKEN: Final = "a token"


class Firmware:
    """``address`` is where it listens; ``service`` what runs now."""

    def __init__(self) -> None:
        self._port: Final = port_to_keep()
        self.address: Final = f"127.0.0.1:{self._port}"
        self.service: ScmiService
        self._task: asyncio.Task[int]

    async def start(self) -> None:
        self.service = ScmiService(
            ScmiConfig(
                token=TOKEN,
                listen=ListenConfig(port=self._port),
                admin=AdminConfig(port=0),
                its=PeerConfig(port=1),  # nobody listens there
                log=LogConfig(level="error"),
                board=str(SMALL),
            )
        )
        self._task = asyncio.get_running_loop().create_task(self.service.run())
        await until(lambda: self._task.done() or self.service._phase == "")
        assert not self._task.done()

    async def stop(self) -> int:
        self.service.shut_down()
        return await within(self._task)
