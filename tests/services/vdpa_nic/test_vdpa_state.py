"""get_vq_state and set_vq_state: the right index whatever became of the queue; a state that cannot be is refused."""

from __future__ import annotations

import errno

import pytest

from common.virtio.features import Feature, Status
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Broken
from services.guest_driver.net_pair import RX, TX
from tests.services.vdpa_nic.nic_rig import Rig
from tests.services.vdpa_nic.pairs_rig import PairsRig
from tests.services.vdpa_nic.wire_rig import IOVA, RAM, WORLD


def running(*, features: int = Feature.RING_RESET.bit) -> PairsRig:
    """Three frames were echoed: transmit at 3, receive has 3 completed buffers and 8 in hand."""
    rig = PairsRig(pairs=1, features=features).start()
    rig.net.transmit([bytes(60)] * 3)
    rig.settle()
    assert (state(rig, RX), state(rig, TX), state(rig, 2)) == (11, 3, 0)
    return rig


def state(rig: Rig, index: int) -> int:
    """As both sides hear it."""
    by_vmm, by_driver = rig.vmm("get_vq_state", index), rig.driver("get_vq_state", index)
    assert by_vmm is not None
    assert by_driver is not None
    assert by_vmm.value == by_driver.value
    assert isinstance(by_vmm.value, int)
    return by_vmm.value


def done(rig: Rig, op: str, *args: object) -> None:
    """A call of the driver's that is answered later."""
    said = len(rig.said)
    assert rig.driver(op, *args) is None
    rig.settle()
    assert [answer.errno for answer in rig.said[said:]] == [0]


def set_up(rig: Rig, index: int) -> None:
    area = rig.areas[index]
    for op, *args in (
        ("set_vq_num", index, area.size), ("set_vq_address", index, area.desc, area.driver, area.device),
        ("set_vq_cb", index, 40 + index), ("set_vq_ready", index, True),
    ):  # fmt: skip
        answer = rig.driver(op, *args)
        assert answer is not None
        assert answer.errno == 0, answer
    rig.settle()


def test_a_queue_that_never_lived() -> None:
    rig = Rig()
    assert [state(rig, index) for index in range(3)] == [0, 0, 0]


def test_of_a_queue_that_stands_the_next_entry_that_it_takes() -> None:
    rig = running()
    rig.net.transmit([bytes(60)])
    assert state(rig, TX) == 3, "on its way"
    rig.step("device")
    assert state(rig, TX) == 4


def test_suspend_hands_back_what_was_not_used() -> None:
    rig = running()
    assert rig.vmm("suspend") is None
    rig.settle()
    assert (state(rig, RX), state(rig, TX)) == (3, 3), "eight receive buffers were in hand"
    rig.net.transmit([bytes(60)] * 2)
    rig.settle()
    assert state(rig, TX) == 3
    rig.vmm("resume")
    rig.settle()
    assert (state(rig, RX), state(rig, TX)) == (13, 5)
    assert len(rig.got_on[0]) == 5


def test_reset_of_the_device() -> None:
    """A VMM asks after the reset (QEMU: "VQ 0 ring restore failed" where the answer is an error)."""
    rig = running()
    rig.driver("set_status", 0)
    assert (state(rig, RX), state(rig, TX)) == (3, 3)
    rig.driver("reset")
    assert (state(rig, RX), state(rig, TX)) == (3, 3), "a second reset forgets nothing"


def test_reset_of_the_device_and_a_new_beginning() -> None:
    rig = running()
    rig.driver("set_status", 0)
    rig.settle()
    rig.port.reset()
    rig.script = None
    for net in rig.nets:
        net.rx_pause()
        net.tx_pause()
        net.rx_reset()
        net.tx_reset()
    rig.rings[2].reinit()
    rig.call("get_status", [])
    rig.settle()
    assert rig.device.status == 15
    for net in rig.nets:
        net.rx_resume()
        net.tx_resume()
    rig.settle()
    assert (state(rig, RX), state(rig, TX)) == (8, 0), "set up anew, at 0"
    rig.net.transmit([bytes(60)])
    rig.settle()
    assert state(rig, TX) == 1


def test_reset_in_the_middle_of_a_change_of_map() -> None:
    rig = running()
    rig.set_map()
    rig.step("port")
    rig.step("device")
    assert not rig.device.queues[TX].live
    assert (state(rig, RX), state(rig, TX)) == (3, 3), "torn down, waiting for the new key"
    rig.driver("set_status", 0)
    assert (state(rig, RX), state(rig, TX)) == (3, 3)
    rig.settle()
    assert rig.to_vmm[-1].errno == 0
    assert (state(rig, RX), state(rig, TX)) == (3, 3)


def test_a_map_that_the_port_refuses() -> None:
    rig = running()
    rig.vmm("dma_map", 0, 0, 4096, RAM + (1 << 29), 3, seq=5)
    rig.step("port")
    rig.step("device")
    assert (state(rig, RX), state(rig, TX)) == (3, 3)
    rig.settle()
    (answer,) = [answer for answer in rig.to_vmm if answer.seq == 5]
    assert answer.errno == errno.EFAULT
    assert (state(rig, RX), state(rig, TX)) == (11, 3), "the old key's queues run on"


