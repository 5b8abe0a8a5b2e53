"""The NIC against the guest's port and driver: echo, malformed frames, changes of the memory map, broken queues.

Nothing lost, nothing doubled: every buffer completes exactly once, and unless the NIC restarts every frame comes back
exactly once.
"""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.errors import RemoteError
from common.virtio.features import DESC_F_WRITE, Status
from common.virtio.net_header import MAX_ETHERNET, NET_HEADER_BYTES, TX_PLAIN
from common.wire.messages import Avail, Broken, Call, Create, Destroy, Notice, Resync, Return, Saved, Suspend, Used
from services.guest_driver.net import BUFFER_BYTES, RX, TX
from services.vdpa_nic.backend import Echo, Replay
from services.vdpa_nic.core import MAX_MAPPINGS
from tests.services.vdpa_nic.nic_rig import BYTES, IOVA, MAC, RAM, Rig


class NicMesh(RuleBasedStateMachine):
    """Traffic, doorbells, changes of map, lost connections and restarts in any order."""

    @initialize(size=st.sampled_from([2, 4, 8]), event_idx=st.booleans())
    def setup(self, size: int, event_idx: bool) -> None:
        self.rig = Rig(size=size, event_idx=event_idx).start()
        self.say_map = False

    @rule(count=st.integers(1, 5))
    def transmit(self, count: int) -> None:
        self.rig.send(count)

    @rule(queue=st.integers(0, 1))
    def doorbell(self, queue: int) -> None:
        self.rig.port.doorbell(queue)

    @rule(end=st.sampled_from(["device", "port"]), count=st.integers(0, 4))
    def move(self, end: str, count: int) -> None:
        self.rig.step(end, count)

    @rule()
    def interrupts(self) -> None:
        self.rig.interrupts()

    @rule()
    def settle(self) -> None:
        self.rig.settle()

    @rule()
    def set_map(self) -> None:
        """A new map, or after a restart the one that the NIC has forgotten; refused while one is under way."""
        self.say_map = False
        answer = self.rig.set_map()
        assert answer is None or answer.errno in (0, errno.EBUSY)

    @precondition(lambda self: self.rig.up)
    @rule()
    def lose_link(self) -> None:
        self.rig.disconnect()

    @precondition(lambda self: not self.rig.up)
    @rule()
    def reconnect(self) -> None:
        self.rig.connect()

    @rule()
    def restart(self) -> None:
        self.rig.restart()
        self.say_map = True

    @invariant()
    def nothing_odd(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        assert rig.alarms == []
        assert (rig.ledger.duplicated, rig.ledger.corrupted, rig.net.rx_short) == (0, 0, 0)
        assert len(rig.device.rx_buffers) <= rig.size
        assert len(rig.device.tx_waiting) <= rig.size

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        if not rig.up:
            rig.connect()
        rig.settle()
        if self.say_map:
            # the VMM says the map of the generation that is in force, or was about to be
            rig.vmm("set_map", *rig.space.set_map_args(rig.space._keys[rig.space.generation]))
        rig.settle()
        self.nothing_odd()
        assert rig.device.phase.name == "RUNNING"
        assert rig.device._change is None
        assert rig.ledger.close() == 0, "frames lost"
        ledger = rig.ledger
        assert ledger.tx == ledger.rx - ledger.re_executed + ledger.reset_dropped
        if not rig.restarts:
            assert (ledger.re_executed, ledger.reset_dropped) == (0, 0)
            assert [int.from_bytes(frame[-16:-8], "little") for frame in rig.got] == list(range(ledger.tx))
        # without an interrupt the driver does not look: what it was not told of, the event index says it need not be
        rig.net.tx_callback()
        assert rig.net.room == rig.size, "a transmit buffer never completed"
        assert rig.device.queues[RX].in_hand == rig.size, "a receive buffer was stranded"
        assert rig.device.vectors == [40, 41]
        assert [rig.msis.get(40 + n, 0) for n in (0, 1)] == rig.irqs, "an interrupt was lost"


TestNicMesh = NicMesh.TestCase
TestNicMesh.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class CalmMesh(NicMesh):
    """The same without a restart: nothing may be dropped or done twice."""

    restart = None  # type: ignore[assignment]


TestCalmMesh = CalmMesh.TestCase
TestCalmMesh.settings = TestNicMesh.settings


# --- traffic ----------------------------------------------------------------------------------------------------------


def test_frames_come_back_identical_and_in_order() -> None:
    rig = Rig().start()
    sent: list[bytes] = []
    for count in (1, 8, 3, 5):
        frames = [bytes([len(sent) + n]) * (14 + 300 * n % (MAX_ETHERNET - 14)) for n in range(count)]
        frames[-1] = frames[-1][:14] + bytes(MAX_ETHERNET - 14)
        sent += frames
        assert rig.net.transmit(frames) == count
        rig.now += 0.5
        rig.settle()
    assert rig.got == sent
    stats = rig.device.nic_stats
    assert (stats.tx_frames, stats.rx_frames) == (17, 17)
    assert stats.tx_bytes == stats.rx_bytes == sum(map(len, sent))
    assert [queue for queue, _ in rig.observed] == [TX, RX] * (len(rig.observed) // 2)
    assert rig.device.queues[TX].in_hand == 0


def test_the_header_that_the_driver_sees() -> None:
    rig = Rig().start()
    frame = b"\xee" * 60
    rig.net.transmit([frame])
    rig.step("device")
    rig.step("port")
    length = NET_HEADER_BYTES + len(frame)
    addr = rig.rings[RX].tokens[0]
    assert rig.memory.read(addr, length) == struct.pack("<BBHHHHH", 0, 0, 0, 0, 0, 0, 1) + frame, "num_buffers is 1"
    assert bytes(NET_HEADER_BYTES) == TX_PLAIN


def test_the_configuration_space() -> None:
    rig = Rig()
    assert rig.device.op_get_config(0, 8) == MAC + b"\1\0", "MAC and LINK_UP"
    assert rig.device.op_get_device_id() == 1


@pytest.mark.parametrize("length", [0, 1, NET_HEADER_BYTES, NET_HEADER_BYTES + MAX_ETHERNET + 1, 4000])
def test_malformed_chains_are_completed_in_their_turn(length: int) -> None:
    rig = Rig().start()
    ring = rig.rings[TX]
    rig.net.transmit([b"a" * 20])
    ring.add_batch([(RAM + IOVA, length, "odd")], 0)
    rig.net.transmit([b"b" * 20])
    rig.port.doorbell(TX)
    rig.step("device")
    rig.step("port")
    taken = ring.get_bufs(8)
    assert [token == "odd" for token, _ in taken] == [False, True, False]
    rig.net.rx_callback()
    assert rig.got == [b"a" * 20, b"b" * 20]
    stats = rig.device.nic_stats
    assert (stats.tx_malformed, stats.tx_frames) == (1, 2)
    assert rig.alarms == []


def test_a_receive_buffer_that_is_too_small_costs_the_frame_and_stays() -> None:
    rig = Rig(size=2)
    rig.set_map()
    rig.connect()
    rig.settle()
    ring = rig.rings[RX]
    buffers = RAM + 0x30000
    ring.add([], [(buffers + IOVA, 12), (buffers + 100 + IOVA, 20)], "small")
    rig.port.doorbell(RX)
    rig.settle()
    rig.net.transmit([b"x" * 21, b"y" * 20])
    rig.step("device")
    rig.step("port")
    assert ring.get_buf() == ("small", 32)
    assert rig.memory.read(buffers + 100, 20) == b"y" * 20
    assert rig.device.nic_stats.rx_too_long == 1
    assert rig.net.tx_callback() == 2


def test_an_echo_waits_for_a_buffer() -> None:
    rig = Rig(size=4)
    rig.set_map()
    rig.connect()
    rig.settle()
    rig.send(3)
    rig.settle()
    assert len(rig.device.tx_waiting) == 3
    assert rig.net.room == 1
    rig.net.start()
    rig.settle()
    assert rig.ledger.outstanding == 0


def test_how_long_frames_waited_on_each_side() -> None:
    """tx0: from the chain's arrival to the back end; rx0: from the back end to a buffer."""
    rig = Rig(size=4, backend=Replay([b"r" * 60], rate=10.0, limit=2))
    rig.set_map()
    rig.connect()
    rig.settle()
    rig.send(2)
    rig.now += 0.25
    rig.step("device")
    assert rig.observed == [(TX, 0.0)]
    rig.device.tick(rig.now)
    rig.now += 0.5
    rig.device.tick(rig.now)  # two frames are there, and no buffer
    rig.now += 2.0
    rig.net.start()
    rig.settle()
    assert rig.observed == [(TX, 0.0), (RX, 2.0)]

    rig = Rig(size=4)
    rig.set_map()
    rig.connect()
    rig.settle()
    rig.send(2)
    rig.settle()
    rig.now += 1.5
    rig.net.start()  # an echo keeps what is sent until there are buffers
    rig.settle()
    assert rig.observed[:2] == [(TX, 1.5), (RX, 0.0)]


def test_a_replay_plays_and_sinks() -> None:
    frames = [bytes([n]) * 60 for n in range(3)]
    rig = Rig(size=4, backend=Replay(frames, rate=100.0, limit=5)).start()
    rig.device.tick(rig.now)
    rig.now += 0.045
    rig.device.tick(rig.now)
    rig.settle()
    assert rig.got == [*frames, frames[0]]
    rig.device.tick(rig.now)  # nothing is due
    rig.net.transmit([b"z" * 60])
    rig.settle()
    backend = rig.device.backend
    assert isinstance(backend, Replay)
    assert backend.sunk == 1


def test_a_replay_without_receive_buffers_does_not_hold_up_what_is_sent() -> None:
    rig = Rig(size=4, backend=Replay([b"r" * 60], rate=100.0, limit=5))
    rig.set_map()
    rig.connect()
    rig.settle()
    rig.device.tick(rig.now)
    rig.now += 1.0
    rig.device.tick(rig.now)
    assert len(rig.device.backend.backlog) == 5
    rig.net.transmit([b"z" * 60] * 4)
    rig.settle()
    rig.net.tx_callback()
    assert rig.net.room == 4


def test_what_a_nic_without_a_receive_queue_does() -> None:
    """A driver that sets up the transmit queue alone: frames leave, nothing comes back."""
    rig = Rig(size=4)
    rig.set_map()
    rig.up = True
    rig.port.link_up()
    rig.script = None
    device, areas = rig.device, rig.areas[TX]
    for op, args in (
        ("set_status", [3]), ("set_driver_features", [rig.features]), ("set_status", [11]), ("set_vq_num", [TX, 4]),
        ("set_vq_address", [TX, areas.desc, areas.driver, areas.device]), ("set_vq_cb", [TX, 41]),
        ("set_vq_ready", [TX, True]), ("set_status", [15]),
    ):  # fmt: skip
        assert device.answer(Call(1, op, args)).errno == 0
    rig.send(4)
    rig.settle()
    rig.net.tx_callback()
    assert rig.net.room == 4
    assert rig.device.nic_stats.rx_dropped == 4


# --- the memory map ---------------------------------------------------------------------------------------------------


def running() -> Rig:
    """A NIC with two echoes done, which holds generation 1."""
    rig = Rig().start()
    rig.send(2)
    rig.settle()
    assert rig.ledger.outstanding == 0
    return rig


def refused(rig: Rig, *args: Any) -> tuple[int, str]:
    before = rig.device.key()
    answer = rig.vmm("set_map", *args)
    assert answer is not None
    assert answer.errno
    assert rig.device.key() is before, "the old key stays in force"
    assert rig.device.nic_stats.map_refused == 1
    assert "call_refused" in rig.logged
    rig.send(8)
    rig.settle()
    assert rig.ledger.outstanding == 0, "and traffic goes on"
    return answer.errno, answer.value


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
    ],
)
def test_maps_that_are_refused(ranges: list[list[int]], said: str) -> None:
    code, reason = refused(running(), 2, ranges)
    assert code == errno.EINVAL
    assert said in reason


