"""The virtio SCMI device (virtio 1.3 §5.17), frame by frame."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.scmi import clock, header, sensor
from common.virtio.features import DESC_F_WRITE, SCMI_F_P2A_CHANNELS
from common.virtio.msi_source import MsiSource
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Avail, Broken, Call, Chain, Create, Message, Resync, Return, Used
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.core import BACKLOG, CMDQ, EVENTQ, FEATURES, NO_FAULTS, ScmiCore
from services.scmi_platform.faults import FaultPlan
from services.scmi_platform.mesh_device import ScmiDevice
from tests.common.virtio.ringkit import PROFILE, configure
from tests.services.scmi_platform.scmi_rig import SMALL, words

SIZE = 256
GET = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_GET, 0, words(0))
NOTIFICATION = header.notification(sensor.PROTOCOL, 0, words(0, 1, 2))
DELAYED = header.HEADER.pack(header.as_delayed(header.pack(sensor.PROTOCOL, 6, 5))) + words(0, 0)


class Bench:
    """The device of agent 1, brought up, and what it sends."""

    def __init__(
        self, features: int = FEATURES, plan: FaultPlan = NO_FAULTS, dice: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.now = 10.0
        self.sent: list[Message] = []
        self.waits: list[tuple[int, float]] = []
        self.agents = Agents(Board.load(SMALL), lambda: self.now)
        self.device = ScmiDevice(
            lambda device: ScmiCore(
                self.agents.platform,
                self.agents.allot("vm0"),
                device,
                clock=lambda: self.now,
                observe=lambda queue, seconds: self.waits.append((queue, seconds)),
                plan=plan,
                dice=dice,
            ),
            send=self.sent.append,
            msi=MsiSource("vm0", 16, self.sent.append),
            clock=lambda: self.now,
            log=lambda event, **fields: None,
        )
        self.core = self.device.core
        self.agents.attach(1, self.core)
        queues = 2 if features & SCMI_F_P2A_CHANNELS else 1
        configure(self.device, [SplitLayout.packed_at(0x10000 * q, SIZE) for q in range(queues)], features)
        self.created = [message for message in self.sent if isinstance(message, Create)]
        self.sent.clear()
        self.next = [0, 0]

    def avail(self, queue: int, chains: list[Chain], again: bool = False) -> None:
        used = self.device.queues[queue].confirmed_idx
        self.device.frame(Avail(queue, 0, self.next[queue], chains, used, again))
        self.next[queue] += len(chains)
        self.device.batch_end()

    def used(self, queue: int) -> list[tuple[int, bytes]]:
        """Elements used since the last look."""
        got = [elem for message in self.sent if isinstance(message, Used) and message.queue == queue
               for elem in message.elems]  # fmt: skip
        self.sent.clear()
        return got

    def buffers(self, *rooms: int, first: int = 0) -> None:
        self.avail(EVENTQ, [(first + n, b"", [(0x1000 * n, room, DESC_F_WRITE)]) for n, room in enumerate(rooms)])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def chain(head: int, request: bytes, *rooms: int) -> Chain:
    segments = [(0, len(request), 0)] if request else []
    return head, request, segments + [(0x1000, room, DESC_F_WRITE) for room in rooms]


def test_bring_up(bench: Bench) -> None:
    assert [(one.queue, one.generation) for one in bench.created] == [(CMDQ, 0), (EVENTQ, 0)]
    assert bench.device.op_get_device_id() == 32
    assert not bench.device.config
    assert not bench.device.op_get_device_features() & 2, "no shared memory"
    assert bench.core.p2a


class TestCommands:
    def test_reply(self, bench: Bench) -> None:
        bench.avail(CMDQ, [chain(4, GET, 16)])
        assert bench.used(CMDQ) == [(4, GET[:4] + words(0, 300, 0))]
        assert bench.waits == [(CMDQ, 0.0)]

    def test_addresses_over_all_64_bits(self, bench: Bench) -> None:
        top = (1 << 64) - 16
        bench.avail(CMDQ, [(4, GET, [(top, len(GET), 0), (top, 16, DESC_F_WRITE)])])
        assert len(bench.used(CMDQ)) == 1

    @pytest.mark.parametrize("rooms", [(9,), (4, 5), (1,) * 9])
    def test_reply_cut_to_the_room(self, bench: Bench, rooms: tuple[int, ...]) -> None:
        bench.avail(CMDQ, [chain(4, GET, *rooms)])
        assert bench.used(CMDQ) == [(4, (GET[:4] + words(0, 300, 0))[:9])]
        assert bench.core.stats.truncated == 1

    @pytest.mark.parametrize(
        "bad", [chain(1, b"", 16), chain(1, GET[:3], 16), chain(1, GET), chain(1, GET, 3), chain(1, GET, 1, 1, 1)]
    )
    def test_malformed_chains_come_back_empty(self, bench: Bench, bad: Chain) -> None:
        bench.avail(CMDQ, [bad, chain(2, GET, 16)])
        first, second = bench.used(CMDQ)
        assert first == (1, b"")
        assert second[0] == 2
        assert second[1]
        assert bench.core.stats.malformed == 1
        assert bench.core.stats.commands == 1, "nothing is executed for a malformed chain"

    def test_a_burst_is_answered_whole(self, bench: Bench) -> None:
        bench.avail(CMDQ, [chain(n, GET, 16) for n in range(SIZE)])
        assert [head for head, _ in bench.used(CMDQ)] == list(range(SIZE))
        assert bench.device.queues[CMDQ].in_hand == 0

    def test_not_twice_what_must_not_be_done_twice(self, bench: Bench) -> None:
        later = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_READING_GET, 1, words(0, 1))
        bench.device.queues[CMDQ].next_idx = 2  # where the port of the killed device stood
        bench.avail(CMDQ, [chain(0, later, 16), chain(1, GET, 16)], again=True)
        assert bench.used(CMDQ) == [(0, later[:4] + words(-7)), (1, GET[:4] + words(0, 300, 0))]
        stats = bench.agents.platform.stats
        assert (stats.refused_after_reset, stats.re_executed) == (1, 1)

    @PROFILE
    @given(st.lists(st.tuples(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=3)), max_size=8))
    def test_any_chain_is_answered_once_and_fits(self, chains: list[tuple[bytes, list[int]]]) -> None:
        """Whatever the guest writes, every chain is used exactly once, with no more bytes than it has room for."""
        bench = Bench()
        # a chain has at least one descriptor
        made = [chain(n, data, *rooms) for n, (data, rooms) in enumerate(chains) if data or rooms]
        bench.avail(CMDQ, made)
        answers = bench.used(CMDQ)
        assert [head for head, _ in answers] == [one[0] for one in made]
        for (_, written), one in zip(answers, made, strict=True):
            assert len(written) <= sum(length for _, length, flags in one[2] if flags)


class TestEvents:
    def test_into_the_first_buffer_that_fits(self, bench: Bench) -> None:
        bench.buffers(8, 136, 136)
        assert bench.core.emit(NOTIFICATION)
        assert bench.used(EVENTQ) == [(1, NOTIFICATION)]
        assert bench.core.emit(NOTIFICATION[:8])
        assert bench.used(EVENTQ) == [(0, NOTIFICATION[:8])]
        assert bench.waits == [(EVENTQ, 0.0)] * 2

    def test_a_notification_without_a_buffer_is_dropped_and_counted(self, bench: Bench) -> None:
        assert not bench.core.emit(NOTIFICATION)
        bench.buffers(8)
        assert not bench.core.emit(NOTIFICATION)
        assert bench.core.stats.notifications_dropped == 2
        bench.buffers(136, first=1)
        assert bench.used(EVENTQ) == [], "dropped is dropped"

    def test_a_delayed_response_waits_for_its_buffer(self, bench: Bench) -> None:
        assert bench.core.emit(DELAYED)
        assert bench.core.emit(DELAYED + b"tail")
        assert bench.used(EVENTQ) == []
        bench.now += 2.0
        bench.buffers(4)
        assert bench.used(EVENTQ) == [], "too small for either"
        bench.buffers(136, 136, first=1)
        assert bench.used(EVENTQ) == [(1, DELAYED), (2, DELAYED + b"tail")]
        assert bench.waits == [(EVENTQ, 2.0)] * 2
        assert bench.core.stats.responses_delayed == 2

    def test_a_notification_may_overtake_a_delayed_response_that_does_not_fit(self, bench: Bench) -> None:
        assert bench.core.emit(DELAYED + bytes(100))
        bench.buffers(20)
        assert bench.core.emit(NOTIFICATION)
        assert bench.used(EVENTQ) == [(0, NOTIFICATION)]

    def test_delayed_responses_keep_their_order(self, bench: Bench) -> None:
        assert bench.core.emit(DELAYED + bytes(100))
        bench.buffers(20)
        assert bench.core.emit(DELAYED)
        assert bench.used(EVENTQ) == []

    def test_the_backlog_is_bounded(self, bench: Bench) -> None:
        assert all(bench.core.emit(DELAYED) for _ in range(BACKLOG))
        assert not bench.core.emit(DELAYED)
        assert len(bench.core.backlog) == BACKLOG

    @pytest.mark.parametrize("bad", [(0, b"readable", [(0, 8, 0), (8, 136, DESC_F_WRITE)]), (0, b"", [(0, 3, 2)])])
    def test_a_buffer_that_is_none_comes_back_empty(self, bench: Bench, bad: Chain) -> None:
        bench.avail(EVENTQ, [bad])
        assert bench.used(EVENTQ) == [(0, b"")]
        assert bench.core.stats.malformed == 1
        assert not bench.core.buffers

    def test_without_p2a_nothing_is_sent(self) -> None:
        bench = Bench(FEATURES & ~SCMI_F_P2A_CHANNELS)
        assert not bench.core.p2a
        assert not bench.core.emit(NOTIFICATION)
        assert not bench.core.emit(DELAYED)
        notify = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_TRIP_POINT_NOTIFY, 0, words(0, 1))
        bench.avail(CMDQ, [chain(0, notify, 8)])
        assert bench.used(CMDQ) == [(0, notify[:4] + words(-1))]

    def test_a_broken_eventq_is_no_channel(self, bench: Bench) -> None:
        bench.buffers(136)
        bench.device.frame(Broken(EVENTQ, "head", "the guest wrote nonsense"))
        assert not bench.core.emit(NOTIFICATION)


class TestLife:
    def test_reset_forgets_the_agent_too(self, bench: Bench) -> None:
        bench.buffers(136)
        bench.core.emit(DELAYED + bytes(200))
        notify = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_TRIP_POINT_NOTIFY, 0, words(0, 1))
        bench.avail(CMDQ, [chain(0, notify, 8)])
        assert bench.agents.platform.subscribed(sensor.PROTOCOL, 0, 0) == {1}
        bench.device.op_set_status(0)
        assert not bench.core.buffers
        assert not bench.core.backlog
        assert not bench.core.p2a
        assert bench.agents.platform.subscribed(sensor.PROTOCOL, 0, 0) == set()


def test_the_platforms_messages_reach_the_guest(bench: Bench) -> None:
    """A delayed response all the way: asked for on the cmdq, ripe at a tick, in an eventq buffer."""
    bench.buffers(136)
    later = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_READING_GET, 1, words(0, 1))
    bench.avail(CMDQ, [chain(0, later, 32)])
    assert bench.used(CMDQ) == [(0, later[:4] + words(0))]
    bench.now += 1.0
    bench.agents.platform.tick(bench.now)
    ((head, message),) = bench.used(EVENTQ)
    assert head == 0
    assert header.unpack(int.from_bytes(message[:4], "little")).type == header.DELAYED_RESPONSE
    assert message[4:12] == words(0, 0)


LATE = FaultPlan(after=0, late=1.0, late_seconds=2.0)
SET = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_SET, 1, words(0, 0, 100, 0))


class TestFaults:
    """What is held on purpose is in the device's hand, and goes the way of everything in its hand."""

    def test_a_late_answer_is_executed_at_once_and_comes_at_a_tick(self) -> None:
        bench = Bench(plan=LATE, dice=lambda: 0.5)
        bench.avail(CMDQ, [chain(4, SET, 8), chain(6, GET, 16)])
        assert bench.used(CMDQ) == []
        assert bench.device.queues[CMDQ].in_hand == 2
        assert bench.agents.platform.stats.success == 2
        bench.now += 0.9
        bench.device.tick(bench.now)
        assert bench.used(CMDQ) == []
        bench.now += 0.2
        bench.device.tick(bench.now)
        assert bench.used(CMDQ) == [(4, SET[:4] + words(0)), (6, GET[:4] + words(0, 100, 0))]
        assert bench.device.queues[CMDQ].in_hand == 0

    def test_a_lost_connection_loses_and_doubles_nothing_that_is_held(self) -> None:
        bench = Bench(plan=LATE, dice=lambda: 0.5)
        bench.avail(CMDQ, [chain(4, GET, 16)])
        bench.device.frame(Resync(CMDQ, 1, 1, 0, 1, 0))
        # the port repeats what it believes to be unseen: the device knows that it holds it
        bench.device.frame(Avail(CMDQ, 0, 0, [chain(4, GET, 16)], 0, True))
        bench.sent.clear()
        bench.now += 1.1
        bench.device.tick(bench.now)
        assert bench.used(CMDQ) == [(4, GET[:4] + words(0, 300, 0))]
        assert bench.core.stats.commands == 1

    def test_a_reset_takes_along_what_is_held(self) -> None:
        bench = Bench(plan=LATE, dice=lambda: 0.5)
        bench.avail(CMDQ, [chain(4, GET, 16)])
        assert bench.core.faults.held == 1
        bench.device.op_set_status(0)
        bench.sent.clear()
        bench.now += 5.0
        bench.device.tick(bench.now)
        assert bench.sent == []
        assert bench.core.faults.held == 0

    def test_a_broken_queue_is_owed_nothing(self) -> None:
        bench = Bench(plan=LATE, dice=lambda: 0.5)
        bench.buffers(136)
        bench.avail(CMDQ, [chain(4, GET, 16)])
        assert bench.core.emit(DELAYED)
        bench.device.frame(Broken(CMDQ, "head", "nonsense"))
        bench.device.frame(Broken(EVENTQ, "head", "nonsense"))
        bench.sent.clear()
        bench.now += 5.0
        bench.device.tick(bench.now)
        assert bench.sent == []
        assert bench.core.faults.held == 0

    def test_a_delayed_response_twice(self) -> None:
        bench = Bench(plan=FaultPlan(after=0, delayed_twice=1.0))
        bench.avail(CMDQ, [chain(0, GET, 16)])
        bench.buffers(136, 136, 136)
        assert bench.core.emit(DELAYED)
        assert bench.core.emit(NOTIFICATION)
        assert bench.used(EVENTQ) == [(0, DELAYED), (1, DELAYED), (2, NOTIFICATION)]

    def test_a_chain_is_used_twice_where_the_port_lets_it(self) -> None:
        bench = Bench(plan=FaultPlan(double_used=2))
        assert [PortPolicy(one.policy) for one in bench.created] == [
            DEFAULT_POLICY | PortPolicy.UNCHECKED, DEFAULT_POLICY,
        ]  # fmt: skip
        bench.avail(CMDQ, [chain(3, GET, 16), chain(5, GET, 16), chain(7, GET, 16)])
        assert [head for head, _ in bench.used(CMDQ)] == [3, 5, 5, 7]
        assert bench.device.queues[CMDQ].used_idx == 4

    def test_the_number_that_is_never_answered_must_leave_a_message(self) -> None:
        bench = Bench(plan=FaultPlan(never=100))
        bench.device.op_set_status(0)
        bench.device.op_set_status(3)
        bench.device.op_set_driver_features(FEATURES)
        bench.device.op_set_status(11)
        answer = bench.device.answer(Call(0, "set_vq_num", [CMDQ, 128]))
        assert answer is not None
        assert answer.errno == errno.EINVAL
        assert "faults.never" in answer.value
        assert "63" in answer.value
        assert bench.device.queues[CMDQ].size == 0, "what is refused changes nothing"
        for queue, size in ((EVENTQ, 128), (CMDQ, 256)):
            assert bench.device.answer(Call(0, "set_vq_num", [queue, size])) == Return(0, 0)

    def test_without_faults_nothing_is_done_on_purpose(self, bench: Bench) -> None:
        assert not bench.core.faults.active
        bench.device.tick(bench.now)
        assert bench.sent == []
