"""BASER0 and BASER1 written anew where the ITS holds what is mapped: what lay in a table goes with it."""

from __future__ import annotations

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from services.gic_its.saving import restore_tables
from tests.services.gic_its.conftest import COLLECTIONS, DEVICES, ITT, Rig

CTLR, BASER0, BASER1 = 0x0, 0x100, 0x108
VALID, INDIRECT, SIZE_64K = 1 << 63, 1 << 62, 2 << 8
INT = Command(op.INT, device=2, event=20)
#: Where no table was before.
ELSEWHERE = 0x10_0000


async def program(rig: Rig, baser: int, *values: int) -> None:
    await rig.write(CTLR, 0, 4)
    for value in values:
        await rig.write(baser, value)
    await rig.write(CTLR, 1, 4)


@pytest.mark.parametrize("value", [
    VALID | SIZE_64K | DEVICES + ELSEWHERE | 7,
    VALID | INDIRECT | SIZE_64K | DEVICES,
])  # fmt: skip
async def test_a_device_table_elsewhere_has_no_devices(mapped: Rig, value: int) -> None:
    old = mapped.word(DEVICES + 2 * 8)
    await program(mapped, BASER0, value)
    await mapped.run(INT, Command(op.MAPD, device=2, valid=0))
    assert mapped.taken == []
    assert mapped.word(DEVICES + 2 * 8) == old  # that is somebody else's memory now


@pytest.mark.parametrize(("baser", "value"), [
    (BASER0, VALID | SIZE_64K | 7 << 59 | 1 << 10 | DEVICES | 7),
    (BASER0, VALID | SIZE_64K | DEVICES | 8),
    (BASER1, VALID | SIZE_64K | 7 << 59 | COLLECTIONS | 1),
])  # fmt: skip
async def test_other_attributes_or_more_pages_change_nothing(mapped: Rig, baser: int, value: int) -> None:
    await program(mapped, baser, value)
    await mapped.run(INT)
    assert mapped.taken == [(3, 8195, 0)]


@pytest.mark.parametrize("values", [
    (VALID | SIZE_64K | COLLECTIONS + ELSEWHERE,),
    (0, VALID | SIZE_64K | COLLECTIONS + ELSEWHERE),
])  # fmt: skip
async def test_events_without_collection_can_be_restored(mapped: Rig, values: tuple[int, ...]) -> None:
    limbo = 0x1_0000 // 8 - 1
    await program(mapped, BASER1, *values)
    again = Command(op.MAPC, icid=3, rdbase=1, valid=1)
    await mapped.run(again, INT)
    await restore_tables(mapped.its)
    assert mapped.word(ITT + 20 * 8) == 8195 << 16 | limbo
    await mapped.run(INT, Command(op.MAPTI, device=2, event=20, intid=8200, icid=3), INT)
    assert mapped.taken == []
    await mapped.run(Command(op.MAPTI, device=2, event=21, intid=8200, icid=3), Command(op.INT, device=2, event=21))
    assert mapped.taken == [(1, 8200, 0)]
