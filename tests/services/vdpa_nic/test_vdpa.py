"""vDPA operations: who may call what and when, maps that are refused, address spaces, faults, queues that break."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from common.errors import RemoteError
from common.virtio.features import DESC_F_WRITE, Feature, Status
from common.virtio.vdpa_ops import OPS
from common.wire.messages import Avail, Broken, Call, Create, Destroy, Notice, Resync, Return, Saved, Suspend
from services.guest_driver.net_pair import RX, TX
from services.vdpa_nic.nic import MAX_MAPPINGS
from services.vdpa_nic.vdpa import MAP_OPS, MORE_OPS, VMM_OPS
from tests.services.vdpa_nic.nic_rig import Rig, running, works
from tests.services.vdpa_nic.pairs_rig import PairsRig
from tests.services.vdpa_nic.wire_rig import BYTES, IOVA, RAM, WINDOW

# --- maps that are refused --------------------------------------------------------------------------------------------


def refused(rig: Rig, op: str, *args: Any) -> tuple[int, str]:
    """Refused at once: nothing stopped, the old key stays."""
    before = rig.device.key(0)
    sent = len(rig.to_port)
    answer = rig.vmm(op, *args)
    assert answer is not None
    assert answer.errno
    assert len(rig.to_port) == sent, "no queue was told to stop"
    assert rig.device.changes.machine.idle
    assert rig.device.key(0) is before, "the old key stays in force"
    assert "call_refused" in rig.logged
    works(rig)
    return answer.errno, answer.value


RINGS = (RAM + IOVA, BYTES, RAM, 3)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ([[0, 4096, 0, 3], [4095, 4096, 0, 3]], "overlaps"),
        ([[(1 << 64) - 4096, 4097, 0, 3]], "beyond 64 bits"),
        ([[0, 4096, (1 << 64) - 1, 3]], "beyond 64 bits"),
        ([[0, 0, 0, 3]], "empty"),
        ([[-1, 10, 0, 3]], "empty or beyond"),
        ([[0, 4096, 0, 0]], "map.perm"),
        ([[0, 4096, 0, 4]], "map.perm"),
        ([RINGS, [RAM + IOVA, 1, RAM, 1]], "overlaps"),
    ],
)
def test_maps_that_are_refused(ranges: list[list[int]], said: str) -> None:
    rig = running()
    code, reason = refused(rig, "set_map", 0, ranges)
    assert code == errno.EINVAL
    assert said in reason
    assert rig.device.vdpa_stats.map_refused == 1


def test_a_map_without_the_rings_is_refused_before_anything_stops() -> None:
    rig = running()
    code, reason = refused(rig, "set_map", 0, [])
    assert code == errno.EINVAL
    assert reason.startswith("map: desc area of queue 0")
    for index, name, at in ((0, "driver", rig.areas[0].driver), (1, "device", rig.areas[1].device)):
        hole = [[RAM + IOVA, at - RAM - IOVA, RAM, 3], [at + 4, BYTES - (at + 4 - RAM - IOVA), at + 4 - IOVA, 3]]
        assert refused(rig, "set_map", 0, hole)[1].startswith(f"map: {name} area of queue {index} at {at:#x}")
    assert refused(rig, "set_map", 0, [[*RINGS[:3], 1]])[1].startswith("map: device area of queue 0"), "read only"
    assert refused(rig, "reset_map", 0)[0] == errno.EINVAL
    assert refused(rig, "dma_unmap", 0, RINGS[0], RINGS[1])[0] == errno.EINVAL
    assert rig.device.vdpa_stats.map_refused == 6


def test_a_broken_queue_needs_no_map() -> None:
    rig = running()
    for index in (RX, TX):
        rig.device.frame(Broken(index, "head", "nonsense"))
    assert rig.vmm("set_map", 0, []) is None
    rig.settle()
    assert rig.to_vmm[-1] == Return(77, 0)
    assert rig.device.key(0) is None


def test_too_many_mappings() -> None:
    ranges = [[n << 13, 4096, RAM, 3] for n in range(MAX_MAPPINGS + 1)]
    rig = running()
    assert refused(rig, "set_map", 0, ranges)[0] == errno.E2BIG
    assert rig.device.vdpa_stats.map_refused == 1
    rig = Rig()
    rig.vmm("set_map", 1, ranges[:-1])
    rig.connect()
    rig.settle()
    assert rig.to_vmm == [Return(77, 0)]
    answer = rig.vmm("dma_map", 1, MAX_MAPPINGS << 13, 4096, RAM, 3)
    assert answer is not None
    assert answer.errno == errno.ENOSPC
    assert rig.device.vdpa_stats.map_refused == 1


@pytest.mark.parametrize("asid", [-1, 2])
def test_address_spaces_that_there_are_not(asid: int) -> None:
    rig = running()
    for op, args in (
        ("set_map", [[]]), ("dma_map", [0, 4096, RAM, 3]), ("dma_unmap", [0, 4096]), ("reset_map", []),
    ):  # fmt: skip
        assert refused(rig, op, asid, *args) == (errno.EINVAL, f"asid {asid}: limit 1")


def test_the_same_map_again_costs_nothing() -> None:
    rig = running()
    key = rig.device.key(0)
    assert key is not None
    sent = len(rig.to_port)
    assert rig.vmm("set_map", 0, rig.space.ranges()) == Return(77, 0)
    assert rig.device.key(0) is key
    assert len(rig.to_port) == sent
    assert rig.device.vdpa_stats.map_changes == 1


@pytest.mark.parametrize("args", [[], [0], [0, [[0, 1, 2]]], ["0", []], [0, [], 2]])
def test_calls_of_another_shape(args: list[Any]) -> None:
    assert refused(running(), "set_map", *args)[0] == errno.EINVAL


# --- who may call what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(MAP_OPS))
def test_what_is_the_vmms_alone(op: str) -> None:
    """The guest's own link carries calls too; were one of them set_map, the answer would be nobody's."""
    rig = running()
    rig.from_port(Call(5, op, [9, []]))
    rig.step("device")
    answer = rig.to_port.popleft()
    assert isinstance(answer, Return)
    assert (answer.seq, answer.errno) == (5, errno.EPERM)
    assert rig.device.changes.machine.idle


@pytest.mark.parametrize("op", sorted((OPS.keys() | MORE_OPS.keys()) - VMM_OPS))
def test_what_is_the_drivers_alone(op: str) -> None:
    rig = running()
    answer = rig.vmm(op, 0)
    assert answer is not None
    assert answer.errno == errno.EPERM
    assert rig.device.status == 15
    assert rig.device.ready[:2] == [True, True]


def test_an_operation_that_there_is_not() -> None:
    rig = running()
    answer = rig.vmm("no_such_thing")
    assert answer is not None
    assert answer.errno == errno.EOPNOTSUPP


def test_what_a_vmm_may_look_at() -> None:
    rig = running()
    assert rig.vmm("get_device_id") == Return(77, 0, 1)
    assert rig.vmm("get_status") == Return(77, 0, 15)
    assert rig.vmm("get_vq_num_max", TX) == Return(77, 0, 8)
    assert rig.vmm("get_vq_ready", TX) == Return(77, 0, True)
    assert rig.vmm("get_vq_group", 2) == Return(77, 0, 1)
    assert rig.vmm("get_driver_features") == Return(77, 0, rig.features)
    for op in ("get_vq_state", "get_vq_group", "kick_vq"):
        answer = rig.vmm(op, 3)
        assert answer is not None
        assert (answer.errno, answer.value) == (errno.EINVAL, "queue 3: there are 3")


def test_a_kick_of_the_vmm_rings_the_doorbell() -> None:
    rig = running()
    rig.memory.write(RAM + 0x30000, bytes(60))
    rig.rings[TX].add([(RAM + 0x30000 + IOVA, 60)], [], "quiet")  # no kick
    assert rig.vmm("kick_vq", TX) == Return(77, 0)
    rig.settle()
    assert rig.port.stranded(TX) == 0
    assert rig.device.core.stats.tx_frames == 3


def test_what_an_enabled_queue_does_not_take() -> None:
    rig = running()
    area = rig.areas[TX]
    for op, *args in (
        ("set_vq_num", TX, 4), ("set_vq_address", TX, area.desc, area.driver, area.device), ("set_vq_state", TX, 0),
    ):  # fmt: skip
        answer = rig.driver(op, *args)
        assert answer is not None
        assert (answer.errno, answer.value) == (errno.EBUSY, "queue 1: is enabled")
    works(rig)


# --- groups and address spaces ----------------------------------------------------------------------------------------


def separate() -> PairsRig:
    """The control queue in an address space of its own, where the guest's memory lies elsewhere."""
    rig = PairsRig(pairs=2)
    assert rig.vmm("set_group_asid", 1, 1) == Return(77, 0)
    rig.vmm("set_map", 1, rig.space.ranges(), seq=5)
    rig.vmm("set_map", 0, rig.space.ranges(), seq=6)
    rig.connect()
    rig.settle()
    assert rig.to_vmm[-2:] == [Return(5, 0), Return(6, 0)]
    for net in rig.nets:
        net.start()
    rig.settle()
    return rig


