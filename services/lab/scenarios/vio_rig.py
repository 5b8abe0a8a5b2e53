"""The bench of the transport's scenarios: the agent and its cmdq as they ship, a platform that echoes, an interrupt.

::

    cpu0, cpu1 …   commands, polled or waiting for the interrupt
    device         answers what is available, in the order that the scenario wants
    irq            the vCPU that runs the queue's callback
    worker         the deferred worker of the channel

A reply carries the bytes of its own command, so that one which reached another's xfer is seen at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from common.errors import ChannelBusyError, XferTimeoutError
from common.scmi.header import HEADER
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.workqueue import WorkQueue
from common.world import Atomic, Event
from services.guest_driver.layout import Layout
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_xfer import Xfer
from services.lab.labels import label_split_ring
from services.lab.memory import LabMemory
from services.lab.scenario import Build, Checks
from services.lab.world import LabWorld

_BASE: Final = 0x1000
_BYTES: Final = 0x4000
#: any command of any protocol: the platform echoes its payload
PROTOCOL: Final = 0x80
MESSAGE: Final = 0x3
_STATUS: Final = bytes(4)


def _unlogged(_event: str, **_fields: object) -> None:
    """The lab shows steps, not logs."""


def _payload(number: int) -> bytes:
    return bytes((number, 0, 0, 0))


def _same(got: bytes, sent: bytes) -> None:
    if got != sent:
        raise AssertionError(f"command {sent[0]} got the reply {got.hex()}")


class Rig:
    """``world.new(Rig, world, channel_class, …)``: ``size`` entries in the cmdq, twice the messages.

    ``masked``: interrupts are never taken, there is no *irq* actor; the last command to end stops the worker.
    """

    __slots__ = ("agent", "device", "device_lock", "irq_over", "irq_pending", "left", "masked", "memory",
                 "tx", "vqueue", "workqueue", "world")  # fmt: skip

    world: Final[LabWorld]
    memory: Final[LabMemory]
    vqueue: Final[SplitDriver]
    device: Final[SplitDevice]
    device_lock: Final[Any]
    workqueue: Final[WorkQueue]
    agent: Final[ScmiAgent]
    tx: Final[TxChannel]
    irq_pending: Final[Event]
    left: Final[Atomic]
    masked: Final[bool]

    def __init__(
        self,
        world: LabWorld,
        channel: type[TxChannel],
        agent: type[ScmiAgent] = ScmiAgent,
        *,
        size: int = 4,
        commands: int = 2,
        driver: type[SplitDriver] = SplitDriver,
        masked: bool = False,
    ) -> None:
        self.world = world
        self.masked = masked
        self.memory = memory = world.memory(_BYTES, _BASE)
        layout = Layout(_BASE, _BYTES)
        at = layout.ring(size)
        label_split_ring(world, memory, at)
        self.vqueue = world.new(driver, world, memory, at)
        self.device = world.new(SplitDevice, world, memory, at, check=False)
        self.device_lock = world.spinlock()
        self.workqueue = world.new(WorkQueue, world)
        self.agent = world.new(agent, world, _unlogged, timeout=inf)
        self.tx = world.new(
            channel, world, memory, self.vqueue, layout, self._doorbell, self.agent.rx_callback, self.workqueue
        )
        self.agent.attach(self.tx)
        #: the interrupt line
        self.irq_pending = world.event()
        #: commands that have not ended
        self.left = world.atomic(commands)
        self.irq_over = False

    def _doorbell(self) -> None:
        """The device looks at the ring by itself."""

    # --- actors -------------------------------------------------------------------------------------------------------

    async def command(self, number: int, poll: bool, timeout: float = inf) -> None:
        """One command from send to reply. Only one with a finite ``timeout`` may time out."""
        sent = _payload(number)
        try:
            got = await self.agent.do_xfer(PROTOCOL, MESSAGE, sent, expect=len(sent), poll=poll, timeout=timeout)
        except XferTimeoutError:
            if timeout == inf:
                raise
        else:
            _same(got, sent)
        await self._end()

    async def insist(self, number: int, poll: bool, timeout: float = inf) -> None:
        """:meth:`command`, again while there is no free message."""
        while True:
            try:
                return await self.command(number, poll, timeout)
            except ChannelBusyError:
                await self.world.relax()

    def sent(self, number: int, poll: bool) -> Xfer:
        """Set-up only: the first half of :meth:`command`, up to the doorbell."""
        done = None if poll else self.world.event()
        xfer = self.agent._begin(PROTOCOL, MESSAGE, _payload(number), 4, poll, done, False)
        self.tx.send_message(xfer)
        return xfer

    async def wait(self, xfer: Xfer, timeout: float = inf) -> None:
        """The second half: what the agent does with a command that is on its way."""
        await self._waited(xfer, timeout)
        if not self.agent._settle(self.tx, xfer):
            _same(xfer.rx, xfer.request[HEADER.size :])
        elif timeout == inf:
            raise AssertionError("a command ended without its reply")
        await self._end()

    async def _waited(self, xfer: Xfer, timeout: float) -> None:
        if xfer.done is None:
            await self.agent._poll(self.tx, xfer, timeout)
        else:
            await xfer.done.wait(timeout)

    async def _end(self) -> None:
        if self._ended() and self.masked:
            await self.workqueue.stop()

    async def glance(self, xfer: Xfer, looks: int) -> None:
        """As :meth:`wait` with a time-out, of which a loop sees only how often it can look before it is over."""
        for _ in range(looks):
            if self.tx.poll_done(xfer):
                break
        if not self.agent._settle(self.tx, xfer):
            _same(xfer.rx, xfer.request[HEADER.size :])
        await self._end()

    def _ended(self) -> bool:
        """One command less. True: it was the last."""
        if self.left.add(-1):
            return False
        if not self.masked:
            self.irq_over = True
            self.irq_pending.set()
        return True

    async def serve(self, count: int) -> None:
        """Answer ``count`` commands, in the order sent."""
        for _ in range(count):
            while (chain := self.device.pop()) is None:
                await self.world.relax()
            self.answer(chain)

    async def serve_in(self, order: Sequence[int]) -> None:
        """Answer the commands of these numbers in this order, whatever the order they were sent in."""
        held: dict[int, Any] = {}
        for number in order:
            while number not in held:
                while (chain := self.device.pop()) is None:
                    await self.world.relax()
                addr, length, _ = chain[1][0]
                held[self.memory.read(addr, length)[4]] = chain
            self.answer(held.pop(number))

    def answer(self, chain: Any) -> None:
        addr, length, _ = chain[1][0]
        self.reply(chain, self.memory.read(addr, length))

    def reply(self, chain: Any, request: bytes) -> None:
        head, segments, readable = chain
        reply = request[:4] + _STATUS + request[4:]
        self.memory.write(segments[readable][0], reply)
        self.device.push(head, len(reply))
        if self.device.need_interrupt() and not self.masked:
            self.irq_pending.set()

    async def interrupts(self) -> None:
        await self.take_interrupts()
        await self.workqueue.stop()

    async def take_interrupts(self) -> None:
        """Where one message is in flight at most, there is nothing for a worker to do, and none need be run."""
        over = False
        while not over:
            await self.irq_pending.wait()
            self.irq_pending.clear()
            over = self.irq_over
            self.tx.complete_cb()


def name_things(world: LabWorld, rig: Rig) -> None:
    """The mails' names, for ladders."""
    tx: Any = rig.tx
    wq: Any = rig.workqueue
    agent: Any = rig.agent
    for thing, name in (
        (rig, "rig"),
        (rig.vqueue, "vq"),
        (rig.device, "dev"),
        (rig.vqueue.tokens, "vq.tokens"),
        (rig.vqueue.chain_len, "vq.chain_len"),
        (rig.vqueue.next_free, "vq.next_free"),
        (tx, "vioch"),
        (tx.lock, "vioch.lock"),
        (tx.users, "vioch.users"),
        (tx.free_list, "free_list"),
        (tx.free_lock, "free_lock"),
        (tx.pending_cmds_list, "pending_cmds_list"),
        (tx.pending_lock, "pending_lock"),
        (tx.deferred_tx_work, "deferred_tx_work"),
        (tx.deferred_tx_work.pending, "PENDING"),
        (wq, "deferred_tx_wq"),
        (wq._lock, "wq.lock"),
        (wq._wake, "wq.wake"),
        (wq._stopped, "wq.stopped"),
        (wq._items, "wq.items"),
        (agent, "agent"),
        (agent._lock, "agent.lock"),
        (agent.in_flight, "agent.in_flight"),
        (agent.stats, "stats"),
        (rig.irq_pending, "interrupt"),
        (rig.left, "commands left"),
    ):
        world.called(thing, name)
    for i in range(tx.max_msg):
        msg = tx.messages[i]
        world.called(msg, f"msg{i}")
        world.called(msg.poll_lock, f"msg{i}.poll_lock")
        world.called(msg.users, f"msg{i}.users")
        world.label(rig.memory, msg.request, f"msg{i}.request")
        world.label(rig.memory, msg.input, f"msg{i}.input")


