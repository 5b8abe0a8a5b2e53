"""Register tables: access rules, hooks, reserved bits; every rule is checked against a table of all kinds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError
from common.registers import Access, Register, RegisterFile, RegisterMap
from common.runtime.world import AsyncWorld

ONES = (1 << 64) - 1

MAP = RegisterMap(
    "demo",
    0x1000,
    [
        Register(0x00, "CTRL", 32, Access.RW, reset=0x10, mask=0xFF, section="§1", doc="control"),
        Register(0x04, "ID", 32, Access.RO, reset=0x43B),
        Register(0x08, "BASE", 64, Access.RW, mask=0xFFFF_0000_FFFF_0000, write="write_base"),
        Register(0x10, "STATUS", 32, Access.W1C, reset=0xFF, mask=0x0F),
        Register(0x14, "DOORBELL", 32, Access.WO, sizes=(2, 4), low_only=True, write="write_doorbell"),
        Register(0x18, "HOLE", 32, Access.RAZ_WI, reset=0xDEAD),
        Register(0x1C, "HALF", 16, Access.RW),
        Register(0x1E, "BYTE", 8, Access.RW),
        Register(0x20, "LIVE", 64, Access.RO, read="read_live"),
        Register(0x28, "SLOW", 32, Access.RW, waits=True),
    ],
)


class Owner:
    def __init__(self) -> None:
        self.live = 0x1122334455667788
        self.rung: list[int] = []
        self.locked = False

    def read_live(self) -> int:
        return self.live

    def write_base(self, old: int, new: int) -> int | None:
        return None if self.locked else new

    def write_doorbell(self, old: int, new: int) -> None:
        self.rung.append(new)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def regs(owner: Owner) -> RegisterFile:
    return RegisterFile(AsyncWorld(), MAP, owner)


def test_reset_values_and_readback(regs: RegisterFile) -> None:
    assert regs.read(0x00, 4) == 0x10
    assert regs.read(0x04, 4) == 0x43B
    assert regs.read(0x20, 8) == 0x1122334455667788


@pytest.mark.parametrize("row", list(MAP), ids=lambda row: row.name)
def test_only_writable_bits_change(regs: RegisterFile, row: Register) -> None:
    for pattern in (ONES, 0):
        before = regs.get(row.name)
        regs.write(row.offset, row.allowed[-1], pattern)
        changed = before ^ regs.get(row.name)
        assert changed & ~row.writable == 0


@pytest.mark.parametrize("row", list(MAP), ids=lambda row: row.name)
def test_access_kinds(regs: RegisterFile, row: Register) -> None:
    size = row.allowed[-1]
    if row.access in (Access.WO, Access.RAZ_WI):
        assert regs.read(row.offset, size) == 0
    if row.access in (Access.RO, Access.RAZ_WI):
        assert regs.write(row.offset, size, ONES) is None


def test_w1c_clears_what_is_written_as_one(regs: RegisterFile) -> None:
    regs.write(0x10, 4, 0x05)
    assert regs.read(0x10, 4) == 0xFA
    regs.write(0x10, 4, 0xF0)  # bits outside the mask stay
    assert regs.read(0x10, 4) == 0xFA


def test_halves_of_a_64_bit_register_merge(regs: RegisterFile) -> None:
    regs.write(0x08, 4, 0x12345678)
    regs.write(0x0C, 4, 0x9ABCDEF0)
    assert regs.read(0x08, 8) == 0x9ABC_0000_1234_0000
    assert regs.read(0x08, 4) == 0x1234_0000
    assert regs.read(0x0C, 4) == 0x9ABC_0000
    assert regs.read(0x24, 4) == 0x11223344


def test_a_hook_may_drop_the_write(regs: RegisterFile, owner: Owner) -> None:
    owner.locked = True
    assert regs.write(0x08, 8, ONES) is None
    assert regs.read(0x08, 8) == 0


def test_a_doorbell_takes_narrow_writes_and_stores_nothing(regs: RegisterFile, owner: Owner) -> None:
    assert regs.write(0x14, 2, 0x1_0005) is None
    assert regs.write(0x14, 4, 0x77) is None
    assert owner.rung == [5, 0x77]
    assert regs.get("DOORBELL") == 0


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0x01, 4), (0x00, 8), (0x00, 2), (0x06, 4), (0x2C, 4), (0xFF8, 8), (0x1C, 4), (0x08, 1), (0x16, 2)],
)
def test_anything_else_is_raz_wi(regs: RegisterFile, offset: int, size: int) -> None:
    before = [regs.get(row.name) for row in MAP]
    assert regs.read(offset, size) == 0
    assert regs.write(offset, size, ONES) is None
    assert [regs.get(row.name) for row in MAP] == before
    assert MAP.find(offset, size) is None


def test_write_says_which_register_took_it(regs: RegisterFile) -> None:
    row = regs.write(0x28, 4, 1)
    assert row is MAP.row("SLOW")
    assert row.waits


@given(offset=st.integers(-8, 0x1010), size=st.integers(0, 9), value=st.integers(-(1 << 65), 1 << 65))
def test_no_access_ever_raises_or_leaves_a_register_too_wide(offset: int, size: int, value: int) -> None:
    regs = RegisterFile(AsyncWorld(), MAP, Owner())
    regs.write(offset, size, value)
    assert 0 <= regs.read(offset, size) < 1 << 8 * max(size, 1)
    for row in MAP:
        assert 0 <= regs.get(row.name) < 1 << row.width


def test_reset_and_overrides(owner: Owner) -> None:
    regs = RegisterFile(AsyncWorld(), MAP, owner, {"ID": 0x123})
    regs.write(0x00, 4, 0xAB)
    regs.set("LIVE", 9)
    assert regs.get("CTRL") == 0xAB
    regs.reset()
    assert (regs.read(0x00, 4), regs.read(0x04, 4), regs.get("LIVE")) == (0x10, 0x123, 0)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([Register(2, "A", 32, Access.RW)], "misaligned"),
        ([Register(0x1000, "A", 32, Access.RW)], "outside"),
        ([Register(0, "A", 24, Access.RW)], "width"),
        ([Register(0, "A", 64, Access.RW), Register(4, "B", 32, Access.RW)], "overlaps"),
        ([Register(0, "A", 32, Access.RW), Register(4, "A", 32, Access.RW)], "taken"),
        ([Register(0, "A", 32, Access.RW, reset=1 << 32)], "wider"),
        ([Register(0, "A", 32, Access.RW, mask=1 << 32)], "wider"),
        ([Register(0, "A", 32, Access.RW, sizes=(8,))], "access sizes"),
        ([Register(0, "A", 32, Access.RW, sizes=(3,))], "access sizes"),
    ],
)
def test_a_bad_table_is_refused(rows: list[Register], what: str) -> None:
    with pytest.raises(LocalError, match=what):
        RegisterMap("bad", 0x1000, rows)


def test_missing_hooks_and_names_are_refused(owner: Owner) -> None:
    with pytest.raises(LocalError, match="no hook"):
        RegisterFile(AsyncWorld(), RegisterMap("m", 8, [Register(0, "A", 32, Access.RW, write="nope")]), owner)
    with pytest.raises(LocalError, match="no register"):
        RegisterFile(AsyncWorld(), MAP, owner, {"NOPE": 1})
