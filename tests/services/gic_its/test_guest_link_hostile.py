"""Guests that mean ill: whatever comes over the link, the ITS serves on, and holds no more than its bounds."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import pytest

from common.gic import vmm_ops as ops
from common.gic.registers import GICR_CTLR, GICR_PENDBASER, GICR_PROPBASER
from common.wire.messages import Call, DmaData, Eoi, Message, MmioRead, MmioWrite, Msi
from services.gic_its.guest_link import MAX_CALLS
from services.gic_its.uaccess import ARGUMENTS
from tests.services.gic_its.guest_end import BASE, Wired
from tests.services.gic_its.streams import hostile_stream

FRAMES: Final = ("its", "its", "its", "trans", "gicd", "gicr0", "gicr1")
OFFSETS: Final = (0, 4, 8, 0x40, 0x70, 0x78, 0x80, 0x84, 0x88, 0x8C, 0x90, 0x100, 0x108, 0x110, 0x10C, 0xFFD0, 0x20040)
QUEUE: Final = BASE + 0x10_0000


def words(dice: random.Random) -> int:
    """A register value: addresses in memory and out of it, valid or not."""
    return dice.choice(
        (0, 1, 2, 0x13, 32, 64, 0xFE0, 0xFFFE0, 1 << 62, dice.getrandbits(64), -1 & (1 << 64) - 1,
         1 << 63 | QUEUE | dice.choice((0, 15)), 1 << 63 | 2 << 8 | BASE + dice.choice((0, 0x20_0000, 0x7000_0000)),
         BASE + 0x30_0000 | 0xF, BASE + 0x40_0000)
    )  # fmt: skip


def message(dice: random.Random, wired: Wired) -> Message:
    """A frame that a guest may send; what would only close its link is left out."""
    kind = dice.randrange(10)
    if kind < 4:
        frame, offset = dice.choice(FRAMES), dice.choice(OFFSETS) & 0xFFF8 | dice.choice((0, 0, 0, 4))
        return MmioWrite(
            dice.getrandbits(32), frame, offset, dice.choice((4, 4, 8)) if not offset & 4 else 4, words(dice)
        )
    if kind == 4:
        return MmioRead(
            dice.getrandbits(32), dice.choice(FRAMES), dice.choice(OFFSETS) & 0xFFF8, dice.choice((1, 2, 4, 8))
        )
    if kind == 5:
        return Eoi(dice.choice((-1, 0, 1, 2, 1 << 40)), dice.choice((-1, 0, 8192, 8195, 1 << 40)),
                   dice.choice((-1, 0, 1, 5)))  # fmt: skip
    if kind == 6:
        return Call(dice.getrandbits(32), dice.choice((ops.STOP_VCPUS, ops.RUN_VCPUS, "no_such_thing")), [])
    name = dice.choice(tuple(ARGUMENTS))
    args: list[Any] = [dice.choice((0, 1, words(dice))) for _ in range(ARGUMENTS[name])]
    if name in (ops.SET_ITS_REG, ops.GET_ITS_REG):
        args[0] = dice.choice(OFFSETS)
    elif name in (ops.SET_REDIST_REG, ops.GET_REDIST_REG):
        args[:2] = dice.choice((0, 1, 2)), dice.choice((GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER, 3))
    return Call(dice.getrandbits(32), name, args)


async def idle(wired: Wired) -> None:
    async with asyncio.timeout(20):  # a hang guard
        await wired.settle()


async def works(wired: Wired) -> None:
    """Another guest takes the link, and finds a good ITS."""
    fresh = Wired.__new__(Wired)
    del fresh
    wired.service.renew(wired.service.epoch + 1)
    wired.pipe.down()
    again = Wired(wired.service.its.profile.name)
    again.service.msi(again, Msi("vm0", 1, 0, 1))
    await again.close()
    wired.guest.link.shadow.clear()
    wired.reconnect()
    async with asyncio.timeout(20):
        await wired.guest.driver.start()
        await wired.guest.driver.map_device(1, 2)
        await wired.guest.driver.map_event(1, 0, 8192, 1)
        await wired.guest.driver.enable_lpi(1, 0)
        wired.guest.vcpus.taken.clear()
        wired.service.msi(wired, Msi("vm0", 1, 0, 1))
        await wired.settle()
    assert wired.guest.vcpus.taken == [(1, 8192, 1)]


@pytest.mark.parametrize("profile", ["kvm", "qemu"])
@pytest.mark.parametrize("seed", range(12))
async def test_frames_of_every_kind_in_every_state(profile: str, seed: int) -> None:
    """Writes to every register, the VMM's calls, EOIs of nothing, while commands run and links break."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    dice = random.Random(f"{profile} {seed}")
    wired = Wired(profile)
    wired.guest.memory.write(QUEUE, b"".join(hostile_stream(dice, 2048, 2)))
    for round_ in range(400):
        if dice.random() < 0.02:
            wired.reconnect()
        if dice.random() < 0.05:
            at = BASE + dice.randrange(0x60_0000) & ~7
            wired.guest.memory.write(at, dice.randbytes(64))
        for _ in range(dice.randrange(6)):
            if wired.pipe.up:
                wired.pipe.guest.send(message(dice, wired))
        wired.service.msi(wired, Msi("vm0", dice.randrange(3), dice.randrange(4), round_ + 1))
        for _ in range(dice.randrange(8)):
            await asyncio.sleep(0)
        if not wired.pipe.up:
            wired.reconnect()
    await idle(wired)
    assert errors == []
    its = wired.service.its
    assert its.control.events == len(its.tables.events) if profile == "kvm" else True  # type: ignore[attr-defined]
    assert wired.service._writes == 0
    assert not wired.service._calls
    assert wired.service._late == 0
    await works(wired)
    assert errors == []
    await wired.close()


