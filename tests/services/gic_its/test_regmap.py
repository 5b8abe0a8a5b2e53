"""Every register row against a live ITS: reserved bits, read-only registers, everything else RAZ/WI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.registers import Register
from services.gic_its.profile import KVM
from services.gic_its.regmap import ITS_FRAME, REDISTRIBUTOR_FRAME, TRANSLATION_FRAME

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

ONES = (1 << 64) - 1
ROWS = [
    (frame, row)
    for frame, rows in (("its", ITS_FRAME), ("gicr0", REDISTRIBUTOR_FRAME), ("trans", TRANSLATION_FRAME))
    for row in rows
]


@pytest.mark.parametrize(("frame", "row"), ROWS, ids=lambda value: getattr(value, "name", value))
async def test_a_write_changes_only_writable_bits(rigs: type[Rig], frame: str, row: Register) -> None:
    rig = rigs()
    size = row.allowed[-1]
    before = await rig.read(row.offset, size, frame)
    await rig.write(row.offset, ONES, size, frame)
    after = await rig.read(row.offset, size, frame)
    assert (before ^ after) & ~row.writable == 0
    await rig.write(row.offset, 0, size, frame)
    assert await rig.read(row.offset, size, frame) & ~row.writable == before & ~row.writable


async def test_identification(rigs: type[Rig]) -> None:
    rig = rigs()
    assert await rig.read(0x04, 4) == 0x4B00043B
    typer = await rig.read(0x08)
    assert typer & 1
    assert typer >> 8 & 0x1F == typer >> 13 & 0x1F == 15
    assert typer >> 4 & 0xF == 7
    assert typer >> 24 & 0xFF == 0
    assert [await rig.read(0xFFD0 + 4 * n, 4) for n in range(12)] == [
        0x40, 0, 0, 0, 0x92, 0xB4, 0x3B, 0, 0x0D, 0xF0, 0x05, 0xB1,
    ]  # fmt: skip
    assert KVM.typer == typer


async def test_out_of_reset(rigs: type[Rig]) -> None:
    rig = rigs()
    assert await rig.read(0x00, 4) == 1 << 31
    assert [await rig.read(0x80 + 8 * n) for n in range(3)] == [0, 0, 0]
    assert await rig.read(0x100) == 1 << 56 | 7 << 48 | 2 << 8
    assert await rig.read(0x108) == 4 << 56 | 7 << 48 | 2 << 8
    assert [await rig.read(0x110 + 8 * n) for n in range(6)] == [0] * 6


async def test_redistributor_typer(rigs: type[Rig]) -> None:
    rig = rigs(cpus=2)
    assert [await rig.read(0x08, 8, f"gicr{n}") for n in range(2)] == [0x1, 1 << 32 | 1 << 8 | 1 << 4 | 1]


@settings(deadline=None)
@given(offset=st.integers(0, 0xFFF8), size=st.sampled_from([1, 2, 4, 8]))
def test_offsets_without_a_row_read_as_zero(rigs: type[Rig], offset: int, size: int) -> None:
    rig = rigs(cpus=1)
    if ITS_FRAME.find(offset, size) is None:
        assert rig.its.read("its", offset, size) == 0


async def test_pendbaser_ptz_reads_zero(rigs: type[Rig]) -> None:
    rig = rigs()
    await rig.write(0x78, 1 << 62 | 0x4270_0780, frame="gicr0")
    assert await rig.read(0x78, frame="gicr0") == 0x4270_0780
