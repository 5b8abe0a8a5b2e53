"""Operations in orders that nobody would choose: each ends in what its answer says."""

from __future__ import annotations

import errno

import pytest

from common.virtio.features import Feature
from common.wire.messages import Call, Return, Saved
from services.guest_driver.net_pair import RX, TX
from tests.services.vdpa_nic.nic_rig import Rig


def running(features: int = 0) -> Rig:
    rig = Rig(size=8)
    rig.features |= features
    return rig.start()


def disable_and_enable(rig: Rig) -> None:
    """As vhost stops and starts a ring: GET_VRING_BASE, SET_VRING_BASE."""
    for index in (TX, RX):
        rig.driver("set_vq_ready", index, False)
        rig.settle()
    for index in (RX, TX):
        base = rig.driver("get_vq_state", index)
        assert base is not None
        ring = rig.port.queues[index].ring
        assert ring is not None
        for op, args in (("set_vq_state", (base.value, ring.used_idx)), ("set_vq_ready", (True,))):
            answer = rig.driver(op, index, *args)
            assert answer is not None
            assert answer.errno == 0, answer
    rig.settle()


@pytest.mark.parametrize("lost", [False, True], ids=["", "lost link"])
def test_a_ring_that_is_stopped_and_started_again(lost: bool) -> None:
    """Answers that the port has not confirmed are neither counted as under way nor sent as new."""
    rig = running()
    for _ in range(3):
        rig.send(4)
        rig.settle()
    disable_and_enable(rig)
    if lost:
        rig.disconnect()
        rig.connect()
        rig.settle()
    for _ in range(3):
        rig.send(8)
        rig.settle()
    assert rig.alarms == []
    assert rig.ledger.close() == 0


def test_a_queue_that_is_being_reset_cannot_be_enabled() -> None:
    rig = running(Feature.RING_RESET.bit)
    assert rig.driver("reset_vq", TX) is None
    answer = rig.driver("set_vq_ready", TX, True)
    assert answer is not None
    assert answer.errno == errno.EBUSY
    rig.settle()
    assert rig.device.ready[TX] is False


def test_nor_one_that_waits_to_be_disabled() -> None:
    rig = running()
    rig.set_map()
    assert rig.driver("set_vq_ready", TX, False) is None
    answer = rig.driver("set_vq_ready", TX, True)
    assert answer is not None
    assert answer.errno == errno.EBUSY
    rig.settle()
    assert rig.driver("set_vq_ready", TX, True) == Return(10_003, 0)
    rig.send(3)
    rig.settle()
    assert rig.ledger.close() == 0


def test_a_saved_index_that_cannot_be_breaks_the_queue_with_the_reason() -> None:
    rig = running()
    rig.set_map()
    rig.step("port")
    for at, message in enumerate(rig.to_device):
        if isinstance(message, Saved) and message.queue == TX:
            rig.to_device[at] = Saved(TX, message.index + 3, message.avail, message.used, message.in_flight)
    rig.settle()
    assert rig.device.queues[TX].broken
    assert "saved.index" in str(rig.alarms)
    assert rig.to_vmm[-1] == Return(1002, 0), "the change goes on without it"


def test_queues_that_a_suspended_device_will_make_hold_their_group() -> None:
    rig = running()
    rig.vmm("suspend")
    rig.settle()
    rig.set_map()  # takes the queue objects down
    rig.settle()
    answer = rig.vmm("set_group_asid", 0, 1)
    assert answer is not None
    assert answer.errno == errno.EBUSY


def test_a_call_that_fails_leaves_no_rights_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = running()

    def fail() -> int:
        raise RuntimeError

    monkeypatch.setattr(rig.device, "op_get_status", fail)
    with pytest.raises(RuntimeError):
        rig.device.vmm_frame(Call(5, "get_status", []))
    answer = rig.driver("suspend")
    assert answer is not None
    assert answer.errno == errno.EPERM


def test_a_ring_outside_the_map_is_said_once() -> None:
    rig = Rig(size=8)
    rig.vmm("set_map", 0, [(1 << 40, 4096, 0x4000_0000, 3)])
    rig.connect()
    rig.settle()
    assert rig.device.vdpa_stats.waits_for_map == 2
    assert rig.logged.count("queue_waits_for_map") == 2
    assert rig.alarms == []
    rig.vmm("set_map", 0, rig.space.ranges())
    rig.settle()
    assert all(rig.device.queues[queue].running for queue in (RX, TX))
