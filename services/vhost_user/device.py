"""A device core behind a vhost-user session: the session's :class:`Target`, the core's :class:`Transport`.

Rings
    A ring is served while it is started and enabled. Its notifications are off while it is; a driver that keeps it
    full gives the event loop back after ROUNDS batches. Nothing that one ring holds stops the other.

Stopping a ring
    Every command that was taken is answered before GET_VRING_BASE is, those that are held back on purpose included;
    empty buffers go back to the driver. So the index that is returned is where a later start, here or elsewhere, goes
    on, and nothing is done twice.

Beginning anew
    Front ends say little of it: QEMU sends no reset when its guest reboots, and others send one when they merely pause
    the machine. What tells the two apart is how the rings start: a driver that begins anew begins at index 0. So the
    core is reset when the first ring of a stopped device starts at 0, and goes on where it starts at another index.
    While no ring runs nobody can see a difference. (A machine that is paused after exactly 65,536 commands, or a
    multiple, is taken for one that begins anew: it has to subscribe again.)

A device process that was killed
    A ring that is started at an index at which this device never stopped it comes from another incarnation: chains that
    are available by then are marked *again*, since that one may have processed them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from common.errors import LocalError, RemoteError
from common.virtio.device_core import DeviceCore, Transport
from common.virtio.split_layout import SplitLayout
from common.world import World
from services.vhost_user.local_queue import LocalQueue
from services.vhost_user.memory import SharedMemory
from services.vhost_user.target import Vring

#: Batches of one ring that are served before others have their turn.
ROUNDS: Final = 8

C = TypeVar("C", bound=DeviceCore)


class Events(Protocol):
    """Event descriptors and the event loop, as the device needs them."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever ``fd`` was signalled, after its count was taken."""
        ...

    def unwatch(self, fd: int) -> None: ...

    def signal(self, fd: int) -> None:
        """Add one to the count of ``fd``."""
        ...

    def soon(self, work: Callable[[], None]) -> None:
        """Call ``work`` when others have had their turn."""
        ...


@dataclass(slots=True)
class DeviceStats:
    """What a device counts of its life."""

    kicks: int = 0
    starts: int = 0
    stops: int = 0
    #: starts by a driver that begins anew, and resets that the front end asked for
    fresh_starts: int = 0
    resets: int = 0
    memory_changes: int = 0


