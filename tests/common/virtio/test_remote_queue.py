"""The device's end of a port, frame by frame. The two ends together are tested in tests/services/guest_driver."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import LocalError, MemoryFaultError, RemoteError, RingError
from common.memory import ACCESS_RO, ACCESS_WO, Mapping, MemoryKey, MemoryMap
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.virtio.remote_queue import RemoteQueue
from common.wire.codec import encode
from common.wire.limits import MAX_FRAME
from common.wire.messages import Avail, Create, Destroy, Message, Resume, Resync, Saved, Segment, Suspend, Used

KEY = MemoryKey(MemoryMap([Mapping(0, 0x1000, 0), Mapping(0x1000, 0x1000, 0, ACCESS_RO)]), 3)
READABLE: list[Segment] = [(0x10, 2, 0)]
WRITABLE: list[Segment] = [(0x20, 8, 2)]


def make(size: int = 4) -> tuple[RemoteQueue, list[Message]]:
    sent: list[Message] = []
    queue = RemoteQueue(1, sent.append)
    queue.size = size
    queue.areas = (0x100, 0x200, 0x300)
    queue.create(KEY)
    return queue, sent


def avail(first: int, *heads: int, used: int = 0, again: bool = False, generation: int = 3) -> Avail:
    return Avail(1, generation, first, [(head, b"ab", READABLE) for head in heads], used, again)


def test_create_says_where_to_begin() -> None:
    queue, sent = make()
    assert sent == [Create(1, 3, 0, 0, 0, 4, 0x100, 0x200, 0x300, 0, int(DEFAULT_POLICY))]
    queue.create(KEY, refetch=True)
    assert isinstance(sent[1], Create)
    assert sent[1].policy == DEFAULT_POLICY | PortPolicy.REFETCH


def test_answers_are_kept_until_the_port_confirms_them() -> None:
    queue, sent = make()
    assert [c[0] for c in queue.on_avail(avail(0, 2, 0))] == [2, 0]
    assert queue.in_hand == 2
    queue.complete(0, b"x")
    queue.flush()
    queue.complete(2, b"y")
    queue.flush()
    queue.flush()
    assert sent[1:] == [Used(1, 0, [(0, b"x")]), Used(1, 1, [(2, b"y")])]
    del sent[:]
    queue.on_resync(Resync(1, 2, 2, 1, 1, 5), fresh=False)
    queue.create(KEY)
    # the answer that the port has not seen comes before the create
    assert sent[0] == Used(1, 1, [(2, b"y")])
    assert isinstance(sent[1], Create)
    assert (sent[1].used, sent[1].policy & PortPolicy.REFETCH) == (2, 0)
    assert queue.irq_number == 5
    queue.on_avail(avail(2, 1, used=2))
    assert (queue.confirmed_idx, queue.in_hand) == (2, 1)


def test_answers_that_wait_go_out_before_a_new_object_is_made() -> None:
    """The new object would begin behind them, and the port take them for repeats."""
    queue, sent = make()
    queue.on_avail(avail(0, 0))
    queue.complete(0, b"x")
    queue.create(KEY)
    assert [type(m) for m in sent[1:]] == [Used, Create]


def test_a_large_batch_is_split_at_the_frame_limit() -> None:
    queue, sent = make(64)
    queue.on_avail(avail(0, *range(64)))
    for head in range(64):
        queue.complete(head, bytes([head]) * 10_000)
    queue.flush()
    used = [m for m in sent if isinstance(m, Used)]
    assert len(used) > 6
    at = 0
    for message in used:
        encode(message)  # raises if it does not fit
        assert message.first_idx == at
        assert [head for head, _ in message.elems] == list(range(at, at + len(message.elems)))
        at += len(message.elems)
    assert at == 64


def test_a_fresh_device_takes_over_and_asks_for_what_is_in_flight() -> None:
    queue, sent = make()
    queue.live = False
    queue.on_resync(Resync(1, 0xFFFF, 0xFFFF, 0xFFFE, 2, 9), fresh=True)
    assert (queue.next_idx, queue.used_idx, queue.confirmed_idx) == (0xFFFF, 0xFFFE, 0xFFFE)
    queue.create(KEY)
    create = sent[-1]
    assert isinstance(create, Create)
    assert create.policy & PortPolicy.REFETCH
    assert len(queue.on_avail(avail(0xFFFD, 2, used=0xFFFE, again=True))) == 1
    assert queue.again == {2}
    # the connection broke before the second one arrived: this device kept its state but has never seen it
    queue.complete(2, b"")
    queue.flush()
    queue.on_resync(Resync(1, 0xFFFF, 0xFFFF, 0xFFFE, 2, 9), fresh=False)
    queue.create(KEY)
    create = sent[-1]
    assert isinstance(create, Create)
    assert create.policy & PortPolicy.REFETCH
    # what was answered and not confirmed, or is in hand, is not processed again
    assert [c[0] for c in queue.on_avail(avail(0xFFFD, 2, 3, used=0xFFFE, again=True))] == [3]
    assert queue.on_avail(avail(0xFFFE, 3, used=0xFFFE, again=True)) == []
    assert queue.again == {3}
    queue.on_resync(Resync(1, 0xFFFF, 0xFFFF, 0xFFFF, 1, 9), fresh=False)
    queue.create(KEY)
    create = sent[-1]
    assert isinstance(create, Create)
    assert not create.policy & PortPolicy.REFETCH


def test_handing_back_only_what_came_last() -> None:
    queue, _ = make(8)
    queue.on_avail(avail(0, 5, 4, 3, 2))
    queue.complete(4, b"")
    assert queue.tail() == [3, 2]
    for heads in ([5, 3, 2], [5], [3], [3, 7], [3, 3]):
        with pytest.raises(LocalError, match="not the last entries"):
            queue.hand_back(heads)
    queue.hand_back([2, 3])
    assert (queue.next_idx, queue.in_hand, queue.tail()) == (2, 1, [])
    queue.hand_back([])
    with pytest.raises(LocalError, match="not in hand"):
        queue.complete(3, b"")
    assert len(queue.on_avail(avail(2, 3, 2))) == 2


def test_refetched_chains_have_a_place_too() -> None:
    queue, _ = make(8)
    queue.on_resync(Resync(1, 10, 10, 7, 3, 0), fresh=True)
    queue.on_avail(avail(5, 1, used=7, again=True))
    queue.on_avail(avail(8, 2, 3, used=7, again=True))
    assert queue.tail() == [2, 3]
    queue.hand_back([2, 3])
    assert (queue.next_idx, queue.again) == (8, {1})


def chain_of(head: int, data: bytes, segments: list[Any]) -> Avail:
    return Avail(1, 3, 0, [(head, data, segments)], 0)


BAD: list[tuple[str, str, Avail]] = [
    ("stale key", "avail.generation", avail(0, 1, generation=2)),
    ("frames lost", "avail.first_idx", avail(1, 1)),
    ("head out of range", "head", avail(0, 4)),
    ("head negative", "head", avail(0, -1)),
    ("head twice", "head", avail(0, 1, 1)),
    ("more than the queue has", "head", avail(0, 0, 1, 2, 3, 0)),
    ("used beyond what was answered", "avail.used_idx", avail(0, 1, used=1)),
    ("used index of no u16", "avail.used_idx", avail(0, 1, used=1 << 16)),
    ("no segment", "chain", chain_of(0, b"", [])),
    ("more segments than entries", "chain", chain_of(0, b"", [(0, 0, 0)] * 5)),
    ("negative length", "chain", chain_of(0, b"", [(0, -1, 0)])),
    ("readable after writable", "flags", chain_of(0, b"ab", [*WRITABLE, *READABLE])),
    ("bytes missing", "chain", chain_of(0, b"a", READABLE)),
    ("bytes too many", "chain", chain_of(0, b"abc", READABLE)),
    ("again with a bad head", "head", avail(0, 9, again=True)),
]


@pytest.mark.parametrize(("name", "field", "message"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_frame_breaks_the_queue(name: str, field: str, message: Avail) -> None:
    queue, _ = make()
    with pytest.raises(RemoteError) as caught:
        queue.on_avail(message)
    assert isinstance(caught.value, MemoryFaultError if name == "stale key" else RingError)
    assert caught.value.field == field
    assert queue.broken
    assert queue.on_avail(avail(0, 1)) == []
    queue.reset()
    assert queue.on_avail(avail(0, 1)) == [], "no object stands"
    assert (queue.broken, queue.next_idx) == (False, 0)


@pytest.mark.parametrize("segment", [(0x2000, 1, 0), (0xFFF, 2, 0), (-1, 1, 0), (0x1000, 1, 2)])
def test_an_address_outside_the_key(segment: Segment) -> None:
    queue, _ = make()
    with pytest.raises(MemoryFaultError):
        queue.on_avail(chain_of(0, b"x" * segment[1], [segment]))
    assert queue.broken


def test_a_map_with_write_only_memory() -> None:
    queue, _ = make()
    queue.create(MemoryKey(MemoryMap([Mapping(0, 0x1000, 0, ACCESS_WO)]), 3))
    assert queue.on_avail(chain_of(0, b"", [(0, 8, 2)]))
    with pytest.raises(MemoryFaultError):
        queue.on_avail(avail(1, 1))


def test_answers_never_exceed_the_queue() -> None:
    """A port that offers the same head again without confirming would have the device keep answers for ever."""
    queue, _ = make()
    for i in range(4):
        queue.on_avail(avail(i, 0))
        queue.complete(0, b"x" * 1000)
    with pytest.raises(RingError, match=r"avail\.chains"):
        queue.on_avail(avail(4, 0))


@pytest.mark.parametrize(
    ("avail_idx", "used_idx", "fresh"),
    [(1 << 16, 0, True), (0, -1, True), (0, 1 << 16, False), (5, 0, False), (0, 1, False), (0xFFFF, 0, False)],
)
def test_a_place_where_the_port_cannot_be(avail_idx: int, used_idx: int, fresh: bool) -> None:
    queue, _ = make()
    with pytest.raises(RemoteError):
        queue.on_resync(Resync(1, avail_idx, avail_idx, used_idx, 0, 0), fresh=fresh)
    assert queue.broken


def test_a_queue_that_was_reset_does_not_hold_the_port_to_what_it_was() -> None:
    """The driver's reset was carried out and its answer lost: the port still tells of the queue as it was."""
    queue, _ = make()
    queue.on_avail(avail(0, 2, 0))
    queue.reset()
    queue.on_resync(Resync(1, 7, 7, 5, 2, 3), fresh=False)
    assert (queue.next_idx, queue.used_idx, queue.broken, queue.irq_number) == (0, 0, False, 3)
    queue.create(KEY)
    with pytest.raises(RemoteError):
        queue.on_resync(Resync(1, 7, 7, 5, 2, 3), fresh=False)


