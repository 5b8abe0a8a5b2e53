"""The ITS driver against the real ITS core, in one process: set-up, mapping, interrupts, restore."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CallError, LocalError
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.gic_its.profile import KVM, QEMU
from services.guest_driver.its_driver import ItsDriver, ItsLayout


class Platform:
    """Memory, an ITS that can be replaced, and a driver."""

    def __init__(self, cpus: int = 2, layout: ItsLayout | None = None) -> None:
        self.world = AsyncWorld()
        self.memory = GuestMemory(0x40_0000, 0x4000_0000)
        self.free = 0x4000_0000
        self.taken: list[tuple[int, int, int]] = []
        self.done: list[tuple[int, int, int]] = []
        self.cpus = cpus
        self.profile = KVM
        self.its = self.fresh()
        self.driver = ItsDriver(self.world, self, self.memory, self.allocate, cpus=cpus, layout=layout)

    def fresh(self) -> Its:
        self.its = Its(
            self.world,
            DirectDma(self.memory),
            cpus=self.cpus,
            profile=self.profile,
            deliver=lambda *lpi: self.taken.append(lpi),
            done=lambda *msi: self.done.append(msi),
        )
        return self.its

    def allocate(self, size: int, align: int) -> int:
        addr = (self.free + align - 1) & ~(align - 1)
        self.free = addr + size
        self.memory.check(addr, size)
        return addr

    async def read(self, frame: str, offset: int, size: int) -> int:
        return self.its.read(frame, offset, size)

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        await self.its.mmio_write(frame, offset, size, value)

    def post_write(self, frame: str, offset: int, size: int, value: int) -> None:
        self.its.post(frame, offset, size, value, lambda: None)


@pytest.fixture
async def platform() -> Platform:
    platform = Platform()
    await platform.driver.start()
    return platform


async def test_start_programs_everything(platform: Platform) -> None:
    its = platform.its
    assert its.control.enabled
    assert its.distributor.forwards
    assert all(redistributor.port.enabled for redistributor in its.redistributors)
    assert its.control.collections == (0, 1)
    assert its.commands.command_mapc == 2
    assert platform.driver.stats.timeouts == 0


async def test_map_enable_interrupt(platform: Platform) -> None:
    driver, its = platform.driver, platform.its
    await driver.map_device(5, 3)
    await driver.map_event(5, 2, 8192, 1)
    assert its.try_msi(5, 2, 1)
    assert platform.taken == []
    await driver.enable_lpi(5, 2)
    assert platform.taken == [(1, 8192, 1)]
    its.eoi(1, 8192, 1)
    assert platform.done == [(5, 2, 1)]
    await driver.enable_lpi(5, 2, enabled=False)
    its.try_msi(5, 2, 2)
    assert its.pending(1) == [8192]
    await driver.inv(5, 2)
    assert platform.taken == [(1, 8192, 1)]


async def test_move_unmap(platform: Platform) -> None:
    driver, its = platform.driver, platform.its
    await driver.map_device(5, 2)
    await driver.map_event(5, 0, 8192, 1)
    await driver.map_event(5, 1, 8193, 1)
    await driver.enable_lpi(5, 0)
    await driver.move_event(5, 0, 0)
    await driver.raise_event(5, 0)
    assert platform.taken == [(0, 8192, 0)]
    await driver.unmap_event(5, 0)
    assert await its.msi(5, 0, 1) == "unmapped"
    await driver.unmap_device(5)
    assert its.control.devices == ()
    await driver.sync(1)
    await driver.map_device(5, 2)
    await driver.map_event(5, 0, 8192, 0)
    assert its.control.events == 1


async def test_misuse_is_refused_before_anything_is_sent(platform: Platform) -> None:
    driver = platform.driver
    await driver.map_device(5, 2)
    await driver.map_event(5, 0, 8192, 0)
    sent = driver.stats.commands
    with pytest.raises(LocalError, match="mapped already"):
        await driver.map_device(5, 2)
    for device, event, intid, vcpu in ((6, 0, 8193, 0), (5, 2, 8193, 0), (5, 0, 8193, 0), (5, 1, 100, 0),
                                       (5, 1, 16384, 0), (5, 1, 8193, 2)):  # fmt: skip
        with pytest.raises(LocalError):
            await driver.map_event(device, event, intid, vcpu)
    with pytest.raises(LocalError):
        await driver.inv(5, 1)
    with pytest.raises(LocalError):
        await driver.unmap_device(6)
    with pytest.raises(LocalError):
        await driver.sync(2)
    with pytest.raises(CallError, match="MAPD"):
        await driver.map_device(1 << 16, 2)
    with pytest.raises(CallError, match="MAPD"):
        await driver.map_device(6, (1 << 16) + 1)
    assert driver.stats.commands == sent


@pytest.mark.parametrize("layout", [ItsLayout(queue=4096), ItsLayout(id_bits=17), ItsLayout(id_bits=13)])
def test_bad_layouts_are_refused(layout: ItsLayout) -> None:
    with pytest.raises(LocalError, match="layout"):
        Platform(layout=layout)


async def test_restore_programs_a_fresh_its(platform: Platform) -> None:
    driver = platform.driver
    for device in (5, 9):
        await driver.map_device(device, 4)
        for event in range(3):
            await driver.map_event(device, event, 8192 + device * 4 + event, event % 2)
            await driver.enable_lpi(device, event)
    await driver.unmap_event(5, 1)
    old = platform.its
    its = platform.fresh()
    await driver.restore()
    assert its.control.devices == ((5, 9),)
    assert its.control.events == 5
    assert await its.msi(5, 1, 1) == "unmapped"
    for device in (5, 9):
        assert its.try_msi(device, 2, 7)
    assert platform.taken == [(0, 8214, 7), (0, 8230, 7)]
    assert [[lpi.intid for lpi in rd] for rd in old.redistributors] == [
        [lpi.intid for lpi in rd] for rd in its.redistributors
    ]
    assert driver.stats.restores == 1


async def test_each_vcpu_must_have_a_redistributor(platform: Platform) -> None:
    platform.cpus = 1
    platform.fresh()
    with pytest.raises(CallError, match="GICR_TYPER = 6: 1 redistributors for 2 vCPUs"):
        await platform.driver.restore()
    assert not platform.its.distributor.forwards, "nothing was written"


async def test_an_its_with_larger_entries_gets_larger_itts(platform: Platform) -> None:
    driver = platform.driver
    await driver.map_device(5, 64)
    await driver.map_event(5, 63, 8192, 0)
    behind = platform.allocate(64, 64)
    for profile in (QEMU, KVM):
        platform.profile = profile
        platform.fresh()
        await driver.restore()
        await driver.enable_lpi(5, 63)
        assert await platform.its.msi(5, 63, 1) == ""
        assert platform.memory.read(behind, 64) == bytes(64)
    assert platform.taken == [(0, 8192, 1)] * 2


async def test_commands_on_events_and_vcpus(platform: Platform) -> None:
    driver, its = platform.driver, platform.its
    await driver.map_device(5, 2)
    await driver.map_event(5, 0, 8192, 1)
    its.hold()
    await driver.enable_lpi(5, 0)
    await driver.raise_event(5, 0)
    assert its.pending(1) == [8192]
    await driver.movall(1, 0)
    assert (its.pending(0), its.pending(1)) == ([8192], [])
    await driver.movall(0, 1)
    await driver.clear_event(5, 0)
    assert its.pending(1) == []
    await driver.invall(1)
    assert (its.commands.command_invall, its.commands.command_movall, its.commands.command_clear) == (3, 2, 1)
    sent = driver.stats.commands
    for wrong in (driver.movall(2, 0), driver.movall(0, -1), driver.invall(2), driver.clear_event(5, 1)):
        with pytest.raises(LocalError):
            await wrong
    assert driver.stats.commands == sent


async def test_vcpus_that_queue_at_once(platform: Platform) -> None:
    """Nobody's commands are lost or run twice, and each has run when its call returns."""
    driver, its = platform.driver, platform.its

    async def vcpu(number: int) -> None:
        await driver.map_device(number, 32)
        for event in range(32):
            await driver.map_event(number, event, 8192 + 32 * number + event, number % 2)
            assert await its.msi(number, event, 1) == ""

    before = driver.stats.commands
    async with asyncio.timeout(20), asyncio.TaskGroup() as vcpus:
        for number in range(8):
            vcpus.create_task(vcpu(number))
    assert driver.stats.commands - before == 8 * (1 + 2 * 32)
    assert (its.commands.command_mapd, its.commands.command_mapti, its.control.events) == (8, 256, 256)


