"""The port against the device's end of its queues, with messages that wait, links that break and devices that restart.

Nothing lost, nothing doubled: every buffer completes exactly once at the driver, with the right bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.errors import RemoteError, RingError
from common.memory import GuestMemory, Mapping, MemoryKey, MemoryMap
from common.virtio.features import DESC_F_NEXT, DESC_F_WRITE, Feature
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.codec import decode, encode
from common.wire.limits import MAX_FRAME, PREFIX
from common.wire.messages import (
    Avail,
    Broken,
    Call,
    Create,
    Destroy,
    Irq,
    Kick,
    Message,
    Msi,
    Resume,
    Resync,
    Return,
    Save,
    Saved,
    Suspend,
    Used,
)
from services.guest_driver.port import Port
from tests.common.virtio.ringkit import OFFERED, STATEFUL, WORLD, EchoDevice, bring_up, identity_key, reply

MEMORY = 3 << 20
SLOT = 128 << 10  # bytes of memory that one buffer may use


def over_the_wire(message: Message) -> Message:
    """What arrives at the other end, after the real codec and its limit."""
    return decode(encode(message, MAX_FRAME)[PREFIX:])


class Mesh(RuleBasedStateMachine):
    """One guest with two queues, one device, two unreliable directions between them."""

    SIZES = (4, 8)

    @initialize(
        start=st.sampled_from([0, 1, 65530, 65535]),
        event_idx=st.booleans(),
        indirect=st.booleans(),
        big=st.booleans(),
        ready=st.booleans(),
    )
    def setup(self, start: int, event_idx: bool, indirect: bool, big: bool, ready: bool) -> None:
        self.memory = GuestMemory(MEMORY)
        self.features = OFFERED if event_idx else OFFERED & ~Feature.EVENT_IDX.bit
        self.start = start
        self.big = big
        self.generation = 1
        self.keys = {1: identity_key(self.memory, 1)}
        self.to_device: deque[Message] = deque()
        self.to_port: deque[Message] = deque()
        self.up = False
        self.out: list[Message] = []
        self.msis: list[Message] = []
        self.port = Port(WORLD, self.memory, queues=2, send=self.from_port, key_of=self.keys.get, clock=lambda: 1.0)
        self.layouts = [SplitLayout.packed_at(0x1000 * (i + 1), size) for i, size in enumerate(self.SIZES)]
        self.drivers = [
            SplitDriver(
                WORLD,
                self.memory,
                layout,
                event_idx=event_idx,
                start=start,
                indirect=0x8000 + 0x4000 * i if indirect else None,
                indirect_max=4,
            )
            for i, layout in enumerate(self.layouts)
        ]
        self.slots = [list(range(size)) for size in self.SIZES]
        #: what each token must come back with: queue, slot, reply, writable pieces
        self.wanted: dict[int, tuple[int, int, bytes, list[tuple[int, int]]]] = {}
        self.tokens = 0
        self.irqs = [0, 0]
        self.raised: dict[int, int] = {}
        self.started_once = False
        self.replay: Generator[tuple[str, list[Any]], Any, None] | None = None
        self.calls = 0
        self.waiting_for = 0
        self.new_device()
        self.connect()
        if ready:
            self.deliver_everything()

    # --- the two directions -------------------------------------------------------------------------------------------

    def from_port(self, message: Message) -> None:
        if isinstance(message, Irq):
            assert message.number == self.irqs[message.queue] + 1
            self.irqs[message.queue] = message.number
        assert not isinstance(message, Broken), message
        if self.up:
            self.to_device.append(over_the_wire(message))

    def from_device(self) -> None:
        for message in self.out:
            assert not isinstance(message, Broken), message
            if self.up:
                self.to_port.append(over_the_wire(message))
        self.out.clear()
        for message in self.msis:
            assert isinstance(message, Msi)
            assert message.number >= self.raised.get(message.event, 0)
            self.raised[message.event] = message.number
        self.msis.clear()

    def new_device(self) -> None:
        self.device = EchoDevice(self.out, self.msis, list(self.SIZES), self.keys[self.generation])

    def connect(self) -> None:
        self.up = True
        self.port.link_up()
        self.call("get_status", [])
        self.replay = None

    def disconnect(self) -> None:
        self.up = False
        self.to_device.clear()
        self.to_port.clear()
        self.port.link_down()
        self.replay = None

    def call(self, op: str, args: list[Any]) -> None:
        self.calls += 1
        self.waiting_for = self.calls
        self.from_port(Call(self.calls, op, args))

    def returned(self, message: Return) -> None:
        """The transport: bring the device up from where it says that it stands."""
        assert message.seq == self.waiting_for
        assert message.errno == 0, message
        if self.replay is None:
            layouts = self.layouts
            self.replay = bring_up(layouts, self.features, message.value)
            if not self.started_once:
                self.replay = self.first_bring_up(message.value)
        step = next(self.replay, None)
        if step is not None:
            self.call(*step)

    def first_bring_up(self, status: int) -> Generator[tuple[str, list[Any]], Any, None]:
        for op, args in bring_up(self.layouts, self.features, status):
            if op == "set_vq_ready":
                yield "set_vq_state", [args[0], self.start]
            yield op, args

    def pump_device(self, count: int) -> None:
        for _ in range(min(count, len(self.to_device))):
            self.device.frame(self.to_device.popleft())
        self.device.batch_end()
        self.from_device()

    def pump_port(self, count: int) -> None:
        for _ in range(min(count, len(self.to_port))):
            message = self.to_port.popleft()
            if isinstance(message, Return):
                self.returned(message)
            else:
                if isinstance(message, Create):
                    self.started_once = True
                self.port.frame(message)

    # --- the guest ----------------------------------------------------------------------------------------------------

    @rule(
        queue=st.integers(0, 1),
        outs=st.lists(st.integers(1, 200), max_size=2),
        ins=st.lists(st.integers(0, 200), max_size=2),
        kick=st.booleans(),
    )
    def add(self, queue: int, outs: list[int], ins: list[int], kick: bool) -> None:
        driver = self.drivers[queue]
        needed = len(outs) + len(ins)
        if not needed or needed > driver.num_free or not self.slots[queue]:
            return
        self.tokens += 1
        token = self.tokens
        slot = self.slots[queue].pop(0)
        base = 0x100000 + (queue * 8 + slot) * SLOT
        scale = 150 if self.big else 1
        pieces, at = [], base
        for length in (*outs, *ins):
            pieces.append((at, length * scale))
            at += length * scale
        data = b""
        for i, (addr, length) in enumerate(pieces[: len(outs)]):
            part = bytes((token * 7 + i + k) & 0xFF for k in range(16)) * (length // 16 + 1)
            self.memory.write(addr, part[:length])
            data += part[:length]
        writable = pieces[len(outs) :]
        for addr, length in writable:
            self.memory.fill(addr, length, 0)
        room = sum(length for _, length in writable)
        self.wanted[token] = (queue, slot, reply(data, room), writable)
        driver.add(pieces[: len(outs)], writable, token)
        if kick:
            self.kick(queue)

    @rule(queue=st.integers(0, 1))
    def kick(self, queue: int) -> None:
        if self.drivers[queue].kick_prepare():
            self.port.doorbell(queue)

    @rule(queue=st.integers(0, 1), batch=st.booleans())
    def collect(self, queue: int, batch: bool) -> None:
        driver = self.drivers[queue]
        driver.disable_cb()
        while True:
            got = driver.get_bufs(3) if batch else [g for g in [driver.get_buf()] if g is not None]
            for token, length in got:
                at, slot, answer, writable = self.wanted.pop(token)  # KeyError: completed twice
                assert at == queue
                assert length == len(answer)
                assert b"".join(self.memory.read(a, n) for a, n in writable) == answer
                self.slots[queue].append(slot)
            if not got and driver.enable_cb():
                return

    # --- the link and the device --------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4))
    def to_the_device(self, count: int) -> None:
        self.pump_device(count)

    @rule(count=st.integers(1, 4))
    def to_the_port(self, count: int) -> None:
        self.pump_port(count)

    @rule()
    def deliver_everything(self) -> None:
        while self.to_device or self.to_port:
            self.pump_device(1000)
            self.pump_port(1000)

    @precondition(lambda self: self.device.held)
    @rule(data=st.data(), flush=st.booleans())
    def answer(self, data: st.DataObject, flush: bool) -> None:
        if self.device.changing is not None:
            return
        self.device.answer_one(*data.draw(st.sampled_from(sorted(self.device.held))))
        if flush:
            self.device.batch_end()
            self.from_device()

    @rule(event=st.sampled_from(["lose link", "restart", "change key", "change key and lose link", "blink", "none"]))
    def disturb(self, event: str) -> None:
        """One rule for all that goes wrong, so that there is traffic between two of them."""
        if "change key" in event and self.device.changing is None:
            self.generation += 1
            self.keys[self.generation] = identity_key(self.memory, self.generation)
            self.device.change_key(self.keys[self.generation])
            self.from_device()
        if event in ("lose link", "change key and lose link", "blink", "restart"):
            self.disconnect()
        if event == "restart":
            self.new_device()
        if event in ("blink", "restart"):
            self.connect()

    @precondition(lambda self: not self.up)
    @rule()
    def reconnect(self) -> None:
        self.connect()

    @rule(count=st.integers(1, 4), queue=st.integers(0, 1), arrives=st.booleans())
    def traffic(self, count: int, queue: int, arrives: bool) -> None:
        for i in range(count):
            self.add(queue, [1 + i], [2 + i], True)
        if arrives:
            self.pump_device(1000)

    @rule(flush=st.booleans())
    def answer_all_but_one(self, flush: bool) -> None:
        if self.device.changing is None:
            for queue, head in sorted(self.device.held, reverse=True)[1:]:
                self.device.answer_one(queue, head)
            if flush:
                self.pump_device(0)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def bounded(self) -> None:
        for queue, size in zip(self.device.queues, self.SIZES, strict=True):
            assert len(queue._answers) + queue.in_hand <= size

    def teardown(self) -> None:
        if not hasattr(self, "device"):
            return
        if not self.up:
            self.connect()
        for queue in (0, 1):
            self.kick(queue)
        self.pump_device(0)
        for _ in range(200):
            self.deliver_everything()
            if not self.device.held:
                break
            self.device.answer_one(*min(self.device.held))
            self.device.batch_end()
            self.from_device()
        assert self.device.phase.name == "RUNNING"
        for index, remote in enumerate(self.device.queues):
            assert remote.irq_number == self.irqs[index] == self.raised.get(40 + index, 0), "an interrupt was lost"
        for queue in (0, 1):
            self.collect(queue, False)
        assert not self.wanted, "buffers never completed"
        assert all(driver.num_free == driver.size for driver in self.drivers)


TestMesh = Mesh.TestCase
TestMesh.settings = STATEFUL


# --- one message at a time --------------------------------------------------------------------------------------------

LAYOUT = SplitLayout.packed_at(0x1000, 4)


class Rig:
    """One port with one queue of four, and a driver on its ring."""

    def __init__(self, *, policy: PortPolicy = DEFAULT_POLICY, features: int = 0, size: int = 0x10000) -> None:
        self.memory = GuestMemory(size)
        self.sent: list[Message] = []
        self.keys = {1: identity_key(self.memory, 1)}
        self.port = Port(WORLD, self.memory, queues=1, send=self.sent.append, key_of=self.keys.get, clock=lambda: 5.0)
        self.driver = SplitDriver(WORLD, self.memory, LAYOUT)
        self.port.link_up()
        self.policy = policy
        self.features = features

    @property
    def queue(self) -> Any:
        return self.port.queues[0]

    def create(self, index: int = 0, used: int = 0, generation: int = 1, policy: PortPolicy | None = None) -> None:
        self.port.frame(
            Create(
                0, generation, index, index, used, 4, LAYOUT.desc, LAYOUT.driver, LAYOUT.device, self.features,
                int(self.policy if policy is None else policy),
            )
        )  # fmt: skip
        self.port.frame(Resume(0))

    def add(self, *addrs: int, length: int = 8) -> None:
        for addr in addrs:
            self.driver.add([], [(addr, length)], addr + 1)

    def take(self) -> list[Message]:
        sent, self.sent[:] = list(self.sent), []
        return sent

    def heads(self) -> list[int]:
        return [chain[0] for m in self.take() if isinstance(m, Avail) for chain in m.chains]


POLICIES = [
    # policy, a kick in the gap, what the new object fetches, what a kick after it adds
    (PortPolicy(0), True, [], []),
    (PortPolicy.READ_AT_CREATE, False, [0], []),
    (PortPolicy.READ_AT_KICK, True, [], [0]),  # a doorbell rung during the teardown is lost
    (PortPolicy.READ_AT_KICK | PortPolicy.REPLAY_KICK, True, [0], []),
    (PortPolicy.READ_AT_KICK | PortPolicy.REPLAY_KICK, False, [], [0]),
    (DEFAULT_POLICY, True, [0], []),
]


@pytest.mark.parametrize(("policy", "kick", "at_create", "at_kick"), POLICIES)
def test_when_the_available_index_is_read(
    policy: PortPolicy, kick: bool, at_create: list[int], at_kick: list[int]
) -> None:
    rig = Rig(policy=policy)
    rig.create()
    rig.take()
    rig.port.frame(Suspend(0))
    rig.port.frame(Destroy(0))
    assert rig.take() == [Saved(0, 0, 0, 0, 0)]
    rig.add(0x100)
    if kick:
        rig.port.doorbell(0)
    rig.create()
    assert rig.heads() == at_create
    rig.port.doorbell(0)
    assert rig.heads() == at_kick


def test_used_bytes_and_the_interrupt() -> None:
    rig = Rig()
    rig.driver.add([(0x100, 3)], [(0x200, 2), (0x300, 0), (0x400, 4)], "t")
    rig.memory.write(0x100, b"abc")
    rig.create()
    avail = rig.take()[0]
    assert avail == Avail(0, 1, 0, [(0, b"abc", ((0x100, 3, 1), (0x200, 2, 3), (0x300, 0, 3), (0x400, 4, 2)))], 0)
    rig.port.frame(Used(0, 0, [(0, b"12345")]))
    assert rig.memory.read(0x200, 2) + rig.memory.read(0x400, 4) == b"12345\0"
    assert rig.driver.get_buf() == ("t", 5)
    assert rig.take() == [Irq(0, 1)]
    assert rig.queue.visible.take(7.0) == 2.0
    stats = rig.port.stats
    assert (stats.fetched, stats.used, stats.irqs) == (1, 1, 1)


def test_no_interrupt_where_the_driver_wants_none() -> None:
    rig = Rig()
    rig.driver.disable_cb()
    rig.add(0x100)
    rig.create()
    rig.take()
    rig.port.frame(Used(0, 0, [(0, b"")]))
    assert rig.take() == []


@pytest.mark.parametrize(
    ("elems", "field"),
    [
        ([(0, b"ok"), (3, b"")], "used.head"),
        ([(0, b"ok"), (0, b"")], "used.head"),
        ([(0, b"ok"), (1, b"123456789")], "used.written"),
    ],
)
def test_a_bad_answer_loses_nothing_that_came_before_it(elems: list[tuple[int, bytes]], field: str) -> None:
    rig = Rig()
    rig.add(0x100, 0x200)
    rig.create()
    rig.take()
    with pytest.raises(RemoteError) as caught:
        rig.port.frame(Used(0, 0, elems))
    assert caught.value.field == field
    assert rig.driver.get_bufs(4) == [(0x101, 2)]
    assert list(rig.queue.in_flight) == [1], "the chain that was not completed is still there"
    assert rig.take() == [Irq(0, 1)]


def test_an_unchecked_port_writes_a_doubled_answer_into_the_ring() -> None:
    """As a faulty device would; the driver finds out."""
    rig = Rig(policy=DEFAULT_POLICY | PortPolicy.UNCHECKED)
    rig.add(0x100, 0x200)
    rig.create()
    rig.port.frame(Used(0, 0, [(0, b"ok"), (0, b"ok")]))
    assert rig.driver.get_buf() == (0x101, 2)
    with pytest.raises(RingError, match="head in flight"):
        rig.driver.get_buf()
    with pytest.raises(RemoteError, match=r"used\.head"):
        rig.port.frame(Used(0, 2, [(4, b"")]))


def test_memory_that_is_gone_breaks_the_queue_not_the_link() -> None:
    rig = Rig()
    region = rig.memory.add_region(0x20000, 0x1000)
    rig.keys[1] = identity_key(rig.memory, 1)
    rig.add(0x100, region.base)
    rig.create()
    rig.take()
    rig.memory.remove_region(region.base)
    rig.port.frame(Used(0, 0, [(0, b"ok"), (1, b"lost")]))
    assert [type(m) for m in rig.take()] == [Irq, Broken]
    assert rig.driver.get_bufs(4) == [(0x101, 2)]
    rig.port.frame(Used(0, 1, [(1, b"")]))  # too late
    assert rig.driver.get_buf() is None


@pytest.mark.parametrize(
    ("first", "elems", "taken"),
    [(0, [(0, b"a"), (1, b"b")], 1), (0, [(0, b"a")], 0), (1, [(1, b"b")], 1)],
)
def test_repeated_answers_count_once(first: int, elems: list[tuple[int, bytes]], taken: int) -> None:
    rig = Rig()
    rig.add(0x100, 0x200)
    rig.create()
    rig.port.frame(Used(0, 0, [(0, b"a")]))
    rig.driver.get_buf()
    rig.port.frame(Used(0, first, elems))
    assert len(rig.driver.get_bufs(4)) == taken


def test_answers_from_where_the_port_does_not_stand() -> None:
    rig = Rig()
    rig.add(0x100, 0x200)
    rig.create()
    with pytest.raises(RemoteError, match=r"used\.first_idx"):
        rig.port.frame(Used(0, 1, [(1, b"")]))
    rig.port.link_down()
    rig.port.link_up()
    rig.take()
    rig.port.frame(Used(0, 1, [(1, b"")]))  # sent before the device heard the Resync; it repeats from 0
    rig.port.frame(Used(0, 0, [(0, b""), (1, b"")]))
    rig.create(index=2)
    assert len(rig.driver.get_bufs(4)) == 2
    with pytest.raises(RemoteError, match=r"used\.first_idx"):
        rig.port.frame(Used(0, 5, [(1, b"")]))


def test_one_answer_to_a_suspend() -> None:
    """Before the device attaches, the Resync is the answer; a Saved besides would stand for the next Suspend."""
    rig = Rig()
    rig.create()
    rig.port.link_down()
    rig.port.link_up()
    rig.take()
    rig.port.frame(Suspend(0))
    assert rig.take() == []
    rig.create()
    rig.port.frame(Suspend(0))
    assert rig.take() == [Saved(0, 0, 0, 0, 0)]


def test_resync_then_attach_sends_what_the_device_has_not() -> None:
    rig = Rig()
    rig.add(0x100, 0x200, 0x300)
    rig.create()
    rig.take()
    rig.port.link_down()
    rig.port.doorbell(0)
    rig.port.frame(Used(0, 0, [(1, b"")]))
    rig.port.link_up()
    assert rig.take()[-1] == Resync(0, 3, 3, 1, 2, 1)
    rig.create(index=2, used=1)
    assert rig.heads() == [2]
    rig.create(index=3, used=1, policy=DEFAULT_POLICY | PortPolicy.REFETCH)
    again = [m for m in rig.take() if isinstance(m, Avail)]
    assert [(m.first_idx, [c[0] for c in m.chains], m.again) for m in again] == [(0, [0], True), (2, [2], True)]
    rig.create(index=2, used=1, policy=DEFAULT_POLICY | PortPolicy.REFETCH)
    again = [m for m in rig.take() if isinstance(m, Avail)]
    assert [(m.first_idx, [c[0] for c in m.chains], m.again) for m in again] == [(0, [0], True), (2, [2], False)]


def test_a_new_key_fetches_again_what_was_handed_back() -> None:
    rig = Rig()
    rig.add(0x100, 0x200)
    rig.create()
    rig.take()
    rig.keys[2] = MemoryKey(MemoryMap([Mapping(0, 0x4000, 0)]), 2)
    rig.port.frame(Suspend(0))
    rig.port.frame(Destroy(0))
    rig.create(index=1, used=0, generation=2)
    assert rig.heads() == [1]
    assert list(rig.queue.in_flight) == [0, 1]
    rig.port.frame(Save(0))
    assert rig.take() == [Saved(0, 2, 2, 0, 2)]


def test_a_new_object_that_refetches_gives_each_chain_once() -> None:
    """A connection lost in mid-change: some chains the device has never seen, some it hands back."""
    rig = Rig()
    rig.add(0x100, 0x200)
    rig.create()
    rig.take()
    rig.keys[2] = identity_key(rig.memory, 2)
    rig.port.frame(Destroy(0))
    rig.create(index=1, generation=2, policy=DEFAULT_POLICY | PortPolicy.REFETCH)
    frames = [m for m in rig.take() if isinstance(m, Avail)]
    assert [(m.first_idx, [c[0] for c in m.chains], m.again) for m in frames] == [(0, [0], True), (1, [1], False)]
    rig.add(0x300)
    rig.port.doorbell(0)
    assert rig.heads() == [2]


def test_a_broken_ring_is_told_again_after_a_reconnect_until_it_is_reset() -> None:
    rig = Rig()
    rig.create()
    rig.memory.write(LAYOUT.driver + 2, b"\xff\0")
    rig.port.doorbell(0)
    told = rig.take()
    assert [type(m) for m in told] == [Broken]
    rig.port.doorbell(0)
    rig.port.frame(Used(0, 0, []))
    assert rig.take() == []
    rig.port.link_down()
    rig.port.link_up()
    assert rig.take() == told
    rig.memory.write(LAYOUT.driver + 2, b"\0\0")
    rig.create()
    assert rig.queue.broken
    assert rig.take() == [], "on its way when the queue broke"
    rig.port.reset()
    rig.create()
    assert not rig.queue.broken
    rig.port.link_up()
    assert [type(m) for m in rig.take()] == [Resync]
    for _ in range(2):
        rig.port.frame(Broken(0, "x", "y"))
    assert rig.port.stats.rings_broken == 2


def test_a_restarted_device_is_told_of_the_queue_that_its_predecessor_broke() -> None:
    """It would make the queue anew at index 0 and be given what has long been used."""
    rig = Rig()
    rig.add(0x100)
    rig.create()
    rig.port.frame(Used(0, 0, [(0, b"")]))
    rig.port.frame(Broken(0, "chain", "too long"))
    rig.take()
    rig.port.link_down()
    rig.port.link_up()
    assert rig.take() == [Broken(0, "chain", "too long")]
    rig.create()
    assert rig.take() == []
    assert not rig.queue.alive


def test_a_used_index_that_is_not_the_rings_breaks_the_queue() -> None:
    rig = Rig()
    rig.add(0x100)
    rig.create()
    rig.port.frame(Used(0, 0, [(0, b"")]))
    rig.keys[2] = identity_key(rig.memory, 2)
    rig.take()
    rig.port.frame(Destroy(0))
    rig.create(index=1, used=0, generation=2)
    broken = rig.take()[-1]
    assert isinstance(broken, Broken)
    assert broken.field == "create.used"
    assert not rig.queue.alive
    assert rig.driver.get_bufs(4) == [(0x101, 0)]


def test_the_device_area_must_be_writable_and_the_others_readable() -> None:
    page = 0x1000
    at = SplitLayout(4, page, 2 * page, 3 * page)
    for perms, breaks in (((1, 1, 3), False), ((1, 1, 1), True), ((1, 1, 2), True), ((2, 1, 3), True)):
        rig = Rig()
        maps = [Mapping(n * page, page, n * page, perm) for n, perm in enumerate(perms, 1)]
        rig.keys[1] = MemoryKey(MemoryMap(maps), 1)
        rig.port.frame(Create(0, 1, 0, 0, 0, 4, at.desc, at.driver, at.device, 0, int(DEFAULT_POLICY)))
        assert rig.queue.broken is breaks, perms


def test_the_device_may_kick_and_have_its_place_saved() -> None:
    """Save is no Suspend: the queue goes on."""
    rig = Rig(policy=PortPolicy.READ_AT_KICK)
    rig.create()
    rig.add(0x100)
    rig.port.frame(Kick(0))
    assert rig.heads() == [0]
    rig.port.frame(Save(0))
    assert rig.take() == [Saved(0, 1, 1, 0, 1)]
    rig.add(0x200)
    rig.port.frame(Kick(0))
    assert rig.heads() == [1]
    rig.port.frame(Suspend(0))
    rig.take()
    rig.add(0x300)
    rig.port.frame(Kick(0))
    assert rig.heads() == [], "suspended"


@pytest.mark.parametrize(
    "areas", [(0x1001, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0xFFFFF0), (-16, 0, 0)]
)
def test_areas_where_no_queue_can_be(areas: tuple[int, int, int]) -> None:
    rig = Rig()
    rig.port.frame(Create(0, 1, 0, 0, 0, 4, *areas, 0, 7))
    assert [type(m) for m in rig.take()] == [Broken]
    rig.port.reset()
    rig.port.frame(Create(0, 9, 0, 0, 0, 4, 0x1000, 0x2000, 0x3000, 0, 7))
    broken = rig.take()[0]
    assert isinstance(broken, Broken)
    assert broken.field == "create.generation"


@pytest.mark.parametrize("message", [Kick(1), Save(-1), Used(1, 0, []), Destroy(1), Suspend(1), Broken(1, "", "")])
def test_a_queue_that_is_not_there(message: Message) -> None:
    with pytest.raises(RemoteError, match="queue"):
        Rig().port.frame(message)


def test_before_anything_lives() -> None:
    rig = Rig()
    rig.port.doorbell(0)
    rig.port.frame(Kick(0))
    rig.port.frame(Save(0))
    rig.port.frame(Used(0, 0, [(0, b"")]))
    rig.port.frame(Return(1, 0))
    assert rig.take() == [Saved(0, 0, 0, 0, 0)]
    rig.add(0x100)
    rig.create(policy=PortPolicy.REFETCH | PortPolicy.REPLAY_KICK | PortPolicy.READ_AT_KICK)
    assert rig.heads() == [0]


def test_interrupt_numbers_survive_a_reset() -> None:
    """The ITS and the vCPUs would take a number that they have seen for a repeat: the interrupt would be lost."""
    rig = Rig()
    rig.add(0x100)
    rig.create()
    rig.port.frame(Used(0, 0, [(0, b"")]))
    rig.port.reset()
    assert rig.queue.ring is None
    rig.driver = SplitDriver(WORLD, rig.memory, LAYOUT)
    rig.add(0x100)
    rig.create()
    rig.take()
    rig.port.frame(Used(0, 0, [(0, b"")]))
    assert rig.take() == [Irq(0, 2)]


def test_deferred_interrupts_ask_the_driver_late_and_once() -> None:
    rig = Rig()
    asked: list[int] = []
    rig.port = Port(
        WORLD, rig.memory, queues=1, send=rig.sent.append, key_of=rig.keys.get, clock=lambda: 5.0,
        defer=lambda: asked.append(1),
    )  # fmt: skip
    rig.port.link_up()
    rig.add(0x100, 0x200, 0x300)
    rig.create()
    rig.take()
    rig.port.frame(Used(0, 0, [(0, b"")]))
    rig.port.frame(Used(0, 1, [(1, b"")]))
    assert (asked, rig.take()) == ([1], [])
    rig.port.signal()
    rig.port.signal()
    assert rig.take() == [Irq(0, 1)]
    rig.port.frame(Used(0, 2, [(2, b"")]))
    rig.driver.disable_cb()  # it polls meanwhile
    rig.port.signal()
    assert (asked, rig.take()) == ([1, 1], [])


def test_a_reset_forgets_interrupts_that_were_put_off() -> None:
    """They would take a number that the new queue object gives again."""
    rig = Rig()
    rig.port = Port(
        WORLD, rig.memory, queues=1, send=rig.sent.append, key_of=rig.keys.get, clock=lambda: 5.0, defer=lambda: None
    )
    rig.add(0x100)
    rig.create()
    rig.port.frame(Used(0, 0, [(0, b"")]))
    rig.take()
    rig.port.reset()
    rig.port.signal()
    assert rig.take() == []


def test_a_head_twice_and_a_chain_that_lies() -> None:
    rig = Rig()
    rig.add(0x100)
    rig.create()
    rig.take()
    rig.memory.write(LAYOUT.driver + 2, b"\2\0 \0\0 \0\0".replace(b" ", b""))  # head 0 again
    rig.port.doorbell(0)
    broken = rig.take()[-1]
    assert isinstance(broken, Broken)
    assert broken.field == "head"


def test_flags_travel_as_read() -> None:
    rig = Rig(features=Feature.INDIRECT_DESC.bit)
    rig.driver = SplitDriver(WORLD, rig.memory, LAYOUT, indirect=0x4000, indirect_max=4)
    rig.driver.add([(0x10, 1)], [(0x20, 2)], "t")
    rig.create()
    avail = rig.take()[0]
    assert isinstance(avail, Avail)
    assert avail.chains == [(0, b"\0", ((0x10, 1, DESC_F_NEXT), (0x20, 2, DESC_F_WRITE)))]