def test_ring_reset_begins_at_0() -> None:
    rig = running()
    rig.net.tx_pause()
    done(rig, "reset_vq", TX)
    assert (state(rig, RX), state(rig, TX)) == (11, 0)
    assert rig.device.vdpa_stats.vq_resets == 1
    rig.port.reset_queue(TX)
    rig.net.tx_reset()
    set_up(rig, TX)
    rig.net.tx_resume()
    assert state(rig, TX) == 0
    rig.net.transmit([bytes(60)] * 2)
    rig.settle()
    assert (state(rig, RX), state(rig, TX)) == (13, 2)
    assert len(rig.got_on[0]) == 5


def test_ring_reset_of_a_receive_queue() -> None:
    rig = running()
    rig.net.rx_pause()
    done(rig, "reset_vq", RX)
    assert state(rig, RX) == 0
    rig.port.reset_queue(RX)
    rig.net.rx_reset()
    set_up(rig, RX)
    rig.net.rx_resume()
    rig.settle()
    assert state(rig, RX) == 8
    rig.net.transmit([bytes(60)])
    rig.settle()
    assert len(rig.got_on[0]) == 4


def broken(rig: Rig) -> tuple[bool, bool]:
    return rig.device.queues[TX].broken, rig.port.queues[TX].broken


def test_ring_reset_revives_a_broken_queue() -> None:
    rig = running()
    rig.net.transmit([bytes(60)])
    rig.settle()
    rig.rings[TX].add([(1 << 40, 60)], [], "bad")
    rig.port.doorbell(TX)
    rig.settle()
    assert broken(rig) == (True, True)
    rig.net.tx_pause()
    done(rig, "reset_vq", TX)
    rig.port.reset_queue(TX)
    rig.rings[TX].reinit()
    set_up(rig, TX)
    rig.net.tx_resume()
    assert broken(rig) == (False, False)
    rig.net.transmit([bytes(60)])
    rig.settle()
    assert len(rig.got_on[0]) == 5
    assert rig.device.status & Status.DEVICE_NEEDS_RESET, "only a reset of the device takes that back"


def test_disabled_and_enabled_again() -> None:
    rig = running()
    for _ in range(2):
        done(rig, "set_vq_ready", TX, False)
        assert state(rig, TX) == 3
        done(rig, "set_vq_ready", RX, False)
        assert state(rig, RX) == 3
        assert rig.device.vdpa_stats.vq_resets == 0
        set_up(rig, RX)
        set_up(rig, TX)
        assert (state(rig, RX), state(rig, TX)) == (11, 3)
    rig.net.transmit([bytes(60)] * 2)
    rig.settle()
    assert len(rig.got_on[0]) == 5


def test_disabled_while_a_frame_is_on_its_way() -> None:
    rig = running()
    assert rig.driver("set_vq_ready", TX, False) is None
    rig.net.transmit([bytes(60)])
    rig.settle()
    assert state(rig, TX) == 3, "fetched, not sent"
    assert len(rig.got_on[0]) == 3
    set_up(rig, TX)
    assert len(rig.got_on[0]) == 4


def test_a_queue_that_is_disabled_when_its_teardown_is_lost() -> None:
    """The port still holds the object of a queue that the driver then sets up elsewhere."""
    rig = running()
    assert rig.driver("set_vq_ready", TX, False) is None
    rig.step("port")
    rig.step("device")
    assert not rig.device.queues[TX].live
    rig.disconnect()
    rig.connect()
    rig.settle()
    at = SplitLayout.packed_at(rig.layout.alloc(sum(SplitLayout.sizes(8)) + 128, 4096), 8)
    rig.areas[TX] = SplitLayout(8, at.desc + IOVA, at.driver + IOVA, at.device + IOVA)
    ring = SplitDriver(WORLD, rig.memory, at, event_idx=True, start=3)
    rig.memory.write(RAM + 0x30000, bytes(72))
    ring.add([(RAM + 0x30000 + IOVA, 72)], [], "new")
    set_up(rig, TX)
    assert ring.get_buf() == ("new", 0)
    assert state(rig, TX) == 4


# --- a saved state that cannot be -------------------------------------------------------------------------------------


def setting_up() -> Rig:
    """As far as FEATURES_OK, with sizes."""
    rig = Rig()
    rig.set_map()
    rig.connect()
    rig.script = iter(())  # type: ignore[assignment]
    rig.settle()
    for op, args in (
        ("set_status", [3]), ("set_driver_features", [rig.features]), ("set_status", [11]),
        ("set_vq_num", [TX, 8]), ("set_vq_num", [RX, 8]),
    ):  # fmt: skip
        answer = rig.driver(op, *args)
        assert answer is not None
        assert answer.errno == 0
    return rig


