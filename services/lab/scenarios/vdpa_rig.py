"""What the scenarios on vDPA share: a driver, a port with its queue object, a device that changes its map.

::

    driver   makes buffers available, rings the doorbell, takes what is used
    port     the hardware: carries out the device's commands, one after the other
    vdpa     the device: VdpaDevice with one queue, which completes what it is given

Doorbell and commands are serialised by a lock, *hw*: hardware does one thing at a time, though the driver may store
into the ring at any moment of it. Frames are encoded as on the wire. A buffer that is never fetched leaves the driver
waiting for ever, which the lab calls a deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.virtio.features import Feature, mask
from common.virtio.msi_source import MsiSource
from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.wire.codec import decode, encode_body
from common.wire.messages import Call, Chain, Message, Notice, Return
from services.guest_driver.port import Port
from services.lab.actor import BLOCKED, READY
from services.lab.labels import label_split_ring
from services.lab.memory import LabMemory
from services.lab.reach import WorldMade
from services.lab.scenario import Build, Checks
from services.lab.world import LabWorld
from services.vdpa_nic.address_space import AddressSpaces
from services.vdpa_nic.vdpa import VMM_OPS, VdpaDevice

RAM: Final = (0x1000, 0x1000)
DIMM: Final = (0x8000, 0x100)
SIZE: Final = 4
#: the map at first, and the one with the DIMM
FIRST: Final = ((*RAM, RAM[0], 3),)
PLUGGED: Final = (*FIRST, (*DIMM, DIMM[0], 3))
_FEATURES: Final = mask(Feature.VERSION_1, Feature.ACCESS_PLATFORM)
#: ACKNOWLEDGE and DRIVER, FEATURES_OK, DRIVER_OK, each with those before it
_ATTACH, _NEGOTIATED, _RUN = 3, 11, 15
#: what ladders show of a frame
OVER: Final = Notice("over")
_TOLD: Final = ("op", "index", "avail", "first_idx", "generation")


class Link(WorldMade):
    """Frames one way. Sending is one step, and so is receiving all that has arrived together, which waits for some."""

    __slots__ = ("_frames", "_loc", "_run", "lab_name")

    def __init__(self, world: LabWorld, name: str) -> None:
        self._run = world.run
        self.lab_name = name
        self._loc = (name, "*")
        self._frames: list[bytes] = []

    def __len__(self) -> int:
        return len(self._frames)

    def state(self) -> int:
        return READY if self._frames else BLOCKED

    def brief(self) -> str:
        return self.describe()

    def describe(self) -> str:
        return self.lab_name

    def _note(self, kind: str, frames: list[bytes]) -> None:
        if self._run.trace is not None:
            self._run.note(kind, self._loc, ", ".join(_told(decode(frame)) for frame in frames))

    def send(self, message: Message) -> None:
        frame = encode_body(message)
        self._run.access("send", self._loc, True)
        self._frames.append(frame)
        self._note("send", [frame])

    async def receive(self) -> list[Message]:
        """What has arrived, at least one message."""
        self._run.gated("receive", self._loc, True, self)
        self._note("receive", self._frames)
        return self.drain()

    def drain(self) -> list[Message]:
        """Set-up only: what has been sent."""
        frames, self._frames = self._frames, []
        return [decode(frame) for frame in frames]


def _told(message: Message) -> str:
    """What ladders show of a message."""
    fields = [f"{name} {getattr(message, name)}" for name in _TOLD if hasattr(message, name)]
    return " ".join((type(message).__name__, *fields))


class Device(VdpaDevice):
    """One queue; completes what it is given, in order, when what has arrived together is handled, as the NIC does.
    ``done``: buffers completed; ``answered``: calls of the VMM that are done."""

    def __init__(self, rig: Rig, policy: PortPolicy) -> None:
        super().__init__(
            send=rig.to_port.send,
            answer_vmm=self.on_answer,
            msi=MsiSource("vm", 0, lambda _message: None),
            clock=lambda: 0.0,
            offered=_FEATURES | Feature.EVENT_IDX.bit,
            queue_sizes=[SIZE],
            log=lambda _event, **_context: None,
            spaces=AddressSpaces(1, 1, 4),
            policy=policy,
        )
        self._rig: Final = rig
        self.done = 0
        self.answered = 0
        self._held: list[int] = []
        self._paused = False

    def on_answer(self, message: Message) -> None:
        """The VMM hears that its call is done."""
        assert isinstance(message, Return)
        if message.errno:
            raise AssertionError(f"the VMM's call was refused: {message.value}")
        self.answered += 1
        self._rig.answered()

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        self._held += [head for head, _, _ in chains]

    def batch_end(self) -> None:
        self.work()
        super().batch_end()

    def work(self) -> None:
        """Complete what is in hand, unless the queue is to stand still."""
        if not self._paused:
            for head in self._held:
                self.complete(head)
            self._held.clear()

    def complete(self, head: int) -> None:
        """Done with one buffer."""
        self.done += 1
        self.queues[0].complete(head, b"")

    def stop_queue(self, queue: int) -> Sequence[int]:
        held, self._held = self._held, []
        return held

    def flow(self, on: bool) -> None:
        self._paused = not on
        if on:
            self.batch_end()

    def on_reset(self) -> None:
        self._held.clear()
        super().on_reset()

    def call(self, op: str, *args: Any) -> Any:
        """A call that nobody waits for; the value of one that is answered at once."""
        call = Call(0, op, list(args))
        if op in VMM_OPS:
            self.vmm_frame(call)
            return None
        answer = self.answer(call)
        assert answer is not None
        assert answer.errno == 0, answer
        return answer.value


@dataclass(slots=True, frozen=True)
class Input:
    """What happens in a run: the driver makes ``buffers`` available, each with a kick; ``calls`` are on their way to a
    device with the map ``first``. Before the run begins ``sent`` buffers have been made available, and the device has
    done ``worked`` of them: its answers are on their way to the port."""

    name: str
    calls: tuple[tuple[Any, ...], ...] = (("set_map", 0, PLUGGED),)
    buffers: int = 2
    sent: int = 0
    worked: int = 0
    event_idx: bool = False
    first: tuple[tuple[int, int, int, int], ...] = FIRST


class Rig:
    """``world.new(Rig, world, given, port_class)``: memory, ring, port and links of one run, all in use already."""

    __slots__ = ("given", "hw", "layout", "memory", "port", "to_device", "to_port", "vq", "world")

    given: Final[Input]
    hw: Final[Any]
    layout: Final[SplitLayout]
    memory: Final[LabMemory]
    port: Final[Port]
    to_device: Final[Link]
    to_port: Final[Link]
    vq: Final[SplitDriver]
    world: Final[LabWorld]

    def __init__(self, world: LabWorld, given: Input, port: type[Port]) -> None:
        self.world = world
        self.given = given
        self.memory = memory = world.memory(RAM[1], RAM[0])
        memory.add_region(*DIMM)
        self.layout = SplitLayout.packed_at(RAM[0], SIZE)
        label_split_ring(world, memory, self.layout)
        self.hw = world.spinlock()
        self.to_port = Link(world, "to port:")
        self.to_device = Link(world, "to device:")
        self.vq = world.new(SplitDriver, world, memory, self.layout, event_idx=given.event_idx)
        self.vq.disable_cb()
        self.port = world.new(port, world, memory, queues=1, send=self.to_device.send, clock=lambda: 0.0)
        self.port.online = True

    def buffer(self, number: int) -> int:
        """Guest address of a buffer of 8 bytes."""
        return self.layout.end + 63 & ~63 | 8 * number

    # --- set-up -------------------------------------------------------------------------------------------------------

    def start(self, device: Device) -> None:
        """Bring the device up under the first map, as driver and VMM do."""
        device.call("set_map", 0, self.given.first)
        self._settle(device)
        self.bring_up(device, 0)
        self._settle(device)
        device.answered = 0
        for number in range(self.given.sent):
            self.expose(number)
            if number < self.given.worked:
                for message in self.to_device.drain():
                    device.frame(message)
                device.batch_end()
        for number, (op, *args) in enumerate(self.given.calls):
            self.to_device.send(Call(number, op, list(args)))

    def bring_up(self, device: Device, index: int) -> None:
        """The driver's calls, up to DRIVER_OK. The queue begins at ``index``."""
        at = self.layout
        device.call("set_status", _ATTACH)
        device.call("set_driver_features", _FEATURES | (Feature.EVENT_IDX.bit if self.given.event_idx else 0))
        device.call("set_status", _NEGOTIATED)
        device.call("set_vq_num", 0, SIZE)
        device.call("set_vq_address", 0, at.desc, at.driver, at.device)
        device.call("set_vq_state", 0, index)
        device.call("set_vq_ready", 0, True)
        device.call("set_status", _RUN)

    def _settle(self, device: Device) -> None:
        while len(self.to_port) or len(self.to_device):
            for link, take in ((self.to_port, self.port.frame), (self.to_device, device.frame)):
                for message in link.drain():
                    take(message)

    # --- actors -------------------------------------------------------------------------------------------------------

    def actors(self, device: Device) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        return [("driver", self.drive()), ("port", self.engine()), ("vdpa", self.serve(device))]

    async def drive(self) -> None:
        """The driver: all buffers out, then all of them in."""
        for number in range(self.given.sent, self.given.buffers):
            self.expose(number)
        await self.take_back()

    async def take_back(self) -> None:
        """All buffers that were made available."""
        for _ in range(self.given.buffers):
            while self.vq.get_buf() is None:
                await self.world.relax()

    def expose(self, number: int) -> None:
        """Make one buffer available."""
        self.vq.add((), ((self.buffer(number), 8),), number + 1)
        if self.vq.kick_prepare():
            self.kick()

    def kick(self) -> None:
        """The doorbell of queue 0."""
        with self.hw:
            self.port.doorbell(0)

    async def engine(self) -> None:
        """The port: the device's commands in their order."""
        while True:
            for message in await self.to_port.receive():
                if isinstance(message, Notice):
                    if message == OVER:
                        return
                    raise AssertionError(f"the device gave up: {message.detail}")
                if isinstance(message, Return):
                    self.returned(message)
                    continue
                with self.hw:
                    self.port.frame(message)

    def answered(self) -> None:
        """A call of the VMM is answered."""

    def returned(self, message: Return) -> None:
        """A call of the guest is answered."""
        raise AssertionError(f"nobody called: {message}")

    async def serve(self, device: Device) -> None:
        """The device, until all buffers are done and all calls answered."""
        while not self.served(device):
            for message in await self.to_device.receive():
                self.take(device, message)
            device.batch_end()
        self.to_port.send(OVER)

    def served(self, device: Device) -> bool:
        """Has the device nothing more to do?"""
        return device.done >= self.given.buffers and device.answered == len(self.given.calls)

    def take(self, device: Device, message: Message) -> None:
        """One message of the port, or a call of the guest or of the VMM."""
        if isinstance(message, Call) and message.op in VMM_OPS:
            device.vmm_frame(message)
        else:
            device.frame(message)