def test_too_many_mappings() -> None:
    ranges = [[n << 13, 4096, 0, 3] for n in range(MAX_MAPPINGS + 1)]
    assert refused(running(), 2, ranges)[0] == errno.E2BIG
    rig = Rig()
    assert rig.vmm("set_map", 1, ranges[:-1]) == Return(77, 0)


@pytest.mark.parametrize("generation", [0, -1])
def test_generations_that_go_back(generation: int) -> None:
    assert refused(running(), generation, [])[0] == errno.EINVAL
    assert refused(Rig().start(), 1, [])[0] == errno.EINVAL, "the same generation with another map"


def test_a_first_generation_below_one() -> None:
    rig = Rig()
    answer = rig.vmm("set_map", 0, [])
    assert answer is not None
    assert answer.errno == errno.EINVAL
    assert rig.vmm("get_generation") == Return(77, 0, 0), "0 says that there is no map"


def test_the_same_map_again_is_fine() -> None:
    rig = running()
    key = rig.device.key()
    assert key is not None
    assert rig.vmm("set_map", *rig.space.set_map_args(key)) == Return(77, 0)
    assert rig.device.key() is key
    assert rig.vmm("get_generation") == Return(77, 0, 1)


@pytest.mark.parametrize("args", [[], [1], [1, [[0, 1, 2]]], ["1", []], [1, [], 2]])
def test_calls_of_another_shape(args: list[Any]) -> None:
    rig = running()
    answer = rig.vmm("set_map", *args)
    assert answer is not None
    assert answer.errno == errno.EINVAL