class VhostDevice(Generic[C]):
    """A device whose rings lie in a front end's memory. ``make_core`` is given it as the core's transport.

    ``queues`` is how many the device has; ``whole()`` says whether the front end's memory is still there, ``lost()``
    is called when it is not. ``log(event, **context)`` writes one line.
    """

    def __init__(
        self,
        make_core: Callable[[Transport], C],
        queues: int,
        *,
        world: World,
        events: Events,
        log: Callable[..., None],
        whole: Callable[[], bool] = lambda: True,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.features = 0
        self.status = 0
        self.stats: Final = DeviceStats()
        self.memory = SharedMemory()
        self.queues: Final = [
            LocalQueue(index, world, interrupt=partial(self._interrupt, index), on_broken=self._broke, whole=whole)
            for index in range(queues)
        ]
        self._events: Final = events
        self._log: Final = log
        self._whole: Final = whole
        self._lost: Final = lost
        self._vrings: list[Vring | None] = [None] * queues
        #: call descriptors, also those that came before their ring started
        self._calls: list[int | None] = [None] * queues
        #: index at which a ring was stopped last
        self._stopped: list[int | None] = [None] * queues
        #: batches that wait for their turn
        self._scheduled = [False] * queues
        self.core: Final = make_core(self)

    # --- what the core sees -------------------------------------------------------------------------------------------

    def live(self, queue: int) -> bool:
        vring = self._vrings[queue]
        return vring is not None and vring.enabled and not self.queues[queue].broken

    def look(self, queue: int) -> None:
        if self.queues[queue].pending():
            self._serve(queue)

    # --- what the session asks ----------------------------------------------------------------------------------------

    @property
    def device_features(self) -> int:
        return self.core.offered

    @property
    def queue_sizes(self) -> list[int]:
        return list(self.core.queue_sizes)

    def features_set(self, features: int) -> None:
        self.features = features

    def memory_set(self, memory: SharedMemory) -> None:
        """The rings that run are found anew, all or none (MemoryFaultError); what is in hand stays in hand."""
        moves = [
            self.queues[vring.index].moved(memory.guest, _layout(vring, memory))
            for vring in self._vrings
            if vring is not None
        ]
        for go_on in moves:
            go_on()
        self.memory = memory
        self.stats.memory_changes += 1

    def vring_start(self, vring: Vring) -> None:
        index = vring.index
        queue = self.queues[index]
        self.core.check_size(index, vring.size)
        layout = _layout(vring, self.memory)
        foreign = vring.base != 0 and vring.base != self._stopped[index]
        queue.start(self.memory.guest, layout, self.features, vring.base, again=foreign)
        if vring.base == 0 and not any(self._vrings):
            self.stats.fresh_starts += 1
            self.core.on_reset()
        self._vrings[index] = vring
        self._calls[index] = vring.call
        self.stats.starts += 1
        if vring.kick is not None:
            self._events.watch(vring.kick, partial(self._kicked, index))
        self._serve(index)

    def vring_stop(self, index: int) -> int:
        vring = self._vrings[index]
        if vring is None:
            return self._stopped[index] or 0
        queue = self.queues[index]
        if vring.kick is not None:
            self._events.unwatch(vring.kick)
        unprocessed = self.core.on_stop(index)
        base = queue.stop(unprocessed)
        self._vrings[index] = None
        self._stopped[index] = base
        self.stats.stops += 1
        return base

    def vring_enable(self, index: int, on: bool) -> None:
        if on:
            self._serve(index)

    def call_set(self, vring: Vring) -> None:
        self._calls[vring.index] = vring.call
        if self.queues[vring.index].owed:
            self._interrupt(vring.index)

    def status_set(self, status: int) -> None:
        self.status = status

    def reset(self) -> None:
        """The core learns at the next start whether its driver begins anew."""
        self.status = 0
        self.features = 0
        self.stats.resets += 1

    def config_get(self, offset: int, size: int) -> bytes:
        raise RemoteError("config", offset, 0, f"{size} bytes: the device has no configuration space")

    def config_set(self, offset: int, data: bytes) -> None:
        raise RemoteError("config", offset, 0, f"{len(data)} bytes: the device has no configuration space")

    # --- serving ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Time is ``now`` (monotonic seconds); called some hundred times a second. Rings whose driver does not kick are
        looked at here."""
        if self.core.tick(now):
            for queue in self.queues:
                queue.flush()
        for vring in self._vrings:
            if vring is not None and vring.polling:
                self._serve(vring.index)

    def _kicked(self, index: int) -> None:
        self.stats.kicks += 1
        self._serve(index)

    def _serve(self, index: int) -> None:
        vring = self._vrings[index]
        if vring is None or not vring.enabled:
            return
        queue = self.queues[index]
        queue.disable_notify()
        for _ in range(ROUNDS):
            chains = queue.take(vring.size)
            if chains:
                try:
                    self.core.on_chains(index, chains)
                except RemoteError as error:
                    queue.fail(error)
                queue.flush()
            elif not queue.enable_notify():
                return
        if not self._scheduled[index]:
            self._scheduled[index] = True
            self._events.soon(partial(self._turn, index))

    def _turn(self, index: int) -> None:
        self._scheduled[index] = False
        self._serve(index)

    def _interrupt(self, index: int) -> None:
        fd = self._calls[index]
        if fd is not None:
            self._events.signal(fd)

    def _broke(self, index: int, error: RemoteError) -> None:
        """A queue broke: the front end hears of it where it gave a descriptor for that; the others go on."""
        self._log("ring_broken", queue=index, field=error.field, reason=str(error))
        vring = self._vrings[index]
        if vring is not None and vring.err is not None:
            self._events.signal(vring.err)
        if not self._whole():
            self._events.soon(self._lost)


def _layout(vring: Vring, memory: SharedMemory) -> SplitLayout:
    """Where the areas of ``vring`` lie, as guest addresses. RemoteError where they do not lie in ``memory``."""
    if vring.desc is None or vring.avail is None or vring.used is None:
        raise RemoteError("vring", vring.index, None, "has no addresses")
    try:
        sizes = SplitLayout.sizes(vring.size)
        areas = (vring.desc, vring.avail, vring.used)
        return SplitLayout(
            vring.size, *(memory.guest_address(user, size) for user, size in zip(areas, sizes, strict=True))
        )
    except LocalError as error:  # a size or an alignment that virtio does not allow
        raise RemoteError("vring", vring.index, None, str(error)) from None