async def test_without_an_enabled_its_start_fails() -> None:
    platform = Platform()

    class Deaf(Platform):
        async def write(self, frame: str, offset: int, size: int, value: int) -> None:
            if frame != "its" or offset < 0x100:
                await super().write(frame, offset, size, value)

    deaf = Deaf()
    with pytest.raises(CallError, match="does not enable"):
        await deaf.driver.start()

    class NoLpis(Platform):
        async def read(self, frame: str, offset: int, size: int) -> int:
            return 0 if offset == 8 else await super().read(frame, offset, size)

    with pytest.raises(CallError, match="no physical LPIs"):
        await NoLpis().driver.start()

    class Busy(Platform):
        async def read(self, frame: str, offset: int, size: int) -> int:
            return 0 if offset == 0 else await super().read(frame, offset, size)

    with pytest.raises(CallError, match="quiescent"):
        await Busy(layout=ItsLayout(timeout=0.01)).driver.start()
    assert not platform.its.control.enabled


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["map", "unmap", "move", "msi", "restart"]), st.integers(0, 5)), max_size=30))
async def test_any_order_of_calls_leaves_its_and_driver_agreeing(steps: list[tuple[str, int]]) -> None:
    """Invariant: after any calls, and after a restart of the ITS, exactly the events that the driver mapped reach
    the vCPU that it chose."""
    platform = Platform()
    driver = platform.driver
    await driver.start()
    await driver.map_device(3, 6)
    model: dict[int, int] = {}
    for number, (step, event) in enumerate(steps, 1):
        if step == "map" and event not in model:
            await driver.map_event(3, event, 8200 + event, 0)
            await driver.enable_lpi(3, event)
            model[event] = 0
        elif step == "unmap" and event in model:
            await driver.unmap_event(3, event)
            del model[event]
        elif step == "move" and event in model:
            model[event] ^= 1
            await driver.move_event(3, event, model[event])
        elif step == "restart":
            platform.fresh()
            await driver.restore()
        platform.taken.clear()
        taken = platform.its.try_msi(3, event, number)
        assert taken == (event in model)
        if taken:
            assert platform.taken == [(model[event], 8200 + event, number)]
            platform.its.eoi(model[event], 8200 + event, number)
            assert platform.done[-1] == (3, event, number)
