"""A queue on shared memory that stops and goes on, and against a model: nothing lost, nothing doubled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.common.virtio.ringkit import STATEFUL, reply
from tests.services.vhost_user.queue_rig import EVENT_IDX, INDIRECT, QueueRig


@pytest.fixture(params=[0, 0xFFFE], ids=["from 0", "over the wrap"])
def rig(request: pytest.FixtureRequest) -> QueueRig:
    return QueueRig(features=EVENT_IDX, start=request.param)


def take(rig: QueueRig, count: int) -> list[int]:
    for n in range(count):
        rig.add(bytes([n]), 4)
    return [head for head, _, _ in rig.queue.take(8)]


def begin(rig: QueueRig) -> int:
    return rig.driver.consumed


def test_buffers_that_nobody_used_come_again(rig: QueueRig) -> None:
    start = begin(rig)
    heads = take(rig, 4)
    rig.queue.complete(heads[0], b"used")
    base = rig.queue.stop(heads[1:])
    assert base == (start + 1) & 0xFFFF
    assert rig.got() == [b"used"], "what was answered is published"
    assert rig.queue.stats.handed_back == 3
    rig.queue.start(rig.memory, rig.layout, rig.features, base)
    assert [head for head, _, _ in rig.queue.take(8)] == heads[1:]
    assert not rig.queue.again


def test_a_hole_comes_back_unwritten(rig: QueueRig) -> None:
    """An index says nothing of chains in the middle: what cannot be taken again is used, with nothing in it."""
    start = begin(rig)
    heads = take(rig, 4)
    rig.queue.complete(heads[2], b"used")
    base = rig.queue.stop([heads[0], heads[1], heads[3]])
    assert base == (start + 3) & 0xFFFF
    assert rig.got() == [b"used", b"", b""]
    rig.queue.start(rig.memory, rig.layout, rig.features, base)
    assert [head for head, _, _ in rig.queue.take(8)] == heads[3:]


def test_what_was_processed_is_never_handed_back(rig: QueueRig) -> None:
    """A command that is not to be answered on purpose stays unanswered; it is not carried out a second time."""
    start = begin(rig)
    heads = take(rig, 3)
    assert rig.queue.stop(heads[:1]) == (start + 3) & 0xFFFF
    assert rig.got() == [b""]
    assert rig.queue.in_hand == 0


def test_the_used_index_is_the_one_in_memory(rig: QueueRig) -> None:
    """Chains that were never answered: the next to take is ahead of the next to publish."""
    heads = take(rig, 3)
    rig.queue.complete(heads[0], b"used")
    base = rig.queue.stop()
    rig.queue.start(rig.memory, rig.layout, rig.features, base)
    rig.add(b"x", 4)
    [(head, _, _)] = rig.queue.take(8)
    rig.queue.complete(head, b"next")
    rig.queue.flush()
    assert rig.got() == [b"used", b"next"]


def test_stops_and_goes_on_for_long(rig: QueueRig) -> None:
    for n in range(300):
        rig.add(bytes([n & 0xFF]), 1)
        [(head, request, _)] = rig.queue.take(8)
        rig.queue.complete(head, request)
        rig.queue.start(rig.memory, rig.layout, rig.features, rig.queue.stop())
        assert rig.got() == [bytes([n & 0xFF])]


class TestAgain:
    def test_what_another_may_have_processed(self, rig: QueueRig) -> None:
        for n in range(3):
            rig.add(bytes([n]), 4)
        base = rig.queue.stop()
        rig.queue.start(rig.memory, rig.layout, rig.features, base, again=True)
        first = [head for head, _, _ in rig.queue.take(2)]
        assert rig.queue.again == set(first)
        rig.add(b"new", 4)
        third, new = (head for head, _, _ in rig.queue.take(8))
        assert rig.queue.again == {*first, third}
        assert new not in rig.queue.again
        assert rig.queue.stats.again == 3
        rig.queue.complete(third, b"")
        assert rig.queue.again == set(first)
        rig.queue.stop()
        assert not rig.queue.again

    def test_nothing_was_available(self, rig: QueueRig) -> None:
        rig.queue.start(rig.memory, rig.layout, rig.features, rig.queue.stop(), again=True)
        assert rig.queue.take(8) == []
        rig.add(b"new", 4)
        assert len(rig.queue.take(8)) == 1
        assert not rig.queue.again

    def test_a_lie_at_the_first_look(self, rig: QueueRig) -> None:
        base = rig.queue.stop()
        rig.memory.write(rig.layout.driver + 2, ((base + 9) & 0xFFFF).to_bytes(2, "little"))
        rig.queue.start(rig.memory, rig.layout, rig.features, base, again=True)
        assert rig.queue.take(8) == []
        assert [error.field for error in rig.broken] == ["avail.idx"]


class Model(RuleBasedStateMachine):
    """Every chain comes back exactly once, with its own answer, or with none where it says so; whatever is done."""

    @initialize(
        size=st.sampled_from([1, 2, 8]),
        features=st.sampled_from([0, EVENT_IDX, INDIRECT, EVENT_IDX | INDIRECT]),
        start=st.sampled_from([0, 0xFFFD]),
    )
    def begin(self, size: int, features: int, start: int) -> None:
        self.rig = QueueRig(size, features, start)
        self.serial = 0
        #: number → pieces to write, request; of every chain that the driver has not got back
        self.out: dict[int, tuple[list[tuple[int, int]], bytes]] = {}
        #: head → number, of what the device took
        self.held: dict[int, int] = {}
        #: numbers that may come back unwritten
        self.unwritten: set[int] = set()

    @rule(size=st.integers(0, 30), pieces=st.integers(1, 3), rooms=st.lists(st.integers(1, 40), max_size=3))
    def add(self, size: int, pieces: int, rooms: list[int]) -> None:
        if not size and not rooms:
            return
        need = pieces + len(rooms)
        if need > self.rig.driver.num_free:
            return
        self.serial += 1
        request = (self.serial.to_bytes(2, "little") * 15)[:size]
        ins = self.rig.add(request, *rooms, pieces=pieces, token=self.serial)
        self.out[self.serial] = (ins, request)

    @rule(limit=st.integers(1, 8))
    def take(self, limit: int) -> None:
        for head, request, segments in self.rig.queue.take(limit):
            assert head not in self.held
            number = self.rig.driver.tokens[head]
            assert request == self.out[number][1]
            assert [(a, n) for a, n, flags in segments if flags & 2] == self.out[number][0]
            self.held[head] = number

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        head = data.draw(st.sampled_from(sorted(self.held)))
        number = self.held.pop(head)
        ins, request = self.out[number]
        self.rig.queue.complete(head, reply(request, sum(size for _, size in ins)))

    @rule()
    def flush(self) -> None:
        self.rig.queue.flush()

    @rule()
    def moves(self) -> None:
        self.rig.queue.moved(self.rig.memory, self.rig.layout)()

    @rule()
    def stops_and_goes_on(self) -> None:
        self.unwritten.update(self.held.values())
        base = self.rig.queue.stop(list(self.held))
        self.held.clear()
        self.rig.queue.start(self.rig.memory, self.rig.layout, self.rig.features, base)

    @rule()
    def get(self) -> None:
        for number, length in self.rig.driver.get_bufs(64):
            ins, request = self.out.pop(number)
            room = sum(size for _, size in ins)
            if length or not room:
                assert self.rig.written(ins, length) == reply(request, room)
            else:
                assert number in self.unwritten

    @invariant()
    def sound(self) -> None:
        rig: Any = getattr(self, "rig", None)
        assert rig is None or not rig.broken

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        self.take(64)
        for head in sorted(self.held):
            ins, request = self.out[self.held.pop(head)]
            self.rig.queue.complete(head, reply(request, sum(size for _, size in ins)))
        self.flush()
        self.get()
        assert not self.out
        assert self.rig.driver.num_free == self.rig.layout.size


TestModel = Model.TestCase
TestModel.settings = STATEFUL