def test_a_chain_is_used_again_on_purpose() -> None:
    queue, sent = make()
    queue.on_avail(avail(0, 2, 0))
    queue.complete(2, b"x")
    queue.complete_again(2, b"x")
    queue.complete(0, b"y")
    queue.flush()
    assert sent[1:] == [Used(1, 0, [(2, b"x"), (2, b"x"), (0, b"y")])]
    assert (queue.used_idx, queue.in_hand) == (3, 0)
    queue.confirm(3)


# --- stopping and going on --------------------------------------------------------------------------------------------


def test_suspend_save_and_go_on_where_it_stood() -> None:
    queue, sent = make()
    queue.on_avail(avail(0, 1, 2, 3))
    queue.complete(1, b"")
    sent.clear()
    queue.suspend()
    queue.on_saved(Saved(1, 3, 4, 0, 2))  # the port knows of a fourth entry that it has not fetched
    assert not queue.running
    queue.hand_back([2, 3])
    assert queue.save() == queue.state == 1
    queue.destroy()
    assert (queue.live, queue.state) == (False, 1)
    queue.create(queue.key)  # type: ignore[arg-type]
    queue.resume()
    assert [type(m) for m in sent] == [Suspend, Destroy, Used, Create, Resume]
    create = sent[3]
    assert isinstance(create, Create)
    assert (create.index, create.avail, create.used) == (1, 4, 1)
    assert queue.running