def test_the_control_queue_changes_its_map_while_the_data_queues_run() -> None:
    rig = separate()
    data, ctrl = rig.device.key(0), rig.device.key(rig.ctrl_queue)
    assert data is not None
    assert ctrl is not None
    assert data is not ctrl
    rig.vmm("dma_map", 1, WINDOW[0] + IOVA, WINDOW[1], WINDOW[0], 3)
    assert [m.queue for m in rig.to_port if isinstance(m, Suspend)] == [rig.ctrl_queue]
    assert all(rig.device.queues[i].running for i in range(4))
    rig.settle()
    assert rig.to_vmm[-1] == Return(77, 0)
    assert rig.device.key(0) is data
    assert rig.device.key(rig.ctrl_queue) is not ctrl
    assert rig.use_pairs(2) == 0
    # and the other way round
    rig.vmm("dma_map", 0, WINDOW[0] + IOVA, WINDOW[1], WINDOW[0], 3)
    assert sorted(m.queue for m in rig.to_port if isinstance(m, Suspend)) == [0, 1, 2, 3]
    rig.ask(4, 0, b"\1\0")
    rig.settle()
    assert rig.answer() == 0
    rig.nets[0].transmit([bytes(60)])
    rig.settle()
    assert rig.got_on[0] == [bytes(60)]


