"""Changes of the memory map that meet lost links, restarts and resets, in every state."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

import pytest

from common.virtio.features import Feature
from common.wire.messages import Avail, Broken, Create, CreateMkey, Resync, Return, Suspend, Used
from services.guest_driver.net_pair import RX, TX
from services.vdpa_nic.map_change import State
from tests.services.vdpa_nic import nic_rig
from tests.services.vdpa_nic.nic_rig import Rig, at, unharmed

#: a NIC that can reset single queues too
running = partial(nic_rig.running, Feature.RING_RESET.bit)


def generation(rig: Rig) -> int:
    key = rig.device.changes.keys.get(0)
    assert key is not None
    return key.generation


# --- the link is lost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivered", [0, 1, 2])
@pytest.mark.parametrize("answered", [0, 1, 2])
def test_the_link_goes_down_in_mid_change(delivered: int, answered: int) -> None:
    """After none, one or both Suspend reached the port, and none, one or both answers reached the NIC."""
    rig = running()
    rig.send(4)
    assert rig.set_map() is None
    assert [type(m) for m in rig.to_port] == [Suspend, Suspend]
    rig.step("port", delivered)
    rig.step("device", answered + 1)  # the frames come first
    rig.disconnect()
    rig.send(2)
    rig.now += 1.0
    rig.connect()
    rig.settle()
    rig.interrupts()
    assert rig.alarms == []
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert generation(rig) == 2
    assert rig.ledger.outstanding == 0
    assert rig.ledger.rx == 8
    assert rig.device.queues[RX].in_hand == rig.size


def run_until(rig: Rig, holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        rig.step("port", 1)
        if holds():
            return
        rig.step("device", 1)
    raise AssertionError("never")


@pytest.mark.parametrize("delivered", range(6))
@pytest.mark.parametrize("times", [1, 2])
def test_the_link_goes_down_while_the_key_is_made(delivered: int, times: int) -> None:
    """After so many of Destroy, Destroy, CreateMkey reached the port; then again, in the same state."""
    rig = running()
    rig.send(4)
    rig.set_map()
    run_until(rig, lambda: at(rig) is State.KEYING)
    rig.step("port", delivered)
    for _ in range(times):
        rig.disconnect()
        rig.send(1)
        rig.connect()
    assert at(rig) is State.KEYING
    rig.settle()
    rig.interrupts()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert generation(rig) == 2
    unharmed(rig)


@pytest.mark.parametrize("delivered", range(6))
def test_the_link_goes_down_when_the_queues_were_made(delivered: int) -> None:
    """After so many of DestroyMkey, Create, Create, Resume, Resume reached the port."""
    rig = running()
    rig.send(4)
    rig.set_map()
    run_until(rig, lambda: any(isinstance(m, Create) for m in rig.to_port))
    assert rig.device.changes.machine.idle
    rig.step("port", delivered)
    rig.disconnect()
    rig.send(2)
    rig.connect()
    rig.settle()
    rig.interrupts()
    assert rig.to_vmm[-1] == Return(1002, 0)
    unharmed(rig)


@pytest.mark.parametrize("delivered", [0, 1, 2])
@pytest.mark.parametrize("answered", [0, 1, 2])
def test_the_link_goes_down_while_a_queue_is_disabled(delivered: int, answered: int) -> None:
    rig = running()
    rig.send(2)
    assert rig.driver("set_vq_ready", TX, False) is None
    rig.step("port", delivered)
    rig.step("device", answered)
    rig.disconnect()
    rig.connect()
    rig.settle()
    assert rig.device.changes.machine.idle
    assert not rig.device.queues[TX].live
    assert rig.driver("set_vq_ready", TX, True) == Return(10_002, 0)
    unharmed(rig)


def test_a_queue_that_has_said_where_it_stands_is_not_attached_under_the_old_key() -> None:
    """Saved of one queue arrives, the link breaks, both say again: the first must not fetch under the old key."""
    rig = running()
    rig.send(4)
    rig.step("device")
    rig.step("port")
    rig.step("device")  # the interrupts that nobody takes yet
    rig.set_map()
    rig.step("port")
    rig.step("device", 1)
    rig.disconnect()
    rig.interrupts()  # four receive buffers are available again
    rig.connect()
    for _ in range(20):
        rig.step("device", 1)
        rig.step("port", 1)
    unharmed(rig)


def test_a_change_that_begins_while_the_link_is_down() -> None:
    rig = running()
    rig.disconnect()
    assert rig.set_map() is None
    rig.send(4)
    rig.connect()
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    unharmed(rig)


def test_two_changes_around_a_reconnect() -> None:
    """A Suspend sent before the port's Resync arrived would be answered too late, and the answer be taken for that
    to the next change's."""
    rig = running()
    rig.disconnect()
    rig.connect()
    assert rig.set_map() is None
    assert [type(m) for m in rig.to_port] == [CreateMkey], "Resync will say where the queues stand"
    rig.step("device")
    assert at(rig) is State.KEYING
    rig.step("port")
    rig.step("device")
    assert rig.to_vmm[-1] == Return(1002, 0)
    rig.send(4)
    assert rig.set_map() is None
    rig.settle()
    assert generation(rig) == 3
    unharmed(rig)