def test_the_index_of_a_queue_that_is_gone_can_be_asked_for_until_it_is_set_up_anew() -> None:
    queue, _ = make()
    queue.on_avail(avail(0, 1, 2))
    queue.complete(1, b"")
    queue.save()  # the second chain is in hand, and counts as not processed
    queue.reset()
    assert (queue.state, queue.next_idx) == (1, 0)
    queue.size = 4
    queue.set_state(7, 7)
    assert queue.state == 7


def test_a_queue_never_used_stands_at_its_beginning() -> None:
    queue = RemoteQueue(1, lambda _message: None)
    assert queue.state == 0
    with pytest.raises(RingError, match="more than 0 entries"):
        queue.set_state(1, 0)


def test_chains_that_are_forgotten_are_asked_for_again() -> None:
    """A restarted device was given the first of what is in flight, and the connection broke."""
    queue, sent = make()
    queue.on_avail(avail(0, 1, 2))
    queue.complete(2, b"")
    queue.forget([1])
    sent.clear()
    queue.create(queue.key)  # type: ignore[arg-type]
    create = sent[-1]
    assert isinstance(create, Create)
    assert create.policy & PortPolicy.REFETCH
    assert [chain[0] for chain in queue.on_avail(avail(0, 1, again=True))] == [1]
    queue.forget([])
    queue.create(queue.key)  # type: ignore[arg-type]
    create = sent[-1]
    assert isinstance(create, Create)
    assert not create.policy & PortPolicy.REFETCH


def test_the_buffers_of_one_packet_are_never_parted() -> None:
    """§5.1.6.4: a driver that finds the first of them must find all."""
    queue, sent = make()
    queue.on_avail(avail(0, 0, 1, 2, 3))
    big = bytes(MAX_FRAME // 3)
    queue.complete(0, big)
    queue.complete_together([(1, big), (2, big), (3, b"end")])
    sent.clear()
    assert queue.flush() == 4
    assert [[head for head, _ in m.elems] for m in sent if isinstance(m, Used)] == [[0], [1, 2, 3]]
    assert [m.first_idx for m in sent if isinstance(m, Used)] == [0, 1]
    # after a lost connection they are repeated as they were
    sent.clear()
    queue.on_resync(Resync(1, 4, 4, 0, 4, 0), fresh=False)
    assert queue.flush() == 4
    assert [[head for head, _ in m.elems] for m in sent if isinstance(m, Used)] == [[0], [1, 2, 3]]
    queue.confirm(4)
    assert not queue._glued
