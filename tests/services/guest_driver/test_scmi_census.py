"""The census: a message is in exactly one place, and one that is not is named."""

from __future__ import annotations

from typing import Any

import pytest

from common.runtime.world import AsyncWorld
from common.world import Table
from services.guest_driver.scmi_census import Census, Enumerator, take_census
from services.guest_driver.scmi_message import VioMsg
from tests.services.guest_driver.test_scmi_virtio import SIZE, Bench, Sent

MOST = SIZE // 2


class Hall:
    """A channel, its device half, and the table of its agent."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.tx = self.bench.tx
        self.in_flight: Table[Any] = AsyncWorld().table()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.enumerator = Enumerator(self.tx, self.in_flight, lambda event, **fields: self.said.append((event, fields)))

    def send(self, number: int, poll: bool = False) -> Sent:
        xfer = self.in_flight[number] = self.bench.send(number, poll)
        return xfer

    def census(self) -> Census:
        return take_census(self.tx, self.in_flight)

    def where(self) -> tuple[int, int, int, int]:
        """free, ring, pending, poller; nothing wrong."""
        census = self.census()
        assert not census.wrong
        assert census.total == MOST
        return census.free, census.ring, census.pending, census.poller


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_a_life_by_interrupt(hall: Hall) -> None:
    assert hall.where() == (MOST, 0, 0, 0)
    hall.send(1)
    hall.send(2)
    assert hall.where() == (MOST - 2, 2, 0, 0)
    hall.bench.answer()
    assert hall.where() == (MOST - 2, 2, 0, 0), "used and not dequeued"
    hall.tx.complete_cb()
    assert hall.where() == (MOST - 1, 1, 0, 0)


def test_a_life_of_polling(hall: Hall) -> None:
    other, polled = hall.send(1), hall.send(2, poll=True)
    assert hall.where() == (MOST - 2, 2, 0, 0)
    hall.bench.answer(2)
    assert hall.tx.poll_done(polled)
    assert hall.where() == (MOST - 2, 0, 1, 1)
    assert not hall.tx.mark_txdone(False, polled)
    assert hall.where() == (MOST - 1, 0, 1, 0)
    hall.tx.deferred_tx_worker()
    assert hall.where() == (MOST, 0, 0, 0)
    assert other.priv is None


def test_a_polled_reply_that_the_interrupt_took(hall: Hall) -> None:
    polled = hall.send(1, poll=True)
    hall.bench.answer()
    hall.tx.complete_cb()
    assert hall.where() == (MOST - 1, 0, 0, 1)
    hall.tx.mark_txdone(False, polled)
    assert hall.where() == (MOST, 0, 0, 0)


def test_what_timed_out_stays_on_the_ring_until_it_is_answered(hall: Hall) -> None:
    polled = hall.send(1, poll=True)
    assert hall.tx.mark_txdone(True, polled)
    assert hall.where() == (MOST - 1, 1, 0, 0)
    hall.bench.answer()
    hall.tx.complete_cb()
    assert hall.where() == (MOST, 0, 0, 0)


def _index(hall: Hall, msg: VioMsg) -> int:
    return next(i for i in range(MOST) if hall.tx.messages[i] is msg)


def test_a_leak_is_named(hall: Hall) -> None:
    msg = hall.tx.get_free_msg()
    assert msg is not None
    census = hall.census()
    assert census.wrong == (f"message {_index(hall, msg)} is leaked",)
    assert census.total == MOST - 1


@pytest.mark.parametrize("twice", ["ring", "pending", "free"])
def test_a_message_in_two_places_is_named(hall: Hall, twice: str) -> None:
    msg: VioMsg | None
    if twice == "ring":
        hall.send(1)
        msg = next(token for i in range(SIZE) if (token := hall.tx.vqueue.tokens[i]) is not None)
        hall.tx.free_list.append(msg)
    else:
        msg = hall.tx.messages[0]
        (hall.tx.free_list if twice == "free" else hall.tx.pending_cmds_list).append(msg)
    assert msg is not None
    census = hall.census()
    assert census.wrong == (f"message {_index(hall, msg)} is doubled: free and {twice}",)
    assert census.total == MOST + 1


def test_two_who_wait_for_one_message(hall: Hall) -> None:
    polled = hall.send(1, poll=True)
    hall.bench.answer()
    assert hall.tx.poll_done(polled)
    other = hall.in_flight[2] = Sent(2, True)
    other.priv = polled.priv
    assert len(hall.census().wrong) == 1
    assert "poller and poller" in hall.census().wrong[0]


def test_users_that_do_not_fit(hall: Hall) -> None:
    hall.tx.messages[2].users.store(1)
    assert hall.census().wrong == ("message 2 is free and has 1 users, not 0",)


def test_a_use_that_is_given_back_too_early(hall: Hall) -> None:
    """Before it does harm: the message is still on the ring."""
    polled = hall.send(1, poll=True)
    assert polled.priv is not None
    polled.priv.users.add(-1)
    assert hall.census().wrong[0].endswith("is ring and has 1 users, not 2")


def test_a_stranger(hall: Hall) -> None:
    world = AsyncWorld()
    hall.tx.free_list.append(world.new(VioMsg, world, 0, 0))
    assert hall.census().wrong == ("a stranger is free",)


def test_each_violation_counts_once_and_the_first_is_logged(hall: Hall) -> None:
    take, stats = hall.enumerator.take, hall.enumerator.stats
    take()
    lost = [hall.tx.get_free_msg(), hall.tx.get_free_msg()]
    for _ in range(3):
        take("now")
    assert (stats.censuses, stats.violations) == (4, 2)
    ((event, fields),) = hall.said
    assert event == "SCMI messages do not add up"
    assert (fields["when"], fields["free"], fields["max_msg"], len(fields["wrong"])) == ("now", MOST - 2, MOST, 2)
    for msg in lost:
        assert msg is not None
        hall.tx.msg_release(msg)
    take()
    assert stats.violations == 2
    hall.tx.get_free_msg()
    take()
    assert stats.violations == 3
    assert len(hall.said) == 1


def test_at_rest_nothing_is_pending_or_held(hall: Hall) -> None:
    take, stats = hall.enumerator.take, hall.enumerator.stats
    hall.send(1)
    hall.send(2)
    take("stopped", at_rest=True)
    assert stats.violations == 0, "what was never answered stays on the ring"
    polled = hall.send(3, poll=True)
    hall.bench.answer(3)
    assert hall.tx.poll_done(polled)
    take()
    assert stats.violations == 0
    take("stopped", at_rest=True)
    assert stats.violations == 1
    assert hall.said[0][1]["wrong"] == ["3 messages were forgotten: pending 2, poller 1"]
