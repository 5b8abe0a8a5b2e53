"""Suspend and resume: by the VMM, by the status bit of virtio 1.4, in the middle of changes, over lost links."""

from __future__ import annotations

import errno

import pytest

from common.virtio.features import Feature, Status
from common.wire.messages import CreateMkey, Return, Suspend, Used
from services.guest_driver.net_pair import RX, TX
from services.vdpa_nic.changes import MAX_WAITING
from services.vdpa_nic.map_change import State
from tests.services.vdpa_nic.nic_rig import Rig
from tests.services.vdpa_nic.pairs_rig import PairsRig
from tests.services.vdpa_nic.wire_rig import RAM

SUSPENDED = int(Status.SUSPEND) | 15


def running(features: int = 0) -> PairsRig:
    rig = PairsRig(pairs=1, features=features).start()
    rig.net.transmit([bytes(60)] * 3)
    rig.settle()
    return rig


def works(rig: PairsRig) -> None:
    before = len(rig.got_on[0])
    rig.net.transmit([bytes(60)] * 8)
    rig.settle()
    assert len(rig.got_on[0]) == before + 8
    assert rig.net.room == rig.size
    assert rig.device.queues[RX].in_hand == rig.size


def suspended(rig: PairsRig) -> None:
    assert rig.vmm("suspend", seq=5) is None
    rig.settle()
    assert rig.to_vmm[-1] == Return(5, 0)
    assert rig.device.suspended


def test_what_is_in_flight_is_finished_and_the_driver_told_before_it_shows() -> None:
    rig = running(Feature.SUSPEND.bit)
    rig.net.transmit([bytes(60)] * 2)
    assert rig.driver("set_status", SUSPENDED) == Return(10_001, 0, 15)
    assert rig.vmm("suspend", seq=5) is None
    assert not any(q.running for q in rig.device.queues)
    rig.step("port")
    assert rig.device.status == 15
    before = len(rig.to_vmm)
    rig.step("device")  # the packets, then Saved of all three
    assert rig.device.status == SUSPENDED
    assert rig.to_vmm[before:] == [Return(5, 0)]
    used = [m for m in rig.to_port if isinstance(m, Used)]
    assert [(m.queue, len(m.elems)) for m in used] == [(TX, 2), (RX, 2)]
    rig.settle()
    assert len(rig.got_on[0]) == 5
    assert rig.net.room == rig.size
    stats = rig.device.vdpa_stats
    assert (stats.suspends, stats.chains_handed_back) == (1, rig.size - 2)


def test_nothing_moves_while_it_is_suspended_and_no_kick_is_lost() -> None:
    rig = running()
    suspended(rig)
    assert rig.device.status == 15, "the driver did not negotiate the bit"
    rig.net.transmit([bytes(60)] * 2)
    assert rig.vmm("kick_vq", RX) == Return(77, 0)
    rig.settle()
    rig.device.tick(rig.now)
    assert len(rig.got_on[0]) == 3
    assert not rig.device.live(TX)
    assert rig.vmm("resume", seq=6) == Return(6, 0)
    rig.settle()
    assert len(rig.got_on[0]) == 5
    assert rig.port.stats.kicks_replayed == 2
    assert (rig.device.vdpa_stats.suspends, rig.device.vdpa_stats.resumes) == (1, 1)
    works(rig)


def test_what_is_so_already_is_answered_at_once() -> None:
    rig = running()
    assert rig.vmm("resume") == Return(77, 0)
    suspended(rig)
    assert rig.vmm("suspend") == Return(77, 0)
    assert rig.device.vdpa_stats.suspends == 1
    assert rig.device.vdpa_stats.resumes == 0