def test_a_change_over_two_lost_links() -> None:
    """A queue that had said where it stands may have been attached by the connection in between."""
    rig = Rig(size=2).start()
    rig.disconnect()
    rig.connect()
    rig.send(1)  # kicked while suspended
    rig.step("device", 1)
    assert rig.set_map() is None, "between the two Resyncs"
    rig.step("device", 1)
    rig.disconnect()
    rig.connect()
    rig.settle()
    assert rig.alarms == []
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.ledger.outstanding == 0


def test_a_change_waits_for_every_resync_whatever_was_said_before() -> None:
    rig = running()
    assert rig.set_map() is None
    rig.step("port")
    rig.step("device", 1)  # the receive queue has said where it stands
    rig.disconnect()
    rig.connect()
    rig.device.frame(Broken(TX, "head", "while the link was down"))
    assert at(rig) is State.SUSPENDING, "the receive queue's Resync is not here"
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.device.queues[RX].in_hand == rig.size


def test_a_resync_that_cannot_be_breaks_the_queue_and_not_the_change() -> None:
    rig = running()
    rig.disconnect()
    assert rig.set_map() is None
    rig.up = True
    rig.device.reconnected()
    rig.device.frame(Resync(RX, 0, 0, 999, 0, 0))
    assert at(rig) is State.SUSPENDING
    rig.device.frame(Broken(TX, "x", "y"))
    assert at(rig) is State.KEYING
    rig.step("port")
    rig.step("device")
    assert rig.to_vmm[-1] == Return(1002, 0)


def test_no_queue_is_attached_before_all_have_said_where_they_stand() -> None:
    rig = running()
    rig.disconnect()
    rig.connect()
    rig.step("device", 1)
    assert [type(m) for m in rig.to_port] == [CreateMkey]
    rig.step("device", 1)
    assert [m.queue for m in rig.to_port if isinstance(m, Create)] == [TX, RX]


def test_answers_repeated_after_a_lost_link_leave_transmit_first() -> None:
    rig = running()
    rig.send(3)
    rig.step("device")
    assert [m.queue for m in rig.to_port if isinstance(m, Used)] == [TX, RX]
    rig.disconnect()
    rig.connect()
    rig.step("device", 1)
    assert [type(m) for m in rig.to_port] == [CreateMkey], "the receive queue's have to wait"
    rig.step("device")
    assert [m.queue for m in rig.to_port if isinstance(m, Used)] == [TX, RX]


@pytest.mark.parametrize("delivered", range(5))
@pytest.mark.parametrize("changing", [False, True])
def test_the_link_goes_down_before_the_port_heard_of_a_queue(delivered: int, changing: bool) -> None:
    """After so many of Create, Create, Resume, Resume: of the others no Resync comes."""
    rig = Rig()
    rig.set_map()
    rig.connect()
    run_until(rig, lambda: any(isinstance(m, Create) for m in rig.to_port))
    rig.step("port", delivered)
    rig.disconnect()
    rig.connect()
    if changing:
        assert rig.set_map() is None
    rig.settle()
    rig.net.start()
    unharmed(rig)
    assert rig.device.changes.machine.idle


def test_the_link_goes_down_again_while_a_restarted_nic_is_set_up() -> None:
    rig = running()
    rig.send(3)
    rig.step("device")
    rig.restart()
    rig.connect()
    run_until(rig, lambda: len(rig.device.resumed) == 2)
    assert rig.device.phase.name != "RUNNING"
    rig.disconnect()
    rig.connect()
    run_until(rig, lambda: not rig.device.awaited)
    assert not any(queue.live for queue in rig.device.queues)
    rig.settle()
    assert rig.device.status == 15
    rig.set_map()
    rig.settle()
    assert rig.ledger.close() == 0
    unharmed(rig)


def test_a_reset_before_the_port_has_said_where_it_stands() -> None:
    rig = running()
    rig.send(3)
    rig.step("device")
    rig.disconnect()
    rig.connect()
    assert rig.driver("set_status", 0) == Return(10_001, 0, 0)
    assert not any(isinstance(m, Used) for m in rig.to_port), "they might not fit where the port stands"
    assert rig.driver("get_vq_state", TX) == Return(10_002, 0, 5)
    assert not rig.device.awaited


