"""Hold points against the port, the driver and the NIC: where the store and the doorbell fall, and what comes of it."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest

from common.errors import RemoteError
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from services.guest_driver.net_pair import TX
from services.guest_driver.port import HOLD_POINTS
from services.guest_driver.port_holds import PortHolds
from tests.services.vdpa_nic.nic_rig import Rig

PLACES = list(combinations_with_replacement(HOLD_POINTS, 2))


class RigDriver:
    """The rig's driver, one frame of its ledger at a time."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def store(self, queue: int) -> int:
        assert queue == TX
        net = self.rig.net
        return net.transmit(self.rig.ledger.make(1, 0), xmit_more=True) if net.room else 0

    def kick(self, queue: int) -> bool:
        assert queue == TX
        return self.rig.net.kick_tx()


@pytest.fixture(params=[True, False], ids=["event_idx", "flags"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(event_idx=request.param).start()


@pytest.fixture
def holds(rig: Rig) -> PortHolds:
    return PortHolds(rig.port, RigDriver(rig))


def change(rig: Rig, policy: PortPolicy = DEFAULT_POLICY) -> None:
    for queue in rig.device.queues:
        queue.policy = policy
    rig.set_map()
    rig.settle()


def read_at_create(policy: PortPolicy, store: str) -> bool:
    return bool(policy & PortPolicy.READ_AT_CREATE) and HOLD_POINTS.index(store) < HOLD_POINTS.index("created")


def strands(policy: PortPolicy, store: str, kick: str) -> bool:
    """Does a buffer stay behind? The switches by their names, no port."""
    heard = kick == "resumed" or policy & PortPolicy.REPLAY_KICK
    return not (read_at_create(policy, store) or (heard and policy & PortPolicy.READ_AT_KICK))


@pytest.mark.parametrize("bits", range(8))
def test_what_each_policy_strands_at_every_pair_of_places(bits: int) -> None:
    policy = PortPolicy(bits)
    stranded = 0
    for store, kick in PLACES:
        rig = Rig().start()
        hold = PortHolds(rig.port, RigDriver(rig)).arm(TX, store, kick)
        change(rig, policy)
        assert (hold.state, hold.points, hold.stored) == ("done", list(HOLD_POINTS), 1)
        # what the device has fetched by then it has asked no doorbell for
        assert hold.rang == (kick != "resumed" or not read_at_create(policy, store))
        assert rig.port.stranded(TX) == strands(policy, store, kick), (policy, store, kick)
        assert rig.ledger.rx == 1 - rig.port.stranded(TX)
        stranded += rig.port.stranded(TX)
    good = PortPolicy.READ_AT_KICK | PortPolicy.REPLAY_KICK
    assert (stranded == 0) == (policy & good == good)


def test_the_next_change_alone_is_held(rig: Rig, holds: PortHolds) -> None:
    hold = holds.arm(TX, "saved", "created")
    assert hold.report() == {
        "store": "saved", "kick": "created", "state": "armed", "points": [], "stored": 0, "rang": None,
    }  # fmt: skip
    change(rig)
    change(rig)
    assert (hold.state, rig.ledger.tx, rig.ledger.rx) == ("done", 1, 1)
    assert rig.port.hook is None
    assert holds.arm(TX, "saved", "created") is holds.holds[TX]
    change(rig)
    assert rig.ledger.rx == 2


def test_store_and_doorbell_fall_where_they_are_put(rig: Rig, holds: PortHolds) -> None:
    """The ring and the port's counter, before and behind each point."""
    log: list[tuple[str, int, int]] = []
    hold = holds.arm(TX, "destroyed", "created")
    inner = rig.port.hook
    assert inner is not None

    def watched(point: str, queue: int) -> None:
        inner(point, queue)
        if queue in (TX, -1):
            log.append((point, rig.rings[TX].avail_idx, rig.port.stats.kicks - kicks))

    kicks = rig.port.stats.kicks
    rig.port.hook = watched
    change(rig)
    assert [entry for entry in log if entry[0] != "resumed"] == [
        ("suspended", 0, 0), ("saved", 0, 0), ("destroyed", 1, 0), ("mkey_created", 1, 0), ("created", 1, 1),
    ]  # fmt: skip
    assert hold.rang


def test_a_hold_armed_within_a_change_waits_for_the_next(rig: Rig, holds: PortHolds) -> None:
    rig.set_map()
    rig.step("port", 2)  # the queues are suspended
    hold = holds.arm(TX, "created", "resumed")
    rig.settle()
    assert (hold.state, hold.points, hold.stored) == ("armed", [], 0)
    change(rig)
    assert (hold.state, hold.stored) == ("done", 1)


def test_points_that_come_again_do_not_store_again(rig: Rig, holds: PortHolds) -> None:
    """The link breaks in a change, and the device begins from where the port says that it stands."""
    hold = holds.arm(TX, "created", "created")
    rig.set_map()
    while "created" not in hold.points:
        rig.step("port", 1)
        rig.step("device", 1)
    rig.disconnect()
    rig.connect()
    rig.settle()
    assert hold.state == "done"
    assert hold.points.count("created") == 2
    assert (hold.stored, hold.rang, rig.ledger.tx, rig.ledger.rx) == (1, True, 1, 1)


def test_a_full_ring_takes_nothing_and_nobody_rings(rig: Rig, holds: PortHolds) -> None:
    rig.up = False  # nothing arrives any more
    rig.send(rig.size)
    rig.up = True
    hold = holds.arm(TX, "suspended", "suspended")
    kicks = rig.port.stats.kicks
    for point in HOLD_POINTS:
        holds._at(point, TX)
    assert (hold.state, hold.stored, hold.rang) == ("done", 0, None)
    assert rig.port.stats.kicks == kicks


def test_a_doorbell_that_the_device_did_not_ask_for_does_not_ring() -> None:
    rig = Rig().start()
    holds = PortHolds(rig.port, RigDriver(rig))
    for _ in range(2):  # the first is stranded, and the event index stays before it
        hold = holds.arm(TX, "saved", "saved")
        change(rig, PortPolicy.READ_AT_KICK)
    assert hold.rang is False
    assert rig.port.stranded(TX) == 2


def test_holds_of_several_queues_end_on_their_own(rig: Rig, holds: PortHolds) -> None:
    first, other = holds.arm(TX, "saved", "saved"), holds.arm(TX + 2, "saved", "saved")
    change(rig)
    assert (first.state, other.state) == ("done", "armed")
    assert rig.port.hook is not None
    change(rig)
    assert first.points == list(HOLD_POINTS), "of its own change"


@pytest.mark.parametrize(
    ("store", "kick", "named"),
    [("frozen", "saved", "frozen"), ("saved", "", "kick"), ("created", "saved", "rings after its store")],
)
def test_places_that_cannot_be_are_refused(holds: PortHolds, store: str, kick: str, named: str) -> None:
    with pytest.raises(RemoteError, match=named):
        holds.arm(TX, store, kick)
    assert not holds.holds
