"""The device half: bytes of the device area, and every lie that a driver can tell (virtio 1.3 §2.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.errors import MemoryFaultError, RingError
from common.memory import GuestMemory, MappedMemory, Mapping, MemoryKey, MemoryMap
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from tests.common.virtio.ringkit import WORLD

LAYOUT = SplitLayout(4, 0x100, 0x200, 0x300)
NEXT, WRITE, INDIRECT = 1, 2, 4


def make(**options: Any) -> tuple[GuestMemory, SplitDevice]:
    memory = GuestMemory(0x1000)
    return memory, SplitDevice(WORLD, memory, LAYOUT, **options)


def desc(memory: GuestMemory, at: int, addr: int, length: int, flags: int = 0, follows: int = 0) -> None:
    """struct virtq_desc at guest address ``at``: le64 addr, le32 len, le16 flags, le16 next."""
    memory.write(
        at,
        addr.to_bytes(8, "little")
        + length.to_bytes(4, "little")
        + flags.to_bytes(2, "little")
        + follows.to_bytes(2, "little"),
    )


def offer(memory: GuestMemory, *heads: int) -> None:
    for i, head in enumerate(heads):
        memory.write(0x204 + 2 * i, head.to_bytes(2, "little"))
    memory.write(0x202, len(heads).to_bytes(2, "little"))


# --- byte for byte ----------------------------------------------------------------------------------------------------


def test_used_elements_byte_for_byte() -> None:
    memory, device = make(used=0xFFFF)
    device.push(3, 0x11223344)
    device.push_batch([(1, 5), (2, 0)])
    device.push_batch([])
    assert memory.read(0x300, 38) == bytes.fromhex(
        "0000 0200"  # flags, idx: three elements after 0xffff
        "01000000 05000000"  # slot 0
        "02000000 00000000"  # slot 1
        "00000000 00000000"  # slot 2
        "03000000 44332211"  # slot 3 = 0xffff % 4
        "0000"  # avail_event
    )


def test_notification_fields_byte_for_byte() -> None:
    memory, device = make()
    device.disable_notify()
    assert device.notify_off
    assert memory.read(0x300, 2) == b"\1\0"
    assert not device.enable_notify()
    assert memory.read(0x300, 2) == b"\0\0"
    memory, device = make(event_idx=True, avail=0x1234)
    memory.write(0x202, b"\x34\x12")
    device.disable_notify()
    assert memory.read(0x300, 2) == b"\0\0"
    assert not device.enable_notify()
    assert memory.read(0x324, 2) == b"\x34\x12"  # avail_event
    memory.write(0x202, b"\x35\x12")
    assert device.enable_notify()


def test_interrupts_follow_the_flag_or_the_event_index() -> None:
    memory, device = make()
    assert device.need_interrupt()
    memory.write(0x200, b"\1\0")
    assert not device.need_interrupt()
    memory, device = make(event_idx=True)
    memory.write(0x20C, b"\2\0")  # used_event
    device.push(0, 0)
    assert device.need_interrupt(), "the first decision after creation cannot be skipped"
    device.push(1, 0)
    assert not device.need_interrupt()
    device.push(2, 0)
    assert device.need_interrupt()


@pytest.mark.parametrize("batch", [False, True])
def test_two_to_the_sixteen_elements_without_a_decision_still_interrupt(batch: bool) -> None:
    memory, device = make(event_idx=True)
    memory.write(0x20C, b"\x05\0")
    device.need_interrupt()
    elems = [(0, 0)] * 4
    for _ in range(0x10000 // 4 + 1):
        if batch:
            device.push_batch(elems)
        else:
            for elem in elems:
                device.push(*elem)
    assert device.need_interrupt()


def test_an_indirect_table_behind_direct_descriptors() -> None:
    """§2.7.5.3.2: normal descriptors may lead to one indirect table, whose WRITE flag is ignored."""
    memory, device = make()
    desc(memory, 0x100, 0x10, 1, NEXT, 1)
    desc(memory, 0x110, 0x800, 32, INDIRECT | WRITE)
    desc(memory, 0x800, 0x20, 2, NEXT, 1)
    desc(memory, 0x810, 0x30, 3, WRITE)
    offer(memory, 0)
    assert device.pop() == (0, ((0x10, 1, NEXT), (0x20, 2, NEXT), (0x30, 3, WRITE)), 2)
    assert device.pop() is None
    assert device.pop_batch(4) == []


def test_a_chain_is_as_long_as_the_queue_and_no_longer() -> None:
    """§2.7.5.3.1, also where a table makes room for more descriptors than the queue has."""
    for rows, fits in ((3, True), (4, False)):
        memory, device = make()
        desc(memory, 0x100, 0x10, 1, NEXT, 1)
        desc(memory, 0x110, 0x800, 16 * rows, INDIRECT)
        for i in range(rows):
            desc(memory, 0x800 + 16 * i, 0x20, 1, NEXT if i + 1 < rows else 0, i + 1)
        offer(memory, 0)
        if fits:
            popped = device.pop()
            assert popped is not None
            assert len(popped[1]) == 4
        else:
            with pytest.raises(RingError, match="chain"):
                device.pop()


def test_hand_back() -> None:
    memory, device = make()
    offer(memory, 0, 1)
    first = device.pop_batch(2)
    device.hand_back(2)
    assert device.pop_batch(2) == first


# --- lies -------------------------------------------------------------------------------------------------------------


def chain(*descriptors: tuple[int, ...]) -> Callable[[GuestMemory], None]:
    """Descriptors from index 0 on, head 0 offered."""

    def write(memory: GuestMemory) -> None:
        for i, row in enumerate(descriptors):
            desc(memory, 0x100 + 16 * i, *row)
        offer(memory, 0)

    return write


def table(addr: int, length: int, *rows: tuple[int, ...], flags: int = INDIRECT) -> Callable[[GuestMemory], None]:
    """Head 0 names an indirect table at ``addr``."""

    def write(memory: GuestMemory) -> None:
        desc(memory, 0x100, addr, length, flags)
        for i, row in enumerate(rows):
            desc(memory, 0x800 + 16 * i, *row)
        offer(memory, 0)

    return write


LIES: list[tuple[str, str, Callable[[GuestMemory], None]]] = [
    ("index jumps", "avail.idx", lambda m: m.write(0x202, b"\5\0")),
    ("index goes back", "avail.idx", lambda m: m.write(0x202, b"\xff\xff")),
    ("head out of range", "head", lambda m: offer(m, 4)),
    ("head far out of range", "head", lambda m: offer(m, 0xFFFF)),
    ("next out of range", "next", chain((0, 1, NEXT, 4))),
    ("loop on itself", "chain", chain((0, 1, NEXT, 0))),
    ("loop of three", "chain", chain((0, 1, NEXT, 1), (0, 1, NEXT, 2), (0, 1, NEXT, 0))),
    ("readable after writable", "flags", chain((0, 1, NEXT | WRITE, 1), (0, 1, 0))),
    ("table of no bytes", "indirect", table(0x800, 0)),
    ("table of odd length", "indirect", table(0x800, 24)),
    ("table longer than the queue", "indirect", table(0x800, 16 * 5)),
    ("table not aligned", "indirect", table(0x801, 16)),
    ("table outside memory", "indirect", table(0xFFF8, 16)),
    ("table at the last byte", "indirect", table(0xFF8, 16)),
    ("table at the end of the address space", "indirect", table(2**64 - 16, 32)),
    ("chained table", "indirect", table(0x800, 16, (0, 1), flags=INDIRECT | NEXT)),
    ("nested table", "indirect", table(0x800, 16, (0x800, 16, INDIRECT))),
    ("next leaves the table", "next", table(0x800, 32, (0, 1, NEXT, 2), (0, 1))),
    ("loop in the table", "chain", table(0x800, 32, (0, 1, NEXT, 1), (0, 1, NEXT, 0))),
    ("readable after writable in the table", "flags", table(0x800, 32, (0, 1, NEXT | WRITE, 1), (0, 1))),
    ("address outside", "addr", chain((0x1000, 1))),
    ("length outside", "addr", chain((0xFFF, 2))),
    ("address wraps", "addr", chain((2**64 - 1, 2))),
    ("second address outside", "addr", chain((0, 1, NEXT, 1), (0x2000, 1, WRITE))),
]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(("name", "field", "lie"), LIES, ids=[row[0] for row in LIES])
def test_a_lie_breaks_the_queue_and_names_the_field(
    name: str, field: str, lie: Callable[[GuestMemory], None], batch: bool
) -> None:
    memory, device = make()
    lie(memory)
    take = (lambda: device.pop_batch(4)) if batch else device.pop
    with pytest.raises(RingError) as caught:
        take()
    assert caught.value.field == field
    assert caught.value.value is not None
    assert device.broken
    for call in (device.pop, device.available, lambda: device.pop_batch(1)):
        with pytest.raises(RingError, match="broken"):
            call()


def test_indirect_not_negotiated() -> None:
    memory, device = make(indirect=False)
    table(0x800, 16, (0, 1))(memory)
    with pytest.raises(RingError, match="indirect"):
        device.pop()


def test_chains_before_a_lie_are_given_and_the_lie_raises_next() -> None:
    memory, device = make()
    desc(memory, 0x100, 0x10, 1)
    offer(memory, 0, 9)
    assert device.pop_batch(4) == [(0, ((0x10, 1, 0),), 1)]
    assert not device.broken
    for _ in range(2):
        with pytest.raises(RingError, match=r"head|broken"):
            device.pop_batch(4)
    assert device.broken


def test_an_address_outside_the_key_not_only_outside_memory() -> None:
    memory = GuestMemory(0x1000)
    mapped = MappedMemory(memory, MemoryKey(MemoryMap([Mapping(0, 0x800, 0)]), 1))
    device = SplitDevice(WORLD, mapped, LAYOUT)
    chain((0x7FF, 1))(memory)
    assert device.pop() is not None
    memory.write(0x206, b"\1\0")
    desc(memory, 0x110, 0x7FF, 2)
    memory.write(0x202, b"\2\0")
    with pytest.raises(RingError, match="addr"):
        device.pop()
    with pytest.raises(MemoryFaultError):
        SplitDevice(WORLD, mapped, SplitLayout(4, 0x100, 0x200, 0x800))


def test_without_check_addresses_are_the_callers_business() -> None:
    memory, device = make(check=False)
    chain((0x5000, 1, NEXT, 1), (0x6000, 1))(memory)
    assert device.pop() is not None


@pytest.mark.parametrize("size", [1, 2, 64, 32768])
@pytest.mark.parametrize("start", [0, 1, 32767, 32768, 65535])
def test_any_size_and_start_goes_round(size: int, start: int) -> None:
    layout = SplitLayout.packed_at(0, size)
    memory = GuestMemory((layout.end + 7) & ~7)
    driver = SplitDriver(WORLD, memory, layout, start=start)
    device = SplitDevice(WORLD, memory, layout, avail=start, used=start)
    for turn in range(3):
        assert driver.add_batch([(i, turn, i + 1) for i in range(size)], 0) == size
        assert device.available() == size
        popped = device.pop_batch(size)
        assert [segments[0][0] for _, segments, _ in popped] == list(range(size))
        device.push_batch([(head, turn) for head, _, _ in popped])
        assert driver.get_bufs(size) == [(i + 1, turn) for i in range(size)]
        assert driver.get_buf() is None
    assert driver.consumed == start + 3 * size
