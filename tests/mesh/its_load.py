"""Load on a real ``ringmesh serve its``: eight vCPUs that queue commands, four devices that raise MSIs.

``RINGMESH_ITS_SECONDS`` says for how long, ``RINGMESH_ITS_SEED`` with which numbers. Imported as
``tests.mesh.its_load``.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from services.guest_driver.vcpu import IrqLine
from tests.mesh.harness import GUARD
from tests.mesh.its_commands import CommandLoad
from tests.mesh.its_guest import Devices, ItsGuest
from tests.mesh.its_process import ItsProcess
from tests.services.guest_driver.mesh_rig import until

SECONDS: Final = float(os.environ.get("RINGMESH_ITS_SECONDS", "2"))
SEED: Final = int(os.environ.get("RINGMESH_ITS_SEED", "6"))
#: Events of each device, and MSIs of an event that it has not been told of.
EVENTS, WINDOW = 4, 4


class Load:
    """An ITS, a guest on it, its vCPUs and its devices."""

    def __init__(self, profile: str, queue: int = 1 << 16) -> None:
        self.its = ItsProcess(GIC_PROFILE=profile)
        self.guest = ItsGuest(self.its.port, queue=queue)
        self.commands = CommandLoad(self.guest, SEED, profile)
        self.devices = [
            Devices(self.its.port, "scmi", self.guest, (1, 2)),
            Devices(self.its.port, "nic", self.guest, (3, 4)),
        ]
        self.raising = False
        self._raisers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.its.start()
        await self.guest.start()
        for n, devices in enumerate(self.devices):
            await devices.start(EVENTS, 8192 + 100 * n)

    def raise_msis(self) -> None:
        self.raising = True
        spawn = asyncio.get_running_loop().create_task
        self._raisers = [spawn(self._raise(devices)) for devices in self.devices]

    async def _raise(self, devices: Devices) -> None:
        rng = random.Random(SEED)
        while self.raising:
            for line in devices.lines:
                if line.raised - line.taken < WINDOW:
                    for _ in range(rng.randint(1, 3)):
                        devices.raise_(line)
            await asyncio.sleep(0.002)

    async def settle(self) -> None:
        """No new load; everything that was asked for arrives."""
        self.raising = False
        await asyncio.gather(*self._raisers)
        await self.commands.stop()
        try:
            await until(lambda: not (self.commands.untaken or self.unsettled), GUARD / 2)
        except TimeoutError:
            lines = [f"{line.name}: {line.taken} of {line.raised}" for line in self.unsettled]
            raise AssertionError(f"lost: LPIs of INTs {self.commands.untaken}, MSIs {lines}") from None

    @property
    def unsettled(self) -> list[IrqLine]:
        """Events of devices of which an MSI was not taken, or not confirmed."""
        return [line for devices in self.devices for line in devices.unsettled]

    async def close(self) -> None:
        self.raising = False
        await self.commands.close()
        for devices in self.devices:
            await devices.close()
        await self.guest.close()
        self.its.close()


@asynccontextmanager
async def loaded(profile: str, queue: int = 1 << 16) -> AsyncIterator[Load]:
    load = Load(profile, queue)
    try:
        await load.start()
        yield load
    finally:
        await load.close()