@pytest.mark.parametrize(("avail", "used"), [(9, 0), (8, 0xFFFF), (0, 1), (3, 0xFFFA), (0, 0x8000)])
def test_more_in_between_than_the_queue_has_entries(avail: int, used: int) -> None:
    rig = setting_up()
    answer = rig.driver("set_vq_state", TX, avail, used)
    assert answer is not None
    assert answer.errno == errno.EINVAL
    assert "vq_state.used" in answer.value
    assert "more than 8 entries" in answer.value
    assert state(rig, TX) == 0, "and nothing has changed"
    rig.driver("set_vq_state", TX, 8, 0)
    assert state(rig, TX) == 8
    rig.driver("set_vq_state", TX, 2, 0xFFFA)
    assert state(rig, TX) == 2


def test_a_queue_that_is_made_smaller_than_what_is_under_way() -> None:
    rig = setting_up()
    rig.driver("set_vq_state", TX, 8, 0)
    answer = rig.driver("set_vq_num", TX, 4)
    assert answer is not None
    assert answer.errno == errno.EINVAL
    assert "more than 4 entries" in answer.value
    assert rig.device.queues[TX].size == 8


@pytest.mark.parametrize("name", ["avail", "used"])
@pytest.mark.parametrize("value", [-1, 0x10000])
def test_indices_are_u16(name: str, value: int) -> None:
    rig = setting_up()
    answer = rig.driver("set_vq_state", TX, *((value, 0) if name == "avail" else (0, value)))
    assert answer is not None
    assert (answer.errno, answer.value) == (errno.EINVAL, f"queue 1: {name} index {value} has more than 16 bits")
    answer = rig.driver("set_vq_state", 3, 0)
    assert answer is not None
    assert answer.errno == errno.EINVAL


def test_a_state_is_not_for_a_queue_that_is_enabled() -> None:
    rig = running()
    for op in ("set_vq_state", "set_vq_num"):
        answer = rig.driver(op, TX, 4)
        assert answer is not None
        assert answer.errno == errno.EBUSY
    rig.set_map()
    rig.step("port")
    rig.step("device")
    answer = rig.driver("set_vq_state", TX, 4)
    assert answer is not None
    assert answer.errno == errno.EBUSY, "torn down for a change, and enabled all the same"


def begin(rig: Rig, avail: int, used: int | None = None) -> None:
    """The transmit queue begins there."""
    area = rig.areas[TX]
    for op, *args in (
        ("set_vq_address", TX, area.desc, area.driver, area.device),
        ("set_vq_state", TX, avail, *([] if used is None else [used])),
        ("set_vq_ready", TX, True), ("set_status", 15),
    ):  # fmt: skip
        answer = rig.driver(str(op), *args)
        assert answer is not None
        assert answer.errno == 0, answer
    for _ in range(4):
        rig.step("device")
        rig.step("port")


def test_a_state_that_is_right() -> None:
    rig = setting_up()
    at = rig.areas[TX]
    ring = SplitDriver(
        WORLD, rig.memory, SplitLayout(8, at.desc - IOVA, at.driver - IOVA, at.device - IOVA), event_idx=True, start=5
    )
    rig.memory.write(RAM + 0x30000, bytes(72))
    ring.add([(RAM + 0x30000 + IOVA, 72)], [], "a")
    begin(rig, 5)
    assert state(rig, TX) == 6
    assert ring.get_buf() == ("a", 0)


@pytest.mark.parametrize(("avail", "field"), [(9, "avail.idx"), (0x8000, "avail.idx")])
def test_memory_contradicts_the_avail_index(avail: int, field: str) -> None:
    """avail->idx stands at 0 and the saved state says that the driver was further by more than the queue holds."""
    rig = setting_up()
    at = rig.areas[TX]
    rig.memory.write(at.device - IOVA + 2, avail.to_bytes(2, "little"))
    begin(rig, avail)
    broken = [m for m in rig.alarms if isinstance(m, Broken)]
    assert [(m.queue, m.field) for m in broken] == [(TX, field)]
    assert "jumped" in broken[0].reason
    assert rig.device.queues[TX].broken
    assert rig.device.status & Status.DEVICE_NEEDS_RESET


def test_memory_contradicts_the_used_index() -> None:
    rig = setting_up()
    begin(rig, 4)
    broken = [m for m in rig.alarms if isinstance(m, Broken)]
    assert [(m.queue, m.field) for m in broken] == [(TX, "create.used")]


def test_a_restarted_device_goes_where_the_port_says() -> None:
    """set_vq_state of a driver that configures it again does not count against the port's Resync."""
    rig = Rig().start()
    rig.send(3)
    rig.settle()
    rig.restart()
    rig.set_map()
    rig.connect()
    while len(rig.device.resumed) < 2:
        rig.step("device", 1)
    for op, args in (
        ("set_status", [3]), ("set_driver_features", [rig.features]), ("set_status", [11]), ("set_vq_num", [TX, 8]),
        ("set_vq_state", [TX, 0]),
    ):  # fmt: skip
        rig.driver(op, *args)
    assert state(rig, TX) == 3
    rig.settle()
    assert rig.device.status == 15
    rig.send(1)
    rig.settle()
    assert state(rig, TX) == 4
    assert rig.ledger.outstanding == 0