async def test_tables_that_are_restored_while_commands_run() -> None:
    """A VMM that does not wait for the queue: either order is one, half of each is none."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    for steps in range(60):
        wired = Wired("kvm")
        async with asyncio.timeout(20):
            await wired.guest.driver.start()
            await wired.guest.driver.map_device(1, 4)
            for event in range(4):
                await wired.guest.driver.map_event(1, event, 8192 + event, 0)
        work = [asyncio.create_task(wired.guest.driver.map_device(device, 4)) for device in range(2, 6)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for name in (ops.STOP_VCPUS, ops.RESTORE_TABLES, ops.RUN_VCPUS):
            wired.pipe.guest.send(Call(1, name, []))
        async with asyncio.timeout(20):
            await asyncio.gather(*work)
            await wired.settle()
        its = wired.service.its
        assert its.control.events == len(its.tables.events) == 4  # type: ignore[attr-defined]
        assert len(its.tables.devices) == 5  # type: ignore[attr-defined]
        await wired.close()
    assert errors == []


async def test_basers_that_are_written_while_tables_are_restored() -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    for baser in (0x100, 0x108):
        for steps in range(30):
            wired = Wired("kvm")
            async with asyncio.timeout(20):
                await wired.guest.driver.start()
                for device in range(1, 4):
                    await wired.guest.driver.map_device(device, 4)
                    await wired.guest.driver.map_event(device, 0, 8192 + device, 0)
                await wired.guest.link.write("its", 0, 4, 0)
            for name in (ops.STOP_VCPUS, ops.RESTORE_TABLES):
                wired.pipe.guest.send(Call(1, name, []))
            for _ in range(steps):
                await asyncio.sleep(0)
            wired.pipe.guest.send(MmioWrite(10_000, "its", baser, 8, 0))
            await idle(wired)
            its = wired.service.its
            if baser == 0x100:
                assert (its.control.devices, its.control.events) == ((), 0)
            else:
                assert its.control.collections == ()
            assert its.control.events == len(its.tables.events)  # type: ignore[attr-defined]
            await wired.close()
    assert errors == []


async def test_floods_end_the_link_only() -> None:
    floods: tuple[tuple[Any, str], ...] = (
        (lambda n: Call(n, ops.STOP_VCPUS, []), "call"),
        (lambda n: DmaData(n, b"x"), "dma_data"),
    )
    for make, field in floods:
        wired = Wired("kvm")
        wired.pipe.frozen = True
        for n in range(MAX_CALLS + 10):
            wired.pipe.guest.send(make(n))
        while wired.pipe.up and wired.pipe.guest.sent:
            wired.pipe.its.deliver()  # no turn for the ITS in between
        assert [error.field.split(".")[0] for error in wired.pipe.refused] == [field]
        await idle(wired)
        assert not wired.service._calls
        await works(wired)
        await wired.close()


async def test_a_storm_of_eois_and_accesses_costs_nothing() -> None:
    wired = Wired("kvm")
    for n in range(20_000):
        wired.pipe.guest.send(Eoi(n % 3, 8192 + n % 100, n % 5))
        wired.pipe.guest.send(MmioWrite(n, "trans", 0x40, 4, n % 70))
    async with asyncio.timeout(60):
        await wired.settle()
    its = wired.service.its
    assert its.stats.stray_eois == 20_000
    assert len(its.redistributors[0]._lpis) == 0
    await works(wired)
    await wired.close()
