"""A queue on shared memory: bytes in, bytes out, what is published when, and every way to break it."""

from __future__ import annotations

import pytest

from common.errors import LocalError, MemoryFaultError
from common.memory import GuestMemory
from common.virtio.split_layout import SplitLayout
from services.vhost_user.local_queue import MAX_READABLE
from tests.services.vhost_user.queue_rig import DATA, EVENT_IDX, INDIRECT, QueueRig


@pytest.fixture(params=[0, EVENT_IDX, EVENT_IDX | INDIRECT], ids=["plain", "event_idx", "indirect"])
def rig(request: pytest.FixtureRequest) -> QueueRig:
    return QueueRig(features=request.param)


class TestBytes:
    @pytest.mark.parametrize("pieces", [1, 2, 3])
    @pytest.mark.parametrize("rooms", [(8,), (3, 5), (1, 1, 6), (8, 8), (3, 5, 4), (20,)])
    def test_request_and_reply(self, rig: QueueRig, pieces: int, rooms: tuple[int, ...]) -> None:
        ins = rig.add(b"request!", *rooms, pieces=pieces)
        [(head, request, segments)] = rig.queue.take(8)
        assert request == b"request!"
        assert [length for _, length, flags in segments if flags & 2] == list(rooms)
        rig.queue.complete(head, b"abcdefgh")
        assert rig.queue.flush() == 1
        assert rig.driver.get_buf() == (ins, 8)
        assert rig.written(ins, 8) == b"abcdefgh"

    def test_a_short_reply_leaves_the_rest_alone(self, rig: QueueRig) -> None:
        [(first, _), (second, _)] = rig.add(b"x", 4, 4)
        rig.memory.write(first, b"....")
        rig.memory.write(second, b"....")
        rig.queue.complete(rig.queue.take(8)[0][0], b"abcde")
        rig.queue.flush()
        assert rig.memory.read(first, 4) + rig.memory.read(second, 4) == b"abcde..."

    def test_an_empty_answer(self, rig: QueueRig) -> None:
        rig.add(b"x")
        rig.queue.complete(rig.queue.take(8)[0][0], b"")
        rig.queue.flush()
        assert rig.got() == [b""]

    def test_a_chain_to_write_only(self, rig: QueueRig) -> None:
        rig.add(b"", 8)
        [(_, request, _)] = rig.queue.take(8)
        assert request == b""

    @pytest.mark.parametrize("lengths", [(1 << 15,), (4000, 4000), (4095, 1, 1), (1, 1 << 15)])
    def test_no_more_is_gathered_than_a_message_may_have(self, rig: QueueRig, lengths: tuple[int, ...]) -> None:
        rig.memory.fill(DATA, 1 << 15, 7)
        rig.driver.add([(DATA, length) for length in lengths], [], "long")
        [(_, request, segments)] = rig.queue.take(8)
        assert request == b"\7" * MAX_READABLE
        assert [length for _, length, _ in segments] == list(lengths)

    def test_a_reply_that_does_not_fit_is_our_mistake(self, rig: QueueRig) -> None:
        rig.add(b"x", 2, 2)
        rig.queue.complete(rig.queue.take(8)[0][0], b"abcde")
        with pytest.raises(LocalError, match="room for 4"):
            rig.queue.flush()

    def test_only_what_is_in_hand_can_be_answered(self, rig: QueueRig) -> None:
        rig.add(b"x", 4)
        [(head, _, _)] = rig.queue.take(8)
        rig.queue.complete(head, b"")
        with pytest.raises(LocalError, match="not in hand"):
            rig.queue.complete(head, b"")