@dataclass(slots=True, frozen=True)
class Input:
    """What happens in a run: cpu*n* sends command *n*, polled where ``polls[n]``, with ``timeouts[n]`` seconds (none:
    for ever); the platform answers in ``order``. ``masked``: nobody takes interrupts. ``sent``: so many
    commands, the first ones, are on the ring when the run begins, which leaves fewer schedules. ``looks``: cpu0, whose
    command is, gives up after so many looks at the ring (0: never); the scheduler says when they are."""

    name: str
    polls: tuple[bool, ...]
    order: tuple[int, ...]
    masked: bool = False
    timeouts: tuple[float, ...] = ()
    sent: int = 0
    looks: int = 0


@dataclass(slots=True, frozen=True)
class Classes:
    """What a build is made of: the shipping classes, or variants of some of them."""

    channel: type[TxChannel] = TxChannel
    driver: type[SplitDriver] = SplitDriver
    agent: type[ScmiAgent] = ScmiAgent
    rig: type[Rig] = Rig


def start(world: LabWorld, given: Input, classes: Classes) -> Rig:
    """The rig and its actors."""
    rig = world.new(
        classes.rig,
        world,
        classes.channel,
        classes.agent,
        commands=len(given.polls),
        driver=classes.driver,
        masked=given.masked,
    )
    name_things(world, rig)
    timeouts = given.timeouts or (inf,) * len(given.polls)
    for number, (poll, timeout) in enumerate(zip(given.polls, timeouts, strict=True)):
        if number < given.sent:
            xfer = rig.sent(number, poll)
            world.called(xfer, f"xfer{number}")
            if xfer.done is not None:
                world.called(xfer.done, f"xfer{number}.done")
            waits = rig.glance(xfer, given.looks) if given.looks and not number else rig.wait(xfer, timeout)
            world.spawn(f"cpu{number}", waits)
        else:
            world.spawn(f"cpu{number}", rig.command(number, poll, timeout))
    world.spawn("device", rig.serve_in(given.order))
    if not given.masked:
        world.spawn("irq", rig.interrupts())
    world.spawn("worker", rig.workqueue.run())
    return rig


