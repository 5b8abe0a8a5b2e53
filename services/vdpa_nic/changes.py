"""The changes of one vDPA device that need queues to stand still: whose turn it is, and what each does.

Carries out the actions of :class:`~services.vdpa_nic.map_change.MapChange` on the queues of a
:class:`~services.vdpa_nic.vdpa.VdpaDevice`.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from common.memory import ACCESS_RO, ACCESS_RW, MemoryKey, MemoryMap
from common.virtio.remote_queue import RemoteQueue
from common.virtio.split_layout import SplitLayout
from common.virtio.vdpa_ops import Phase, Refusal
from common.wire.messages import CreateMkey, DestroyMkey, MkeyCreated
from services.vdpa_nic.map_change import Event, MapChange, State

if TYPE_CHECKING:
    from services.vdpa_nic.vdpa import VdpaDevice

#: Changes that wait for their turn; more are refused.
MAX_WAITING: Final = 64


@dataclass(slots=True)
class Change:
    """One operation that needs queues to stand still. ``prepare`` looks at its arguments when its turn has come: it
    says which queues stop, or None where nothing is to be done, and raises Refusal. ``answer(errno, value)``."""

    event: Event
    prepare: Callable[[Change], Iterable[int] | None]
    answer: Callable[[int, Any], None]
    queues: frozenset[int] = frozenset()
    #: the address space of a new map
    asid: int = 0
    map: MemoryMap | None = None
    key: MemoryKey | None = None
    #: the queue that begins anew, at index 0, when it is enabled again
    forget: int | None = None
    #: the queue that is reset or disabled
    stops: int | None = None
    error: tuple[int, str] = (0, "")


class Changes:
    """The changes of ``device``, one after the other."""

    def __init__(self, device: VdpaDevice) -> None:
        self.device: Final = device
        self.machine: Final = MapChange(self)
        #: asid → the key in force
        self.keys: dict[int, MemoryKey] = {}
        self._generation = 0
        self._turn: deque[Change] = deque()
        self._now: Change | None = None
        self._created: list[RemoteQueue] = []

    @property
    def queues(self) -> frozenset[int]:
        """The queues that the change under way stops, or has torn down."""
        return self._now.queues if self._now is not None else frozenset()

    # --- whose turn it is ---------------------------------------------------------------------------------------------

    def add(self, change: Change) -> None:
        """Carry ``change`` out when its turn has come. Raises Refusal where too many wait."""
        if len(self._turn) >= MAX_WAITING:
            raise Refusal(errno.EBUSY, f"{change.event.value}: {MAX_WAITING} changes wait for their turn")
        self._turn.append(change)
        self._next()

    def stops(self, queue: int) -> bool:
        """Is ``queue`` being reset or disabled, or about to be?"""
        changes = (self._now, *self._turn) if self._now is not None else self._turn
        return any(change.stops == queue for change in changes)

    def _next(self) -> None:
        device = self.device
        while self._now is None and self._turn:
            change = self._turn.popleft()
            try:
                queues = change.prepare(change)
            except Refusal as refusal:
                device.vdpa_stats.map_refused += change.event is Event.SET_MAP
                change.answer(refusal.code, refusal.reason)
                continue
            if queues is None:
                change.answer(0, None)
                continue
            change.queues = frozenset(q for q in queues if device.queues[q].live and not device.queues[q].broken)
            self._now = change
            # one that was stopped before (a suspended device) has said where it stands
            waiting = (q for q in change.queues if device.queues[q].running or q in device.awaited)
            self.machine.begin(change.event, waiting)

    def mkey_created(self, message: MkeyCreated) -> None:
        """The port made a key, or refused to."""
        now = self._now
        if self.machine.state is not State.KEYING or now is None or now.key is None:
            return  # told again after a reconnect
        if message.generation != now.key.generation:
            return
        if message.errno:
            now.error = (message.errno, f"memory key: {message.reason}")
            self.machine.event(Event.MKEY_REFUSED)
        else:
            self.machine.event(Event.MKEY_CREATED)

    def link_back(self, awaited: set[int]) -> None:
        """The link is back, nothing was sent on it yet: the port will say of ``awaited`` where they stand."""
        for key in self.keys.values():
            self.device.send(_create_mkey(key))
        self.machine.wait_for(awaited)
        self.machine.event(Event.LINK_BACK)

    def reset(self) -> None:
        """The driver reset the device. What waits for its turn and is about the queues or the suspension that are no
        more is not done: a device begins unsuspended. Maps are the VMM's, and stay."""
        waiting, self._turn = self._turn, deque()
        for change in waiting:
            if change.event is Event.SET_MAP:
                self._turn.append(change)
            else:
                change.answer(errno.ECANCELED, f"{change.event.value}: the device was reset")
        self.machine.reset()

    # --- the actions of a change --------------------------------------------------------------------------------------

    def _changing(self) -> Change:
        assert self._now is not None
        return self._now

    def _stopped(self) -> list[RemoteQueue]:
        """The queues of the change that still stand."""
        return [q for q in self.device.queues if q.index in self._changing().queues and q.live and not q.broken]

    def suspend_vqs(self) -> None:
        self.device.flow(False)
        if not self.device.awaited:
            for queue in self._stopped():
                if queue.running:
                    queue.suspend()

    def save_channels_info(self) -> None:
        self.device.send_answers()
        for queue in self._stopped():
            self.save_channel_info(queue)

    def save_channel_info(self, queue: RemoteQueue) -> None:
        """What was fetched under the old key and not processed goes back: the new object fetches it again."""
        untouched = self.device.stop_queue(queue.index)
        queue.flush()
        tail = queue.tail()
        back = tail[len(tail) - _common_suffix(tail, untouched) :]
        queue.hand_back(back)
        # a connection lost while a restarted device was being given what is in flight leaves the first of it here
        # without the rest
        gone = set(back)
        queue.forget([head for head in untouched if head not in gone])
        self.device.vdpa_stats.chains_handed_back += len(untouched)
        queue.save()

    def teardown_vqs(self) -> None:
        for queue in self._stopped():
            queue.destroy()

    def create_mkey(self) -> None:
        now = self._changing()
        assert now.map is not None
        if now.key is None:
            # of an empty map too: the answer says that the port is through with what was sent under the old key
            self._generation += 1
            now.key = MemoryKey(now.map, self._generation)
        self.device.send(_create_mkey(now.key))

    def put_in_force(self) -> None:
        now = self._changing()
        assert now.map is not None
        self.device.spaces.commit(now.asid, now.map)
        assert now.key is not None
        done_with = self.keys.pop(now.asid, None)
        if done_with is not None:
            self.device.send(DestroyMkey(done_with.generation))
        if now.map.mappings:
            self.keys[now.asid] = now.key
        else:  # queues wait for a map: there is no key of nothing
            self.device.send(DestroyMkey(now.key.generation))
        self.device.vdpa_stats.map_changes += 1

    def roll_back(self) -> None:
        self.device.vdpa_stats.map_refused += 1
        self.device.vdpa_stats.map_rolled_back += 1

    def restore_channels_info(self) -> None:
        """mlx5 skips this where the driver is not DRIVER_OK or the device is suspended."""
        self._created = []
        if self.device.phase == Phase.RUNNING and not self.device.suspended and not self.device.awaited:
            for queue in reversed(self.device.queues):
                if (
                    self.device.ready[queue.index]
                    and not queue.running
                    and not queue.broken
                    and self.device.key(queue.index)
                ):
                    self._created.append(queue)

    def create_vqs(self) -> None:
        for queue in self._created:
            key = self.device.key(queue.index)
            assert key is not None
            queue.features = self.device.features
            queue.create(key, refetch=queue.index in self.device.resumed)
            self.device.resumed.discard(queue.index)

    def resume_vqs(self) -> None:
        for queue in self._created:
            queue.resume()
        self._created = []

    def finish_in_flight(self) -> None:
        self.device.finish_in_flight()

    def set_suspended(self) -> None:
        self.device.set_suspended(True)
        self.device.vdpa_stats.suspends += 1

    def clear_suspended(self) -> None:
        self.device.set_suspended(False)
        self.device.vdpa_stats.resumes += 1

    def forget_vqs(self) -> None:
        now = self._changing()
        if now.forget is not None:
            self.device.vdpa_stats.vq_resets += 1
            queue = self.device.queues[now.forget]
            queue.reset()
            queue.saved_idx = None
            self.device.resumed.discard(now.forget)

    def done(self) -> None:
        device = self.device
        now, self._now = self._changing(), None
        device.flow(not device.still)
        if device.phase == Phase.RUNNING:  # queues that were enabled while this was under way
            device.start()
        now.answer(now.error[0], now.error[1] if now.error[0] else None)
        self._next()


def _create_mkey(key: MemoryKey) -> CreateMkey:
    return CreateMkey(key.generation, [(m.iova, m.size, m.addr, m.perm) for m in key.map.mappings])


def _common_suffix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many last elements the two have in common."""
    count = 0
    for a, b in zip(reversed(first), reversed(second), strict=False):
        if a != b:
            break
        count += 1
    return count


def outside(queue: RemoteQueue, memory_map: MemoryMap) -> str:
    """The first area of the ring of ``queue`` that the map does not cover, in words; empty where it covers all."""
    perms = (ACCESS_RO, ACCESS_RO, ACCESS_RW)
    areas = zip(("desc", "driver", "device"), queue.areas, SplitLayout.sizes(queue.size), perms, strict=True)
    for name, addr, size, perm in areas:
        if not memory_map.covers(addr, size, perm):
            return f"{name} area of queue {queue.index} at {addr:#x}+{size:#x}"
    return ""
