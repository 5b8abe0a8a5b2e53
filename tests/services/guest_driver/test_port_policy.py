"""When the port reads avail->idx: the firmware's three switches, the states of a queue object, and what is stranded."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.wire.messages import Avail, Broken, Create, CreateMkey, Destroy, MkeyCreated, Resume, Saved, Suspend
from services.guest_driver.port import HOLD_POINTS
from services.guest_driver.port_queue import ObjectState
from tests.services.guest_driver.test_port import LAYOUT, Rig

C, K, R = PortPolicy.READ_AT_CREATE, PortPolicy.READ_AT_KICK, PortPolicy.REPLAY_KICK

#: Where the store of avail->idx and the kick fall: before the change, while the queue is torn down, between creation
#: and resume, after it.
BEFORE, GAP, CREATED, AFTER = range(4)


def change_map(rig: Rig, policy: PortPolicy, store: int, kick: int) -> None:
    """A change of map during which the driver makes one buffer available."""

    def at(place: int) -> None:
        if place == store:
            rig.add(0x100)
        if place == kick:
            rig.port.doorbell(0)

    at(BEFORE)
    rig.port.frame(Suspend(0))
    saved = rig.take()[-1]
    assert isinstance(saved, Saved)
    rig.port.frame(Destroy(0))
    at(GAP)
    rig.port.frame(
        Create(0, 2, saved.index, saved.avail, saved.used, 4, LAYOUT.desc, LAYOUT.driver, LAYOUT.device, 0, int(policy))
    )
    at(CREATED)
    rig.port.frame(Resume(0))
    at(AFTER)


def strands(policy: PortPolicy) -> set[tuple[int, int]]:
    """The places (store, kick) at which a buffer is left behind."""
    found = set()
    for store, kick in product(range(4), repeat=2):
        if store > kick or kick == BEFORE:
            continue
        rig = Rig(policy=DEFAULT_POLICY)
        rig.keys[2] = rig.keys[1]
        rig.create()
        rig.take()
        change_map(rig, policy, store, kick)
        fetched = sum(len(m.chains) for m in rig.take() if isinstance(m, Avail))
        assert fetched + rig.port.stranded(0) == 1
        if rig.port.stranded(0):
            found.add((store, kick))
    return found


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (C | K | R, set()),
        (K | R, set()),
        (C | K, {(CREATED, CREATED)}),
        (K, {(BEFORE, GAP), (GAP, GAP), (BEFORE, CREATED), (GAP, CREATED), (CREATED, CREATED)}),
        (C | R, {(CREATED, CREATED), (CREATED, AFTER), (AFTER, AFTER)}),
        (C, {(CREATED, CREATED), (CREATED, AFTER), (AFTER, AFTER)}),
    ],
)
def test_which_buffers_a_policy_leaves_behind(policy: PortPolicy, left: set[tuple[int, int]]) -> None:
    assert strands(policy) == left


@pytest.mark.parametrize("policy", [R, PortPolicy(0)])
def test_without_a_look_nothing_is_ever_found(policy: PortPolicy) -> None:
    assert strands(policy) == {(s, k) for s, k in product(range(4), repeat=2) if s <= k and k != BEFORE}


def test_what_the_saved_index_covers_is_fetched_without_a_look() -> None:
    """avail_idx1 of the ladder: chains that were handed back are known, whatever the policy."""
    rig = Rig(policy=DEFAULT_POLICY)
    rig.add(0x100, 0x200)
    rig.create()
    assert rig.heads() == [0, 1]
    rig.port.frame(Suspend(0))
    assert rig.take() == [Saved(0, 2, 2, 0, 2)]
    rig.port.frame(Destroy(0))
    rig.add(0x300)  # avail_idx2
    rig.keys[2] = rig.keys[1]
    rig.port.frame(Create(0, 2, 1, 2, 0, 4, LAYOUT.desc, LAYOUT.driver, LAYOUT.device, 0, 0))
    rig.port.frame(Resume(0))
    assert rig.heads() == [1]
    assert rig.port.stranded(0) == 1


def test_states_of_a_queue_object() -> None:
    rig = Rig()
    seen: list[Any] = [rig.queue.state]
    made = Create(0, 1, 0, 0, 0, 4, LAYOUT.desc, LAYOUT.driver, LAYOUT.device, 0, int(DEFAULT_POLICY))
    again = [Resume(0), Resume(0), Suspend(0), Resume(0), Destroy(0), Suspend(0), Resume(0)]
    for message in (made, *again):
        rig.port.frame(message)
        seen.append(rig.queue.state)
    none, init, ready, suspend = ObjectState.NONE, ObjectState.INIT, ObjectState.RDY, ObjectState.SUSPEND
    assert seen == [none, init, ready, ready, suspend, ready, none, none, none]
    rig.port.frame(Broken(0, "x", "y"))
    for message in (Resume(0), Suspend(0), Destroy(0)):
        rig.port.frame(message)
        assert rig.queue.state == ObjectState.ERR


def test_nothing_is_fetched_before_resume() -> None:
    rig = Rig()
    rig.add(0x100)
    rig.port.frame(Create(0, 1, 0, 0, 0, 4, LAYOUT.desc, LAYOUT.driver, LAYOUT.device, 0, int(DEFAULT_POLICY)))
    rig.port.doorbell(0)
    assert rig.take() == []
    assert rig.port.stranded(0) == 0, "its kick is remembered"
    rig.port.frame(Resume(0))
    assert rig.heads() == [0]
    assert (rig.port.stats.kicks_replayed, rig.port.stats.kicks_forgotten) == (1, 0)


def test_a_kick_that_is_forgotten_is_counted() -> None:
    rig = Rig(policy=PortPolicy.READ_AT_KICK)
    rig.port.doorbell(0)
    rig.create()
    assert (rig.port.stats.kicks_replayed, rig.port.stats.kicks_forgotten) == (0, 1)


def test_suspend_and_resume_without_a_change_keep_what_was_fetched() -> None:
    rig = Rig()
    rig.add(0x100)
    rig.create()
    rig.take()
    rig.port.frame(Suspend(0))
    rig.take()
    rig.add(0x200)
    rig.port.doorbell(0)
    assert rig.take() == []
    rig.port.frame(Resume(0))
    assert rig.heads() == [1]


@pytest.mark.parametrize(
    ("avail", "used", "field"),
    [(5, 0, "create.avail"), (0xFFFF, 0, "create.avail"), (0, 1, "create.used")],
)
def test_a_saved_state_that_cannot_be_is_refused_with_the_reason(avail: int, used: int, field: str) -> None:
    rig = Rig(policy=PortPolicy.READ_AT_KICK)
    rig.port.frame(Create(0, 1, 0, avail, used, 4, LAYOUT.desc, LAYOUT.driver, LAYOUT.device, 0, 0))
    (broken,) = rig.take()
    assert isinstance(broken, Broken)
    assert broken.field == field
    assert rig.queue.state == ObjectState.ERR


def test_an_available_index_that_memory_contradicts() -> None:
    rig = Rig()
    rig.memory.write(LAYOUT.driver + 2, (9).to_bytes(2, "little"))
    rig.port.frame(Create(0, 1, 2, 2, 0, 4, LAYOUT.desc, LAYOUT.driver, LAYOUT.device, 0, int(DEFAULT_POLICY)))
    (broken,) = rig.take()
    assert isinstance(broken, Broken)
    assert broken.field == "avail.idx"


def test_a_queue_that_was_reset_begins_anew() -> None:
    rig = Rig()
    rig.add(0x100)
    rig.create()
    rig.port.frame(Destroy(0))
    rig.port.reset_queue(0)
    assert (rig.queue.ring, len(rig.queue.in_flight)) == (None, 0)


def test_what_cannot_be_looked_at_is_not_stranded() -> None:
    rig = Rig()
    assert rig.port.stranded(0) == 0
    rig.create()
    rig.add(0x100)
    assert rig.port.stranded(0) == 1
    rig.port.link_down()
    assert rig.port.stranded(0) == 0
    rig.port.link_up()
    rig.create()
    rig.memory.write(LAYOUT.driver + 2, (77).to_bytes(2, "little"))
    assert rig.port.stranded(0) == 0


def test_hold_points_are_passed_in_the_order_of_a_change_of_map() -> None:
    rig = Rig()
    rig.create()
    points: list[str] = []
    rig.port.hook = lambda point, _queue: points.append(point)
    rig.port.frame(Suspend(0))
    rig.port.frame(Destroy(0))
    rig.port.frame(CreateMkey(2, [(0, 0x10000, 0, 3)]))
    rig.create(generation=2)
    assert tuple(points) == HOLD_POINTS
    assert MkeyCreated(2, 0) in rig.take()


def test_a_key_that_cannot_be_made_is_answered_and_counted() -> None:
    rig = Rig()
    rig.port.frame(CreateMkey(2, [(0, 1 << 40, 0, 3)]))
    (answer,) = rig.take()
    assert isinstance(answer, MkeyCreated)
    assert answer.errno
    assert (rig.port.stats.mkeys_created, rig.port.stats.mkeys_refused) == (0, 1)