def accounted(rig: Rig) -> str | None:
    """The final check, when no command is left: every message is in one place, and counted where it is."""
    tx, vqueue = rig.tx, rig.vqueue
    places: list[list[object]] = [list(tx.free_list), list(tx.pending_cmds_list)]
    tokens = [vqueue.tokens[head] for head in range(vqueue.size)]
    places.append([token for token in tokens if token is not None])
    free, pending, ring = places
    for i in range(tx.max_msg):
        msg = tx.messages[i]
        where = [sum(m is msg for m in place) for place in places]
        if sum(where) != 1:
            found = f"{where[0]} times on free_list, {where[1]} on pending_cmds_list, {where[2]} on the ring"
            return f"msg{i} is lost" if not sum(where) else f"msg{i} is {found}"
        users = msg.users.load()
        if users != 1 - where[0]:
            return f"msg{i} has {users} users"
    if pending or len(free) + len(ring) != tx.max_msg:
        return f"free {len(free)} + on the ring {len(ring)} + pending {len(pending)}, max_msg {tx.max_msg}"
    return None


def build(inputs: Sequence[Input], classes: Classes | None = None) -> Build:
    """Every one of ``inputs`` over ``classes``; every command must end with its own reply, no message be lost."""
    made = classes or Classes()

    def setup(world: LabWorld) -> Checks:
        rig = start(world, inputs[world.choice(len(inputs), "input")], made)
        return Checks(final=lambda: accounted(rig))

    return setup
