"""LPIs that a redistributor can not have: LPIs are off there, or its tables do not reach so far."""

from __future__ import annotations

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from services.gic_its.profile import KVM, QEMU, Profile
from tests.services.gic_its.conftest import CONFIG, PENDING, Rig

CTLR, PROPBASER, PENDBASER = 0x0, 0x70, 0x78
PTZ = 1 << 62
INT = Command(op.INT, device=2, event=20)
TABLE_3 = PENDING + 3 * 0x2_0000


@pytest.mark.parametrize(("profile", "pending"), [(KVM, []), (QEMU, [8195])])
async def test_ptz(profile: Profile, pending: list[int]) -> None:
    rig = Rig(profile=profile)
    await rig.start()
    await rig.standard()
    rig.its.hold()
    await rig.run(INT)
    await rig.write(CTLR, 0, 4, "gicr3")
    assert rig.its.pending(3) == []
    await rig.write(PENDBASER, TABLE_3 | PTZ, frame="gicr3")
    await rig.write(CTLR, 1, 4, "gicr3")
    assert rig.its.pending(3) == pending


@pytest.mark.parametrize("profile", [KVM, QEMU])
async def test_movall_leaves_what_its_target_can_not_have(profile: Profile) -> None:
    rig = Rig(profile=profile)
    await rig.start()
    await rig.standard()
    rig.its.hold()
    await rig.write(CTLR, 0, 4, "gicr1")
    moves = Command(op.MOVALL, rdbase=3, rdbase2=1)
    await rig.run(INT, moves)
    assert (rig.its.pending(1), rig.its.pending(3)) == ([], [8195])
    await rig.write(PROPBASER, CONFIG | 0xD, frame="gicr1")
    await rig.write(CTLR, 1, 4, "gicr1")
    beyond = Command(op.MAPTI, device=2, event=30, intid=1 << 14, icid=3)
    await rig.run(beyond, Command(op.INT, device=2, event=30), moves)
    assert (rig.its.pending(1), rig.its.pending(3)) == ([8195], [1 << 14])


async def test_no_bit_is_written_past_a_pending_table() -> None:
    rig = Rig()
    await rig.start()
    await rig.standard()
    rig.its.hold()
    await rig.run(Command(op.MAPTI, device=2, event=30, intid=1 << 14, icid=3))
    await rig.write(CTLR, 0, 4, "gicr3")
    await rig.write(PROPBASER, CONFIG | 0xD, frame="gicr3")
    await rig.write(CTLR, 1, 4, "gicr3")
    await rig.run(INT, Command(op.INT, device=2, event=30))
    assert rig.memory.read(TABLE_3 + 8195 // 8, 1) == b"\x08"
    assert rig.memory.read(TABLE_3 + (1 << 14) // 8, 1) == b"\x00"
