"""A NIC with several queue pairs and a control queue, the guest's port, a driver and a VMM that are plain models, and
messages that wait until the test moves them.

Imported as ``tests.services.vdpa_nic.mesh_rig``. Unlike :mod:`nic_rig` the rings are used by hand, so that a test may
do with each of them what it likes: disable it, reset it, fill it with nonsense.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from common.memory import ACCESS_RW
from common.virtio.features import Feature, mask
from common.virtio.net_ctrl import CTRL_HEADER, VQ_PAIRS, CtrlClass, MqCommand
from common.virtio.net_header import NET_HEADER_BYTES, TX_PLAIN
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.messages import Call, Irq, Message, Return
from tests.services.vdpa_nic.wire_rig import BYTES, IOVA, MAC, RAM, WORLD, WireRig, as_device_sees

FEATURES: Final = mask(Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.NET_MAC, Feature.RING_RESET)
#: Bytes of one buffer; a frame of the tests has FRAME_BYTES: two addresses, a type, pair and number.
BUFFER: Final = 128
FRAME_BYTES: Final = 14 + 1 + 8

#: A whole map of guest memory, which is what a VMM says at first.
WHOLE: Final = [(RAM + IOVA, BYTES, RAM, ACCESS_RW)]
Step = tuple[str, list[Any], Callable[[], None] | None]
OFF: Final = ("set_vq_ready", [False])


def frame(pair: int, number: int) -> bytes:
    return MAC + b"\2\0\0\0\0\1\x88\xb5" + bytes([pair]) + number.to_bytes(8, "little")


class Queue:
    """One queue as its driver knows it."""

    def __init__(self, index: int, layout: SplitLayout, event_idx: bool, base: int, start: int) -> None:
        self.index: Final = index
        self.layout: Final = layout
        self.area: Final = as_device_sees(layout)
        self.start = start
        self.ring: SplitDriver
        self.event_idx: Final = event_idx
        #: guest addresses of buffers that are not in the ring
        self.free: Final = deque(base + i * BUFFER for i in range(layout.size))
        #: the driver wants the queue to run
        self.ready = True
        #: the device was told size and addresses since it, or the queue, was reset
        self.known = False
        self.irqs = 0
        self.pending = False

    @property
    def available(self) -> int:
        """u16, avail->idx: how far the driver got."""
        return self.ring.avail_idx

    @property
    def buffers(self) -> int:
        """Buffers in the ring, of any number of descriptors."""
        return sum(self.ring.tokens[head] is not None for head in range(self.ring.size))

    @property
    def outstanding(self) -> int:
        """Descriptors in the ring that the driver has not got back."""
        return self.ring.size - self.ring.num_free


class Mesh(WireRig):
    """One NIC with ``pairs`` queue pairs, all of them in use."""

    def __init__(
        self,
        *,
        pairs: int = 1,
        size: int = 8,
        event_idx: bool = True,
        starts: tuple[int, ...] = (),
        features: int = 0,
        memory: Any = None,
    ) -> None:
        super().__init__(pairs=pairs, size=size, queues=2 * pairs + 1, memory=memory)
        self.pairs: Final = pairs
        self.features = FEATURES | features | (Feature.EVENT_IDX.bit if event_idx else 0)
        self.features |= mask(Feature.NET_CTRL_VQ, Feature.NET_CTRL_RX) | (Feature.NET_MQ.bit if pairs > 1 else 0)
        self.queues: Final = []
        for index in range(2 * pairs + 1):
            at = self.layout.ring(size)
            start = starts[index % len(starts)] if starts else 0
            queue = Queue(index, at, event_idx, self.layout.alloc(size * BUFFER), start)
            queue.ring = SplitDriver(WORLD, self.memory, at, event_idx=event_idx, start=start)
            self.queues.append(queue)
        self.ctrl: Final = self.queues[-1]
        #: frames sent by pair, frames received as (pair that it came on, pair that it was sent on, number)
        self.sent = [0] * pairs
        self.got: list[tuple[int, int, int]] = []
        self.seq = 0
        #: every answer to the VMM
        self.said: list[Return] = []
        #: what the driver does next, and the call that it waits for
        self.todo: deque[Step] = deque()
        self.waiting = -1
        self.probing = False
        #: the driver has got as far as DRIVER_OK
        self.configured = False
        self.on_up: Callable[[], None] = lambda: None
        #: calls of the VMM that are not answered yet
        self.asked: dict[int, tuple[str, list[Any], Callable[[Return], None] | None]] = {}
        self.make_device()

    # --- the two ends -------------------------------------------------------------------------------------------------

    def interrupted(self, irq: Irq) -> None:
        queue = self.queues[irq.queue]
        assert irq.number == queue.irqs + 1
        queue.irqs, queue.pending = irq.number, True

    @property
    def is_pending(self) -> bool:
        return any(queue.pending for queue in self.queues)

    # --- the link -----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        super().connect()
        self.probing = True
        self.call("get_status", [])

    def restart(self) -> None:
        """The NIC dies and comes back knowing nothing; the link is left down."""
        self.disconnect()
        self.asked.clear()
        self.make_device()

    # --- the driver's calls: one after the other, the first of them again on a new connection -------------------------

    def call(self, op: str, args: list[Any]) -> None:
        self.seq += 1
        self.waiting = self.seq
        self.from_port(Call(self.seq, op, args))

    def do(self, *steps: Step) -> None:
        idle = not self.todo
        self.todo.extend(steps)
        if idle and self.up and not self.probing:
            self.call(*self.todo[0][:2])

    def returned(self, message: Return) -> None:
        if message.seq != self.waiting:
            return
        if self.probing:
            self.probing = False
            self.probed(message.value)
        else:
            assert message.errno == 0, (self.todo[0][:2], message)
            after = self.todo.popleft()[2]
            if after is not None:
                after()
        if self.todo:
            self.call(*self.todo[0][:2])

    def probed(self, status: int) -> None:
        if self.todo and self.todo[0][:2] == ("set_status", [0]):
            return
        if not status & 4 and (self.configured or self.todo):  # it restarted, or was being set up
            # what it was told of a queue it has forgotten: that is all said again, or when the queue is enabled
            kept = [(op, args, f) for op, args, f in self.todo if op == "reset_vq" or (op, args[1:]) == OFF]
            self.todo.clear()
            self.todo.extend(kept)
            for queue in self.queues:
                queue.known = False
            self.todo.extendleft(reversed(self.bring_up(status)))

    def nothing(self) -> None:
        """A step of the set-up is done."""

    def is_up(self) -> None:
        """DRIVER_OK is answered."""
        self.configured = True
        for queue in self.queues:
            queue.known = queue.known or queue.ready
        self.on_up()
        if self.pairs > 1:
            self.command(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET, VQ_PAIRS.pack(self.pairs))

    @property
    def idle(self) -> bool:
        """The device is set up, and the driver wants nothing else."""
        return self.configured and not self.todo

    def bring_up(self, status: int = 0) -> list[Step]:
        """The calls of virtio 1.3 §3.1.1."""
        calls: list[tuple[str, list[Any]]] = []
        if not status & 8:
            calls += [("set_status", [3]), ("set_driver_features", [self.features]), ("set_status", [11])]
        for queue in self.queues:
            if queue.ready:
                calls += self.set_up(queue)
        return [*((op, args, self.nothing) for op, args in calls), ("set_status", [15], self.is_up)]

    def set_up(self, queue: Queue, start: int | None = None) -> list[tuple[str, list[Any]]]:
        """The calls that set one queue up; the last two say where it begins, and switch it on."""
        i, area = queue.index, queue.area
        return [
            ("set_vq_num", [i, area.size]),
            ("set_vq_address", [i, area.desc, area.driver, area.device]),
            ("set_vq_cb", [i, 40 + i]),
            ("set_vq_state", [i, queue.start if start is None else start]),
            ("set_vq_ready", [i, True]),
        ]

    # --- the VMM ------------------------------------------------------------------------------------------------------

    def vmm(self, op: str, *args: Any, after: Callable[[Return], None] | None = None) -> Return | None:
        """A call of the VMM; its answer if it came at once. ``after(answer)`` is called when it comes."""
        self.seq += 1
        self.asked[self.seq] = (op, list(args), after)
        before, seq = len(self.said), self.seq
        self.device.vmm_frame(Call(seq, op, list(args)))
        return next((answer for answer in self.said[before:] if answer.seq == seq), None)

    def answered(self, message: Message) -> None:
        assert isinstance(message, Return)
        after = self.asked.pop(message.seq)[2]
        self.said.append(message)
        if after is not None:
            after(message)

    # --- buffers ------------------------------------------------------------------------------------------------------

    def transmit(self, pair: int, count: int = 1) -> int:
        """Put up to ``count`` frames on the pair's transmit ring; no kick. Returns how many."""
        queue = self.queues[2 * pair + 1]
        count = min(count, queue.ring.num_free, len(queue.free))
        for _ in range(count):
            addr = queue.free.popleft()
            self.memory.write(addr, TX_PLAIN + frame(pair, self.sent[pair]))
            queue.ring.add([(addr + IOVA, NET_HEADER_BYTES + FRAME_BYTES)], [], addr)
            self.sent[pair] += 1
        return count

    def give(self, pair: int, count: int = 1000) -> None:
        """Put up to ``count`` buffers on the pair's receive ring; no kick."""
        queue = self.queues[2 * pair]
        for _ in range(min(count, queue.ring.num_free, len(queue.free))):
            addr = queue.free.popleft()
            queue.ring.add([], [(addr + IOVA, BUFFER)], addr)

    def command(self, cls: CtrlClass, command: int, data: bytes) -> None:
        """A command on the control queue, if it has room; and the kick."""
        queue = self.ctrl
        if queue.ring.num_free >= 2 and queue.free:
            addr = queue.free.popleft()
            whole = CTRL_HEADER.pack(cls, command) + data
            self.memory.write(addr, whole + b"\xff" * 8)
            queue.ring.add([(addr + IOVA, len(whole))], [(addr + IOVA + BUFFER - 1, 1)], addr)
            self.kick(queue)

    def kick(self, queue: Queue) -> None:
        if queue.ring.kick_prepare():
            self.port.doorbell(queue.index)

    def interrupts(self) -> None:
        """The vCPUs take what is pending."""
        for queue in self.queues:
            if queue.pending:
                queue.pending = False
                self.poll(queue)

    def poll(self, queue: Queue) -> None:
        while True:
            queue.ring.disable_cb()
            self.take(queue)
            if queue.ring.enable_cb():
                return

    def take(self, queue: Queue) -> None:
        """What the device used comes back."""
        for addr, length in queue.ring.get_bufs(queue.ring.size):
            queue.free.append(addr)
            data = self.memory.read(addr, length)
            if queue is self.ctrl:
                assert length == 1
                assert self.memory.read(addr + BUFFER - 1, 1) == b"\0", "a command was refused"
            elif queue.index & 1:
                assert length == 0
            else:
                pair, number = data[-9], int.from_bytes(data[-8:], "little")
                assert data[NET_HEADER_BYTES:] == frame(pair, number), "a frame was damaged"
                self.got.append((queue.index >> 1, pair, number))

    # --- a start that most tests want ---------------------------------------------------------------------------------

    def start(self) -> Mesh:
        """Bring everything up, with all receive buffers given."""
        self.vmm("set_map", 0, WHOLE)
        self.do(*self.bring_up())
        self.connect()
        self.settle()
        for pair in range(self.pairs):
            self.give(pair)
            self.kick(self.queues[2 * pair])
        self.settle()
        assert self.asked == {}
        assert self.device.status == 15
        return self

    def reset(self) -> None:
        """The driver resets the device, takes all its buffers back and begins anew."""

        def forget() -> None:
            self.configured = False
            self.port.reset()
            for queue in self.queues:
                queue.free.extend(queue.ring.reinit(queue.start))

        self.do(("set_status", [0], forget), *self.bring_up())
        self.settle()
        for pair in range(self.pairs):
            self.give(pair)
            self.kick(self.queues[2 * pair])
        self.settle()

    def echoes(self, pair: int, count: int = 3) -> bool:
        """Does the pair work: ``count`` frames go out and come back, in order."""
        before = len(self.got)
        first = self.sent[pair]
        self.transmit(pair, count)
        self.kick(self.queues[2 * pair + 1])
        self.settle()
        self.give(pair)
        self.kick(self.queues[2 * pair])
        self.settle()
        return self.got[before:] == [(pair, pair, first + i) for i in range(count)]
