"""The driver half: bytes against virtio 1.3 §2.7.5-2.7.8, and both halves against a model of lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common.errors import LocalError, RingError, RingFullError
from common.memory import GuestMemory
from common.virtio.features import DESC_F_WRITE
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from tests.common.virtio.ringkit import PROFILE, STATEFUL, WORLD

LAYOUT4 = SplitLayout(4, 0x100, 0x200, 0x300)


def make(**options: Any) -> tuple[GuestMemory, SplitDriver]:
    memory = GuestMemory(0x1000)
    return memory, SplitDriver(WORLD, memory, LAYOUT4, **options)


# --- byte for byte ----------------------------------------------------------------------------------------------------


def test_a_chain_of_three_byte_for_byte() -> None:
    memory, driver = make()
    assert driver.add([(0x1122334455667788, 0x10), (0x2000, 0x20)], [(0x3000, 0x30)], "t") == 0
    assert memory.read(0x100, 64) == bytes.fromhex(
        "8877665544332211 10000000 0100 0100"  # 0: addr, len, NEXT, next 1
        "0020000000000000 20000000 0100 0200"  # 1: NEXT, next 2
        "0030000000000000 30000000 0200 0000"  # 2: WRITE, no next
        "0000000000000000 00000000 0000 0000"  # 3: untouched
    )
    assert memory.read(0x200, 14) == bytes.fromhex(
        "0000"  # flags
        "0100"  # idx
        "0000 0000 0000 0000"  # ring: head 0
        "0000"  # used_event
    )


def test_start_index_and_a_used_memory() -> None:
    memory = GuestMemory(0x1000)
    memory.fill(0x200, 0x200, 0xEE)  # what an earlier queue left
    driver = SplitDriver(WORLD, memory, LAYOUT4, event_idx=True, start=0xFFFF)
    assert memory.read(0x200, 4) == bytes.fromhex("0000 ffff")
    assert memory.read(0x20C, 2) == bytes.fromhex("ffff")  # used_event: the first element interrupts
    assert memory.read(0x300, 4) == bytes.fromhex("0000 ffff")
    assert memory.read(0x324, 2) == bytes.fromhex("ffff")  # avail_event: the first buffer kicks
    driver.add([(0x10, 1)], [], 1)
    assert memory.read(0x202, 2) == bytes.fromhex("0000")  # idx wrapped
    assert memory.read(0x204 + 2 * 3, 2) == bytes.fromhex("0000")  # slot 0xffff % 4 = 3 names head 0
    assert driver.kick_prepare()


def test_an_indirect_table_byte_for_byte() -> None:
    memory, driver = make(indirect=0x400, indirect_max=3)
    driver.add([(1, 1)], [], "direct")  # one piece needs no table
    assert driver.add([(0xA000, 4)], [(0xB000, 5), (0xC000, 6)], "t") == 1
    table = 0x400 + 1 * 3 * 16
    assert memory.read(0x110, 16) == bytes.fromhex(
        "3004000000000000"  # addr of the table of head 1
        "30000000"  # 3 × 16 bytes
        "0400 0000"  # INDIRECT
    )
    assert memory.read(table, 48) == bytes.fromhex(
        "00a0000000000000 04000000 0100 0100"  # NEXT, next 1
        "00b0000000000000 05000000 0300 0200"  # NEXT | WRITE, next 2
        "00c0000000000000 06000000 0200 0000"  # WRITE
    )
    assert driver.num_free == 2
    assert driver.in_flight == 2


def test_no_table_is_longer_than_the_queue() -> None:
    """§2.7.5.3.1: a driver must not make a chain longer than the queue."""
    _, driver = make(indirect=0x400, indirect_max=8)
    with pytest.raises(RingFullError):
        driver.add([(0, 1)] * 5, [], 1)
    driver.add([(0, 1)] * 4, [], 1)
    assert driver.num_free == 3


def test_used_elements_and_event_index_byte_for_byte() -> None:
    memory, driver = make(event_idx=True)
    driver.add([], [(0x10, 8)], "a")
    memory.write(0x304, bytes.fromhex("00000000 08000000"))  # id 0, len 8
    memory.write(0x302, bytes.fromhex("0100"))
    assert driver.get_buf() == ("a", 8)
    assert driver.get_buf() is None
    assert memory.read(0x20C, 2) == bytes.fromhex("0100")  # used_event
    driver.disable_cb()
    driver.disable_cb()
    assert memory.read(0x20C, 2) == bytes.fromhex("0000")  # just behind
    assert memory.read(0x200, 2) == bytes.fromhex("0000")  # flags stay 0 with EVENT_IDX
    assert driver.enable_cb()
    assert memory.read(0x20C, 2) == bytes.fromhex("0100")


def test_flags_without_event_index() -> None:
    memory, driver = make()
    assert driver.kick_prepare()
    memory.write(0x300, bytes.fromhex("0100"))  # NO_NOTIFY
    assert not driver.kick_prepare()
    driver.disable_cb()
    assert memory.read(0x200, 2) == bytes.fromhex("0100")  # NO_INTERRUPT
    driver.enable_cb_prepare()
    driver.enable_cb_prepare()
    assert memory.read(0x200, 2) == bytes.fromhex("0000")


# --- misuse and lies --------------------------------------------------------------------------------------------------


def test_misuse() -> None:
    memory, driver = make()
    before = memory.read(0, 0x1000)
    with pytest.raises(LocalError):
        driver.add([], [], 1)
    with pytest.raises(LocalError):
        driver.add([(0, 1)], [], None)
    with pytest.raises(RingFullError):
        driver.add([(0, 1)] * 5, [], 1)
    assert memory.read(0, 0x1000) == before
    for i in range(4):
        driver.add([(0, 1)], [], i)
    with pytest.raises(RingFullError):
        driver.add([(0, 1)], [], 1)
    _, other = make(indirect=0x400, indirect_max=4)
    for i in range(4):
        other.add([(0, 1)] * 2, [], i)
    with pytest.raises(RingFullError, match="0 free"):
        other.add([(0, 1)] * 2, [], 9)


def test_a_batch_keeps_what_came_before_a_bad_buffer() -> None:
    memory, driver = make()
    with pytest.raises(LocalError):
        driver.add_batch([(0, 1, "a"), (0, 1, None), (0, 1, "c")], 0)
    assert (driver.num_free, driver.avail_idx, driver.detach_unused(), driver.detach_unused()) == (3, 1, "a", None)
    source = iter([(0, 1, i) for i in range(6)])
    assert driver.add_batch(source, 0) == 4
    assert next(source) == (0, 1, 4), "a buffer that did not fit was taken from the caller"
    assert driver.add_batch([(0, 1, 9)], 0) == 0
    assert memory.read(0x202, 2) == bytes.fromhex("0400")


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(
    ("field", "used"),
    [
        ("used.idx", "0500" + "00" * 8),  # five elements used, four can be
        ("used.id", "0100 04000000 00000000"),  # no such descriptor
        ("used.id", "0100 01000000 00000000"),  # in the middle of a chain
        ("used.id", "0100 03000000 00000000"),  # free
    ],
)
def test_a_device_that_lies(field: str, used: str, batch: bool) -> None:
    memory, driver = make()
    driver.add([(0x10, 1), (0x20, 1)], [], "t")
    memory.write(0x302, bytes.fromhex(used))
    take = (lambda: driver.get_bufs(4)) if batch else driver.get_buf
    with pytest.raises(RingError) as caught:
        take()
    assert caught.value.field == field
    assert driver.broken
    for call in (driver.get_buf, lambda: driver.get_bufs(1), lambda: driver.add_batch([], 0)):
        with pytest.raises(RingError, match="broken"):
            call()
    with pytest.raises(RingError, match="broken"):
        driver.add([(0, 1)], [], 1)
    assert driver.detach_unused() == "t"
    assert driver.num_free == 4


def test_a_lie_in_mid_batch_loses_no_token() -> None:
    memory, driver = make()
    driver.add([(0, 1)], [], "a")
    driver.add([(0, 1)], [], "b")
    memory.write(0x302, bytes.fromhex("0200 00000000 05000000 00000000 00000000"))  # head 0 twice
    assert driver.get_bufs(4) == [("a", 5)]
    with pytest.raises(RingError, match=r"used\.id"):
        driver.get_bufs(4)
    assert driver.detach_unused() == "b"


def test_two_to_the_sixteen_adds_without_a_look_still_kick() -> None:
    """Linux: "this is very unlikely, but theoretically possible. Kick just in case" - the distance says nothing."""
    memory, driver = make(event_idx=True)
    device = SplitDevice(WORLD, memory, LAYOUT4, event_idx=True)
    for i in range(0x10000):
        driver.add([(0, 1)], [], 1)
        popped = device.pop()
        assert popped is not None
        device.push(popped[0], 0)
        assert driver.get_buf() is not None
        if i == 0:
            device.enable_notify()  # avail_event = 1: the next add passes it
    assert driver.kick_prepare()


# --- poll: full count, in the right order -----------------------------------------------------------------------------


def brute_force(rule_: str) -> int:
    """Over all states of a queue of 4 and indices of modulus 16: (snapshot, what was consumed between the snapshot
    and the first read, between the two reads; what was used by then). Counts wrong "nothing new" answers: a used
    element was unconsumed, or one was consumed since the snapshot, when used->idx was read."""
    modulus, queue, wrong = 16, 4, 0
    for snapshot in range(modulus):
        for before in range(3 * modulus):
            for between in range(3 * modulus):
                for waiting in range(queue + 1):
                    first = snapshot + before
                    second = first + between
                    if rule_ == "index first":
                        # used->idx at the first read, the count at the second
                        used, count, truth = first + waiting, second, before or waiting
                        says = count != snapshot or used % modulus != count % modulus
                    elif rule_ == "count first":
                        used, count, truth = second + waiting, first, before or between or waiting
                        says = count != snapshot or used % modulus != count % modulus
                    else:
                        used, truth = first + waiting, before or waiting
                        says = used % modulus != snapshot % modulus
                    wrong += bool(truth) and not says
    return wrong


def test_the_full_count_misses_nothing_in_the_right_order_only() -> None:
    assert brute_force("index first") == 0
    assert brute_force("count first") > 0
    assert brute_force("index only") > 0


class OrderedWorld(type(WORLD)):  # type: ignore[misc]
    """Runs a hook in the read barrier: between poll's two reads."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Any = None
        self.rmb = self._rmb

    def _rmb(self) -> None:
        if self.between is not None:
            hook, self.between = self.between, None
            hook()


