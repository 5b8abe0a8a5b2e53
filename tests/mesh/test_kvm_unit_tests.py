"""The scenarios of kvm-unit-tests over the mesh: a guest programs an ITS that is a process of its own, takes its LPIs,
and migrates by its VMM's save and restore into another guest at another ITS process."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from common.runtime.link import LinkClient
from common.runtime.metrics import Metrics
from tests.mesh.harness import GUARD, TOKEN
from tests.mesh.its_process import ItsProcess
from tests.services.gic_its.guest_end import GuestEnd
from tests.services.gic_its.kvm_unit_tests import CPUS, SCENARIOS, Scenario


class Machine:
    """An ITS process, and a guest that is linked to it."""

    def __init__(self, profile: str) -> None:
        self.process: Final = ItsProcess(GIC_PROFILE=profile, CPUS=str(CPUS))
        self.guest: Final = GuestEnd(CPUS)
        self.guest.memory.add_region(0x4200_0000, 0x200_0000)
        self._client: Final = LinkClient(
            role="guest", peer="its", host="127.0.0.1", port=self.process.port, token=TOKEN, epoch=1,
            handler=self.guest.link, metrics=Metrics("guest"), guest="vm0", stir=self.guest.world.stir,
        )  # fmt: skip

    async def start(self) -> None:
        self.process.start()
        await self._client.start()
        async with asyncio.timeout(GUARD):
            await self._client.wait_up()

    async def close(self) -> None:
        await self._client.close()
        await self.guest.world.close()
        self.process.close()


class Migrating:
    """The machine where the guest is now."""

    def __init__(self, profile: str) -> None:
        self._profile: Final = profile
        self.machines: Final[list[Machine]] = []

    @property
    def _guest(self) -> GuestEnd:
        return self.machines[-1].guest

    async def start(self) -> None:
        self.machines.append(Machine(self._profile))
        await self.machines[-1].start()

    async def read(self, frame: str, offset: int, size: int) -> int:
        return await self._guest.link.read(frame, offset, size)

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        await self._guest.link.write(frame, offset, size, value)

    def mem_write(self, addr: int, data: bytes) -> None:
        self._guest.memory.write(addr, data)

    async def taken(self, cpu: int) -> list[int]:
        """An access that is answered comes behind every LPI that was sent before."""
        await self.read("gicd", 0, 4)
        vcpus = self._guest.vcpus
        found = [intid for vcpu, intid, _ in vcpus.taken if vcpu == cpu]
        vcpus.taken[:] = [lpi for lpi in vcpus.taken if lpi[0] != cpu]
        return found

    async def migrate(self) -> None:
        """Nothing comes along but what the VMM saved."""
        saved = await self._guest.link.vmm.save()
        await self.start()
        self.machines[-2].process.kill()
        await self._guest.link.vmm.restore(saved)


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_a_scenario(scenario: Scenario, profile: str) -> None:
    rig = Migrating(profile)
    await rig.start()
    try:
        async with asyncio.timeout(GUARD):
            await scenario(rig)
        assert not any("Traceback" in machine.process.log for machine in rig.machines)
    finally:
        for machine in rig.machines:
            await machine.close()
