"""Entries of either implementation become the same values."""

from __future__ import annotations

import pytest

from common.gic import entries, entries_qemu
from common.gic.entries import Cte, Dte, Ite
from common.gic.table_layout import LAYOUTS


class TestKvm:
    layout = LAYOUTS["kvm"]

    def test_entries(self) -> None:
        assert self.layout.dte(Dte(True, 0x4300_0000, 8, 5).pack()) == Dte(True, 0x4300_0000, 8, 5)
        assert self.layout.cte(Cte(True, 3, 77).pack(), 9) == Cte(True, 3, 77)
        assert self.layout.ite(Ite(8192, 77, 4).pack()) == Ite(8192, 77, 4)
        assert (self.layout.itt_entry, self.layout.chained) == (8, True)

    def test_not_valid(self) -> None:
        assert self.layout.ite((5 << 48 | 77).to_bytes(8, "little")) is None
        assert not self.layout.dte(bytes(8)).valid


class TestQemu:
    layout = LAYOUTS["qemu"]

    def test_entries(self) -> None:
        assert self.layout.dte(entries_qemu.Dte(True, 0x4300_0000, 8).pack()) == Dte(True, 0x4300_0000, 8, 0)
        assert self.layout.cte(entries_qemu.Cte(True, 3).pack(), 9) == Cte(True, 3, 9)
        assert self.layout.ite(entries_qemu.Ite(True, 8192, 77).pack()) == Ite(8192, 77, 0)
        assert (self.layout.itt_entry, self.layout.chained) == (12, False)

    def test_not_valid(self) -> None:
        assert self.layout.ite(b"\xfe" * 12) is None


@pytest.mark.parametrize(("profile", "module"), [("kvm", entries), ("qemu", entries_qemu)])
def test_entries_of_the_first_level_are_alike(profile: str, module: object) -> None:
    """Both have device and collection table entries of 8 bytes: :mod:`common.gic.table_shape` counts by that."""
    assert module.ENTRY_SIZE == 8  # type: ignore[attr-defined]
    assert profile in LAYOUTS
