"""A device core behind a session: serving, starting, stopping, other memory, beginning anew."""

from __future__ import annotations

import pytest

from common.errors import MemoryFaultError, RemoteError
from common.virtio.split_layout import SplitLayout
from services.vhost_user.device import ROUNDS
from services.vhost_user.memory import SharedMemory
from tests.services.vhost_user.device_rig import FEATURES, SIZE, USER, DeviceRig, table


@pytest.fixture
def rig() -> DeviceRig:
    rig = DeviceRig()
    rig.bring_up()
    return rig


class TestServing:
    def test_a_kick_is_answered(self, rig: DeviceRig) -> None:
        rig.add(b"hello")
        assert rig.drivers[0].kick_prepare()
        rig.kick()
        assert rig.got() == [b"olleh"]
        assert rig.bells.signals == [20]
        assert rig.device.stats.kicks == 1

    def test_all_that_is_there_in_one_batch(self, rig: DeviceRig) -> None:
        for n in range(SIZE):
            rig.add(bytes([n]), at=(1 << 20) + 512 * n)
        rig.kick()
        assert rig.core.batches == [[bytes([n]) for n in range(SIZE)]]
        assert rig.bells.signals == [20]

    def test_what_comes_meanwhile_is_served_without_a_kick(self, rig: DeviceRig) -> None:
        """A driver that answers each answer with a request must not wait, nor keep others waiting."""
        plain = rig.core.on_chains
        left = ROUNDS * 5

        def on_chains(queue: int, chains: object) -> None:
            nonlocal left
            plain(queue, chains)  # type: ignore[arg-type]
            left -= 1
            if left:
                rig.got()
                rig.add(b"more")

        rig.core.on_chains = on_chains  # type: ignore[method-assign]
        rig.add(b"one")
        rig.kick()
        assert len(rig.core.batches) == ROUNDS
        rig.kick()
        assert len(rig.bells.later) == 1, "one turn is enough"
        while rig.bells.later:
            rig.bells.turn()
        assert len(rig.core.batches) == ROUNDS * 5
        rig.got()
        rig.add(b"later")
        assert rig.drivers[0].kick_prepare(), "and then a kick is asked for"

    def test_what_comes_while_the_device_goes_to_sleep(self) -> None:
        """Between the last look and the wish to be kicked: nobody will kick for it."""
        rig = DeviceRig()
        fence, waiting = rig.world.mb, [b"late"]
        assert fence is not None

        def mb() -> None:
            while waiting:
                rig.add(waiting.pop())
            fence()

        rig.world.mb = mb
        rig.bring_up()
        assert rig.got() == [b"etal"]

    def test_looks_once_without_a_kick(self) -> None:
        rig = DeviceRig()
        rig.add(b"before")
        rig.bring_up()
        assert rig.got() == [b"erofeb"]

    def test_looks_for_buffers_without_a_kick(self, rig: DeviceRig) -> None:
        """A driver gives buffers, then a command; the loop may hear of the two kicks in any order."""
        rig.device.look(1)
        assert rig.core.batches == []
        rig.add(b"", queue=1)
        rig.device.look(1)
        assert rig.core.emit(b"news")
        assert rig.got(1) == [b"news"]
        rig.add(b"", queue=1)
        rig.vrings[1].enabled = False
        rig.device.look(1)
        assert not rig.core.buffers

    def test_a_ring_without_kicks_is_looked_at_by_itself(self) -> None:
        rig = DeviceRig()
        rig.vrings[0].kick = None
        rig.vrings[0].polling = True
        rig.bring_up()
        rig.add(b"x")
        assert rig.got() == []
        rig.device.tick(1.5)
        assert rig.got() == [b"x"]
        assert "tick 1.5" in rig.core.calls
        assert rig.device.vring_stop(0) == 1

    def test_a_disabled_ring_waits(self) -> None:
        rig = DeviceRig()
        rig.vrings[0].enabled = rig.vrings[1].enabled = False
        rig.bring_up()
        rig.add(b"x")
        rig.kick()
        rig.device.vring_enable(0, False)
        assert rig.core.batches == []
        assert not rig.device.live(0)
        rig.vrings[0].enabled = True
        rig.device.vring_enable(0, True)
        assert rig.got() == [b"x"]
        assert rig.device.live(0)
        assert not rig.device.live(1)

    def test_no_call_descriptor_no_interrupt(self, rig: DeviceRig) -> None:
        rig.vrings[0].call = None
        rig.device.call_set(rig.vrings[0])
        rig.add(b"x")
        rig.kick()
        assert rig.bells.signals == []
        rig.vrings[0].call = 77
        rig.device.call_set(rig.vrings[0])
        assert rig.bells.signals == [77], "what was due"
        rig.got()
        rig.add(b"y")
        rig.kick()
        assert rig.bells.signals == [77, 77]

    def test_no_interrupt_is_due_where_none_was_wanted(self, rig: DeviceRig) -> None:
        rig.add(b"x")
        rig.kick()
        rig.got()
        rig.drivers[0].disable_cb()
        rig.bells.signals.clear()
        rig.add(b"y")
        rig.kick()
        rig.device.call_set(rig.vrings[0])
        assert rig.bells.signals == []

    def test_answers_of_the_tick_go_out(self, rig: DeviceRig) -> None:
        rig.core.holding = True
        rig.add(b"x")
        rig.kick()
        rig.device.queues[0].complete(rig.core.held.pop()[0], b"late")
        rig.device.tick(1.0)
        assert rig.got() == []
        rig.core.tick_answer = True
        rig.device.tick(2.0)
        assert rig.got() == [b"late"]

    def test_messages_by_the_other_queue(self, rig: DeviceRig) -> None:
        rig.add(b"", queue=1)
        assert not rig.core.emit(b"news")
        rig.kick(1)
        assert rig.core.emit(b"news")
        assert rig.got(1) == [b"news"]
        assert rig.bells.signals == [21]