def test_by_the_status_bit() -> None:
    rig = running(Feature.SUSPEND.bit)
    rig.net.transmit([bytes(60)])
    assert rig.driver("set_status", SUSPENDED) == Return(10_001, 0, 15), "not yet"
    assert rig.driver("set_status", SUSPENDED) == Return(10_002, 0, 15)
    rig.settle()
    assert rig.driver("get_status") == Return(10_003, 0, SUSPENDED)
    assert len(rig.got_on[0]) == 4
    assert rig.driver("set_status", SUSPENDED) == Return(10_004, 0, SUSPENDED)
    rig.net.transmit([bytes(60)])
    rig.settle()
    assert rig.driver("set_status", 15) == Return(10_005, 0, 15)
    rig.settle()
    assert len(rig.got_on[0]) == 5
    assert (rig.device.vdpa_stats.suspends, rig.device.vdpa_stats.resumes) == (1, 1)
    assert rig.said == [], "set_status was answered once each"
    works(rig)


def test_a_suspend_that_is_taken_back_before_it_is_done() -> None:
    rig = running(Feature.SUSPEND.bit)
    rig.driver("set_status", SUSPENDED)
    assert rig.device.changes.machine.state is State.STOPPING
    rig.driver("set_status", 15)
    rig.settle()
    assert rig.device.status == 15
    assert not rig.device.suspended
    works(rig)


def test_a_status_bit_that_was_not_negotiated_is_refused() -> None:
    rig = running()
    answer = rig.driver("set_status", SUSPENDED)
    assert answer is not None
    assert answer.errno == errno.EINVAL
    works(rig)


def test_the_bit_before_the_driver_is_ready_means_nothing() -> None:
    rig = PairsRig(pairs=1, features=Feature.SUSPEND.bit)
    for op, value in (("set_status", 3), ("set_driver_features", rig.features), ("set_status", 11)):
        rig.driver(op, value)
    assert rig.driver("set_status", 11 | int(Status.SUSPEND)) == Return(10_004, 0, 11)
    assert rig.device.changes.machine.idle


def test_a_status_while_a_change_is_under_way() -> None:
    """Suspending waits for its turn; what else the driver says counts at once."""
    rig = running(Feature.SUSPEND.bit)
    assert rig.set_map() is None
    failed = SUSPENDED | int(Status.FAILED)
    assert rig.driver("set_status", failed) == Return(10_001, 0, 15 | int(Status.FAILED))
    assert rig.device.changes.machine.state is State.SUSPENDING
    rig.settle()
    assert rig.device.status == failed
    assert rig.to_vmm[-1] == Return(1002, 0)
    rig.vmm("resume")
    rig.settle()
    assert rig.device.status == failed, "the driver's own suspension is the driver's to end"
    rig.driver("set_status", failed & ~int(Status.SUSPEND))
    rig.settle()
    works(rig)


def test_a_driver_does_not_resume_what_a_vmm_has_suspended() -> None:
    """The state that the VMM has saved must not move."""
    rig = running(Feature.SUSPEND.bit)
    suspended(rig)
    assert rig.device.status == 15, "not the driver's doing"
    rig.driver("set_status", SUSPENDED)
    rig.settle()
    assert rig.device.status == SUSPENDED
    rig.driver("set_status", 15)
    rig.settle()
    assert (rig.device.status, rig.device.suspended) == (15, True)
    rig.vmm("resume")
    rig.settle()
    assert not rig.device.suspended
    works(rig)


def test_before_driver_ok_there_is_nothing_to_suspend() -> None:
    """As vhost-vdpa: answered, and the driver that comes later runs."""
    rig = PairsRig(pairs=1, features=0)
    assert rig.vmm("suspend") == Return(77, 0)
    assert not rig.device.suspended


def test_driver_ok_while_a_key_is_made() -> None:
    rig = PairsRig(pairs=1, features=0)
    rig.connect()
    calls = 0
    while rig.device.phase.name != "SETUP" or rig.to_device or rig.to_port:
        rig.step("device", 1)
        if any(isinstance(m, Return) for m in rig.to_port) and rig.device.ready == [True] * 3:
            break
        rig.step("port")
        calls += 1
        assert calls < 100
    rig.set_map()
    assert rig.device.changes.machine.state is State.KEYING
    rig.driver("set_status", 15)
    assert not any(queue.live for queue in rig.device.queues)
    rig.settle()
    assert rig.device.status == 15
    assert all(queue.running for queue in rig.device.queues)
    rig.net.start()
    rig.settle()
    works(rig)


