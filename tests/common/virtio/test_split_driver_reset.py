"""A split queue that was reset alone (§2.6.1): the driver's half begins anew, whatever state it was in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RingError
from common.memory import GuestMemory
from common.virtio.features import DESC_F_WRITE
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from tests.common.virtio.ringkit import PROFILE, WORLD

SIZE = 4
LAYOUT = SplitLayout.packed_at(0x100, SIZE)


def make(event_idx: bool = False, start: int = 0) -> tuple[GuestMemory, SplitDriver, SplitDevice]:
    memory = GuestMemory(0x1000)
    driver = SplitDriver(WORLD, memory, LAYOUT, event_idx=event_idx, start=start)
    return memory, driver, SplitDevice(WORLD, memory, LAYOUT, event_idx=event_idx, avail=start, used=start)


@pytest.mark.parametrize("start", [0, 7, 0xFFFF, 0x10003])
def test_memory_and_indices_are_as_a_new_queue_has_them(start: int) -> None:
    memory, driver, device = make(event_idx=True)
    for n in range(6):
        driver.add([(0x10, 4)], [], n + 1)
        device.pop_batch(1)
        device.push_batch([(0, 0)])
        assert driver.get_buf() == (n + 1, 0)
    driver.add([(0x10, 4)], [(0x20, 4)], "t")
    driver.disable_cb()
    assert driver.reinit(start) == ["t"]
    fresh_memory, fresh, _ = make(event_idx=True, start=start)
    areas = ((LAYOUT.driver, 6 + 2 * SIZE), (LAYOUT.device, 4))
    for addr, length in areas:
        got, want = bytearray(memory.read(addr, length)), bytearray(fresh_memory.read(addr, length))
        if addr == LAYOUT.driver:  # the entries of the available ring mean nothing yet
            got[4:-2] = want[4:-2] = bytes(2 * SIZE)
        assert got == want
    for field in ("avail_idx", "last_used_idx", "num_free", "num_added", "avail_flags", "broken", "free_head"):
        assert getattr(driver, field) == getattr(fresh, field), field
    assert driver.consumed & 0xFFFF == start & 0xFFFF


def test_a_broken_queue_is_whole_again() -> None:
    _, driver, device = make()
    driver.add([(0x10, 4)], [], "a")
    device.push(3, 0)
    with pytest.raises(RingError):
        driver.get_buf()
    assert driver.reinit() == ["a"]
    assert driver.get_buf() is None
    driver.add([(0x10, 4)], [], "b")
    assert driver.reinit() == ["b"]
    assert driver.reinit() == []


def test_a_snapshot_from_before_is_not_taken_for_now() -> None:
    _, driver, _ = make()
    snapshot = driver.enable_cb_prepare()
    driver.reinit()
    assert driver.poll(snapshot)
    assert not driver.poll(driver.enable_cb_prepare())
    assert driver.consumed & 0xFFFF == driver.last_used_idx


def test_event_suppression_begins_anew() -> None:
    """A driver that had asked for no interrupts is told of what comes after the reset, and kicks anew."""
    memory, driver, device = make(event_idx=True)
    device.enable_notify()
    driver.add([(0x10, 4)], [], "a")
    driver.disable_cb()
    driver.reinit()
    driver.add([(0x10, 4)], [], "b")
    assert driver.kick_prepare()
    device = SplitDevice(WORLD, memory, LAYOUT, event_idx=True)
    device.signalled_valid = True
    device.push(device.pop_batch(1)[0][0], 0)
    assert device.need_interrupt()


@PROFILE
@given(
    before=st.lists(st.integers(1, 3), max_size=12),
    used=st.integers(0, 12),
    start=st.integers(0, 0xFFFF),
    after=st.lists(st.integers(1, 3), min_size=1, max_size=12),
)
def test_nothing_of_before_is_seen_after(before: list[int], used: int, start: int, after: list[int]) -> None:
    memory, driver, device = make()
    waiting: list[Any] = []
    for n, pieces in enumerate(before):
        if pieces <= driver.num_free:
            driver.add([], [(0x800, 8)] * pieces, f"old{n}")
            waiting.append(f"old{n}")
    for head, _, _ in device.pop_batch(used):
        device.push(head, 1)
        got = driver.get_buf()
        assert got is not None
        waiting.remove(got[0])
    assert sorted(driver.reinit(start)) == sorted(waiting)
    device = SplitDevice(WORLD, memory, LAYOUT, avail=start, used=start)
    assert device.available() == 0
    for n, pieces in enumerate(after):
        head = driver.add([], [(0x900, 8)] * pieces, n)
        ((at, segments, _),) = device.pop_batch(SIZE)
        assert at == head
        assert [(addr, length) for addr, length, _ in segments] == [(0x900, 8)] * pieces
        assert segments[-1][2] == DESC_F_WRITE
        device.push(at, n)
        assert driver.get_buf() == (n, n)
    assert driver.num_free == SIZE