class TestBroken:
    def test_one_queue_alone(self, rig: DeviceRig) -> None:
        rig.drivers[0].add([(1 << 40, 4)], [], "far away")
        rig.kick()
        assert rig.bells.signals == [30], "the front end hears of it"
        assert [(event, fields["queue"], fields["field"]) for event, fields in rig.logged] == [
            ("ring_broken", 0, "addr")
        ]
        assert not rig.device.live(0)
        assert rig.device.live(1)
        rig.kick()
        rig.device.tick(1.0)
        rig.add(b"", queue=1)
        rig.kick(1)
        assert rig.core.emit(b"news")
        assert rig.lost == 0

    def test_by_the_core(self, rig: DeviceRig) -> None:
        rig.core.refuse = RemoteError("request", 1, 2)
        rig.add(b"x")
        rig.kick()
        assert rig.device.queues[0].broken
        assert rig.logged[0][1]["field"] == "request"

    def test_without_a_descriptor_to_tell(self, rig: DeviceRig) -> None:
        rig.vrings[0].err = None
        rig.drivers[0].add([(1 << 40, 4)], [], "far away")
        rig.kick()
        assert rig.bells.signals == []

    def test_lives_again_after_a_stop(self, rig: DeviceRig) -> None:
        rig.core.holding = True
        rig.add(b"held")
        rig.kick()
        rig.drivers[0].add([(1 << 40, 4)], [], "far away")
        rig.kick()
        rig.core.held.clear()
        assert rig.device.vring_stop(0) == 1
        rig.core.holding = False
        fresh = DeviceRig()
        rig.device.memory_set(fresh.memory)
        rig.device.vring_start(fresh.vrings[0])
        fresh.add(b"abc")
        rig.kick()
        assert fresh.got() == [b"cba"]

    def test_memory_that_went(self, rig: DeviceRig) -> None:
        rig.intact = False
        rig.add(b"x")
        rig.kick()
        assert rig.got() == []
        assert rig.lost == 0, "not from within a hook"
        rig.bells.turn()
        assert rig.lost == 1


