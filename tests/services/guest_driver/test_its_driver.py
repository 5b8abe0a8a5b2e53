"""The ITS driver against the real ITS core, in one process: set-up, mapping, interrupts, restore."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CallError, LinkDownError, LocalError
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.guest_driver.its_driver import ItsDriver, ItsLayout


class Platform:
    """Memory, an ITS that can be replaced, and a driver; accesses count down to a lost link if told to."""

    def __init__(self, cpus: int = 2, layout: ItsLayout | None = None) -> None:
        self.world = AsyncWorld()
        self.memory = GuestMemory(0x40_0000, 0x4000_0000)
        self.free = 0x4000_0000
        self.taken: list[tuple[int, int, int]] = []
        self.done: list[tuple[int, int, int]] = []
        self.cpus = cpus
        self.left = -1
        self.answered = True
        self.its = self.fresh()
        self.driver = ItsDriver(self.world, self, self.memory, self.allocate, cpus=cpus, layout=layout)

    def fresh(self) -> Its:
        self.its = Its(
            self.world,
            DirectDma(self.memory),
            cpus=self.cpus,
            deliver=lambda *lpi: self.taken.append(lpi),
            done=lambda *msi: self.done.append(msi),
        )
        return self.its

    def allocate(self, size: int, align: int) -> int:
        addr = (self.free + align - 1) & ~(align - 1)
        self.free = addr + size
        self.memory.check(addr, size)
        return addr

    def _count(self) -> bool:
        self.left -= 1
        return self.left == 0

    async def read(self, frame: str, offset: int, size: int) -> int:
        if self._count():
            raise LinkDownError("mmio")
        return self.its.read(frame, offset, size)

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        lost = self._count()
        if not lost or self.answered:
            await self.its.mmio_write(frame, offset, size, value)
        if lost:
            raise LinkDownError("mmio")


@pytest.fixture
async def platform() -> Platform:
    platform = Platform()
    await platform.driver.start()
    return platform


async def test_start_programs_everything(platform: Platform) -> None:
    its = platform.its
    assert its.control.enabled
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


@pytest.mark.parametrize("answered", [True, False])
async def test_a_batch_cut_off_by_a_lost_link_is_run_by_resume(platform: Platform, answered: bool) -> None:
    driver = platform.driver
    platform.answered = answered
    for lost_at in range(1, 4):
        device = 10 + lost_at
        platform.left = lost_at
        try:
            await driver.map_device(device, 2)
        except LinkDownError:
            platform.left = -1
            await driver.resume()
        platform.left = -1
        await driver.map_event(device, 0, 8192 + device, 0)
        assert platform.its.try_msi(device, 0, 1)
    await driver.resume()
    assert platform.its.control.devices == ((11, 12, 13),)


async def test_an_its_that_was_reset_meanwhile_is_programmed_anew_by_resume(platform: Platform) -> None:
    await platform.driver.map_device(5, 2)
    await platform.driver.map_event(5, 1, 8200, 0)
    await platform.driver.enable_lpi(5, 1)
    platform.its.reset()
    assert not platform.its.try_msi(5, 1, 1)
    await platform.driver.resume()
    assert platform.driver.stats.restores == 1
    assert platform.its.try_msi(5, 1, 1)


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
