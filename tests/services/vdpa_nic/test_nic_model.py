"""The vDPA NIC against a model that is simple: what is mapped, which queues run, which index each has, what is in it.

Any interleaving of doorbells, changes of map, suspend and resume, resets of the device and of queues, queues disabled
and enabled, traffic both ways, lost connections, restarts of the NIC and single steps of message delivery. Whenever
nothing moves any more the NIC, the port and the memory must agree with the model, and everything asked is answered.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.virtio.net_ctrl import CtrlClass, RxCommand
from common.virtio.vdpa_ops import Phase
from common.wire.messages import Message, Return
from tests.services.vdpa_nic.mesh_rig import WHOLE, Mesh, Queue, Step
from tests.services.vdpa_nic.nic_model import BAD, MAPS, PAGE, PAGES, Model
from tests.services.vdpa_nic.wire_rig import RAM


class NicModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rig: Mesh | None = None

    @initialize(
        pairs=st.integers(1, 2),
        size=st.sampled_from([2, 4, 8]),
        event_idx=st.booleans(),
        starts=st.sampled_from([(), (65533, 3, 65535)]),
    )
    def setup(self, pairs: int, size: int, event_idx: bool, starts: tuple[int, ...]) -> None:
        self.rig = rig = Mesh(pairs=pairs, size=size, event_idx=event_idx, starts=starts)
        self.model = Model(len(rig.queues))
        self.model.maps[0] = WHOLE
        self.resets = 0
        self.restarts = self.links_lost = 0
        #: frames may be dropped: somebody pulled a queue from under them
        self.lossy = False
        #: since the last reset began
        self.lost_link = False
        rig.device_takes = self.device_takes  # type: ignore[method-assign]
        rig.on_up = self.is_up
        rig.start()

    # --- the model follows --------------------------------------------------------------------------------------------

    def device_takes(self, message: Message) -> None:
        """The NIC handles a message; a reset ends a suspension, whoever asked for it."""
        device = self.mesh.device
        before = device.stats.resets
        device.frame(message)
        if device.stats.resets != before:
            self.model.suspended = False
            self.model.asids = [0, 0]

    @property
    def mesh(self) -> Mesh:
        assert self.rig is not None
        return self.rig

    def queue(self, number: int) -> Queue:
        return self.mesh.queues[number % len(self.mesh.queues)]

    def used(self, queue: Queue) -> int:
        return int.from_bytes(self.mesh.memory.read(queue.layout.device + 2, 2), "little")

    # --- traffic ------------------------------------------------------------------------------------------------------

    @rule(pair=st.integers(0, 1), count=st.integers(1, 4), kick=st.booleans())
    def transmit(self, pair: int, count: int, kick: bool) -> None:
        pair %= self.mesh.pairs
        self.mesh.transmit(pair, count)
        if kick:
            self.mesh.kick(self.mesh.queues[2 * pair + 1])

    @rule(pair=st.integers(0, 1), count=st.integers(1, 8), kick=st.booleans())
    def give(self, pair: int, count: int, kick: bool) -> None:
        pair %= self.mesh.pairs
        self.mesh.give(pair, count)
        if kick:
            self.mesh.kick(self.mesh.queues[2 * pair])

    @rule(device=st.integers(0, 3), port=st.integers(0, 3), cut=st.booleans())
    def burst(self, device: int, port: int, cut: bool) -> None:
        """Traffic on all pairs, of which the NIC and the port have seen a part when the next thing happens."""
        rig = self.mesh
        for pair in range(rig.pairs):
            self.give(pair, 2, True)
            self.transmit(pair, 2, True)
        rig.step("device", device)
        rig.step("port", port)
        if cut and rig.up:
            self.lose_link()

    @rule(on=st.booleans())
    def command(self, on: bool) -> None:
        self.mesh.command(CtrlClass.RX, RxCommand.ALLMULTI, bytes([on]))

    @rule(number=st.integers(0, 4), how=st.sampled_from(["late", "spurious", "vmm"]))
    def kick(self, number: int, how: str) -> None:
        queue = self.queue(number)
        if how == "late":
            self.mesh.kick(queue)
        elif how == "spurious":
            self.mesh.port.doorbell(queue.index)
        else:
            self.mesh.vmm("kick_vq", queue.index)

    @rule()
    def interrupts(self) -> None:
        self.mesh.interrupts()

    @rule(end=st.sampled_from(["device", "port"]), count=st.integers(0, 4))
    def move(self, end: str, count: int) -> None:
        self.mesh.step(end, count)

    # --- the VMM ------------------------------------------------------------------------------------------------------

    def vmm_map(self, op: str, asid: int, *args: Any) -> None:
        """A change of map: the model follows when it is answered, by what it then says that the answer must be."""

        def after(answer: Return) -> None:
            allowed, proposed = self.model.judge(op, asid, *args)
            assert answer.errno in allowed, (op, asid, args, self.model.maps, answer)
            if answer.errno == 0:
                self.model.maps[asid] = proposed

        self.mesh.vmm(op, asid, *args, after=after)

    @rule(asid=st.integers(0, 1), which=st.integers(0, len(MAPS) - 1))
    def set_map(self, asid: int, which: int) -> None:
        self.vmm_map("set_map", asid, MAPS[which])

    @rule(asid=st.integers(0, 1), which=st.integers(0, len(BAD) - 1))
    def set_bad_map(self, asid: int, which: int) -> None:
        self.vmm_map("set_map", asid, BAD[which][0])

    @precondition(lambda self: all(op != "reset_map" for op, _, _ in self.mesh.asked.values()) and self.model.maps[0])
    @rule(asid=st.just(0), page=st.sampled_from(PAGES), wide=st.booleans())
    def dma_map(self, asid: int, page: tuple[int, int, int, int], wide: bool) -> None:
        self.vmm_map("dma_map", asid, page[0], PAGE * (1 + wide), *page[2:])

    @rule(asid=st.integers(0, 1), page=st.sampled_from(PAGES), count=st.integers(1, 4))
    def dma_unmap(self, asid: int, page: tuple[int, int, int, int], count: int) -> None:
        self.vmm_map("dma_unmap", asid, page[0], PAGE * count)

    @precondition(lambda self: self.mesh.up and self.mesh.idle and not self.mesh.asked)
    @rule(whole=st.booleans())
    def pull_the_rings(self, whole: bool) -> None:
        """A map without the rings is refused where a queue stands in it."""
        rig = self.mesh
        rig.settle()
        standing = any(self.model.runs(queue) and self.model.asids[queue is rig.ctrl] == 0 for queue in rig.queues)
        if standing:
            answer = rig.vmm("reset_map", 0) if whole else rig.vmm("set_map", 0, [PAGES[0]])
            assert answer is not None
            assert answer.errno == errno.EINVAL

    @rule(asid=st.integers(0, 1))
    def reset_map(self, asid: int) -> None:
        self.vmm_map("reset_map", asid)

    @rule(group=st.integers(0, 1), asid=st.integers(0, 1))
    def set_group_asid(self, group: int, asid: int) -> None:
        answer = self.mesh.vmm("set_group_asid", group, asid)
        assert answer is not None
        assert answer.errno in (0, errno.EBUSY)
        if not answer.errno:
            self.model.asids[group] = asid

    @rule(what=st.sampled_from(["suspend", "resume"]))
    def suspend(self, what: str) -> None:
        def after(answer: Return) -> None:
            if answer.errno == errno.ECANCELED and self.mesh.device.stats.resets:
                return  # the driver reset the device while this waited for its turn
            assert answer.errno == 0, answer
            device = self.mesh.device
            # what was asked before DRIVER_OK has not been done
            assert device.suspended == (what == "suspend") or device.phase != Phase.RUNNING or device.stats.resets
            self.model.suspended = device.suspended
            for queue in self.mesh.device.queues if self.model.suspended else ():
                # suspended means that what is taken is done, so that both indices are one
                assert queue.state == queue.used_idx or not queue.live or self.lossy_index(queue.index)

        self.mesh.vmm(what, after=after)

    def lossy_index(self, _queue: int) -> bool:
        """A NIC that restarted has not seen what its predecessor had been given."""
        return self.restarts > 0

    @rule(
        call=st.sampled_from(
            [
                ("set_map", 2, []),
                ("dma_map", 0, -1, PAGE, RAM, 3),
                ("dma_map", 0, 1 << 40, PAGE, RAM, 4),
                ("dma_unmap", 0, 0, 0),
                ("reset_map", -1),
                ("set_group_asid", 2, 0),
                ("get_vq_state", 99),
                ("get_vq_group", -1),
                ("kick_vq", 99),
                ("set_status", 0),
                ("reset",),
                ("set_vq_ready", 0, False),
                ("no_such_thing",),
            ]
        )
    )
    def refused(self, call: tuple[Any, ...]) -> None:
        """What cannot be is refused, and changes nothing: the model does not hear of it."""

        def after(answer: Return) -> None:
            assert answer.errno != 0

        self.mesh.vmm(*call, after=after)

    # --- the driver ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.mesh.idle)
    @rule(number=st.integers(0, 4))
    def disable(self, number: int) -> None:
        queue = self.queue(number)
        self.lossy |= not queue.index & 1

        def done() -> None:
            queue.ready = False

        self.mesh.do(("set_vq_ready", [queue.index, False], done))

    @precondition(lambda self: self.mesh.idle)
    @rule(number=st.integers(0, 4))
    def enable(self, number: int) -> None:
        queue = self.queue(number)
        if not queue.ready:
            self.switch_on(queue)

    def switch_on(self, queue: Queue) -> None:
        *steps, last = self.mesh.set_up(queue)
        if not queue.known:
            self.mesh.do(*((op, args, None) for op, args in steps))
        self.mesh.do((*last, lambda: self.enabled(queue)))

    def enabled(self, queue: Queue) -> None:
        queue.ready = queue.known = True
        self.model.index.pop(queue.index, None)

    @precondition(lambda self: self.mesh.idle)
    @rule(number=st.integers(0, 4), start=st.sampled_from([0, 0, 1, 65534]), enable=st.booleans())
    def reset_vq(self, number: int, start: int, enable: bool) -> None:
        queue = self.queue(number)
        self.lossy = True

        def reset() -> None:
            self.mesh.port.reset_queue(queue.index)
            queue.ready = queue.known = False
            self.begin_anew(queue, start)
            self.model.index[queue.index] = 0

        def placed() -> None:
            queue.known = True
            self.model.index[queue.index] = start

        *calls, at, on = self.mesh.set_up(queue, start)
        steps: list[Step] = [(op, args, None) for op, args in calls]
        self.mesh.do(("reset_vq", [queue.index], reset), *steps, (*at, placed))
        if enable:
            self.mesh.do((*on, lambda: self.enabled(queue)))

    def begin_anew(self, queue: Queue, start: int) -> None:
        """The device holds nothing of the queue any more."""
        self.mesh.take(queue)
        for addr in queue.ring.reinit(start):
            queue.free.append(addr)
        queue.start = start
        queue.pending = False
        assert len(queue.free) == self.mesh.size, "a buffer is neither free nor in the ring"

    @precondition(lambda self: not self.mesh.todo)
    @rule(again=st.booleans())
    def reset(self, again: bool) -> None:
        self.lossy = True
        self.lost_link = False

        def reset() -> None:
            self.mesh.configured = False
            self.mesh.port.reset()
            for queue in self.mesh.queues:
                known = self.model.index.get(queue.index, -1 if self.lost_link else self.used(queue))
                self.model.index[queue.index] = known
                queue.known = False
                self.begin_anew(queue, queue.start)

        self.mesh.do(("set_status", [0], reset))
        if again:
            self.mesh.do(*self.mesh.bring_up())

    @precondition(lambda self: not self.mesh.todo and not self.mesh.configured)
    @rule()
    def set_up_again(self) -> None:
        """After a reset; what is disabled stays so."""
        self.mesh.do(*self.mesh.bring_up())

    def is_up(self) -> None:
        for queue in self.mesh.queues:
            if queue.ready:
                self.model.index.pop(queue.index, None)

    # --- connections --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.mesh.up)
    @rule()
    def lose_link(self) -> None:
        self.lost_link = True
        self.links_lost += 1
        self.mesh.disconnect()

    @precondition(lambda self: not self.mesh.up)
    @rule()
    def reconnect(self) -> None:
        self.mesh.connect()

    # --- nothing moves any more ---------------------------------------------------------------------------------------

    @rule()
    def quiet(self) -> None:
        """Everything is delivered: the NIC, the port and the memory agree with the model."""
        rig, model = self.mesh, self.model
        if not rig.up:
            rig.connect()
        for queue in rig.queues:
            rig.kick(queue)
        rig.settle()
        assert rig.asked == {}, "a call of the VMM was not answered"
        assert not rig.todo, "a call of the driver was not answered"
        assert rig.device.changes.machine.idle
        assert rig.device.suspended == model.suspended
        for asid, ranges in model.maps.items():
            in_force = rig.device.spaces.in_force(asid)
            assert [(m.iova, m.size, m.addr, m.perm) for m in in_force.mappings] == sorted(ranges)
        for group in (0, 1):
            assert rig.device.spaces.asid_of(group) == model.asids[group]
        if not self.links_lost:
            assert len(rig.port.keys) == len(rig.device.changes.keys), "a memory key that nobody holds stands"
        running = rig.device.status == 15
        for queue in rig.queues:
            self.look_at(queue, running and model.runs(queue))
        for pair in range(rig.device.core.state.pairs):
            waiting, buffers = rig.queues[2 * pair + 1], rig.queues[2 * pair]
            if running and model.runs(waiting) and model.runs(buffers):
                assert not (waiting.outstanding and buffers.outstanding), "a frame waits although there are buffers"

    def look_at(self, queue: Queue, runs: bool) -> None:
        rig, model = self.mesh, self.model
        assert not queue.ring.broken
        used = self.used(queue)
        assert used == queue.ring.last_used_idx, "the driver was not told of what is used"
        assert (queue.available - used) & 0xFFFF == queue.buffers
        expected = queue.available if runs else model.index.get(queue.index, used)
        if expected >= 0:
            answer = rig.vmm("get_vq_state", queue.index)
            assert answer is not None
            assert answer.value == expected, (queue.index, runs, answer, used, queue.available)
        far, near = rig.device.queues[queue.index], rig.port.queues[queue.index]
        assert not far.broken
        assert not near.broken
        assert far.running == runs
        assert rig.port.stranded(queue.index) == 0, "buffers are stranded"
        if near.ring is not None:
            assert near.ring.used_idx == used
            assert (near.ring.last_avail_idx - used) & 0xFFFF <= rig.size
        if runs:
            assert far.used_idx == used
            assert near.ring is not None
            assert near.ring.last_avail_idx == far.next_idx == queue.available, "fetched is not what was made available"
            assert far.in_hand == (queue.available - used) & 0xFFFF
            if queue is not rig.ctrl:
                pair = rig.device.core.pairs[queue.index >> 1]
                held = pair.waiting if queue.index & 1 else pair.buffers
                assert len(held) == far.in_hand, "a buffer in hand that nobody works on"

    @invariant()
    def nothing_odd(self) -> None:
        if self.rig is None:
            return
        assert self.rig.alarms == []
        assert len(set(self.rig.got)) == len(self.rig.got), "a frame was received twice"
        assert all(far.in_hand <= self.rig.size for far in self.rig.device.queues)

    def teardown(self) -> None:
        if self.rig is None:
            return
        rig = self.mesh
        self.quiet()
        # all is switched on again and gets what it needs: everything that was sent comes back
        for asid in (0, 1):
            self.vmm_map("set_map", asid, MAPS[1])
        self.suspend("resume")
        self.quiet()
        if not rig.configured:
            for queue in rig.queues:
                queue.ready = True
            self.set_up_again()
            self.quiet()
        for queue in rig.queues:
            if not queue.ready:
                self.switch_on(queue)
        self.quiet()
        rig.is_up()  # a control queue that was not running has not heard how many pairs are in use
        for _ in range(3):
            for pair in range(rig.pairs):
                rig.give(pair)
            self.quiet()
        for queue in rig.queues:
            if queue.index & 1 or queue is rig.ctrl:
                assert queue.outstanding == 0, "a buffer never completed"
        for pair in range(rig.pairs):
            numbers = [n for at, of, n in rig.got if (at, of) == (pair, pair)]
            assert numbers == sorted(numbers), "frames overtook each other"
            assert self.lossy or numbers == list(range(rig.sent[pair])), "frames were lost"


class Restarting(NicModel):
    """The same with a NIC that dies and comes back."""

    @rule()
    def restart(self) -> None:
        rig = self.mesh
        self.lossy = self.lost_link = True
        self.restarts += 1
        self.links_lost += 1
        rig.restart()
        self.model.forget()
        for queue in rig.queues:
            if rig.port.queues[queue.index].ring is None:
                self.model.index[queue.index] = -1
        self.vmm_map("set_map", 0, WHOLE)


PROFILE: Final = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestNicModel = NicModel.TestCase
TestNicModel.settings = PROFILE
TestRestarting = Restarting.TestCase
TestRestarting.settings = PROFILE
