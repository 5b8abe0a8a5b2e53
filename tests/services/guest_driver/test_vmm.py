"""The memory maps of a device, by generation."""

from __future__ import annotations

import pytest

from common.errors import MemoryFaultError
from common.memory import ACCESS_RW
from services.guest_driver.vmm import KEPT_KEYS, AddressSpace


@pytest.fixture
def space() -> AddressSpace:
    return AddressSpace((0x4000, 0x1000), 1 << 32, (0x80000, 0x100))


def test_ram_is_always_there_and_the_window_comes_and_goes(space: AddressSpace) -> None:
    seen = set()
    for generation in range(1, 9):
        key = space.next_key()
        assert key.generation == space.generation == generation
        assert key.translate((1 << 32) + 0x4000, 0x1000, ACCESS_RW) == 0x4000
        windows = [m for m in key.map.mappings if m.addr == 0x80000]
        assert len(windows) == generation % 2
        seen |= {m.iova for m in windows}
        space.confirm(generation)
        with pytest.raises(MemoryFaultError):
            key.translate(0x4000, 1, ACCESS_RW)
    assert len(seen) == 4, "each time at another address"


def test_an_unconfirmed_key_is_given_again(space: AddressSpace) -> None:
    """The device may hold it or not: what it holds must be known to the port, however often the call fails."""
    space.confirm(space.next_key().generation)
    pending = space.next_key()
    for _ in range(10):
        assert space.next_key() is pending
    assert space.key_of(1) is not None, "in force all the while"
    space.confirm(2)
    assert space.next_key().generation == 3


def test_old_keys_are_forgotten(space: AddressSpace) -> None:
    for generation in range(1, 7):
        assert space.next_key().generation == generation
        space.confirm(generation)
        space.confirm(generation - 1)  # a late answer
        assert space.in_force == generation
        assert space.key_of(generation) is not None
    assert [g for g in range(10) if space.key_of(g)] == list(range(6 - KEPT_KEYS, 7))


def test_what_set_map_is_told(space: AddressSpace) -> None:
    key = space.next_key()
    assert space.set_map_args(key) == [
        1,
        [[(1 << 32) + 0x4000, 0x1000, 0x4000, 3], [(1 << 32) + 0x5000 + 0x100, 0x100, 0x80000, 3]],
    ]