def test_poll_reads_the_index_before_the_count() -> None:
    """2^16 completions between the two reads: only the index-first order says that something came."""
    world = OrderedWorld()
    memory = GuestMemory(0x1000)
    driver = SplitDriver(world, memory, LAYOUT4)
    device = SplitDevice(WORLD, memory, LAYOUT4)
    snapshot = driver.snapshot()

    def a_turn() -> None:
        for _ in range(0x10000 // 4):
            assert driver.add_batch([(0, 1, i + 1) for i in range(4)], 0) == 4
            device.push_batch([(head, 0) for head, _, _ in device.pop_batch(4)])
            assert len(driver.get_bufs(4)) == 4

    world.between = a_turn
    assert driver.poll(snapshot)
    assert driver.poll(snapshot), "a 16-bit snapshot would call this nothing new"
    assert not driver.poll(driver.snapshot())


@PROFILE
@given(turns=st.integers(0, 3), more=st.integers(0, 5), waiting=st.integers(0, 4))
def test_poll_answers_by_the_full_count(turns: int, more: int, waiting: int) -> None:
    memory, driver = make()
    snapshot = driver.snapshot()
    moved = turns * 0x10000 + more
    driver.consumed += moved
    driver.last_used_idx = driver.consumed & 0xFFFF
    memory.write(0x302, ((driver.consumed + waiting) & 0xFFFF).to_bytes(2, "little"))
    assert driver.poll(snapshot) is bool(moved or waiting)


# --- both halves against a model --------------------------------------------------------------------------------------


class Rings(RuleBasedStateMachine):
    """Two rings get the same operations, one by one in one memory and in batches in the other; both must hold the
    same bytes, and what comes out must be what a list of buffers says."""

    @initialize(
        order=st.integers(0, 3),
        start=st.sampled_from([0, 7, 65533, 65535]),
        event_idx=st.booleans(),
        indirect=st.booleans(),
    )
    def setup(self, order: int, start: int, event_idx: bool, indirect: bool) -> None:
        size = self.size = 1 << order
        self.event_idx = event_idx
        layout = SplitLayout.packed_at(0, size)
        self.memories = [GuestMemory(0x1000), GuestMemory(0x1000)]
        self.drivers = [
            SplitDriver(
                WORLD, m, layout, event_idx=event_idx, start=start, indirect=0x800 if indirect else None, indirect_max=4
            )
            for m in self.memories
        ]
        self.devices = [
            SplitDevice(WORLD, m, layout, event_idx=event_idx, avail=start, used=start) for m in self.memories
        ]
        self.available: list[tuple[int, list[tuple[int, int, bool]]]] = []
        self.taken: list[tuple[int, int]] = []
        self.last_taken = -1
        self.used: list[tuple[int, int]] = []
        self.tokens = 0
        #: both sides asleep until a notification comes
        self.device_sleeps = False
        self.driver_sleeps = False

    def both(self) -> zip[tuple[SplitDriver, SplitDevice]]:
        return zip(self.drivers, self.devices, strict=True)

    @rule(outs=st.integers(0, 3), ins=st.integers(0, 3), length=st.integers(0, 2**32 - 1), addr=st.integers(0, 0xFFF))
    def add(self, outs: int, ins: int, length: int, addr: int) -> None:
        length = min(length, 0x1000 - addr)
        pieces = [(addr, length)] * (outs + ins)
        if not pieces:
            return
        self.tokens += 1
        heads = []
        for driver in self.drivers:
            try:
                heads.append(driver.add(pieces[:outs], pieces[outs:], self.tokens))
            except RingFullError:
                heads.append(-1)
        assert heads[0] == heads[1]
        if heads[0] >= 0:
            self.available.append((self.tokens, [(addr, length, i >= outs) for i in range(outs + ins)]))

    @rule(count=st.integers(0, 9), write=st.booleans())
    def add_batch(self, count: int, write: bool) -> None:
        one, many = self.drivers
        fits = min(count, one.num_free)
        buffers = [(i, i + 1, self.tokens + i + 1) for i in range(count)]
        for addr, length, token in buffers[:fits]:
            one.add(*(([], [(addr, length)]) if write else ([(addr, length)], [])), token)
            self.available.append((token, [(addr, length, write)]))
        assert many.add_batch(iter(buffers), DESC_F_WRITE if write else 0) == fits
        self.tokens += count

    @rule()
    def kick(self) -> None:
        wanted = {driver.kick_prepare() for driver in self.drivers}
        assert len(wanted) == 1
        if wanted.pop():
            self.device_sleeps = False
        assert not (self.device_sleeps and self.available), "the device sleeps with work pending"

    @rule(limit=st.integers(1, 9))
    def pop(self, limit: int) -> None:
        one, many = self.devices
        batch = many.pop_batch(limit)
        singles = [popped for popped in (one.pop() for _ in range(min(limit, len(self.available)))) if popped]
        assert singles == batch
        assert len(batch) == min(limit, len(self.available))
        for head, segments, readable in batch:
            token, pieces = self.available.pop(0)
            assert [(a, n, bool(f & DESC_F_WRITE)) for a, n, f in segments] == pieces
            assert readable == sum(not write for _, _, write in pieces)
            self.taken.append((head, token))
            self.last_taken = token
        self.device_sleeps = False

    @rule(picks=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2**32 - 1)), min_size=1, max_size=6))
    def push(self, picks: list[tuple[int, int]]) -> None:
        elems = []
        for pick, written in picks:
            if self.taken:
                head, token = self.taken.pop(pick % len(self.taken))
                elems.append((head, written))
                self.used.append((token, written))
        for elem in elems:
            self.devices[0].push(*elem)
        self.devices[1].push_batch(elems)
        wanted = {device.need_interrupt() for device in self.devices}
        assert len(wanted) == 1
        if wanted.pop():
            self.driver_sleeps = False
        assert not (self.driver_sleeps and self.used), "the driver sleeps with work pending"

    @rule(limit=st.integers(1, 9))
    def take(self, limit: int) -> None:
        one, many = self.drivers
        wanted = self.used[:limit]
        assert [got for got in (one.get_buf() for _ in range(limit)) if got] == wanted
        assert many.get_bufs(limit) == wanted
        del self.used[:limit]
        self.driver_sleeps = False

    @rule()
    def disable_cb(self) -> None:
        for driver in self.drivers:
            driver.disable_cb()
        self.driver_sleeps = False

    @rule()
    def enable_cb(self) -> None:
        sleeps = {driver.enable_cb() for driver in self.drivers}
        assert sleeps == {not self.used}
        self.driver_sleeps = sleeps.pop()

    @rule(between=st.booleans())
    def enable_cb_prepare(self, between: bool) -> None:
        snapshots = {driver.enable_cb_prepare() for driver in self.drivers}
        assert len(snapshots) == 1
        snapshot = snapshots.pop()
        if between and self.taken:
            self.push([(0, 1)])
        assert {driver.poll(snapshot) for driver in self.drivers} == {bool(self.used)}
        self.driver_sleeps = not self.used

    @rule()
    def disable_notify(self) -> None:
        for device in self.devices:
            device.disable_notify()
        self.device_sleeps = False

    @rule()
    def enable_notify(self) -> None:
        more = {device.enable_notify() for device in self.devices}
        assert more == {bool(self.available)}
        self.device_sleeps = not more.pop()

    @rule(count=st.integers(1, 4))
    def hand_back(self, count: int) -> None:
        # what is handed back must be the entry that was taken last, whatever was used before it
        if len(self.taken) != 1 or self.taken[0][1] != self.last_taken or self.used or self.available:
            return
        for device in self.devices:
            device.hand_back(1)
            popped = device.pop()
            assert popped is not None
            assert popped[0] == self.taken[0][0]

    @invariant()
    def same_bytes(self) -> None:
        if hasattr(self, "memories"):
            assert self.memories[0].read(0, 0x1000) == self.memories[1].read(0, 0x1000)
            assert self.drivers[0].num_free == self.drivers[1].num_free

    def teardown(self) -> None:
        if not hasattr(self, "drivers"):
            return
        self.take(2 * self.size)
        left = {token for token, _ in self.available} | {token for _, token in self.taken}
        for driver, device in self.both():
            got = set()
            while (token := driver.detach_unused()) is not None:
                assert token not in got
                got.add(token)
            assert got == left
            assert driver.num_free == self.size
            assert driver.avail_idx == device.used_idx


TestRings = Rings.TestCase
TestRings.settings = STATEFUL