class TestMemory:
    def test_a_bank_more_under_a_running_ring(self, rig: DeviceRig) -> None:
        rig.core.holding = True
        rig.add(b"held")
        rig.kick()
        rig.device.memory_set(table((0, 1 << 16), (1 << 20, 1 << 16), (1 << 30, 1 << 16), like=rig.memory))
        rig.memory = rig.device.memory
        rig.core.holding = False
        rig.add(b"new", at=1 << 30)
        rig.kick()
        assert rig.got() == [b"wen"]
        [(head, request)] = rig.core.held
        rig.device.queues[0].complete(head, request[::-1])
        rig.device.queues[0].flush()
        assert rig.got() == [b"dleh"]
        assert rig.device.stats.memory_changes == 2

    def test_refused_where_a_ring_is_not_in_it(self, rig: DeviceRig) -> None:
        before = rig.device.memory
        for regions in ([(1 << 20, 1 << 16)], [(0, 0x1000), (1 << 20, 1 << 16)]):
            with pytest.raises(MemoryFaultError):
                rig.device.memory_set(table(*regions))
        assert rig.device.memory is before
        assert rig.device.stats.memory_changes == 1
        rig.add(b"goes on")
        rig.kick()
        assert rig.got() == [b"no seog"]

    def test_stopped_rings_ask_for_nothing(self, rig: DeviceRig) -> None:
        for index in range(2):
            rig.device.vring_stop(index)
        rig.device.memory_set(SharedMemory())
        with pytest.raises(MemoryFaultError):
            rig.device.vring_start(rig.vrings[0])
        assert rig.device.vring_stop(0) == 0, "not started"
        assert not rig.bells.watched

    def test_a_ring_where_it_may_not_lie(self, rig: DeviceRig) -> None:
        rig.device.vring_stop(0)
        good = rig.vrings[0].desc
        rig.vrings[0].desc = None
        with pytest.raises(RemoteError, match="no addresses"):
            rig.device.vring_start(rig.vrings[0])
        rig.vrings[0].desc = USER + 8
        with pytest.raises(RemoteError, match="not aligned"):
            rig.device.vring_start(rig.vrings[0])
        rig.vrings[0].desc = good
        rig.device.vring_start(rig.vrings[0])


class TestStop:
    def test_everything_taken_is_answered_and_the_rest_comes_again(self, rig: DeviceRig) -> None:
        rig.core.holding = True
        rig.add(b"ab")
        rig.add(b"cd", at=(1 << 20) + 512)
        rig.kick()
        for n in range(3):
            rig.add(b"", queue=1, at=(1 << 20) + 0x1000 + 512 * n)
        rig.kick(1)
        assert rig.core.emit(b"news")
        assert rig.device.vring_stop(0) == 2
        assert rig.got() == [b"ba", b"dc"]
        assert rig.device.vring_stop(1) == 1
        assert rig.got(1) == [b"news"]
        assert rig.core.calls == ["reset", "stop 0", "stop 1"]
        assert not rig.bells.watched
        assert rig.device.vring_stop(1) == 1, "said again"
        rig.bells.signals.clear()
        rig.device.call_set(rig.vrings[0])
        assert rig.bells.signals == [], "nothing is due of a ring that stopped"
        assert rig.device.stats.stops == 2
        rig.core.holding = False
        for vring, base in zip(rig.vrings, (2, 1), strict=True):
            vring.base = base
            rig.device.vring_start(vring)
        assert len(rig.core.buffers) == 2
        assert not rig.device.queues[0].again
        rig.add(b"ef")
        rig.kick()
        assert rig.got() == [b"fe"]

    def test_a_turn_that_was_due_finds_nothing(self, rig: DeviceRig) -> None:
        plain = rig.core.on_chains

        def on_chains(queue: int, chains: object) -> None:
            plain(queue, chains)  # type: ignore[arg-type]
            rig.got()
            rig.add(b"more")

        rig.core.on_chains = on_chains  # type: ignore[method-assign]
        rig.add(b"one")
        rig.kick()
        base = rig.device.vring_stop(0)
        assert base == ROUNDS
        rig.bells.turn()
        assert len(rig.core.batches) == ROUNDS

    def test_a_size_that_the_core_refuses(self, rig: DeviceRig) -> None:
        rig.device.vring_stop(0)
        rig.vrings[0].size = 1
        with pytest.raises(RemoteError, match="size"):
            rig.device.vring_start(rig.vrings[0])
        assert not rig.bells.watched.keys() & {10}


