"""The virtio SCMI device (virtio 1.3 §5.17) of one guest: commands to the platform, its messages to the guest.

=====  ======  =========================================================================
queue  name    chains
=====  ======  =========================================================================
0      cmdq    readable: header, parameters; writable: header, status, return values
1      eventq  writable: header, payload (notifications and delayed responses)
=====  ======  =========================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.memory import ACCESS_RW, Mapping, MemoryKey, MemoryMap
from common.scmi.header import DELAYED_RESPONSE, HEADER, TYPE_MASK, TYPE_SHIFT
from common.virtio.device import Phase, VirtioDevice
from common.virtio.features import DESC_F_WRITE, SCMI_F_P2A_CHANNELS, DeviceId, Feature, mask
from common.virtio.msi_source import MsiSource
from common.virtio.policy import PortPolicy
from common.virtio.remote_queue import RemoteQueue
from common.wire.messages import Chain, Message
from services.scmi_platform.faults import FaultPlan, Faults
from services.scmi_platform.platform import Platform

CMDQ: Final = 0
EVENTQ: Final = 1

#: No shared memory regions are offered.
FEATURES: Final = mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC) | SCMI_F_P2A_CHANNELS
#: Largest size of either queue, entries.
QUEUE_SIZE: Final = 1024
#: Delayed responses that may wait for a buffer on the eventq; beyond these the platform keeps them.
BACKLOG: Final = 64
#: No IOMMU stands in front of the device: addresses are guest addresses.
IDENTITY: Final = MemoryKey(MemoryMap((Mapping(0, 1 << 64, 0, ACCESS_RW),)), 0)
#: Nothing goes wrong on purpose.
NO_FAULTS: Final = FaultPlan()

_DELAYED: Final = DELAYED_RESPONSE << TYPE_SHIFT


@dataclass(slots=True)
class ScmiStats:
    """What the device counts besides :class:`common.virtio.device.DeviceStats`."""

    commands: int = 0
    #: chains without a whole header to read, or without room for one
    malformed: int = 0
    #: replies cut to the room that the chain had
    truncated: int = 0
    events: int = 0
    #: no buffer on the eventq, or one too small
    notifications_dropped: int = 0
    #: delayed responses that had to wait for a buffer
    responses_delayed: int = 0


class ScmiDevice(VirtioDevice):
    """The device of ``agent``; its commands go to ``platform``, which sends by :meth:`emit`.

    ``observe(queue, seconds)``: for the cmdq from a frame's arrival to its answers, for the eventq from when the
    platform had a message to when it was in a buffer. ``plan`` says what goes wrong on purpose, ``dice()`` gives the
    numbers in [0, 1) that decide it.
    """

    device_id = DeviceId.SCMI

    def __init__(
        self,
        platform: Platform,
        agent: int,
        *,
        send: Callable[[Message], None],
        msi: MsiSource,
        clock: Callable[[], float],
        log: Callable[..., None],
        observe: Callable[[int, float], None] = lambda _queue, _seconds: None,
        queue_size: int = QUEUE_SIZE,
        plan: FaultPlan = NO_FAULTS,
        dice: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(
            send=send,
            msi=msi,
            clock=clock,
            offered=FEATURES,
            queue_sizes=[queue_size, queue_size],
            log=log,
            observe=observe,
        )
        self.platform: Final = platform
        self.agent: Final = agent
        self.scmi_stats = ScmiStats()
        #: eventq buffers in hand: (head, bytes of room)
        self.buffers: deque[tuple[int, int]] = deque()
        #: delayed responses without a buffer: (message, when it was there)
        self.backlog: deque[tuple[bytes, float]] = deque()
        self.faults: Final = Faults(plan, dice, clock, self) if plan.any else None

    def key(self) -> MemoryKey:
        return IDENTITY

    @property
    def p2a(self) -> bool:
        """May the platform send to the agent: was P2A_CHANNELS negotiated, and does the eventq live?"""
        return (
            bool(self.features & SCMI_F_P2A_CHANNELS)
            and self.phase == Phase.RUNNING
            and self.ready[EVENTQ]
            and not self.queues[EVENTQ].broken
        )

    def on_reset(self) -> None:
        """The driver begins anew (§2.4): so does its agent."""
        self.buffers.clear()
        self.backlog.clear()
        if self.faults is not None:
            self.faults.reset()
        self.platform.reset_agent(self.agent, settings=False)

    # --- agent to platform --------------------------------------------------------------------------------------------

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        if queue == EVENTQ:
            self._take_buffers(chains)
            return
        arrived = self.clock()
        cmdq = self.queues[CMDQ]
        for head, request, segments in chains:
            room = 0
            for _, length, flags in segments:
                if flags & DESC_F_WRITE:
                    room += length
            self._command(cmdq, head, request, room)
        self.observe(CMDQ, self.clock() - arrived)

    def _command(self, cmdq: RemoteQueue, head: int, request: bytes, room: int) -> None:
        """Answer one chain. One that is no command comes back empty; nothing is executed for it."""
        stats = self.scmi_stats
        if len(request) < HEADER.size or room < HEADER.size:
            stats.malformed += 1
            cmdq.complete(head, b"")
            return
        stats.commands += 1
        reply = self.platform.handle(self.agent, request, head in cmdq.again)
        assert reply is not None  # there is a header
        if len(reply) > room:
            stats.truncated += 1
            reply = reply[:room]
        if self.faults is None:
            cmdq.complete(head, reply)
        else:
            self.faults.answer(head, reply)

    # --- platform to agent --------------------------------------------------------------------------------------------

    def emit(self, message: bytes) -> bool:
        """Send a notification or a delayed response (whole message).

        False: not taken. A notification is lost then (§5.17.6.4 allows it); a delayed response the caller keeps.
        """
        if not self.p2a:
            return False
        delayed = int.from_bytes(message[: HEADER.size], "little") & TYPE_MASK == _DELAYED
        if delayed and self.faults is not None:
            return self.faults.delayed(message)
        return self._send(message, delayed)

    def _send(self, message: bytes, delayed: bool) -> bool:
        if not (delayed and self.backlog) and self._fill(message):
            self.queues[EVENTQ].flush()
            self.observe(EVENTQ, 0.0)
            return True
        if not delayed:
            self.scmi_stats.notifications_dropped += 1
            return False
        if len(self.backlog) >= BACKLOG:
            return False
        self.scmi_stats.responses_delayed += 1
        self.backlog.append((message, self.clock()))
        return True

    def _fill(self, message: bytes) -> bool:
        """Put ``message`` into the first buffer that has room for it; buffers too small stay for smaller ones."""
        buffers = self.buffers
        need = len(message)
        for at, (head, room) in enumerate(buffers):
            if room >= need:
                del buffers[at]
                self.queues[EVENTQ].complete(head, message)
                self.scmi_stats.events += 1
                return True
        return False

    def _take_buffers(self, chains: list[Chain]) -> None:
        for head, readable, segments in chains:
            room = sum(length for _, length, flags in segments if flags & DESC_F_WRITE)
            if readable or room < HEADER.size:
                # §5.17.6.3: eventq buffers are device-writable only
                self.scmi_stats.malformed += 1
                self.queues[EVENTQ].complete(head, b"")
            else:
                self.buffers.append((head, room))
        while self.backlog and self._fill(self.backlog[0][0]):
            _, since = self.backlog.popleft()
            self.observe(EVENTQ, self.clock() - since)

    # --- faults on purpose (this device is their Outlet) --------------------------------------------------------------

    def op_set_vq_num(self, index: int, size: int) -> None:
        if index == CMDQ and self.faults is not None:
            self.faults.plan.check(size)
        super().op_set_vq_num(index, size)

    def start(self) -> None:
        if self.faults is not None and self.faults.plan.double_used:
            self.queues[CMDQ].policy |= PortPolicy.UNCHECKED
        super().start()

    def tick(self, now: float) -> None:
        if self.faults is not None and self.faults.tick(now):
            self.batch_end()

    def give(self, head: int, reply: bytes) -> None:
        if not self.queues[CMDQ].broken:
            self.queues[CMDQ].complete(head, reply)

    def give_again(self, head: int, reply: bytes) -> None:
        if not self.queues[CMDQ].broken:
            self.queues[CMDQ].complete_again(head, reply)

    def post(self, message: bytes) -> bool:
        # nothing is owed by a queue that broke
        return not self.p2a or self._send(message, True)
