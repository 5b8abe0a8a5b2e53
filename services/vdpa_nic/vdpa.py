"""A vDPA device: a virtio device whose memory map, queues and life a VMM changes while it runs.

Beside the operations of every device (:data:`common.virtio.vdpa_ops.OPS`) it has those of Linux's ``struct
vdpa_config_ops`` that need queues to stand still. They are carried out one after the other, by
:class:`~services.vdpa_nic.map_change.MapChange`, and answered when they are done.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.errors import MemoryFaultError, RemoteError
from common.memory import MemoryKey, MemoryMap
from common.virtio.device import VirtioDevice
from common.virtio.features import Feature, Status
from common.virtio.policy import PortPolicy
from common.virtio.remote_queue import RemoteQueue
from common.virtio.vdpa_ops import LATER, Op, Phase, Refusal, VqState
from common.wire.messages import Broken, Call, Message, MkeyCreated, Resync, Return, Saved
from services.vdpa_nic.address_space import AddressSpaces
from services.vdpa_nic.changes import Change, Changes, outside
from services.vdpa_nic.map_change import Event

Range = tuple[int, int, int, int]
"""``(iova, size, guest address, access)``"""

#: What a vDPA device offers whatever its type is.
FEATURES: Final = Feature.SUSPEND.bit

MORE_OPS: Final[dict[str, Op]] = {
    "set_map": Op(tuple[int, list[Range]], Phase.ANY),
    "dma_map": Op(tuple[int, int, int, int, int], Phase.ANY),
    "dma_unmap": Op(tuple[int, int, int], Phase.ANY),
    "reset_map": Op(tuple[int], Phase.ANY),
    "set_group_asid": Op(tuple[int, int], Phase.ANY),
    "get_vq_group": Op(tuple[int], Phase.ANY),
    "suspend": Op(tuple[()], Phase.ANY),
    "resume": Op(tuple[()], Phase.ANY),
    "reset_vq": Op(tuple[int], Phase.RUNNING),
    # what a driver does to a queue that it has reset (virtio 1.3 §2.6.1.2)
    "set_vq_num": Op(tuple[int, int], Phase.SETUP | Phase.RUNNING),
    "set_vq_address": Op(tuple[int, int, int, int], Phase.SETUP | Phase.RUNNING),
    "set_vq_state": Op(VqState, Phase.SETUP | Phase.RUNNING),
    "set_vq_ready": Op(tuple[int, bool], Phase.SETUP | Phase.RUNNING),
}

#: What only a VMM may call.
MAP_OPS: Final = frozenset({"set_map", "dma_map", "dma_unmap", "reset_map", "set_group_asid", "suspend", "resume"})
#: What a VMM may call: the rest is the driver's.
VMM_OPS: Final = MAP_OPS | {
    "get_device_id", "get_device_features", "get_driver_features", "get_status", "get_config", "get_config_size",
    "get_generation", "get_vq_num_max", "get_vq_state", "get_vq_ready", "get_vq_group", "kick_vq",
}  # fmt: skip


@dataclass(slots=True)
class VdpaStats:
    """What a vDPA device counts beside :class:`common.virtio.device.DeviceStats`."""

    map_changes: int = 0
    map_refused: int = 0
    #: changes of map that failed when queues stood still, and led back to the old key
    map_rolled_back: int = 0
    chains_handed_back: int = 0
    #: queues that were not made yet because their ring is not in the map
    waits_for_map: int = 0
    suspends: int = 0
    resumes: int = 0
    vq_resets: int = 0
    #: descriptors that the queue's memory key does not allow, each of which broke its queue
    faults_unmapped: int = 0
    faults_permission: int = 0
    faults_stale_key: int = 0


class VdpaDevice(VirtioDevice):
    """The vDPA device of one guest. ``answer_vmm`` sends to the guest's VMM; ``groups`` are the queue groups (queue →
    group, by :meth:`op_get_vq_group`), ``asids`` the number of address spaces; ``policy`` is what the firmware does
    with avail indices (:class:`~common.virtio.policy.PortPolicy`)."""

    more_ops = MORE_OPS
    #: what carries changes out
    changes_class: type[Changes] = Changes

    def __init__(
        self,
        *,
        answer_vmm: Callable[[Message], None],
        spaces: AddressSpaces,
        policy: PortPolicy,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.answer_vmm = answer_vmm
        self.spaces: Final = spaces
        self.vdpa_stats = VdpaStats()
        self.suspended = False
        #: who wants it suspended: ``vmm``, ``driver``
        self._holders: set[str] = set()
        #: areas that were looked for in a map and not found, each logged once
        self._waits: set[str] = set()
        self.changes: Final = self.changes_class(self)
        for queue in self.queues:
            queue.policy = policy
        #: who called: the VMM or the guest, and its call
        self._caller: tuple[Callable[[Message], None], Call] | None = None
        #: queues of which the port will say by itself where they stand: the link is back, its Resync is not here yet.
        #: Nothing moves and no queue object is made as long as there are any.
        self.awaited: set[int] = set()

    # --- what a device type adds --------------------------------------------------------------------------------------

    def group_of(self, queue: int) -> int:
        """The queue group of ``queue``: queues of one group share an address space."""
        return 0

    def stop_queue(self, queue: int) -> Sequence[int]:
        """``queue`` stops: its heads in hand that nothing was done with, which are not the device type's any more."""
        return []

    def finish_in_flight(self) -> None:
        """The device is about to be suspended (virtio 1.4): finish what is under way."""

    def flow(self, on: bool) -> None:
        """Queues may be worked on from now on, or not."""

    def send_answers(self) -> None:
        """Send the answers of all queues."""
        for queue in self.queues:
            self.stats.used += queue.flush()

    # --- calls --------------------------------------------------------------------------------------------------------

    def vmm_frame(self, call: Call) -> None:
        """A call of the VMM, :data:`VMM_OPS` only."""
        # the answer goes by the link that the call came by, or nowhere: another VMM may count its calls alike
        self._caller = (self.answer_vmm, call)
        try:
            if call.op in VMM_OPS or call.op not in self._table:
                answer = self.answer(call)
            else:
                answer = self.refused(call, errno.EPERM, f"{call.op[:40]}: is the driver's to call")
        finally:
            self._caller = None
        if answer is not None:
            self.answer_vmm(answer)

    def answer(self, call: Call) -> Return | None:
        if self._caller is not None:
            return super().answer(call)
        if call.op in MAP_OPS:
            return self.refused(call, errno.EPERM, f"{call.op[:40]}: is the VMM's to call")
        self._caller = (lambda message: self.send(message), call)
        try:
            return super().answer(call)
        finally:
            self._caller = None

    def _later(self, event: Event, prepare: Callable[[Change], Iterable[int] | None], stops: int | None = None) -> Any:
        """Carry a change out when its turn has come; the call under way is answered then."""
        assert self._caller is not None
        send, call = self._caller

        def answer(code: int, value: Any) -> None:
            send(self.refused(call, code, value) if code else Return(call.seq, 0, value))

        self.changes.add(Change(event, prepare, answer, stops=stops))
        return LATER

    # --- maps ---------------------------------------------------------------------------------------------------------

    def key(self, queue: int) -> MemoryKey | None:
        """The key in force for ``queue``; none as long as its ring is not in the map: it waits for one that has it."""
        key = self.changes.keys.get(self.spaces.asid_of(self.group_of(queue)))
        area = outside(self.queues[queue], key.map) if key is not None else ""
        if area and area not in self._waits:
            self._waits.add(area)
            self.vdpa_stats.waits_for_map += 1
            self.log("queue_waits_for_map", queue=queue, reason=f"{area} is not in the map")
        return None if area else key

    def op_set_map(self, asid: int, ranges: list[Range]) -> Any:
        """A whole map for address space ``asid``; answered when it is in force."""
        return self._map(asid, lambda: self.spaces.set_map(asid, ranges))

    def op_dma_map(self, asid: int, iova: int, size: int, addr: int, perm: int) -> Any:
        """One range more in ``asid``."""
        return self._map(asid, lambda: self.spaces.dma_map(asid, iova, size, addr, perm))

    def op_dma_unmap(self, asid: int, iova: int, size: int) -> Any:
        """What ``asid`` maps in these I/O virtual addresses goes."""
        return self._map(asid, lambda: self.spaces.dma_unmap(asid, iova, size))

    def op_reset_map(self, asid: int) -> Any:
        """``asid`` as it is before the first map."""
        return self._map(asid, lambda: self.spaces.reset_map(asid))

    def _map(self, asid: int, propose: Callable[[], MemoryMap | None]) -> Any:
        def prepare(change: Change) -> Iterable[int] | None:
            change.map = propose()
            if change.map is None:
                return None
            change.asid = asid
            queues = [q for q in self.queues if self.spaces.asid_of(self.group_of(q.index)) == asid]
            for queue in queues:
                # a queue that runs must find its ring in the new map: better refused than made and broken
                if queue.live and not (queue.broken or self.suspended) and (area := outside(queue, change.map)):
                    raise Refusal(errno.EINVAL, f"map: {area} is not in it")
            return [queue.index for queue in queues]

        return self._later(Event.SET_MAP, prepare)

    def op_set_group_asid(self, group: int, asid: int) -> None:
        """The queues of ``group`` use address space ``asid``: with none of them running only, nor torn down to be made
        again."""
        changing = self.changes.queues
        for q in self.queues:
            made = q.live or q.index in changing or (self.suspended and self.ready[q.index])
            if made and self.group_of(q.index) == group:
                raise Refusal(errno.EBUSY, f"group {group}: a queue of it is running")
        self.spaces.set_group_asid(group, asid)
        if self.phase == Phase.RUNNING:  # queues that had no key before
            self.start()

    def op_get_vq_group(self, index: int) -> int:
        """The queue group of a queue: those of one group share an address space."""
        self._vq(index)
        return self.group_of(index)

    # --- life ---------------------------------------------------------------------------------------------------------

    def op_suspend(self) -> Any:
        """Stop every queue; answered when all stand and what was under way is finished (vDPA ``suspend``). Nothing is
        done before DRIVER_OK, as vhost-vdpa has it."""
        return self._suspend("vmm")

    def op_resume(self) -> Any:
        """Undo `suspend`: the device runs unless its driver has suspended it too."""
        return self._resume("vmm")

    def _suspend(self, who: str) -> Any:
        def prepare(_change: Change) -> Iterable[int] | None:
            if self.phase != Phase.RUNNING:
                return None
            self._holders.add(who)
            if not self.suspended:
                return range(len(self.queues))
            self.set_suspended(True)
            return None

        return self._later(Event.SUSPEND, prepare)

    def _resume(self, who: str) -> Any:
        def prepare(_change: Change) -> Iterable[int] | None:
            self._holders.discard(who)
            if self.suspended and not self._holders:
                return ()
            self.set_suspended(self.suspended)
            return None

        return self._later(Event.RESUME, prepare)

    def set_suspended(self, suspended: bool) -> None:
        """The device is suspended from now on, or not any more; its status shows what the driver asked for."""
        self.suspended = suspended
        self.status &= ~int(Status.SUSPEND)
        if suspended and "driver" in self._holders:
            self.status |= int(Status.SUSPEND)

    def op_set_status(self, status: int) -> int:
        """As of every device; where SUSPEND was negotiated its bit suspends and resumes (virtio 1.4), and is shown
        when that is done. What a VMM has suspended a driver does not resume."""
        if status and self.features & Feature.SUSPEND.bit and self.phase == Phase.RUNNING:
            wanted = bool(status & Status.SUSPEND)
            super().op_set_status(status)
            if wanted != ("driver" in self._holders) or not self.changes.machine.idle:
                caller, self._caller = self._caller, (lambda _answer: None, Call(0, "set_status", []))
                try:
                    self._suspend("driver") if wanted else self._resume("driver")
                finally:
                    self._caller = caller
            return self.status
        return super().op_set_status(status)

    def op_reset_vq(self, index: int) -> Any:
        """RING_RESET (virtio 1.3 §2.6.1): the queue holds no buffer any more and begins anew when it is enabled."""
        if not self.features & Feature.RING_RESET.bit:
            raise Refusal(errno.EOPNOTSUPP, "reset_vq: RING_RESET was not negotiated")
        self._vq(index)

        def prepare(change: Change) -> Iterable[int]:
            change.forget = index
            self.ready[index] = False
            return [index]

        return self._later(Event.RESET_VQ, prepare, index)

    def op_set_vq_ready(self, index: int, ready: bool) -> Any:
        """Enable or disable a queue; one that is disabled keeps its place (``get_vq_state``)."""
        queue = self._vq(index)
        if ready and self.changes.stops(index):
            raise Refusal(errno.EBUSY, f"queue {index}: is being reset or disabled")
        if self.phase != Phase.RUNNING or ready:
            super().op_set_vq_ready(index, ready)
            if self.phase == Phase.RUNNING and not queue.live:
                self.start()
            return None

        def prepare(_change: Change) -> Iterable[int]:
            self.ready[index] = False
            return [index]

        return self._later(Event.RESET_VQ, prepare, index)

    def op_set_vq_state(self, index: int, avail: int, used: int | None = None) -> None:
        self._not_enabled(index)
        super().op_set_vq_state(index, avail, used)

    def op_set_vq_num(self, index: int, size: int) -> None:
        self._not_enabled(index)
        super().op_set_vq_num(index, size)

    def op_set_vq_address(self, index: int, desc: int, driver: int, device: int) -> None:
        self._not_enabled(index)
        super().op_set_vq_address(index, desc, driver, device)

    def _not_enabled(self, index: int) -> None:
        if self._vq(index).live or (self.phase == Phase.RUNNING and self.ready[index]):
            raise Refusal(errno.EBUSY, f"queue {index}: is enabled")

    def live(self, queue: int) -> bool:
        return super().live(queue) and not self.suspended

    @property
    def still(self) -> bool:
        """Nothing may move: a change is under way, the device is suspended, or the port has not said where it
        stands."""
        return not self.changes.machine.idle or self.suspended or bool(self.awaited)

    def start(self) -> None:
        if not self.still:  # else when that has ended
            super().start()

    def reset(self) -> None:
        if not self.awaited:
            self.send_answers()  # the index that is remembered counts them
        for queue in self.queues:
            if queue.live:
                self.teardown_vq(queue)
        super().reset()
        self.spaces.reset_groups()

    def teardown_vq(self, queue: RemoteQueue) -> None:
        """The object of ``queue`` is about to go: remember where it had got, a VMM may still ask."""
        queue.save()

    def on_reset(self) -> None:
        self.awaited.clear()
        self.changes.reset()
        self._holders.clear()
        self._waits.clear()
        self.set_suspended(False)
        self.flow(not self.still)

    # --- messages -----------------------------------------------------------------------------------------------------

    def frame(self, message: Message) -> None:
        if self.awaited and not isinstance(message, (Resync, Broken)):
            self._all_heard()
        if isinstance(message, MkeyCreated):
            self.changes.mkey_created(message)
        else:
            super().frame(message)

    def on_saved(self, message: Saved) -> None:
        self.changes.machine.stands(message.queue)

    def _refuse(self, queue: RemoteQueue, error: RemoteError) -> None:
        if isinstance(error, MemoryFaultError):
            name = f"faults_{error.kind}"
            setattr(self.vdpa_stats, name, getattr(self.vdpa_stats, name) + 1)
        super()._refuse(queue, error)

    def _broke(self, queue: int, field: str, reason: str) -> None:
        super()._broke(queue, field, reason)
        self.stop_queue(queue)
        self._heard_of(queue)
        self.changes.machine.stands(queue)  # a change does not wait for what is dead

    # --- a new connection ---------------------------------------------------------------------------------------------

    def reconnected(self) -> None:
        """The guest's link is back; nothing was sent or received on it yet.

        From here until a queue's Resync the port must not be asked to suspend it: Resync says that it is, and an
        answer on top of that would be taken for the answer to a later Suspend. A change under way waits for those
        Resyncs too, also of queues that had said where they stand: the port may have been attached since.
        """
        self.awaited = {q.index for q in self.queues if (q.live or q.index in self.resumed) and not q.broken}
        self.flow(not self.still)
        self.changes.link_back(self.awaited)

    def _resync(self, message: Resync) -> None:
        queue = self._queue(message.queue)
        attached = queue.running and message.queue not in self.awaited
        super()._resync(message)
        queue.running = queue.running or attached  # out of turn: what it stood for has been done
        if self.phase == Phase.RUNNING and not (queue.live or queue.broken or queue.index in self.resumed):
            queue.destroy()  # the last link may have lost that: a new object must not be taken for this one
        self._heard_of(message.queue)

    def on_resynced(self, message: Resync) -> None:
        """Attached when all Resyncs are in."""

    def _all_heard(self) -> None:
        """Resyncs come before anything else: the port knows nothing of the queues that are still awaited. Their Create
        went down with a connection."""
        for index in sorted(self.awaited):
            self.queues[index].running = False
            self._heard_of(index)

    def _heard_of(self, index: int) -> None:
        """The port said where queue ``index`` stands, or it is dead. After the last one all go on."""
        if index not in self.awaited:
            return
        self.awaited.discard(index)
        if self.awaited:
            return
        self.send_answers()
        for waiting in sorted(self.changes.machine.waiting):
            # where the port stands is what Saved would have said; attached, it would fetch under the old key
            self.changes.machine.stands(waiting)
        if self.still:
            return
        for queue in reversed(self.queues):
            if queue.live and not queue.running and not queue.broken and queue.key is not None:
                queue.create(queue.key)
                queue.resume()
        self.flow(True)
        if self.phase == Phase.RUNNING:
            self.start()