def test_a_reset_resumes() -> None:
    rig = running(Feature.SUSPEND.bit)
    suspended(rig)
    assert rig.driver("set_status", 0) == Return(10_001, 0, 0)
    assert rig.device.status == 0
    assert not rig.device.suspended
    assert rig.vmm("resume") == Return(77, 0)
    assert rig.device.vdpa_stats.resumes == 0


def test_a_reset_while_suspending() -> None:
    """The VMM is answered; the device that begins anew is not suspended."""
    rig = running()
    rig.vmm("suspend", seq=5)
    rig.driver("reset")
    assert rig.to_vmm[-1] == Return(5, 0)
    assert not rig.device.suspended
    assert not rig.device.core.paused


# --- with changes of map ----------------------------------------------------------------------------------------------


def test_a_change_of_map_makes_no_queues_while_suspended() -> None:
    """mlx5 skips the restore; the queues are made at resume, under the new key."""
    rig = running()
    suspended(rig)
    key = rig.device.key(0)
    rig.net.transmit([bytes(60)] * 2)
    assert rig.set_map() is None
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.device.key(0) is not key
    assert not any(queue.live for queue in rig.device.queues)
    assert rig.device.suspended
    assert len(rig.got_on[0]) == 3
    assert rig.vmm("resume") == Return(77, 0)
    rig.settle()
    assert len(rig.got_on[0]) == 5
    works(rig)


def test_packets_from_the_cable_wait_while_suspended() -> None:
    rig = running()
    suspended(rig)
    backlog = rig.device.core.backend.backlog[0]
    backlog.append((bytes(12) + b"x" * 60, rig.now))
    for _ in range(2):
        rig.device.tick(rig.now)
        rig.settle()
        assert len(backlog) == 1
        rig.set_map()
        rig.settle()
    rig.vmm("resume")
    rig.settle()
    assert rig.got_on[0][3:] == [b"x" * 60]
    works(rig)


def test_a_queue_that_is_enabled_while_another_is_disabled() -> None:
    rig = running()
    rig.driver("set_vq_ready", RX, False)
    rig.settle()
    assert rig.driver("set_vq_ready", TX, False) is None
    assert rig.driver("set_vq_ready", RX, True) == Return(10_003, 0)
    assert not rig.device.queues[RX].live
    rig.settle()
    assert rig.device.queues[RX].running
    rig.driver("set_vq_ready", TX, True)
    works(rig)


def test_a_suspended_device_may_lose_its_map() -> None:
    """Its rings are looked for only where queues run: the queues wait for a map that has them."""
    rig = running()
    assert rig.vmm("reset_map", 0).errno == errno.EINVAL  # type: ignore[union-attr]
    suspended(rig)
    assert rig.vmm("reset_map", 0, seq=7) is None
    rig.settle()
    assert rig.to_vmm[-1] == Return(7, 0)
    assert rig.device.key(0) is None
    assert rig.vmm("reset_map", 0) == Return(77, 0), "nothing to do"


def test_a_queue_that_is_enabled_while_suspended_waits() -> None:
    rig = running(Feature.RING_RESET.bit)
    rig.driver("set_vq_ready", TX, False)
    rig.settle()
    suspended(rig)
    assert rig.driver("set_vq_ready", TX, True) == Return(10_002, 0)
    assert not rig.device.queues[TX].live
    rig.vmm("resume")
    rig.settle()
    works(rig)


def test_a_queue_that_is_reset_while_suspended() -> None:
    rig = running(Feature.RING_RESET.bit)
    suspended(rig)
    rig.net.tx_pause()
    assert rig.driver("reset_vq", TX) is None
    rig.settle()
    assert [answer.errno for answer in rig.said] == [0]
    rig.port.reset_queue(TX)
    rig.net.tx_reset()
    area = rig.areas[TX]
    for op, *args in (
        ("set_vq_num", TX, 8), ("set_vq_address", TX, area.desc, area.driver, area.device), ("set_vq_ready", TX, True),
    ):  # fmt: skip
        assert rig.driver(op, *args).errno == 0  # type: ignore[union-attr]
    rig.vmm("resume")
    rig.settle()
    rig.net.tx_resume()
    works(rig)