class TestAnew:
    def stop(self, rig: DeviceRig) -> list[int]:
        return [rig.device.vring_stop(index) for index in range(2)]

    def test_a_driver_that_begins_at_0(self, rig: DeviceRig) -> None:
        rig.add(b"x")
        rig.kick()
        self.stop(rig)
        rig.device.reset()
        assert (rig.device.features, rig.device.status) == (0, 0)
        assert rig.core.calls == ["reset", "stop 0", "stop 1"]
        fresh = DeviceRig()
        rig.device.features_set(FEATURES)
        rig.device.memory_set(fresh.memory)
        fresh.add(b"", queue=1)
        for vring in fresh.vrings:
            rig.device.vring_start(vring)
        assert rig.core.calls == ["reset", "stop 0", "stop 1", "reset"], "once"
        assert (rig.device.stats.fresh_starts, rig.device.stats.resets) == (2, 1)
        assert len(rig.core.buffers) == 1, "not those that came after"
        assert not rig.device.queues[0].again

    def test_a_driver_that_goes_on(self, rig: DeviceRig) -> None:
        """A machine that was paused, whether the front end writes status 0 then or not."""
        rig.core.calls.clear()
        rig.add(b"x")
        rig.kick()
        bases = self.stop(rig)
        rig.device.reset()
        rig.device.features_set(FEATURES)
        rig.add(b"y", at=(1 << 20) + 512)
        for vring, base in zip(rig.vrings, bases, strict=True):
            vring.base = base
            rig.device.vring_start(vring)
        assert "reset" not in rig.core.calls
        assert rig.got() == [b"x", b"y"]
        assert rig.device.queues[0].stats.again == 0, "it was stopped here"
        rig.device.vring_stop(0)
        rig.vrings[0].base = 0
        rig.device.vring_start(rig.vrings[0])
        assert "reset" not in rig.core.calls, "the other ring ran all the time"

    def test_where_another_incarnation_stood(self) -> None:
        rig = DeviceRig(start=5)
        rig.add(b"x")
        seen = []

        def on_chains(queue: int, chains: list[tuple[int, bytes, object]]) -> None:
            seen.append([head in rig.device.queues[queue].again for head, _, _ in chains])

        rig.core.on_chains = on_chains  # type: ignore[assignment]
        rig.bring_up()
        assert seen == [[True]]
        rig.add(b"y")
        rig.kick()
        assert seen == [[True], [False]]

    def test_status(self, rig: DeviceRig) -> None:
        rig.device.status_set(15)
        assert rig.device.status == 15


def test_what_the_session_asks() -> None:
    device = DeviceRig().device
    assert device.device_features == FEATURES
    assert device.queue_sizes == [SIZE, SIZE]
    with pytest.raises(RemoteError, match="no configuration"):
        device.config_get(0, 4)
    with pytest.raises(RemoteError, match="no configuration"):
        device.config_set(0, b"\0")


def test_layout_of_the_rig() -> None:
    """The rings of the rig do not overlap its tables and buffers."""
    assert SplitLayout.packed_at(0x1000, SIZE).end <= 0x4000
