"""The memory keys of a device, as its port keeps them."""

from __future__ import annotations

import errno

import pytest

from common.memory import GuestMemory, Mapping, MemoryKey, MemoryMap
from common.runtime.world import AsyncWorld
from common.wire.messages import CreateMkey, MkeyCreated
from services.guest_driver.port_keys import MAX_KEYS, PortKeys

STANDING = MemoryKey(MemoryMap([Mapping(0, 0x1000, 0)]), 0)


@pytest.fixture
def keys() -> PortKeys:
    return PortKeys(AsyncWorld(), GuestMemory(0x1000, 0x4000), lambda generation: None if generation else STANDING)


def test_a_key_is_made_and_destroyed(keys: PortKeys) -> None:
    assert keys.create(CreateMkey(3, [(0x100, 0x1000, 0x4000, 3)])) == MkeyCreated(3, 0)
    memory = keys.get(3)
    assert memory is not None
    assert (memory.key.generation, memory.key.translate(0x180, 4, 1)) == (3, 0x4080)
    assert len(keys) == 1
    keys.destroy(3)
    keys.destroy(3)  # a device says it again after a lost link
    assert keys.get(3) is None


def test_a_key_that_the_device_did_not_make(keys: PortKeys) -> None:
    memory = keys.get(0)
    assert memory is not None
    assert memory.key is STANDING
    assert keys.get(0) is memory
    assert len(keys) == 0


def test_the_same_key_again_stays_what_it_is(keys: PortKeys) -> None:
    """A queue object is told from a new one by its key: one that is said again after a lost link makes none."""
    said = CreateMkey(1, [(0, 0x800, 0x4000, 3)])
    keys.create(said)
    first = keys.get(1)
    keys.create(said)
    assert keys.get(1) is first
    keys.create(CreateMkey(1, [(0, 0x800, 0x4800, 3)]))  # another device counts from 1 too
    assert keys.get(1) is not first


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, 0x1001, 0x4000, 3)],  # one byte more than the bank
        [(0, 0x1000, 0x3FFF, 3)],
        [(0, 8, 0x9000, 3)],
        [(0, 0, 0x4000, 3)],
        [(0, 8, 0x4000, 0)],
        [(0, 8, 0x4000, 3), (4, 8, 0x4000, 3)],
        [(-8, 8, 0x4000, 3)],
    ],
)
def test_a_map_that_is_none_or_not_in_guest_memory(keys: PortKeys, ranges: list[tuple[int, int, int, int]]) -> None:
    answer = keys.create(CreateMkey(1, ranges))
    assert (answer.generation, answer.errno) == (1, errno.EFAULT)
    assert answer.reason
    assert keys.get(1) is None


def test_there_is_an_end_to_keys(keys: PortKeys) -> None:
    for generation in range(1, MAX_KEYS + 1):
        assert keys.create(CreateMkey(generation, [(0, 8, 0x4000, 3)])).errno == 0
    assert keys.create(CreateMkey(99, [(0, 8, 0x4000, 3)])).errno == errno.ENOSPC
    assert keys.create(CreateMkey(1, [(0, 16, 0x4000, 3)])).errno == 0, "one that stands may become another"
    keys.destroy(1)
    assert keys.create(CreateMkey(99, [(0, 8, 0x4000, 3)])).errno == 0
