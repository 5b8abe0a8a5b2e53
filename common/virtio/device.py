"""A virtio device over the mesh: status, feature negotiation, queues and interrupts, as every device type needs them.

The driver's side configures it by calls that carry vDPA's names (Linux ``struct vdpa_config_ops``), see
:mod:`common.virtio.vdpa_ops`. A device type derives from :class:`VirtioDevice` and fills in the hooks at the end.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import msgspec

from common.errors import RemoteError, RingError
from common.memory import MemoryKey
from common.virtio.features import MAX_QUEUE_SIZE, Feature, Status
from common.virtio.msi_source import MsiSource
from common.virtio.remote_queue import RemoteQueue
from common.virtio.vdpa_ops import LATER, OPS, Op, Phase, Refusal
from common.wire.messages import Avail, Broken, Call, Chain, Irq, Kick, Message, Notice, Resync, Return, Saved

#: Kinds of refused calls that one device logs.
MAX_LOGGED: Final = 64


#: an int: asked for each batch of packets, and a flag of an enumeration takes its time
_DRIVER_OK: Final = int(Status.DRIVER_OK)


@dataclass(slots=True)
class DeviceStats:
    """What every device counts."""

    calls: int = 0
    calls_refused: int = 0
    chains: int = 0
    used: int = 0
    rings_broken: int = 0
    resets: int = 0
    resyncs: int = 0
    refetched: int = 0


class VirtioDevice(ABC):
    """One device of one guest.

    ``send`` takes messages for the guest's link; ``clock`` gives monotonic seconds; ``offered`` is the u64 of
    features, ``queue_sizes`` the largest size of each queue, in entries; ``observe(queue, seconds)`` hears how long the
    oldest work of a batch waited before it was taken; ``log(event, **context)`` writes one line.
    """

    device_id: int = 0
    #: more calls than :data:`OPS`, by device type
    more_ops: dict[str, Op] = {}  # noqa: RUF012  (a constant table)

    def __init__(
        self,
        *,
        send: Callable[[Message], None],
        msi: MsiSource,
        clock: Callable[[], float],
        offered: int,
        queue_sizes: list[int],
        log: Callable[..., None],
        observe: Callable[[int, float], None] = lambda _queue, _seconds: None,
    ) -> None:
        self.send = send
        self.msi = msi
        self.clock = clock
        self.offered: Final = offered
        self.queue_sizes: Final = queue_sizes
        self.log = log
        self.observe = observe
        self.status = 0
        self.features = 0
        self.config = bytearray()
        self.stats = DeviceStats()
        self.queues: Final = [RemoteQueue(i, lambda message: self.send(message)) for i in range(len(queue_sizes))]
        self.vectors: list[int | None] = [None] * len(queue_sizes)
        #: EventID → the queue that had it first since the last reset
        self._owners: dict[int, int] = {}
        self.ready: list[bool] = [False] * len(queue_sizes)
        #: queues that a port still holds from an earlier incarnation: they are attached to with REFETCH
        self.resumed: set[int] = set()
        self._table: Final = OPS | self.more_ops
        self._refused: Final[set[tuple[str, int]]] = set()

    @property
    def phase(self) -> Phase:
        if self.status & _DRIVER_OK:
            return Phase.RUNNING
        if self.status & Status.FEATURES_OK:
            return Phase.SETUP
        if self.status & Status.DRIVER:
            return Phase.FEATURES
        return Phase.RESET

    def live(self, queue: int) -> bool:
        """May the device use buffers of ``queue``? (:class:`common.virtio.device_core.Transport`)"""
        return bool(self.status & _DRIVER_OK) and self.ready[queue] and not self.queues[queue].broken

    def look(self, queue: int) -> None:
        """Nothing: the port tells of chains when it has fetched them."""

    # --- messages -----------------------------------------------------------------------------------------------------

    def frame(self, message: Message) -> None:
        """One message from the guest. What breaks a queue is answered and counted, never raised."""
        if isinstance(message, Avail):
            self._avail(message)
        elif isinstance(message, Irq):
            queue = self._queue(message.queue)
            queue.irq_number = max(queue.irq_number, message.number)
            vector = self.vectors[message.queue]
            if vector is not None:
                self.msi.raise_(vector, message.number, self.clock())
        elif isinstance(message, Saved):
            queue = self._queue(message.queue)
            try:
                queue.on_saved(message)
            except RingError as error:
                self._refuse(queue, error)
                return
            self.on_saved(message)
        elif isinstance(message, Call):
            answer = self.answer(message)
            if answer is not None:
                self.send(answer)
        elif isinstance(message, Resync):
            self._resync(message)
        elif isinstance(message, Broken):
            queue = self._queue(message.queue)
            if not queue.broken:  # a port repeats it after a reconnect
                queue.broken = True
                self._broke(message.queue, message.field, message.reason)

    def batch_end(self) -> None:
        """All messages that arrived together have been handled: send the answers they led to."""
        for queue in self.queues:
            self.stats.used += queue.flush()

    def _queue(self, index: int) -> RemoteQueue:
        if not 0 <= index < len(self.queues):
            raise RemoteError("queue", index, len(self.queues) - 1)
        return self.queues[index]

    def _avail(self, message: Avail) -> None:
        queue = self._queue(message.queue)
        try:
            chains = queue.on_avail(message)
            self.stats.chains += len(chains)
            if message.again:
                self.stats.refetched += len(chains)
            if chains:
                self.on_chains(message.queue, chains)
        except RemoteError as error:
            self._refuse(queue, error)

    def _refuse(self, queue: RemoteQueue, error: RemoteError) -> None:
        """The guest's side broke ``queue``: say so, and go on with the others."""
        queue.broken = True
        self.send(Broken(queue.index, error.field, str(error)))
        self._broke(queue.index, error.field, str(error))

    def _broke(self, queue: int, field: str, reason: str) -> None:
        self.stats.rings_broken += 1
        self.log("ring_broken", queue=queue, field=field, reason=reason)
        if not self.status & Status.DEVICE_NEEDS_RESET:
            self.status |= int(Status.DEVICE_NEEDS_RESET)
            self.send(Notice("needs_reset", f"queue {queue}: {reason}"))

    def _resync(self, message: Resync) -> None:
        queue = self._queue(message.queue)
        self.stats.resyncs += 1
        if queue.broken:  # the connection took the news with it
            self.send(Broken(queue.index, "broken", "the queue broke before the connection was lost"))
            return
        fresh = self.phase != Phase.RUNNING
        try:
            queue.on_resync(message, fresh=fresh)
        except RemoteError as error:
            self._refuse(queue, error)
            return
        if fresh:
            self.resumed.add(message.queue)
        vector = self.vectors[message.queue]
        if vector is not None and message.irq_number:
            self.msi.raise_(vector, message.irq_number, self.clock())
        if not fresh:
            self.on_resynced(message)

    # --- calls --------------------------------------------------------------------------------------------------------

    def answer(self, call: Call) -> Return | None:
        """Carry out a call; a bad one is refused with an errno and a sentence. None: it is answered later."""
        self.stats.calls += 1
        try:
            value = self._call(call.op, call.args)
            return None if value is LATER else Return(call.seq, 0, value)
        except Refusal as refusal:
            code, reason = refusal.code, refusal.reason
        except RemoteError as error:
            code, reason = errno.EINVAL, f"{call.op}: {error}"
        return self.refused(call, code, reason)

    def refused(self, call: Call, code: int, reason: str) -> Return:
        """The answer to a call that is refused: counted always, each kind logged once."""
        self.stats.calls_refused += 1
        said = (call.op[:40], code)
        if said not in self._refused and len(self._refused) < MAX_LOGGED:
            self._refused.add(said)
            self.log("call_refused", op=said[0], errno=code, reason=reason[:256])
        return Return(call.seq, code, reason[:256])

    def _call(self, name: str, args: list[Any]) -> Any:
        op = self._table.get(name)
        if op is None:
            raise Refusal(errno.EOPNOTSUPP, f"{name[:40]}: no such operation")
        try:
            values = msgspec.convert(args, op.args)
        except msgspec.ValidationError as error:
            raise Refusal(errno.EINVAL, f"{name}: {error}") from None
        if not self.phase & op.phases:
            raise Refusal(errno.EBUSY, f"{name}: not legal in phase {self.phase.name}")
        return getattr(self, f"op_{name}")(*values)

    def _vq(self, index: int) -> RemoteQueue:
        if not 0 <= index < len(self.queues):
            raise Refusal(errno.EINVAL, f"queue {index}: there are {len(self.queues)}")
        return self.queues[index]

    def op_get_device_id(self) -> int:
        """The device type (§5)."""
        return self.device_id

    def op_get_device_features(self) -> int:
        """u64: what the device offers (§2.2)."""
        return self.offered

    def op_set_driver_features(self, features: int) -> None:
        """§2.2: a subset of what was offered, VERSION_1 included."""
        if features & ~self.offered:
            raise Refusal(errno.EINVAL, f"features {features:#x}: {features & ~self.offered:#x} were not offered")
        if not features & Feature.VERSION_1.bit:
            raise Refusal(errno.EINVAL, "features: VERSION_1 is required")
        self.features = features

    def op_get_status(self) -> int:
        """The device status (§2.1)."""
        return self.status

    def op_set_status(self, status: int) -> int:
        """§2.1: bits are only added; 0 resets. Returns the status that stands afterwards."""
        if status == 0:
            self.reset()
            return 0
        known = int(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK | Status.FAILED)
        ours = int(Status.DEVICE_NEEDS_RESET)  # ints: ~ of a flag covers the bits of the enumeration only
        if self.features & Feature.SUSPEND.bit:
            ours |= int(Status.SUSPEND)  # a device that has it looks at the bit first
        sticky = self.status & ~ours
        if status & ~(known | ours) or sticky & ~status:
            raise Refusal(errno.EINVAL, f"status {status:#x}: unknown bits, or bits taken back from {self.status:#x}")
        order = (Status.ACKNOWLEDGE, Status.DRIVER, Status.FEATURES_OK, Status.DRIVER_OK)
        for before, after in pairwise(order):
            if status & after and not status & before:
                raise Refusal(errno.EINVAL, f"status {status:#x}: {after.name} before {before.name}")
        if status & Status.FEATURES_OK and not self.features & Feature.VERSION_1.bit:
            # §3.1.1 step 6: FEATURES_OK does not stick, so nothing behind it does
            status &= ~int(Status.FEATURES_OK | Status.DRIVER_OK)
        started = status & Status.DRIVER_OK and not self.status & Status.DRIVER_OK
        self.status |= status & known  # DEVICE_NEEDS_RESET is the device's to set; a driver may write it back
        if started:
            self.start()
        return self.status

    def op_get_driver_features(self) -> int:
        """u64: what the driver accepted, 0 before."""
        return self.features

    def op_reset(self) -> None:
        """§2.4: as status 0."""
        self.reset()

    def op_get_config_size(self) -> int:
        """Bytes of the configuration space (§2.5)."""
        return len(self.config)

    def op_get_generation(self) -> int:
        """u32: another one after every change of the configuration space (§2.5.1, §4.1.4.3)."""
        return 0

    def op_get_config(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the configuration space from ``offset`` on."""
        if offset < 0 or length < 0 or offset + length > len(self.config):
            raise Refusal(errno.EINVAL, f"config {offset}+{length}: {len(self.config)} bytes")
        return bytes(self.config[offset : offset + length])

    def op_get_vq_num_max(self, index: int) -> int:
        """The largest size of the queue, entries."""
        self._vq(index)
        return self.queue_sizes[index]

    def op_set_vq_num(self, index: int, size: int) -> None:
        """The size of the queue: a power of two up to the largest."""
        queue = self._vq(index)
        if not 0 < size <= min(self.queue_sizes[index], MAX_QUEUE_SIZE) or size & (size - 1):
            raise Refusal(errno.EINVAL, f"queue {index} size {size}: a power of two up to {self.queue_sizes[index]}")
        queue.check_state(queue.next_idx, queue.used_idx, size)
        queue.size = size

    def op_set_vq_address(self, index: int, desc: int, driver: int, device: int) -> None:
        """I/O virtual addresses of descriptor table, driver area and device area (§2.7)."""
        queue = self._vq(index)
        if min(desc, driver, device) < 0 or max(desc, driver, device) >= 1 << 64:
            raise Refusal(errno.EINVAL, f"queue {index}: an address is not a u64")
        if desc % 16 or driver % 2 or device % 4:
            raise Refusal(errno.EINVAL, f"queue {index}: areas must be aligned to 16, 2 and 4 bytes (virtio 1.3 §2.7)")
        queue.areas = (desc, driver, device)

    def op_set_vq_cb(self, index: int, event: int) -> None:
        """The EventID of the MSI that the queue raises."""
        self._vq(index)
        if not 0 <= event < 1 << 16:
            raise Refusal(errno.EINVAL, f"queue {index}: EventID {event} has more than 16 bits")
        if self._owners.setdefault(event, index) != index:
            # interrupts are numbered per queue: an event that was another's would take this one's for repeats
            raise Refusal(errno.EBUSY, f"queue {index}: EventID {event} belongs to another queue")
        self.vectors[index] = event
        if number := self.queues[index].irq_number:  # asked for before this incarnation knew the vector
            self.msi.raise_(event, number, self.clock())

    def op_set_vq_state(self, index: int, avail: int, used: int | None = None) -> None:
        """Begin at these indices (u16); without ``used`` nothing is under way. Refused where that cannot be."""
        queue = self._vq(index)
        used = avail if used is None else used
        for name, value in (("avail", avail), ("used", used)):
            if not 0 <= value < 1 << 16:
                raise Refusal(errno.EINVAL, f"queue {index}: {name} index {value} has more than 16 bits")
        if index not in self.resumed:  # a port says better where it stands
            queue.set_state(avail, used)

    def op_get_vq_state(self, index: int) -> int:
        """u16: the avail index at which the queue goes on, or would."""
        return self._vq(index).state

    def op_set_vq_ready(self, index: int, ready: bool) -> None:
        """Enable the queue, or disable it."""
        queue = self._vq(index)
        if ready and not queue.size:
            raise Refusal(errno.EINVAL, f"queue {index}: ready without a size")
        self.ready[index] = ready

    def op_get_vq_ready(self, index: int) -> bool:
        """Is the queue enabled?"""
        self._vq(index)
        return self.ready[index]

    def op_kick_vq(self, index: int) -> None:
        """Ring the queue's doorbell at its port."""
        self._vq(index)
        self.send(Kick(index))

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """DRIVER_OK: make the queue objects."""
        for queue in self.queues:
            if self.ready[queue.index] and not queue.live and not queue.broken:
                self.start_queue(queue)

    def start_queue(self, queue: RemoteQueue) -> None:
        """Make the queue object, as soon as there is a memory key for it."""
        key = self.key(queue.index)
        if key is None:
            return
        queue.features = self.features
        queue.create(key, refetch=queue.index in self.resumed)
        queue.resume()
        self.resumed.discard(queue.index)

    def reset(self) -> None:
        """§2.4: back to the beginning; a port that still holds a queue object drops it."""
        self.stats.resets += 1
        self.status = 0
        self.features = 0
        for queue in self.queues:
            stood = queue.live
            queue.reset()
            if stood:
                queue.destroy()
        self.vectors = [None] * len(self.queues)
        self._owners.clear()
        self.msi.forget()
        self.ready = [False] * len(self.queues)
        self.resumed.clear()
        self.on_reset()

    # --- hooks --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def key(self, queue: int) -> MemoryKey | None:
        """The memory key for a new object of ``queue``; None where the device must wait for a map."""

    def tick(self, now: float) -> None:
        """Time went on (monotonic seconds); called some hundred times a second."""

    def on_reset(self) -> None:
        """Device-specific state goes."""

    @abstractmethod
    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        """Chains arrived on ``queue``; answer them with ``self.queues[queue].complete(head, bytes)``. A RemoteError
        raised here breaks the queue."""

    def on_saved(self, message: Saved) -> None:
        """A port answered Suspend or Save."""

    def on_resynced(self, message: Resync) -> None:
        """A port of a device that kept its state is back: attach to its queue object again."""
        queue = self.queues[message.queue]
        if queue.live and queue.key is not None:
            queue.create(queue.key)
            queue.resume()