class TestPublishing:
    def test_nothing_is_seen_before_the_flush_and_everything_after(self, rig: QueueRig) -> None:
        for n in range(2):
            rig.add(bytes([n]), 1)
        for head, request, _ in rig.queue.take(8):
            rig.queue.complete(head, request)
        assert rig.got() == []
        assert rig.queue.in_hand == 0
        assert rig.queue.flush() == 2
        assert rig.got() == [b"\0", b"\1"]
        assert rig.queue.flush() == 0
        assert rig.interrupts == 1, "one interrupt a batch"
        assert rig.queue.stats.chains == rig.queue.stats.used == 2

    def answer_one(self, rig: QueueRig) -> None:
        rig.add(b"x", 1)
        for head, request, _ in rig.queue.take(8):
            rig.queue.complete(head, request)
        rig.queue.flush()

    def test_no_interrupt_that_was_not_asked_for(self, rig: QueueRig) -> None:
        self.answer_one(rig)
        rig.got()
        before = rig.interrupts
        rig.driver.disable_cb()
        for _ in range(3):
            self.answer_one(rig)
            assert not rig.queue.owed
        assert rig.interrupts == before, "polled"
        assert len(rig.got()) == 3
        rig.driver.enable_cb_prepare()
        self.answer_one(rig)
        assert rig.interrupts == before + 1
        assert rig.queue.owed

    def test_an_answer_that_is_not_told_is_told_with_the_next(self, rig: QueueRig) -> None:
        """A fault on purpose. A driver that polls sees it all the same."""
        self.answer_one(rig)
        before = rig.interrupts
        rig.got()
        rig.driver.enable_cb_prepare()
        rig.add(b"x", 1)
        for head, request, _ in rig.queue.take(8):
            rig.queue.complete(head, request)
            rig.queue.hush()
        rig.queue.flush()
        assert rig.interrupts == before
        assert not rig.queue.owed
        self.answer_one(rig)
        assert rig.interrupts == before + 1
        assert len(rig.got()) == 2

    def test_one_that_is_told_takes_the_others_along(self, rig: QueueRig) -> None:
        rig.add(b"x", 1)
        rig.add(b"y", 1)
        (first, request, _), (second, _, _) = rig.queue.take(8)
        rig.queue.complete(first, request)
        rig.queue.hush()
        rig.queue.complete(second, request)
        rig.queue.flush()
        assert rig.interrupts == 1

    def test_nothing_to_be_silent_about(self, rig: QueueRig) -> None:
        rig.queue.hush()
        self.answer_one(rig)
        assert rig.interrupts == 1

    def test_by_event_index_not_before_it_is_reached(self) -> None:
        rig = QueueRig(size=16, features=EVENT_IDX)
        self.answer_one(rig)
        rig.memory.write(rig.layout.driver + 4 + 2 * 16, (3).to_bytes(2, "little"))  # used_event
        seen = []
        for _ in range(4):
            self.answer_one(rig)
            seen.append(rig.interrupts)
        assert seen == [1, 1, 2, 2], "element number 3 was the fourth"

    def test_what_waits_is_seen_without_a_kick(self, rig: QueueRig) -> None:
        assert not rig.queue.pending()
        rig.add(b"x", 1)
        assert rig.queue.pending()
        rig.queue.take(8)
        assert not rig.queue.pending()

    def test_kicks_are_asked_for_only_between_batches(self, rig: QueueRig) -> None:
        rig.queue.disable_notify()
        rig.add(b"a", 1)
        if not rig.features & EVENT_IDX:
            assert not rig.driver.kick_prepare()
        assert rig.queue.enable_notify(), "one came meanwhile"
        assert len(rig.queue.take(8)) == 1
        assert not rig.queue.enable_notify()
        rig.add(b"b", 1)
        assert rig.driver.kick_prepare()

    def test_a_chain_used_twice_on_purpose(self, rig: QueueRig) -> None:
        rig.add(b"x", 4)
        rig.add(b"y", 4)
        head = rig.queue.take(8)[0][0]
        rig.queue.complete(head, b"abcd")
        rig.queue.complete_again(head, b"abcd")
        assert rig.queue.flush() == 2
        assert rig.got() == [b"abcd"]
        with pytest.raises(Exception, match="not a head in flight"):
            rig.got()

    def test_how_full_it_was(self, rig: QueueRig) -> None:
        for _ in range(2):
            rig.add(b"x", 1)
        for head, _, _ in rig.queue.take(8):
            rig.queue.complete(head, b"")
        rig.queue.flush()
        assert rig.queue.depth.read(0) == 1, "2, then 0"