def name_things(world: LabWorld, rig: Rig) -> None:
    """Readable names for ladders."""
    port: Any = rig.port
    queue = port.queues[0]
    for thing, name in (
        (rig.vq, "vq"),
        (rig.vq.tokens, "vq.tokens"),
        (rig.vq.chain_len, "vq.chain_len"),
        (rig.vq.next_free, "vq.next_free"),
        (rig.hw, "hw"),
        (port, "port"),
        (port.stats, "stats"),
        (port.keys._keys, "keys"),
        (queue, "queue"),
        (queue.in_flight, "in_flight"),
        (queue.depth, "depth"),
        (queue.visible, "visible"),
        (port._unsignalled, "unsignalled"),
        (queue.ring, "ring"),
    ):
        world.called(thing, name)


@dataclass(slots=True, frozen=True)
class Classes:
    """What a build is made of: the shipping classes, or variants of some of them."""

    port: type[Port] = Port
    device: type[Device] = Device
    rig: type[Rig] = Rig
    policy: PortPolicy = DEFAULT_POLICY


def start(world: LabWorld, given: Input, classes: Classes) -> Rig:
    """The rig, brought up, and its actors."""
    rig = world.new(classes.rig, world, given, classes.port)
    device = classes.device(rig, classes.policy)
    rig.start(device)
    name_things(world, rig)
    for name, actor in rig.actors(device):
        world.spawn(name, actor)
    return rig


def in_order(rig: Rig) -> str | None:
    """The final check: nothing is left in the ring or in flight, each buffer was used once."""
    queue, want = rig.port.queues[0], rig.given.buffers
    ring = queue.ring
    assert ring is not None
    stands = (ring.last_avail_idx, ring.used_idx, rig.vq.consumed, len(queue.in_flight), rig.port.stranded(0))
    if stands != (want, want, want, 0, 0):
        return f"{want} buffers: fetched up to, used up to, taken, in flight, stranded: {stands}"
    return None


def build(inputs: Sequence[Input], classes: Classes, check: Callable[[Rig], str | None] = in_order) -> Build:
    """Every one of ``inputs`` over ``classes``."""

    def setup(world: LabWorld) -> Checks:
        given = inputs[world.choice(len(inputs), "input")]
        rig = start(world, given, classes)
        return Checks(final=lambda: check(rig))

    return setup


def either(*builds: Build) -> Build:
    """Each of ``builds`` is a branch of the search."""

    def setup(world: LabWorld) -> Checks:
        return builds[world.choice(len(builds), "bench")](world)

    return setup