# --- the NIC restarts -------------------------------------------------------------------------------------------------


def test_two_maps_before_the_resyncs_of_a_restarted_nic() -> None:
    rig = Rig(size=4, event_idx=False).start()
    ranges = rig.space.ranges()
    rig.restart()
    rig.connect()
    rig.settle()
    assert rig.device.status == 15, "and no map yet"
    rig.disconnect()
    rig.connect()
    rig.vmm("set_map", 0, ranges)
    assert not any(isinstance(m, Create) for m in rig.to_port)
    rig.set_map()
    rig.settle()
    assert rig.alarms == []
    assert rig.device.queues[RX].in_hand == 4
    rig.send(4)
    rig.settle()
    assert rig.ledger.outstanding == 0


@pytest.mark.parametrize("delivered", [0, 1, 2])
def test_a_nic_that_dies_between_its_answers_drops_and_never_doubles(delivered: int) -> None:
    rig = Rig(event_idx=False).start()
    rig.send(3)
    rig.step("device", 1)
    rig.step("port", delivered)
    rig.interrupts()
    rig.restart()
    rig.connect()
    rig.vmm("set_map", 0, rig.space.ranges())
    rig.settle()
    ledger = rig.ledger
    assert ledger.close() == 0
    assert (ledger.duplicated, ledger.re_executed) == (0, 0)
    assert ledger.reset_dropped == (3 if delivered == 1 else 0)


def test_a_restarted_nic_keeps_what_a_lost_link_left_behind() -> None:
    """The refetched chains came in part, then the link broke in a change: the part is not the tail of the queue."""
    rig = Rig(size=4).start()
    rig.send(2)
    rig.step("device", 0)
    rig.restart()
    rig.vmm("set_map", 0, rig.space.ranges())
    rig.connect()

    def refetched() -> list[Avail]:
        return [m for m in rig.to_device if isinstance(m, Avail) and m.queue == RX and m.again]

    while not refetched():
        rig.step("device")
        rig.step("port")
    (whole,) = refetched()
    assert rig.device.status == 15
    assert len(whole.chains) == 4
    # of one frame that carried all four the first two, as if it had been two frames
    rig.device.frame(Avail(RX, whole.generation, whole.first_idx, whole.chains[:2], whole.used_idx, True))
    assert rig.set_map() is None
    rig.disconnect()
    rig.connect()
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.alarms == []
    assert rig.device.queues[RX].in_hand == 4
    assert rig.ledger.close() == 0
    rig.send(4)
    rig.settle()
    assert rig.ledger.outstanding == 0


# --- the driver resets ------------------------------------------------------------------------------------------------


def test_a_reset_in_mid_change_ends_the_waiting() -> None:
    rig = running()
    assert rig.set_map() is None
    assert rig.driver("set_status", 0) == Return(10_001, 0, 0)
    assert at(rig) is State.KEYING
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert generation(rig) == 2
    assert rig.set_map() is None
    rig.settle()
    assert rig.to_vmm[-1] == Return(1003, 0)
    assert not rig.device.core.pairs[0].buffers
    assert rig.device.stats.resets == 1
    assert not any(queue.live for queue in rig.device.queues)


def test_a_reset_while_the_key_is_made() -> None:
    rig = running()
    rig.set_map()
    run_until(rig, lambda: at(rig) is State.KEYING)
    rig.driver("set_status", 0)
    assert at(rig) is State.KEYING
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert generation(rig) == 2
    assert not any(queue.live for queue in rig.device.queues)
    assert not any(isinstance(m, Create) for m in rig.to_port)


def test_a_reset_while_a_queue_is_reset() -> None:
    rig = running()
    assert rig.driver("reset_vq", TX) is None
    rig.driver("set_status", 0)
    rig.settle()
    assert [(answer.seq, answer.errno) for answer in rig.said] == [(10_001, 0)]
    assert rig.device.changes.machine.idle
    assert rig.driver("get_vq_state", TX) == Return(10_003, 0, 0)


def test_a_reset_with_changes_that_wait() -> None:
    rig = running()
    rig.set_map()
    rig.vmm("suspend", seq=1)
    rig.set_map()
    rig.driver("set_status", 0)
    rig.settle()
    answers = [(answer.seq, answer.errno) for answer in rig.to_vmm[-3:]]
    assert answers == [(1, errno.ECANCELED), (1002, 0), (1003, 0)], "maps are the VMM's"
    assert rig.device.changes.machine.idle
    assert not rig.device.suspended
