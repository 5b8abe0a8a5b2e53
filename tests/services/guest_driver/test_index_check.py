"""Where a device says that it stands, against what its port knows."""

from __future__ import annotations

import pytest

from services.guest_driver.index_check import IndexCheck
from services.guest_driver.net_pair import RX, TX
from services.guest_driver.port_queue import ObjectState
from tests.services.vdpa_nic.nic_rig import Rig


@pytest.fixture
def rig() -> Rig:
    """Some frames came back: used 3 each; 8 receive buffers are posted beyond that."""
    rig = Rig().start()
    rig.send(3)
    rig.settle()
    assert [queue.ring and (queue.ring.used_idx, queue.ring.last_avail_idx) for queue in rig.port.queues[:2]] == [
        (3, 11), (3, 3),
    ]  # fmt: skip
    return rig


def test_a_device_that_agrees(rig: Rig) -> None:
    check = IndexCheck(rig.port)
    asked = check.ask(1)
    assert asked.used == {RX: 3, TX: 3}, "queues that were never set up are not asked for"
    states = {queue: rig.device.op_get_vq_state(queue) for queue in asked.used}
    assert check.answered(asked, states, 1) == []
    assert (check.checked, check.wrong) == (2, 0)


@pytest.mark.parametrize(("queue", "state"), [(RX, 12), (RX, 2), (TX, 4), (TX, 2), (RX, 3 + (1 << 15))])
def test_a_device_that_stands_where_it_cannot(rig: Rig, queue: int, state: int) -> None:
    check = IndexCheck(rig.port)
    (wrong,) = check.answered(check.ask(1), {queue: state}, 1)
    assert (
        wrong
        == f"queue {queue}: the device stands at {state}, used were 3, the port fetched {11 if queue == RX else 3}"
    )
    assert (check.checked, check.wrong) == (1, 1)


@pytest.mark.parametrize("state", [3, 7, 11])
def test_what_is_on_its_way_may_have_arrived_or_not(rig: Rig, state: int) -> None:
    check = IndexCheck(rig.port)
    assert check.answered(check.ask(1), {RX: state}, 1) == []


def test_bounds_move_with_the_traffic(rig: Rig) -> None:
    """What was fetched between question and answer may be in it."""
    check = IndexCheck(rig.port)
    asked = check.ask(1)
    rig.send(2)
    rig.settle()
    assert check.answered(asked, {TX: 5, RX: 13}, 1) == []
    assert check.answered(asked, {TX: 3, RX: 3}, 1) == []
    assert len(check.answered(asked, {TX: 6, RX: 14}, 1)) == 2


def test_indices_wrap(rig: Rig) -> None:
    ring = rig.port.queues[TX].ring
    assert ring is not None
    ring.used_idx, ring.last_avail_idx = 0xFFFE, 2
    check = IndexCheck(rig.port)
    asked = check.ask(1)
    for state in (0xFFFE, 0xFFFF, 0, 2):
        assert check.answered(asked, {TX: state}, 1) == []
    for state in (0xFFFD, 3):
        assert check.answered(asked, {TX: state}, 1)


def test_nothing_is_said_of_what_is_not_known(rig: Rig) -> None:
    check = IndexCheck(rig.port)
    asked = check.ask(1)
    assert check.answered(asked, {RX: 99, TX: 99}, 2) == [], "the link went down in between"
    rig.port.queues[RX].state = ObjectState.ERR
    rig.port.queues[TX].resyncing = True
    assert check.answered(asked, {RX: 99, TX: 99}, 1) == []
    assert check.ask(1).used == {}
    rig.port.queues[TX].resyncing = False
    rig.port.link_down()
    assert check.answered(asked, {TX: 99}, 1) == []
    rig.port.link_up()
    rig.port.reset_queue(TX)
    assert check.answered(asked, {TX: 99}, 1) == []
    assert check.checked == 0
