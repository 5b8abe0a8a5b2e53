"""The port: a device's DMA engine and doorbell, standing in the guest's process because the memory is there.

It belongs to the device: the device makes memory keys, makes and destroys the queue objects and says at which index
they begin; the port reads ``avail->idx`` only when a real device would (at creation, at a kick, as the policy says),
gathers what it fetched into one frame a kick, and scatters the answers. What was fetched and not used it keeps in
order, so that a device that restarted is given it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.errors import LocalError, MemoryFaultError, RemoteError, RingError
from common.memory import MappedMemory, MemoryKey
from common.virtio.features import Feature
from common.virtio.policy import PortPolicy
from common.virtio.split_device import SplitDevice
from common.virtio.split_layout import SplitLayout
from common.wire.messages import (
    Broken,
    Create,
    CreateMkey,
    Destroy,
    DestroyMkey,
    Irq,
    Kick,
    Message,
    Resume,
    Resync,
    Save,
    Saved,
    Suspend,
    Used,
)
from common.world import Fifo, Memory, World
from services.guest_driver.port_dma import scatter, send_chains
from services.guest_driver.port_keys import PortKeys
from services.guest_driver.port_queue import ObjectState, PortQueue, PortStats

#: Places at which :attr:`Port.hook` is called, in the order of a change of map.
HOLD_POINTS: Final = ("suspended", "saved", "destroyed", "mkey_created", "created", "resumed")


class Port:
    """All queue objects of one device: ``world.new(Port, world, memory, …)``.

    ``send`` takes messages for the device; ``key_of`` gives memory keys that stand from the beginning (those that the
    device makes come on top); ``clock`` monotonic seconds. With ``defer`` the port asks by it to have :meth:`signal`
    called a little later, as a device reads the event index some time after it wrote the used index; without, at once.

    :meth:`frame` raises RemoteError only where the device breaks the protocol; a malformed ring of the guest breaks
    that queue and is told to the device.
    """

    __slots__ = (
        "_defer", "_unsignalled", "clock", "hook", "keys", "memory", "on_broken", "online", "queues", "send", "stats",
        "world",
    )  # fmt: skip

    world: Final[World]
    memory: Final[Memory]
    _defer: Final[Callable[[], None] | None]
    _unsignalled: Final[Fifo[PortQueue]]
    keys: Final[PortKeys]
    clock: Final[Callable[[], float]]
    queues: Final[tuple[PortQueue, ...]]
    stats: Final[PortStats]

    def __init__(
        self,
        world: World,
        memory: Memory,
        *,
        queues: int,
        send: Callable[[Message], None],
        key_of: Callable[[int], MemoryKey | None] = lambda _generation: None,
        clock: Callable[[], float],
        defer: Callable[[], None] | None = None,
    ) -> None:
        self.world = world
        self.memory = memory
        self.send = send
        self._defer = defer
        #: queues that published used elements and have not yet asked whether the driver wants an interrupt
        self._unsignalled = world.queue()
        self.keys = world.new(PortKeys, world, memory, key_of)
        self.clock = clock
        self.queues = tuple(world.new(PortQueue, world, i) for i in range(queues))
        self.stats = world.new(PortStats)
        #: False while the link to the device is down: nothing is fetched then
        self.online = False
        #: for experiments: ``hook(point, queue)`` is called at each of :data:`HOLD_POINTS` (queue -1: a key)
        self.hook: Callable[[str, int], None] | None = None
        #: hears of every queue that breaks, whichever side found it
        self.on_broken: Callable[[int], None] | None = None

    # --- the driver's side --------------------------------------------------------------------------------------------

    def doorbell(self, index: int) -> None:
        """The driver kicked queue ``index``."""
        queue = self.queues[index]
        self.stats.kicks += 1
        if queue.state != ObjectState.RDY or not self.online:
            queue.kicked = True
        elif queue.policy & PortPolicy.READ_AT_KICK:
            self._look(queue)

    def reset_queue(self, index: int) -> None:
        """The driver reset queue ``index`` (virtio 1.3 §2.6.1) and the device has confirmed it: nothing of what it held
        is in flight any more."""
        self.queues[index].reset(self.world)

    def stranded(self, index: int) -> int:
        """Buffers of queue ``index`` that the driver made available, that the port has not fetched, and for which no
        kick is remembered: a device that works leaves none behind."""
        queue = self.queues[index]
        if queue.ring is None or queue.state != ObjectState.RDY or not self.online:
            return 0
        waiting = queue.ring.waiting
        return waiting if waiting <= queue.ring.size else 0

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_up(self) -> None:
        """Tell the device where every queue that ever lived stands, and again which ones broke."""
        self.online = True
        self.keys.keep([queue.memory for queue in self.queues if queue.memory is not None])
        for queue in self.queues:
            ring = queue.ring
            if queue.fault is not None:
                self.send(Broken(queue.index, *queue.fault))
            elif ring is not None:
                if queue.state != ObjectState.NONE:
                    queue.state = ObjectState.SUSPEND  # until the device attaches
                queue.resyncing = True
                self.send(
                    Resync(
                        queue.index, ring.last_avail_idx, queue.avail, ring.used_idx, len(queue.in_flight),
                        queue.irq_number,
                    )
                )  # fmt: skip

    def link_down(self) -> None:
        """Nothing is fetched until the device is back."""
        self.online = False

    def reset(self) -> None:
        """The driver reset the device (virtio 1.3 §2.4): no queue object is left, and nothing in flight."""
        for queue in self.queues:
            queue.reset(self.world)
        while self._unsignalled:
            self._unsignalled.popleft()

    def frame(self, message: Message) -> None:
        """One command or answer from the device."""
        kind = type(message)
        if kind is Used:
            self._used(message)  # type: ignore[arg-type]
        elif isinstance(message, Kick):
            self.doorbell(self._queue(message.queue).index)
        elif isinstance(message, CreateMkey):
            self._create_mkey(message)
        elif isinstance(message, DestroyMkey):
            self.keys.destroy(message.generation)
        elif isinstance(message, Create):
            self._create(self._queue(message.queue), message)
        elif isinstance(message, Resume):
            self._resume(self._queue(message.queue))
        elif isinstance(message, Suspend):
            self._suspend(self._queue(message.queue))
        elif isinstance(message, Save):
            self._save(self._queue(message.queue))
        elif isinstance(message, Destroy):
            # what was fetched and not used stays known: the next object resumes, or is told to fetch it again
            queue = self._queue(message.queue)
            if not queue.broken:
                queue.state = ObjectState.NONE
            self._at("destroyed", queue.index)
        elif isinstance(message, Broken):
            queue = self._queue(message.queue)
            if not queue.broken:  # a device repeats it after a reconnect
                self._dead(queue, message.field, message.reason)

    def _queue(self, index: int) -> PortQueue:
        if not 0 <= index < len(self.queues):
            raise RemoteError("queue", index, len(self.queues) - 1)
        return self.queues[index]

    def _at(self, point: str, index: int) -> None:
        if self.hook is not None:
            self.hook(point, index)

    # --- memory keys --------------------------------------------------------------------------------------------------

    def _create_mkey(self, message: CreateMkey) -> None:
        answer = self.keys.create(message)
        if answer.errno:
            self.stats.mkeys_refused += 1
        else:
            self.stats.mkeys_created += 1
        self._at("mkey_created", -1)
        self.send(answer)

    # --- the queue object ---------------------------------------------------------------------------------------------

    def _create(self, queue: PortQueue, message: Create) -> None:
        if queue.broken:  # the device was told, or is told at the next link_up; only a reset makes it whole
            return
        memory = self.keys.get(message.generation)
        if memory is None:
            self._break(queue, RingError("create.generation", message.generation, None, "no such memory key"))
            return
        queue.policy = message.policy
        queue.resyncing = False
        if not (queue.alive and queue.memory is memory):
            # mlx5 too makes a new object for a new key; chains that a restarted device must see again stay known
            try:
                self._make(queue, message, memory)
            except (RingError, MemoryFaultError, LocalError) as error:
                if not isinstance(error, RingError):
                    error = RingError("create.address", message.desc, None, str(error))
                self._break(queue, error)
                return
        queue.state = ObjectState.INIT
        queue.resend_from = (message.index, bool(message.policy & PortPolicy.REFETCH))
        self._at("created", queue.index)

    def _make(self, queue: PortQueue, message: Create, memory: MappedMemory) -> None:
        """A new queue object. Raises RingError where the saved state that the device gives cannot be."""
        old = queue.ring
        if old is not None and message.used != old.used_idx:
            # from there the driver would be given stale elements, or wait for some that never come
            raise RingError("create.used", message.used, old.used_idx, "not where the used ring stands")
        if message.policy & PortPolicy.REFETCH and old is not None:
            index, avail = old.last_avail_idx, queue.avail
        else:
            index, avail = message.index, message.avail
            # handed back: the new object fetches them again
            for head in [h for h in queue.in_flight if _not_before(queue.in_flight[h][0], index)]:
                queue.in_flight.pop(head)
        ahead = (avail - index) & 0xFFFF
        if ahead > message.size:
            raise RingError("create.avail", avail, index, f"{ahead} entries ahead of the index, the queue has fewer")
        queue.generation = message.generation
        queue.memory = memory
        queue.ring = ring = self.world.new(
            SplitDevice,
            self.world,
            memory,
            SplitLayout(message.size, message.desc, message.driver, message.device),
            event_idx=bool(message.features & Feature.EVENT_IDX.bit),
            indirect=bool(message.features & Feature.INDIRECT_DESC.bit),
            check=False,  # gathering and scattering translate every segment
            avail=index,
            used=message.used,
        )
        if old is None and ring.published != message.used:
            raise RingError("create.used", message.used, ring.published, "not what used->idx in memory says")
        if message.policy & PortPolicy.READ_AT_CREATE:
            avail = (index + ring.available()) & 0xFFFF
        queue.avail = avail

    def _resume(self, queue: PortQueue) -> None:
        if queue.state not in (ObjectState.INIT, ObjectState.SUSPEND):
            return
        queue.state = ObjectState.RDY
        if queue.resend_from is not None:
            (index, refetch), known = queue.resend_from, queue.in_flight
            queue.resend_from = None
            if refetch:
                self._resend(queue, [head for head in known if not _not_before(known[head][0], index)], again=True)
            self._resend(queue, [head for head in known if _not_before(known[head][0], index)], again=False)
        kicked, queue.kicked = queue.kicked, False
        if kicked and queue.policy & PortPolicy.REPLAY_KICK:
            self.stats.kicks_replayed += 1
        elif kicked:
            self.stats.kicks_forgotten += 1
            kicked = False
        if queue.state == ObjectState.RDY:
            if kicked and queue.policy & PortPolicy.READ_AT_KICK:
                self._look(queue)
            else:
                self._fetch_known(queue)
        self._at("resumed", queue.index)

    def _suspend(self, queue: PortQueue) -> None:
        if queue.state in (ObjectState.INIT, ObjectState.RDY):
            queue.state = ObjectState.SUSPEND
        self._at("suspended", queue.index)
        if not queue.resyncing:  # otherwise the Resync is the answer: a second one would stand for a later Suspend
            self._save(queue)
        self._at("saved", queue.index)

    def _save(self, queue: PortQueue) -> None:
        ring = queue.ring
        if ring is None:
            self.send(Saved(queue.index, 0, 0, 0, 0))
            return
        self.send(Saved(queue.index, ring.last_avail_idx, queue.avail, ring.used_idx, len(queue.in_flight)))

    def _break(self, queue: PortQueue, error: RemoteError) -> None:
        """The queue cannot go on: tell the device."""
        self._dead(queue, error.field, str(error))
        self.send(Broken(queue.index, error.field, str(error)))

    def _dead(self, queue: PortQueue, field: str, reason: str) -> None:
        """This queue is dead until the driver resets the device, others go on. It keeps why: a device that restarted
        must not make it anew at index 0."""
        queue.state = ObjectState.ERR
        queue.fault = (field, reason)
        self.stats.rings_broken += 1
        if self.on_broken is not None:
            self.on_broken(queue.index)

    # --- available: memory → device -----------------------------------------------------------------------------------

    def _look(self, queue: PortQueue) -> None:
        """Read avail->idx and fetch, until there is nothing more and the driver is asked to kick for the next."""
        ring = queue.ring
        assert ring is not None
        try:
            waiting = ring.available()
            while True:
                if waiting:
                    self._fetch(queue, ring, waiting)
                if not ring.enable_notify():
                    return
                waiting = ring.available()
        except (RingError, MemoryFaultError) as error:
            self._break(queue, error)

    def _fetch_known(self, queue: PortQueue) -> None:
        """Fetch what is known to be available, and ask for a kick at the next entry, without a look at avail->idx:
        whatever came since has its kick still to come, or remembered."""
        ring = queue.ring
        assert ring is not None
        try:
            waiting = (queue.avail - ring.last_avail_idx) & 0xFFFF
            if 0 < waiting <= ring.size:
                self._fetch(queue, ring, waiting)
            ring.arm_notify()
        except (RingError, MemoryFaultError) as error:
            self._break(queue, error)

    def _fetch(self, queue: PortQueue, ring: SplitDevice, count: int) -> None:
        in_flight = queue.in_flight
        index = ring.last_avail_idx
        queue.avail = (index + count) & 0xFFFF
        while count:
            popped = ring.take_batch(count)
            for head, segments, readable in popped:
                if head in in_flight:
                    raise RingError("head", head, None, "made available twice")
                in_flight[head] = (index, segments, readable)
                index = (index + 1) & 0xFFFF
            count -= len(popped)
            self.stats.fetched += len(popped)
            queue.depth.seen(len(in_flight))
            send_chains(queue, [chain[0] for chain in popped], again=False, send=self.send)

    def _resend(self, queue: PortQueue, heads: list[int], *, again: bool) -> None:
        """Chains in flight that the device has not seen, or not in this incarnation."""
        if not heads or not queue.alive:
            return
        self.stats.resent += len(heads)
        if again:
            queue.again_sent += len(heads)
        try:
            send_chains(queue, heads, again=again, send=self.send)
        except (RingError, MemoryFaultError) as error:
            self._break(queue, error)

    # --- used: device → memory ----------------------------------------------------------------------------------------

    def _used(self, message: Used) -> None:
        queue = self._queue(message.queue)
        ring = queue.ring
        if ring is None or queue.broken:
            return
        elems = message.elems
        # after a reconnect the device repeats answers; those before the used index are in the ring already
        seen = (ring.used_idx - message.first_idx) & 0xFFFF
        if seen:
            if seen > len(elems):
                if queue.resyncing:  # sent before the device had heard where this side stands
                    return
                raise RemoteError("used.first_idx", message.first_idx, ring.used_idx, "not where the port stands")
            elems = elems[seen:]
        pushed: list[tuple[int, int]] = []
        in_flight = queue.in_flight
        memory = queue.memory
        assert memory is not None
        write = memory.write
        fault: MemoryFaultError | None = None
        try:
            for head, written in elems:
                entry = in_flight.get(head)
                if entry is None:
                    if queue.policy & PortPolicy.UNCHECKED and 0 <= head < ring.size:
                        pushed.append((head, len(written)))
                        continue
                    raise RemoteError("used.head", head, None, "not in flight")
                if written:
                    _, segments, readable = entry
                    if len(segments) == readable + 1 and len(written) <= segments[readable][1]:
                        write(segments[readable][0], written)
                    else:
                        scatter(memory, segments, readable, written)
                in_flight.pop(head)
                pushed.append((head, len(written)))
        except MemoryFaultError as error:  # the guest named an address that is not there
            fault = error
        finally:  # what precedes an element that cannot be written is complete
            self._push(queue, ring, pushed)
        if fault is not None:
            self._break(queue, fault)

    def _push(self, queue: PortQueue, ring: SplitDevice, pushed: list[tuple[int, int]]) -> None:
        """Publish used elements; ask for the interrupt if the driver wants it."""
        if not pushed:
            return
        ring.push_batch(pushed)
        self.stats.used += len(pushed)
        queue.depth.seen(len(queue.in_flight))
        queue.visible.mark(self.clock())
        if queue not in self._unsignalled:
            if not self._unsignalled and self._defer is not None:
                self._defer()
            self._unsignalled.append(queue)
        if self._defer is None:
            self.signal()

    def signal(self) -> None:
        """Interrupt the driver for what was published, where it still wants that: one that polls may have taken it
        meanwhile and moved its event index (§2.7.10), and needs none."""
        while self._unsignalled:
            queue = self._unsignalled.popleft()
            ring = queue.ring
            if ring is not None and ring.need_interrupt():
                queue.irq_number += 1
                self.stats.irqs += 1
                self.send(Irq(queue.index, queue.irq_number))


def _not_before(position: int, index: int) -> bool:
    """Is avail index ``position`` at or after ``index``? Both u16, less than half a turn apart."""
    return (position - index) & 0xFFFF < 0x8000