def test_the_map_is_not_the_drivers_to_change() -> None:
    """The guest's own link carries calls too; were one of them set_map, the answer would be nobody's."""
    rig = running()
    rig.from_port(Call(5, "set_map", [9, []]))
    rig.step("device")
    answer = rig.to_port.popleft()
    assert isinstance(answer, Return)
    assert (answer.seq, answer.errno) == (5, errno.EPERM)
    assert rig.device._change is None


@pytest.mark.parametrize("op", ["set_status", "get_status", "set_vq_num", "no_such_thing"])
def test_a_vmm_sets_maps_and_nothing_else(op: str) -> None:
    rig = running()
    answer = rig.vmm(op, 0)
    assert answer is not None
    assert answer.errno == errno.EPERM
    assert rig.device.status == 15


def test_a_second_change_while_one_is_under_way() -> None:
    rig = running()
    assert rig.set_map() is None
    answer = rig.vmm("set_map", 3, [])
    assert answer is not None
    assert answer.errno == errno.EBUSY
    rig.send(8)
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.device.op_get_generation() == 2
    assert rig.ledger.outstanding == 0
    assert rig.device.nic_stats.map_changes == 2


def test_what_the_port_had_fetched_is_handed_back() -> None:
    """Frames that arrive between Suspend and Saved are not processed: the new queue object fetches them again."""
    rig = running()
    before = rig.port.stats.fetched
    assert rig.set_map() is None
    rig.send(3)
    assert rig.port.stats.fetched == before + 3
    rig.step("device")
    assert len(rig.device.tx_waiting) == 3
    stats = rig.device.nic_stats
    assert stats.tx_frames == 2, "nothing moves during the change"
    rig.step("port")
    rig.step("device")
    assert stats.chains_handed_back == 3 + rig.size
    assert not rig.device.tx_waiting
    rig.settle()
    assert rig.port.stats.fetched == before + 3 + 3 + rig.size + 3  # handed back: 3 and 8; refilled: 3
    assert rig.ledger.outstanding == 0
    assert [int.from_bytes(frame[-16:-8], "little") for frame in rig.got] == [0, 1, 2, 3, 4]


