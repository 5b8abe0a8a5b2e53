"""The scenarios of kvm-unit-tests in one process; over the mesh they are in tests/mesh."""

from __future__ import annotations

import pytest

from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.gic_its.profile import PROFILES
from services.gic_its.snapshot import restore, save
from tests.services.gic_its.kvm_unit_tests import CPUS, SCENARIOS, Scenario


class Direct:
    """vCPUs take LPIs when they are asked."""

    def __init__(self, profile: str) -> None:
        self._profile = PROFILES[profile]
        self._memory = GuestMemory(0x200_0000, 0x4200_0000)
        self._its = self._make()

    def _make(self) -> Its:
        its = Its(
            AsyncWorld(), DirectDma(self._memory), cpus=CPUS, deliver=lambda *_: None, done=lambda *_: None,
            profile=self._profile,
        )  # fmt: skip
        its.hold()
        return its

    async def read(self, frame: str, offset: int, size: int) -> int:
        return self._its.read(frame, offset, size)

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        await self._its.mmio_write(frame, offset, size, value)

    def mem_write(self, addr: int, data: bytes) -> None:
        self._memory.write(addr, data)

    async def taken(self, cpu: int) -> list[int]:
        found: list[int] = []
        while True:
            intid, number = self._its.acknowledge(cpu)
            if intid == 1023:
                return found
            self._its.eoi(cpu, intid, number)
            found.append(intid)

    async def migrate(self) -> None:
        saved = await save(self._its)
        self._its = self._make()
        await restore(self._its, saved)


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_a_scenario(scenario: Scenario, profile: str) -> None:
    await scenario(Direct(profile))
