"""A reset of the ITS while commands are under way."""

from __future__ import annotations

import asyncio

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from services.gic_its.profile import KVM, QEMU, Profile
from tests.services.gic_its.conftest import ITT, Rig
from tests.services.gic_its.dma_kinds import gated, turns, until

CTLR, CWRITER, CREADR = 0x0, 0x88, 0x90
INT_2_20 = Command(op.INT, device=2, event=20)

EVERYTHING = [
    Command(op.MAPD, device=9, size=7, itt=ITT + 0x20000, valid=1),
    Command(op.MAPC, icid=9, rdbase=1, valid=1),
    Command(op.MAPTI, device=9, event=1, intid=8300, icid=9),
    Command(op.MAPTI, device=9, event=2, intid=8301, icid=10),
    Command(op.MAPC, icid=10, rdbase=1, valid=1),
    Command(op.MOVI, device=9, event=1, icid=2),
    Command(op.INV, device=9, event=1),
    Command(op.INVALL, icid=2),
    INT_2_20,
    Command(op.CLEAR, device=9, event=1),
    Command(op.DISCARD, device=9, event=1),
    Command(op.MOVALL, rdbase=2, rdbase2=1),
    Command(op.MAPC, icid=9, valid=0),
    Command(op.MAPD, device=9, size=7, valid=0),
]


@pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
@pytest.mark.parametrize("fault", [False, True])
async def test_reset_at_every_read(profile: Profile, fault: bool) -> None:
    """Whatever waits is let go, nothing of the old comes into the new, and the ITS works."""
    reads, through = 0, True
    while through:
        rig, gate = await gated(profile)
        gate.open = False
        rig.queue(*EVERYTHING)
        writes = [asyncio.create_task(rig.write(CWRITER, rig.at)), asyncio.create_task(rig.write(CTLR, 1, 4)),
                  asyncio.create_task(rig.write(CWRITER, rig.at))]  # fmt: skip
        await turns()
        for _ in range(reads):
            if gate.waiting:
                gate.step()
                await turns()
        through = bool(gate.waiting)
        rig.its.reset()
        gate.fault = fault
        gate.open = True
        while gate.waiting:
            gate.step()
        await asyncio.gather(*writes)
        gate.fault = False
        await rig.its.drain()
        assert rig.its.control.devices == ()
        assert await rig.read(CWRITER) == await rig.read(CREADR) == 0
        assert not rig.its.control.in_slice
        rig.taken.clear()
        rig.memory.fill(0x42200000, 0x400000, 0)
        await rig.start()
        await rig.standard()
        await rig.run(INT_2_20)
        assert rig.taken == [(3, 8195, 0)]
        reads += 1
    assert reads >= 5


async def test_reset_within_a_walk() -> None:
    rig = Rig()
    await rig.start()
    await rig.run(Command(op.MAPD, device=1, size=11, itt=ITT, valid=1), Command(op.MAPC, icid=0, rdbase=0, valid=1))
    await rig.run(*(Command(op.MAPTI, device=1, event=n, intid=8192 + n, icid=0) for n in range(2000)))
    rig.queue(Command(op.MAPD, device=1, size=11, valid=0), Command(op.SYNC))
    write = asyncio.create_task(rig.write(CWRITER, rig.at))
    await until(lambda: rig.its.control.events < 2000)
    rig.its.reset()
    await write
    await rig.its.drain()
    assert rig.its.control.events == 0
    assert rig.its.commands.command_sync == 0
    await rig.start()
    await rig.standard()
    await rig.run(INT_2_20)
    assert rig.taken == [(3, 8195, 0)]


async def test_reset_while_a_slice_waits_for_a_look_of_an_msi() -> None:
    rig, gate = await gated(QEMU)
    gate.open = False
    msi = asyncio.create_task(rig.its.msi(2, 20, 1))
    await turns()
    rig.queue(INT_2_20)
    write = asyncio.create_task(rig.write(CWRITER, rig.at))
    await turns()
    assert len(gate.waiting) == 2
    gate.waiting.pop(1).set_result(None)  # the slice was read, and waits for the tables
    await turns()
    rig.its.reset()
    gate.step()
    assert await msi == "disabled"
    await write
    await rig.its.drain()
    assert rig.taken == []
    assert rig.its.commands.command_int == 0