def test_a_map_before_and_after_the_driver_is_ready() -> None:
    rig = Rig()
    rig.connect()
    rig.settle()
    assert rig.device.status == 15
    rig.net.start()
    rig.settle()
    assert rig.device.queues[RX].in_hand == 0, "no key, no queue"
    assert rig.set_map() == Return(1001, 0)
    rig.send(4)
    rig.settle()
    assert rig.ledger.outstanding == 0


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
    assert rig.device.op_get_generation() == 2
    assert rig.ledger.outstanding == 0
    assert rig.ledger.rx == 8
    assert rig.device.queues[RX].in_hand == rig.size


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
    rig.settle()
    assert rig.alarms == []
    assert rig.ledger.outstanding == 0


def test_a_change_that_begins_while_the_link_is_down() -> None:
    rig = running()
    rig.disconnect()
    assert rig.set_map() is None
    rig.send(4)
    rig.connect()
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.ledger.outstanding == 0


def test_two_changes_around_a_reconnect() -> None:
    """A Suspend sent before the port's Resync arrived would be answered too late, and the answer be taken for that
    to the next change's."""
    rig = running()
    rig.disconnect()
    rig.connect()
    assert rig.set_map() is None
    assert not rig.to_port, "Resync will say it"
    rig.step("device")
    assert rig.to_vmm[-1] == Return(1002, 0)
    rig.send(4)
    assert rig.set_map() is None
    rig.settle()
    assert rig.alarms == []
    assert rig.ledger.outstanding == 0
    assert rig.device.op_get_generation() == 3


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
    assert rig.device._change is not None, "the receive queue's Resync is not here"
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.device.queues[RX].in_hand == rig.size


