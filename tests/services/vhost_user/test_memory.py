"""Tables of shared memory: what is refused, and where addresses lead."""

from __future__ import annotations

import pytest

from common.errors import LocalError, MemoryFaultError
from services.vhost_user.memory import SharedMemory, SharedRegion

PAGE = 0x1000


def map_any(_fd: int, _offset: int, size: int) -> memoryview:
    return memoryview(bytearray(size))


def table(*regions: SharedRegion, slots: int = 8) -> SharedMemory:
    memory = SharedMemory()
    for fd, region in enumerate(regions):
        memory = memory.with_region(region, fd, map_any, slots)
    return memory


LOW = SharedRegion(guest=0, size=4 * PAGE, user=0x7000_0000, offset=0)
HIGH = SharedRegion(guest=0x1_0000_0000, size=2 * PAGE, user=0x7000_0000 + 4 * PAGE, offset=4 * PAGE)


def test_addresses_of_both_kinds_reach_the_same_bytes() -> None:
    seen = []

    def map_fd(fd: int, offset: int, size: int) -> memoryview:
        seen.append((fd, offset, size))
        return memoryview(bytearray(size))

    memory = SharedMemory().with_region(LOW, 5, map_fd, 8).with_region(HIGH, 6, map_fd, 8)
    assert seen == [(5, 0, 4 * PAGE), (6, 4 * PAGE, 2 * PAGE)]
    assert memory.guest_address(LOW.user + 24, 8) == 24
    assert memory.guest_address(HIGH.user + 2 * PAGE - 8, 8) == HIGH.guest + 2 * PAGE - 8
    memory.guest.write(HIGH.guest + 16, b"ring")
    assert memory.guest.read(HIGH.guest + 16, 4) == b"ring"


@pytest.mark.parametrize(
    ("user", "length"),
    [
        (LOW.user - 1, 1),
        (LOW.user + 4 * PAGE - 1, 2),  # from one region into the next
        (HIGH.user + 2 * PAGE, 1),
        (HIGH.user + 2 * PAGE - 1, 2),
        (0, 1),
        (LOW.user, -1),
        ((1 << 64) - 1, 1),
    ],
)
def test_user_addresses_outside_a_region(user: int, length: int) -> None:
    with pytest.raises(MemoryFaultError) as caught:
        table(LOW, HIGH).guest_address(user, length)
    assert caught.value.value == hex(user)


def test_the_whole_of_a_region_is_reachable() -> None:
    assert table(LOW).guest_address(LOW.user, LOW.size) == 0
    with pytest.raises(MemoryFaultError):
        table(LOW).guest_address(LOW.user, LOW.size + 1)


@pytest.mark.parametrize(
    ("region", "field"),
    [
        (SharedRegion(0, 0, 0, 0), "region.size"),
        (SharedRegion(0, PAGE + 8, 0, 0), "region.size"),
        (SharedRegion(8, PAGE, 0, 0), "region.guest"),
        (SharedRegion(0, PAGE, 8, 0), "region.user"),
        (SharedRegion(0, PAGE, 0, 8), "region.offset"),
        (SharedRegion((1 << 64) - PAGE, 2 * PAGE, 0, 0), "region.guest"),
        (SharedRegion((1 << 64) - PAGE, PAGE + 16, 0, 0), "region.guest"),
        (SharedRegion(0, 2 * PAGE, (1 << 64) - PAGE, 0), "region.user"),
        (SharedRegion(0, 2 * PAGE, 0, (1 << 64) - PAGE), "region.offset"),
    ],
)
def test_regions_that_cannot_be(region: SharedRegion, field: str) -> None:
    with pytest.raises(MemoryFaultError) as caught:
        table(region)
    assert caught.value.field == field


def test_a_region_may_end_where_addresses_do() -> None:
    last = SharedRegion((1 << 64) - PAGE, PAGE, (1 << 64) - PAGE, 0)
    assert table(last).guest_address((1 << 64) - 16, 16) == (1 << 64) - 16


@pytest.mark.parametrize(
    ("guest", "user"),
    [
        (0, 0x9000_0000),
        (3 * PAGE, 0x9000_0000),
        (0x2_0000_0000, LOW.user),
        (0x2_0000_0000, LOW.user + 3 * PAGE),
        (0x2_0000_0000, LOW.user - PAGE),
    ],
)
def test_overlaps_by_guest_or_by_user_address(guest: int, user: int) -> None:
    mapped = []

    def map_fd(fd: int, offset: int, size: int) -> memoryview:
        mapped.append(fd)
        return map_any(fd, offset, size)

    with pytest.raises(MemoryFaultError, match="overlaps"):
        table(LOW).with_region(SharedRegion(guest, 2 * PAGE, user, 0), 1, map_fd, 8)
    assert not mapped


def test_regions_may_touch() -> None:
    below = SharedRegion(LOW.guest + LOW.size, PAGE, LOW.user - PAGE, 0)
    assert len(table(LOW, below).regions) == 2


def test_slots_are_limited() -> None:
    regions = [SharedRegion(n * PAGE, PAGE, n * PAGE, 0) for n in range(4)]
    assert len(table(*regions[:3], slots=3).regions) == 3
    with pytest.raises(MemoryFaultError) as caught:
        table(*regions, slots=3)
    assert (caught.value.value, caught.value.limit) == (4, 3)


def test_a_change_leaves_the_table_before_it_alone() -> None:
    one = table(LOW)
    two = one.with_region(HIGH, 1, map_any, 8)
    three = two.without_region(SharedRegion(LOW.guest, LOW.size, LOW.user, offset=77))  # the offset does not count
    assert [len(m.regions) for m in (one, two, three)] == [1, 2, 1]
    assert three.regions == (HIGH,)
    one.guest.write(0, b"same")
    assert two.guest.read(0, 4) == b"same"
    with pytest.raises(MemoryFaultError):
        three.guest_address(LOW.user, 1)


@pytest.mark.parametrize(
    "region",
    [
        SharedRegion(PAGE, LOW.size, LOW.user, 0),
        SharedRegion(LOW.guest, PAGE, LOW.user, 0),
        SharedRegion(LOW.guest, LOW.size, LOW.user + PAGE, 0),
    ],
)
def test_only_a_whole_region_can_be_removed(region: SharedRegion) -> None:
    with pytest.raises(MemoryFaultError, match="not in the table"):
        table(LOW).without_region(region)


def test_a_mapping_of_another_size_is_our_fault() -> None:
    with pytest.raises(LocalError):
        SharedMemory().with_region(LOW, 0, lambda _fd, _offset, size: memoryview(bytearray(size - 8)), 8)
