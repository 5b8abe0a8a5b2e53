"""What a VMM maps for a device."""

from __future__ import annotations

import pytest

from common.errors import LocalError
from common.memory import ACCESS_RW
from services.guest_driver.vmm import AddressSpace


def test_banks_come_and_go() -> None:
    space = AddressSpace(1 << 32)
    assert space.ranges() == []
    space.add(0x8000, 0x100)
    space.add(0x4000, 0x1000)
    assert space.banks == (0x4000, 0x8000)
    assert space.ranges() == [
        ((1 << 32) + 0x4000, 0x1000, 0x4000, ACCESS_RW),
        ((1 << 32) + 0x8000, 0x100, 0x8000, ACCESS_RW),
    ]
    space.remove(0x4000)
    assert space.ranges() == [((1 << 32) + 0x8000, 0x100, 0x8000, ACCESS_RW)]


def test_misuse_is_refused() -> None:
    space = AddressSpace(0)
    space.add(0x4000, 0x1000)
    with pytest.raises(LocalError, match="0x4000 is mapped"):
        space.add(0x4000, 0x2000)
    with pytest.raises(LocalError, match="no bank at 0x5000"):
        space.remove(0x5000)
