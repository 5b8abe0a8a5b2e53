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

from common.errors import RemoteError
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
    Resync,
    Return,
    Save,
    Saved,
    Suspend,
    Used,
)
from services.guest_driver.port import Port
from tests.common.virtio.ringkit import OFFERED, STATEFUL, WORLD, EchoDevice, bring_up, configure, identity_key, reply

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
    )
    def setup(self, start: int, event_idx: bool, indirect: bool, big: bool) -> None:
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
        self.port = Port(
            WORLD, self.memory, queues=2, send=self.from_port, key_of=self.keys.get, clock=lambda: 1.0
        )
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

    @rule(kept=st.booleans())
    def lose_link(self, kept: bool) -> None:
        self.disconnect()
        if not kept:
            self.new_device()

    @rule()
    def restart_while_up(self) -> None:
        self.disconnect()
        self.new_device()
        self.connect()

    @precondition(lambda self: not self.up)
    @rule()
    def reconnect(self) -> None:
        self.connect()

    @precondition(lambda self: self.device.changing is None)
    @rule()
    def change_key(self) -> None:
        self.generation += 1
        self.keys[self.generation] = identity_key(self.memory, self.generation)
        self.device.change_key(self.keys[self.generation])
        self.from_device()

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
        for index, queue in enumerate(self.device.queues):
            assert queue.irq_number == self.irqs[index] == self.raised.get(40 + index, 0), "an interrupt was lost"
        for queue in (0, 1):
            self.collect(queue, False)
        assert not self.wanted, "buffers never completed"
        assert all(driver.num_free == driver.size for driver in self.drivers)


TestMesh = Mesh.TestCase
TestMesh.settings = STATEFUL
