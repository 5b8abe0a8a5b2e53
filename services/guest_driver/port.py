"""The port: a device's DMA engine and doorbell, standing in the guest's process because the memory is there.

It belongs to the device: the device makes and destroys the queue objects and says at which index they begin; the port
reads ``avail->idx`` only when a real device would (at creation, at a kick, as the policy says), gathers what it
fetched into one frame a kick, and scatters the answers. What was fetched and not used it keeps in order, so that a
device that restarted is given it again.
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
from common.wire.limits import MAX_FRAME
from common.wire.messages import (
    Avail,
    Broken,
    Chain,
    Create,
    Destroy,
    Irq,
    Kick,
    Message,
    Resync,
    Save,
    Saved,
    Segment,
    Suspend,
    Used,
)
from common.world import Memory, World
from services.guest_driver.port_queue import PortQueue, PortStats

#: Payload bytes after which an Avail frame is closed and another begun.
_FRAME_PAYLOAD: Final = MAX_FRAME * 3 // 4
#: Upper bounds of the msgpack overhead of a chain and of one of its segments.
_CHAIN_OVERHEAD: Final = 16
_SEGMENT_OVERHEAD: Final = 24


class Port:
    """All queue objects of one device. ``send`` takes messages for the device; ``key_of`` gives the memory key of a
    generation, or None; ``clock`` monotonic seconds. With ``defer`` the port asks by it to have :meth:`signal` called
    a little later, as a device reads the event index some time after it wrote the used index; without, at once.

    :meth:`frame` raises RemoteError only where the device breaks the protocol; a malformed ring of the guest breaks
    that queue and is told to the device.
    """

    def __init__(
        self,
        world: World,
        memory: Memory,
        *,
        queues: int,
        send: Callable[[Message], None],
        key_of: Callable[[int], MemoryKey | None],
        clock: Callable[[], float],
        defer: Callable[[], None] | None = None,
    ) -> None:
        self.world: Final = world
        self.memory: Final = memory
        self.send = send
        self._defer: Final = defer
        #: queues that published used elements and have not yet asked whether the driver wants an interrupt
        self._unsignalled: list[PortQueue] = []
        self.key_of: Final = key_of
        self.clock: Final = clock
        self.queues: Final = [PortQueue(world, i) for i in range(queues)]
        self.stats = PortStats()
        #: False while the link to the device is down: nothing is fetched then
        self.online = False

    # --- the driver's side --------------------------------------------------------------------------------------------

    def doorbell(self, index: int) -> None:
        """The driver kicked queue ``index``."""
        queue = self.queues[index]
        self.stats.kicks += 1
        if not queue.alive or queue.suspended or not self.online:
            queue.kicked = True
        elif queue.policy & PortPolicy.READ_AT_KICK:
            self._fetch(queue)

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_up(self) -> None:
        """Tell the device where every queue that ever lived stands, and again which ones broke."""
        self.online = True
        for queue in self.queues:
            if queue.fault is not None:
                self.send(queue.fault)
            elif queue.ring is not None:
                ring = queue.ring
                self.send(
                    Resync(queue.index, ring.last_avail_idx, ring.used_idx, len(queue.in_flight), queue.irq_number)
                )
                queue.suspended = queue.resyncing = True  # until the device attaches

    def link_down(self) -> None:
        """Nothing is fetched until the device is back."""
        self.online = False

    def reset(self) -> None:
        """The driver reset the device (virtio 1.3 §2.4): no queue object is left, and nothing in flight."""
        for i, old in enumerate(self.queues):
            self.queues[i] = PortQueue(self.world, i)
            # the ITS and the vCPUs take a number that they have seen for a repeat
            self.queues[i].irq_number = old.irq_number
        self._unsignalled.clear()

    def frame(self, message: Message) -> None:
        """One command or answer from the device."""
        if isinstance(message, Used):
            self._used(message)
        elif isinstance(message, Create):
            self._create(self._queue(message.queue), message)
        elif isinstance(message, Kick):
            self.doorbell(self._queue(message.queue).index)
        elif isinstance(message, Suspend):
            queue = self._queue(message.queue)
            if not queue.resyncing:  # otherwise the Resync is the answer: a second one would stand for a later Suspend
                queue.suspended = True
                self._save(queue)
        elif isinstance(message, Save):
            self._save(self._queue(message.queue))
        elif isinstance(message, Destroy):
            # what was fetched and not used stays known: the next object resumes, or is told to fetch it again
            self._queue(message.queue).alive = False
        elif isinstance(message, Broken):
            queue = self._queue(message.queue)
            if not queue.broken:  # a device repeats it after a reconnect
                self._dead(queue, message)

    def _queue(self, index: int) -> PortQueue:
        if not 0 <= index < len(self.queues):
            raise RemoteError("queue", index, len(self.queues) - 1)
        return self.queues[index]

    # --- the queue object ---------------------------------------------------------------------------------------------

    def _create(self, queue: PortQueue, message: Create) -> None:
        if queue.broken:  # the device was told, or is told at the next link_up; only a reset makes it whole
            return
        key = self.key_of(message.generation)
        if key is None:
            self._break(queue, RingError("create.generation", message.generation, None, "no such memory key"))
            return
        standing = queue.alive and queue.ring is not None
        queue.policy = message.policy
        queue.suspended = queue.resyncing = False
        if not (standing and queue.generation == message.generation):
            # mlx5 too makes a new object for a new key; chains that a restarted device must see again stay known
            self._make(queue, message, key)
        index, known = message.index, queue.in_flight
        if message.policy & PortPolicy.REFETCH:
            self._resend(queue, [head for head in known if not _not_before(known[head][0], index)], again=True)
        self._resend(queue, [head for head in known if _not_before(known[head][0], index)], again=False)
        kicked, queue.kicked = queue.kicked, False
        if queue.policy & PortPolicy.READ_AT_CREATE or (kicked and queue.policy & PortPolicy.REPLAY_KICK):
            self._fetch(queue)

    def _make(self, queue: PortQueue, message: Create, key: MemoryKey) -> None:
        old = queue.ring
        if old is not None and message.used != old.used_idx:
            # from there the driver would be given stale elements, or wait for some that never come
            self._break(queue, RingError("create.used", message.used, old.used_idx, "not where the used ring stands"))
            return
        if message.policy & PortPolicy.REFETCH and old is not None:
            avail = old.last_avail_idx
        else:
            avail = message.index
            # handed back: the new object fetches them again
            for head in [h for h in queue.in_flight if _not_before(queue.in_flight[h][0], avail)]:
                queue.in_flight.pop(head)
        queue.generation = message.generation
        queue.memory = memory = MappedMemory(self.memory, key)
        try:
            queue.ring = self.world.new(
                SplitDevice,
                self.world,
                memory,
                SplitLayout(message.size, message.desc, message.driver, message.device),
                event_idx=bool(message.features & Feature.EVENT_IDX.bit),
                indirect=bool(message.features & Feature.INDIRECT_DESC.bit),
                check=False,  # gathering and scattering translate every segment
                avail=avail,
                used=message.used,
            )
        except (MemoryFaultError, LocalError) as error:
            self._break(queue, RingError("create.address", message.desc, None, str(error)))
            return
        queue.alive = True

    def _save(self, queue: PortQueue) -> None:
        ring = queue.ring
        if ring is None:
            self.send(Saved(queue.index, 0, 0, 0))
            return
        self.send(Saved(queue.index, ring.last_avail_idx, ring.used_idx, len(queue.in_flight)))

    def _break(self, queue: PortQueue, error: RemoteError) -> None:
        """The queue cannot go on: tell the device."""
        fault = Broken(queue.index, error.field, str(error))
        self._dead(queue, fault)
        self.send(fault)

    def _dead(self, queue: PortQueue, fault: Broken) -> None:
        """This queue is dead until the driver resets the device, others go on. It keeps why: a device that restarted
        must not make it anew at index 0."""
        queue.alive = False
        queue.broken = True
        queue.fault = fault
        self.stats.rings_broken += 1

    # --- available: memory → device -----------------------------------------------------------------------------------

    def _fetch(self, queue: PortQueue) -> None:
        ring = queue.ring
        if ring is None or not queue.alive:
            return
        in_flight = queue.in_flight
        try:
            while True:
                index = ring.last_avail_idx
                popped = ring.pop_batch(ring.size)
                if not popped:
                    if not ring.enable_notify():
                        return
                    continue
                for head, segments, readable in popped:
                    if head in in_flight:
                        raise RingError("head", head, None, "made available twice")
                    in_flight[head] = (index, segments, readable)
                    index = (index + 1) & 0xFFFF
                self.stats.fetched += len(popped)
                queue.depth.seen(len(in_flight))
                self._send_chains(queue, [chain[0] for chain in popped], again=False)
        except (RingError, MemoryFaultError) as error:
            self._break(queue, error)

    def _resend(self, queue: PortQueue, heads: list[int], *, again: bool) -> None:
        """Chains in flight that the device has not seen, or not in this incarnation."""
        if not heads or not queue.alive:
            return
        self.stats.resent += len(heads)
        if again:
            queue.again_sent += len(heads)
        try:
            self._send_chains(queue, heads, again=again)
        except (RingError, MemoryFaultError) as error:
            self._break(queue, error)

    def _send_chains(self, queue: PortQueue, heads: list[int], *, again: bool) -> None:
        """Gather the readable parts of the chains at ``heads`` and send them, in as few frames as they fit.

        The chains of a frame are consecutive avail entries, so that each has a place that both sides know.
        """
        memory, ring, in_flight = queue.memory, queue.ring, queue.in_flight
        assert memory is not None
        assert ring is not None
        read = memory.read
        chains: list[Chain] = []
        first = following = in_flight[heads[0]][0]
        room = _FRAME_PAYLOAD
        for head in heads:
            index, segments, readable = in_flight[head]
            need = _CHAIN_OVERHEAD + _SEGMENT_OVERHEAD * len(segments)
            for i in range(readable):
                need += segments[i][1]
            if need > room or index != following:
                if need > _FRAME_PAYLOAD:  # before anything is read: a chain may name the same megabytes many times
                    raise RingError("chain", need, _FRAME_PAYLOAD, "bytes of one chain exceed a frame")
                if chains:
                    self.send(Avail(queue.index, queue.generation, first, chains, ring.used_idx, again))
                first, chains, room = index, [], _FRAME_PAYLOAD
            if readable == 1:
                data = read(segments[0][0], segments[0][1])
            elif readable:
                data = b"".join([read(addr, length) for addr, length, _ in segments[:readable]])
            else:
                data = b""
            chains.append((head, data, segments))
            room -= need
            following = (index + 1) & 0xFFFF
        self.send(Avail(queue.index, queue.generation, first, chains, ring.used_idx, again))

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
        assert queue.memory is not None
        write = queue.memory.write
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
                        self._scatter(queue, segments, readable, written)
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
        queues, self._unsignalled = self._unsignalled, []
        for queue in queues:
            ring = queue.ring
            if ring is not None and ring.need_interrupt():
                queue.irq_number += 1
                self.stats.irqs += 1
                self.send(Irq(queue.index, queue.irq_number))

    def _scatter(self, queue: PortQueue, segments: list[Segment], readable: int, written: bytes) -> None:
        """Write ``written`` into the device-writable segments, in order."""
        memory = queue.memory
        assert memory is not None
        size = len(written)
        at = 0
        for i in range(readable, len(segments)):
            addr, length, _ = segments[i]
            if size - at <= length:
                memory.write(addr, written[at:] if at else written)
                return
            if length:
                memory.write(addr, written[at : at + length])
                at += length
        raise RemoteError("used.written", size, at, "bytes do not fit the writable segments")


def _not_before(position: int, index: int) -> bool:
    """Is avail index ``position`` at or after ``index``? Both u16, less than half a turn apart."""
    return (position - index) & 0xFFFF < 0x8000