def test_a_group_of_which_a_queue_runs_keeps_its_address_space() -> None:
    rig = separate()
    for group in (0, 1):
        answer = rig.vmm("set_group_asid", group, 0)
        assert answer is not None
        assert (answer.errno, answer.value) == (errno.EBUSY, f"group {group}: a queue of it is running")
    answer = rig.vmm("set_group_asid", 2, 0)
    assert answer is not None
    assert answer.errno == errno.EINVAL


def test_a_group_that_is_torn_down_for_a_change_keeps_its_address_space() -> None:
    rig = separate()
    rig.vmm("dma_map", 0, WINDOW[0] + IOVA, WINDOW[1], WINDOW[0], 3, seq=9)
    rig.step("port")
    rig.step("device")
    assert not rig.device.queues[0].live
    answer = rig.vmm("set_group_asid", 0, 1)
    assert answer is not None
    assert answer.errno == errno.EBUSY
    rig.settle()
    assert rig.to_vmm[-1] == Return(9, 0)


def test_queues_that_wait_for_a_key_start_when_their_group_gets_one() -> None:
    rig = PairsRig(pairs=2)
    rig.vmm("set_map", 1, rig.space.ranges())
    rig.connect()
    rig.settle()
    assert rig.device.status == 15
    assert not any(queue.live for queue in rig.device.queues)
    assert rig.vmm("set_group_asid", 1, 1) == Return(77, 0)
    assert [queue.index for queue in rig.device.queues if queue.live] == [rig.ctrl_queue]
    rig.settle()
    assert rig.use_pairs(2) == 0
    assert rig.vmm("set_group_asid", 0, 1) == Return(77, 0)
    rig.settle()
    for net in rig.nets:
        net.start()
    rig.nets[1].transmit([bytes(60)])
    rig.settle()
    assert rig.got_on[1] == [bytes(60)]


def test_a_reset_gives_every_group_address_space_0() -> None:
    """Maps outlive it (VHOST_BACKEND_F_IOTLB_PERSIST)."""
    rig = separate()
    rig.driver("set_status", 0)
    assert rig.device.spaces.asid_of(1) == 0
    assert rig.device.changes.keys.keys() == {0, 1}


# --- faults -----------------------------------------------------------------------------------------------------------


def faults(rig: Rig) -> tuple[int, int, int]:
    stats = rig.device.vdpa_stats
    return stats.faults_unmapped, stats.faults_permission, stats.faults_stale_key


def takes(rig: Rig, addr: int, flags: int, data: bytes = b"", queue: int = RX) -> None:
    """The port tells of one chain, whatever the guest's memory says."""
    at = rig.device.queues[queue]
    head = next(head for head in range(at.size) if head not in at._in_hand)
    key = rig.device.key(queue)
    assert key is not None
    chain = (head, data, ((addr, len(data) or 64, flags),))
    rig.device.frame(Avail(queue, key.generation, at.next_idx, [chain], at.confirmed_idx))


