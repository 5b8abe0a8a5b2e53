"""GITS_BASER<n> decoded (IHI 0069 §12.19.1), and where that puts entries."""

from __future__ import annotations

import pytest

from common.gic.entries import L1
from common.gic.registers import BASER_INDIRECT, BASER_PAGE_SIZE, BASER_PAGES, TYPE_DEVICES
from common.gic.table_shape import ID_LIMIT, Piece, Shape, level1, pieces, shape, used
from common.memory import GuestMemory
from tests.common.gic.its_memory import baser

BASE = 0x4000_0000


def no_fault(addr: int) -> None:
    raise AssertionError(f"{addr:#x}: no fault is due")


class TestShape:
    def test_64_kib_pages(self) -> None:
        assert shape(baser(TYPE_DEVICES, 0x5_4000_0000_0000, 8)) == Shape(
            0x5_4000_0000_0000, 0x8_0000, 0x1_0000, 8, False
        )

    @pytest.mark.parametrize(("code", "page", "addr"), [(0, 4096, BASE + 0xD000), (1, 16384, BASE + 0xC000)])
    def test_small_pages_have_their_low_address_bits(self, code: int, page: int, addr: int) -> None:
        value = baser(TYPE_DEVICES, BASE, 3) & ~BASER_PAGE_SIZE.mask | BASER_PAGE_SIZE.put(code) | 0xD000
        assert shape(value) == Shape(addr, 3 * page, page, 8, False)

    def test_reserved_page_size(self) -> None:
        assert shape(baser(TYPE_DEVICES, BASE, 1) | BASER_PAGE_SIZE.put(3)) == Shape(BASE, 0x1_0000, 0x1_0000, 8, False)

    def test_not_valid(self) -> None:
        assert shape(baser(TYPE_DEVICES, BASE, 1) & ~(1 << 63)) is None

    @pytest.mark.parametrize(
        ("pages", "indirect", "ids"),
        [(1, False, 8192), (8, False, ID_LIMIT), (256, False, ID_LIMIT), (1, True, ID_LIMIT)],
    )
    def test_ids(self, pages: int, indirect: bool, ids: int) -> None:
        assert Shape(BASE, pages * 0x1_0000, 0x1_0000, 8, indirect).ids == ids


class TestPieces:
    def test_flat(self) -> None:
        table = Shape(BASE, 0x3_0000, 0x1_0000, 8, False)
        assert list(pieces(table, GuestMemory().read, no_fault)) == [
            Piece(0, BASE, 0x1_0000), Piece(8192, BASE + 0x1_0000, 0x1_0000), Piece(16384, BASE + 0x2_0000, 0x1_0000),
        ]  # fmt: skip

    def test_flat_ends_with_the_ids(self) -> None:
        table = shape(baser(TYPE_DEVICES, BASE, 1) | BASER_PAGES.put(255))
        assert table is not None
        assert level1(table) == Piece(0, BASE, ID_LIMIT * 8)
        assert sum(piece.length for piece in pieces(table, GuestMemory().read, no_fault)) == ID_LIMIT * 8

    def test_two_levels_of_64_kib_pages(self) -> None:
        memory = GuestMemory(0x1_0000, BASE)
        memory.write(BASE, L1(True, BASE + 0x8_0000).pack())
        memory.write(BASE + 8, (BASE + 0x9_0000).to_bytes(8, "little"))  # not valid
        memory.write(BASE + 56, (1 << 63 | 0x5_0000_0000_3000).to_bytes(8, "little"))  # bits below the page are RES0
        memory.write(BASE + 64, L1(True, BASE).pack())  # past 65536 IDs
        table = shape(baser(TYPE_DEVICES, BASE, 1) | BASER_INDIRECT)
        assert table is not None
        assert level1(table) == Piece(0, BASE, 64)
        assert list(pieces(table, memory.read, no_fault)) == [
            Piece(0, BASE + 0x8_0000, 0x1_0000), Piece(57344, 0x5_0000_0000_0000, 0x1_0000),
        ]  # fmt: skip

    def test_two_levels_of_4_kib_pages(self) -> None:
        memory = GuestMemory(0x1_0000, BASE)
        memory.write(BASE + 8, L1(True, BASE).pack()[:1] + b"\x12" + L1(True, BASE).pack()[2:])
        table = Shape(BASE, 4096, 4096, 8, True)
        assert list(pieces(table, memory.read, no_fault)) == [Piece(512, BASE + 0x1000, 4096)]

    def test_the_last_page_ends_with_the_ids(self) -> None:
        memory = GuestMemory(0x1_0000, BASE)
        table = Shape(BASE, 4096, 16384, 8, True)
        memory.write(BASE + 31 * 8, L1(True, BASE).pack())
        assert table.ids == ID_LIMIT
        assert list(pieces(table, memory.read, no_fault)) == [Piece(31 * 2048, BASE, 16384)]

    def test_a_level_1_that_is_not_there(self) -> None:
        faults: list[int] = []
        assert list(pieces(Shape(BASE, 0x1_0000, 0x1_0000, 8, True), GuestMemory().read, faults.append)) == []
        assert faults == [BASE]


def test_used() -> None:
    assert list(used(bytes(24), 8)) == []
    assert list(used(bytes(12) + b"\1" + bytes(23), 12)) == [(1, b"\1" + bytes(11))]