# --- lost links -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivered", [0, 1, 3])
@pytest.mark.parametrize("answered", [0, 1, 4])
def test_the_link_goes_down_while_suspending(delivered: int, answered: int) -> None:
    rig = running()
    rig.net.transmit([bytes(60)] * 2)
    rig.vmm("suspend", seq=5)
    assert [type(m) for m in rig.to_port] == [Suspend] * 3
    rig.step("port", delivered)
    rig.step("device", answered)
    rig.disconnect()
    rig.net.transmit([bytes(60)])
    rig.connect()
    rig.settle()
    assert rig.to_vmm[-1] == Return(5, 0)
    assert rig.device.suspended
    rig.vmm("resume")
    rig.settle()
    assert len(rig.got_on[0]) == 6
    works(rig)


def test_a_link_that_comes_back_does_not_wake_a_suspended_device() -> None:
    rig = running()
    suspended(rig)
    rig.disconnect()
    rig.net.transmit([bytes(60)])
    rig.connect()
    rig.settle()
    assert len(rig.got_on[0]) == 3
    assert rig.device.core.paused
    rig.vmm("resume")
    rig.settle()
    assert len(rig.got_on[0]) == 4
    works(rig)


def test_suspended_over_a_link_that_is_down() -> None:
    rig = running()
    rig.disconnect()
    assert rig.vmm("suspend", seq=5) is None
    assert rig.vmm("resume", seq=6) is None
    rig.connect()
    rig.settle()
    assert rig.to_vmm[-2:] == [Return(5, 0), Return(6, 0)]
    works(rig)


def test_resumed_before_the_port_has_said_where_it_stands() -> None:
    rig = running()
    suspended(rig)
    rig.disconnect()
    rig.connect()
    assert rig.vmm("resume", seq=6) == Return(6, 0)
    assert {type(m) for m in rig.to_port} == {CreateMkey}, "Resync first"
    rig.settle()
    works(rig)


# --- more than may wait -----------------------------------------------------------------------------------------------


def test_so_many_changes_wait_and_no_more() -> None:
    rig = Rig().start()
    rig.set_map()
    for n in range(MAX_WAITING):
        assert rig.vmm("suspend" if n % 2 else "resume", seq=n) is None
    answer = rig.vmm("suspend")
    assert answer is not None
    assert (answer.errno, answer.value) == (errno.EBUSY, f"suspend: {MAX_WAITING} changes wait for their turn")
    rig.settle()
    before = rig.to_vmm[-MAX_WAITING:]
    assert [answer.seq for answer in before] == list(range(MAX_WAITING)), "in order"
    assert {answer.errno for answer in before} == {0}
    assert rig.device.suspended


def test_a_map_without_the_rings_while_suspended_has_the_queues_wait_for_one_that_has_them() -> None:
    """Suspend, no map, a map of something else, resume. mlx5 would make queues of it and break them."""
    rig = Rig().start()
    rig.send(3)
    rig.settle()
    assert rig.vmm("suspend", seq=1) is None
    rig.settle()
    rig.set_map()  # takes the queue objects down
    for ranges in ([], [(1 << 40, 0x1000, RAM, 3)]):
        rig.vmm("set_map", 0, ranges, seq=2)
        rig.settle()
    rig.vmm("resume", seq=3)
    rig.settle()
    assert [answer.errno for answer in rig.to_vmm[-5:]] == [0] * 5
    assert rig.alarms == []
    assert not any(queue.live for queue in rig.device.queues)
    rig.vmm("set_map", 0, rig.space.ranges(), seq=4)
    rig.send(2)
    rig.settle()
    assert rig.ledger.close() == 0
    assert rig.ledger.rx == 5