def test_an_address_that_is_not_mapped() -> None:
    """A receive buffer is not read by the port: the NIC looks at its address, whoever sent it."""
    rig = Rig().start()
    rig.send(1)
    rig.step("device")
    takes(rig, RAM, DESC_F_WRITE)  # a guest address, not an I/O virtual one
    assert faults(rig) == (1, 0, 0)
    assert rig.device.queues[RX].broken
    assert not rig.device.core.pairs[0].buffers, "the others of this queue are of no use any more"
    assert rig.device.status & Status.DEVICE_NEEDS_RESET
    assert [type(m) for m in rig.alarms] == [Broken, Notice]
    # the transmit queue runs on; what would be received is dropped, as on a NIC whose receive queue is off
    rig.step("port")
    rig.net.tx_callback()
    rig.send(4)
    rig.step("device")
    rig.step("port")
    rig.net.tx_callback()
    assert rig.net.room == rig.size
    assert rig.device.core.stats.rx_dropped == 4


def test_a_mapping_that_does_not_grant_the_access() -> None:
    rig = Rig().start()
    rig.vmm("dma_map", 0, WINDOW[0] + IOVA, WINDOW[1], WINDOW[0], 1)
    rig.settle()
    rig.send(1)
    rig.step("device")
    takes(rig, WINDOW[0] + IOVA, DESC_F_WRITE)
    assert faults(rig) == (0, 1, 0)
    assert [q.index for q in rig.device.queues if q.broken] == [RX]
    takes(rig, WINDOW[0] + IOVA, 0, bytes(20), queue=TX)
    assert not rig.device.queues[TX].broken, "it may be read"


def test_a_key_that_is_not_in_force_any_more() -> None:
    rig = running()
    queue = rig.device.queues[TX]
    rig.device.frame(Avail(TX, 9, queue.next_idx, [], queue.confirmed_idx))
    assert faults(rig) == (0, 0, 1)
    alarm = rig.alarms[0]
    assert isinstance(alarm, Broken)
    assert alarm.field == "avail.generation"
    assert [q.index for q in rig.device.queues if q.broken] == [TX]


def broken_tx(rig: Rig) -> None:
    """The driver names an address outside the key."""
    rig.rings[TX].add_batch([(RAM + IOVA + BYTES + (1 << 30), 60, "bad")], 0)
    rig.port.doorbell(TX)


def test_an_address_outside_the_key_breaks_its_queue_alone() -> None:
    """The port finds it first, because it reads the bytes there."""
    rig = running()
    broken_tx(rig)
    rig.settle()
    assert [type(m) for m in rig.alarms] == [Broken, Notice]
    assert rig.device.status & Status.DEVICE_NEEDS_RESET
    assert rig.device.queues[TX].broken
    assert not rig.device.queues[RX].broken
    assert rig.device.stats.rings_broken == 1
    assert rig.set_map() is None, "the other queue still changes its map"
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.device.queues[RX].in_hand == rig.size


def test_a_broken_nic_that_is_reset_works_again() -> None:
    rig = running()
    broken_tx(rig)
    rig.settle()
    assert rig.driver("set_status", 0) == Return(10_001, 0, 0)
    rig.port.reset()
    rig.settle()
    assert rig.device.status == 0
    assert not rig.device.queues[TX].broken
    before = [type(m) for m in rig.to_port]
    assert Create not in before
    assert Destroy not in before


def test_a_late_answer_to_suspend_means_nothing() -> None:
    rig = running()
    rig.device.frame(Saved(RX, 0, 0, 0, 0))
    assert rig.device.changes.machine.idle
    with pytest.raises(RemoteError):
        rig.device.frame(Saved(3, 0, 0, 0, 0))


def test_a_resync_that_cannot_be_leaves_the_other_queue_attached() -> None:
    rig = running()
    rig.disconnect()
    rig.connect()
    rig.step("device", 1)
    assert isinstance(rig.to_device.popleft(), Resync)
    rig.device.frame(Resync(TX, 0, 0, 999, 0, 0))
    assert [m.queue for m in rig.to_port if isinstance(m, Create)] == [RX]
    rig.settle()
    assert rig.device.queues[RX].in_hand == rig.size


def test_a_reset_of_a_queue_needs_its_feature() -> None:
    rig = running()
    answer = rig.driver("reset_vq", TX)
    assert answer is not None
    assert (answer.errno, answer.value) == (errno.EOPNOTSUPP, "reset_vq: RING_RESET was not negotiated")
    rig = PairsRig(pairs=1, features=Feature.RING_RESET.bit).start()
    answer = rig.driver("reset_vq", 3)
    assert answer is not None
    assert answer.errno == errno.EINVAL