def test_a_resync_that_cannot_be_leaves_the_other_queue_attached() -> None:
    rig = running()
    rig.disconnect()
    rig.connect()
    rig.step("device", 1)
    assert isinstance(rig.to_device.popleft(), Resync)
    rig.device.frame(Resync(TX, 0, 999, 0, 0))
    assert [m.queue for m in rig.to_port if isinstance(m, Create)] == [RX]
    rig.settle()
    assert rig.device.queues[RX].in_hand == rig.size


def test_no_queue_is_attached_before_all_have_said_where_they_stand() -> None:
    rig = running()
    rig.disconnect()
    rig.connect()
    rig.step("device", 1)
    assert not rig.to_port
    rig.step("device", 1)
    assert [m.queue for m in rig.to_port if isinstance(m, Create)] == [TX, RX]


def test_two_maps_before_the_resyncs_of_a_restarted_nic() -> None:
    rig = Rig(size=4, event_idx=False).start()
    rig.restart()
    rig.connect()
    rig.settle()
    assert rig.device.status == 15, "and no map yet"
    rig.disconnect()
    rig.connect()
    rig.vmm("set_map", *rig.space.set_map_args(rig.space._keys[1]))
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
    rig.vmm("set_map", *rig.space.set_map_args(rig.space._keys[1]))
    rig.settle()
    ledger = rig.ledger
    assert ledger.close() == 0
    assert (ledger.duplicated, ledger.re_executed) == (0, 0)
    assert ledger.reset_dropped == (3 if delivered == 1 else 0)


def test_answers_repeated_after_a_lost_link_leave_transmit_first() -> None:
    rig = running()
    rig.send(3)
    rig.step("device")
    assert [m.queue for m in rig.to_port if isinstance(m, Used)] == [TX, RX]
    rig.disconnect()
    rig.connect()
    rig.step("device", 1)
    assert not rig.to_port, "the receive queue's have to wait"
    rig.step("device")
    assert [m.queue for m in rig.to_port if isinstance(m, Used)] == [TX, RX]


def test_answers_before_a_change_of_map_leave_transmit_first() -> None:
    rig = running()
    rig.send(3)
    rig.step("device")
    rig.disconnect()
    assert rig.set_map() is None
    rig.connect()
    rig.step("device", 2)
    assert [m.queue for m in rig.to_port if isinstance(m, Used)] == [TX, RX]
    rig.settle()
    assert rig.ledger.outstanding == 0