class TestBroken:
    def breaks(self, rig: QueueRig, field: str) -> None:
        assert rig.queue.take(8) == []
        assert rig.queue.broken
        assert [error.field for error in rig.broken] == [field]
        assert rig.queue.stats.broken == 1
        before = rig.memory.read(rig.layout.device, 6 + 8 * rig.layout.size)
        assert rig.queue.take(8) == []
        assert not rig.queue.enable_notify()
        rig.queue.disable_notify()
        assert rig.queue.flush() == 0
        assert rig.memory.read(rig.layout.device, 6 + 8 * rig.layout.size) == before, "nothing is touched"
        assert len(rig.broken) == 1, "told once"

    def test_the_same_head_twice(self, rig: QueueRig) -> None:
        rig.driver.add([(DATA, 4)], [], "a")
        head = rig.queue.take(8)[0][0]
        rig.memory.write(rig.layout.driver + 4 + 2 * (rig.driver.avail_idx % 8), head.to_bytes(2, "little"))
        rig.memory.write(rig.layout.driver + 2, ((rig.driver.avail_idx + 1) & 0xFFFF).to_bytes(2, "little"))
        self.breaks(rig, "head")

    def test_an_index_that_jumps(self, rig: QueueRig) -> None:
        rig.memory.write(rig.layout.driver + 2, (9).to_bytes(2, "little"))
        self.breaks(rig, "avail.idx")

    def test_an_index_that_jumps_while_notifications_are_enabled(self, rig: QueueRig) -> None:
        rig.memory.write(rig.layout.driver + 2, (9).to_bytes(2, "little"))
        assert not rig.queue.enable_notify()
        assert [error.field for error in rig.broken] == ["avail.idx"]

    def test_an_index_that_jumps_while_somebody_looks(self, rig: QueueRig) -> None:
        rig.memory.write(rig.layout.driver + 2, (9).to_bytes(2, "little"))
        assert not rig.queue.pending()
        assert [error.field for error in rig.broken] == ["avail.idx"]
        assert not rig.queue.pending()

    def test_an_address_outside(self, rig: QueueRig) -> None:
        rig.driver.add([(1 << 40, 4)], [], "a")
        self.breaks(rig, "addr")

    def test_good_chains_before_a_bad_one_are_served(self, rig: QueueRig) -> None:
        rig.add(b"good", 4)
        rig.driver.add([(1 << 40, 4)], [], "a")
        [(head, request, _)] = rig.queue.take(8)
        rig.queue.complete(head, request)
        rig.queue.flush()
        assert rig.got() == [b"good"]
        self.breaks(rig, "addr")

    def test_memory_that_is_gone(self, rig: QueueRig) -> None:
        rig.add(b"x", 4)
        head = rig.queue.take(8)[0][0]
        rig.queue.complete(head, b"abcd")
        rig.intact = False
        assert rig.queue.flush() == 0
        assert [error.field for error in rig.broken] == ["memory"]
        assert rig.got() == []

    def test_memory_that_is_gone_before_a_look(self, rig: QueueRig) -> None:
        rig.add(b"x", 4)
        rig.intact = False
        self.breaks(rig, "memory")

    def test_works_again_when_started_again(self, rig: QueueRig) -> None:
        rig.driver.add([(1 << 40, 4)], [], "a")
        self.breaks(rig, "addr")
        assert rig.queue.stop() == 0, "where it stood"
        fresh = QueueRig(features=rig.features)
        rig.queue.start(fresh.memory, fresh.layout, rig.features, 0)
        fresh.queue = rig.queue
        fresh.add(b"x", 4)
        fresh.queue.complete(fresh.queue.take(8)[0][0], b"abcd")
        fresh.queue.flush()
        assert fresh.got() == [b"abcd"]

    def test_indirect_must_be_negotiated(self) -> None:
        rig = QueueRig(features=INDIRECT)
        rig.queue.stop()
        rig.queue.start(rig.memory, rig.layout, 0, 0)
        rig.add(b"abcd", 4)
        self.breaks(rig, "indirect")


def test_nothing_happens_without_a_ring(rig: QueueRig) -> None:
    rig.add(b"x", 1)
    rig.queue.stop()
    assert rig.queue.stop() == 0
    assert rig.queue.take(8) == []
    assert not rig.queue.enable_notify()
    rig.queue.disable_notify()
    assert not rig.queue.pending()
    assert rig.queue.flush() == 0
    assert not rig.broken


def test_start_outside_memory_changes_nothing(rig: QueueRig) -> None:
    with pytest.raises(MemoryFaultError):
        rig.queue.start(rig.memory, SplitLayout.packed_at(1 << 40, 8), 0, 5)
    rig.add(b"x", 1)
    assert len(rig.queue.take(8)) == 1


class TestMoved:
    def test_goes_on_in_other_memory(self, rig: QueueRig) -> None:
        """What was taken is answered, what was published stands, and the driver's wishes are kept."""
        rig.add(b"one", 3)
        first = rig.queue.take(8)[0][0]
        other = GuestMemory(1 << 18)
        bytes_before = rig.memory.read(0, 1 << 17)
        other.write(0x10000, bytes_before)  # the same guest memory, the ring 64 KiB higher
        other.write(DATA, bytes_before[DATA:])
        go_on = rig.queue.moved(other, SplitLayout.packed_at(0x10000, 8))
        assert rig.queue.take(8) == []
        go_on()
        rig.queue.complete(first, b"abc")
        rig.queue.flush()
        assert other.read(0x10000 + rig.layout.device + 2, 2) == b"\1\0"
        assert rig.memory.read(rig.layout.device + 2, 2) == b"\0\0"

    def test_outside_memory_nothing_changes(self, rig: QueueRig) -> None:
        rig.add(b"x", 1)
        with pytest.raises(MemoryFaultError):
            rig.queue.moved(GuestMemory(64), rig.layout)
        assert len(rig.queue.take(8)) == 1

    def test_no_interrupt_that_was_not_asked_for(self) -> None:
        rig = QueueRig(features=EVENT_IDX)
        rig.add(b"x", 1)
        rig.queue.complete(rig.queue.take(8)[0][0], b"a")
        rig.queue.flush()
        rig.got()
        rig.driver.disable_cb()
        rig.add(b"x", 1)
        head = rig.queue.take(8)[0][0]
        rig.queue.moved(rig.memory, rig.layout)()
        rig.queue.complete(head, b"a")
        rig.queue.flush()
        assert rig.interrupts == 1

    def test_a_chain_whose_buffer_went_breaks_the_queue(self, rig: QueueRig) -> None:
        rig.driver.add([], [((1 << 17) - 64, 64)], "a")
        head = rig.queue.take(8)[0][0]
        smaller = GuestMemory(1 << 16)
        rig.queue.moved(smaller, rig.layout)()
        rig.queue.complete(head, b"abcd")
        assert rig.queue.flush() == 0
        assert [error.field for error in rig.broken] == ["addr"]