def test_a_reset_in_mid_change_ends_it() -> None:
    rig = running()
    assert rig.set_map() is None
    assert rig.device.answer(Call(1, "set_status", [0])) == Return(1, 0, 0)
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.device.op_get_generation() == 2
    assert rig.set_map() == Return(1003, 0)
    assert not rig.device.rx_buffers
    assert rig.device.stats.resets == 1


def test_a_late_answer_to_suspend_means_nothing() -> None:
    rig = running()
    rig.device.frame(Saved(RX, 0, 0, 0))
    assert rig.device._change is None
    with pytest.raises(RemoteError):
        rig.device.frame(Saved(2, 0, 0, 0))


def test_a_restarted_nic_keeps_what_a_lost_link_left_behind() -> None:
    """The refetched chains came in part, then the link broke in a change: the part is not the tail of the queue."""
    rig = Rig(size=4).start()
    rig.send(2)
    rig.step("device", 0)
    rig.restart()
    rig.vmm("set_map", *rig.space.set_map_args(rig.space._keys[1]))
    rig.connect()
    while rig.device.status != 15:
        rig.step("device")
        rig.step("port")
    again = [m for m in rig.to_device if isinstance(m, Avail) and m.queue == RX and m.again]
    if not again:
        rig.step("port")
        again = [m for m in rig.to_device if isinstance(m, Avail) and m.queue == RX and m.again]
    (whole,) = again
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


# --- broken queues ----------------------------------------------------------------------------------------------------


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


def test_the_device_checks_for_itself() -> None:
    """A receive buffer is not read by the port: the NIC looks at its address, whoever sent it."""
    rig = running()
    queue = rig.device.queues[RX]
    bad = [(0, b"", [(RAM, 64, DESC_F_WRITE)])]  # a guest address, not an I/O virtual one
    rig.rings[RX].get_bufs(8)
    rig.device.frame(Avail(RX, 1, queue.next_idx, bad, queue.confirmed_idx))
    assert [type(m) for m in rig.alarms] == [Broken, Notice]
    assert rig.device.queues[RX].broken
    # the transmit queue runs on; what would be received is dropped, as on a NIC whose receive queue is off
    rig.send(4)
    rig.step("device")
    rig.step("port")
    rig.net.tx_callback()
    assert rig.net.room == rig.size
    assert rig.device.nic_stats.rx_dropped == 4


def test_a_stale_generation_breaks_the_queue() -> None:
    rig = running()
    queue = rig.device.queues[TX]
    rig.device.frame(Avail(TX, 9, queue.next_idx, [], queue.confirmed_idx))
    alarm = rig.alarms[0]
    assert isinstance(alarm, Broken)
    assert alarm.field == "avail.generation"


@pytest.mark.parametrize("lost", [False, True])
def test_a_queue_that_breaks_in_mid_change_holds_nothing_up(lost: bool) -> None:
    rig = running()
    assert rig.set_map() is None
    broken_tx(rig)
    if lost:
        rig.disconnect()
        rig.connect()
    rig.settle()
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert rig.device.op_get_generation() == 2
    assert rig.device.queues[TX].broken
    assert rig.device.queues[RX].in_hand == rig.size


def test_a_broken_nic_that_is_reset_works_again() -> None:
    rig = running()
    broken_tx(rig)
    rig.settle()
    assert rig.device.answer(Call(1, "set_status", [0])).errno == 0
    rig.port.reset()
    rig.settle()
    assert rig.device.status == 0
    assert not rig.device.queues[TX].broken
    before = [type(m) for m in rig.to_port]
    assert Create not in before
    assert Destroy not in before


def test_a_resync_that_cannot_be_breaks_the_queue_and_not_the_change() -> None:
    rig = running()
    rig.disconnect()
    assert rig.set_map() is None
    rig.up = True
    rig.device.reconnected()
    rig.device.frame(Resync(RX, 0, 999, 0, 0))
    rig.device.frame(Broken(TX, "x", "y"))
    assert rig.to_vmm[-1] == Return(1002, 0)
    assert isinstance(rig.device.backend, Echo)
    assert BUFFER_BYTES % 64 == 0
