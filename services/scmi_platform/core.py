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

from common.scmi.header import DELAYED_RESPONSE, HEADER, TYPE_MASK, TYPE_SHIFT
from common.virtio.device_core import Transport
from common.virtio.features import DESC_F_WRITE, SCMI_F_P2A_CHANNELS, Feature, mask
from common.wire.messages import Chain
from services.scmi_platform.faults import FaultPlan, Faults
from services.scmi_platform.platform import Platform
from services.scmi_platform.trace import Trace

CMDQ: Final = 0
EVENTQ: Final = 1

#: No shared memory regions are offered.
FEATURES: Final = mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC) | SCMI_F_P2A_CHANNELS
#: Largest size of either queue, entries.
QUEUE_SIZE: Final = 1024
#: Delayed responses that may wait for a buffer on the eventq; beyond these the platform keeps them.
BACKLOG: Final = 64
#: Nothing goes wrong on purpose.
NO_FAULTS: Final = FaultPlan()

_DELAYED: Final = DELAYED_RESPONSE << TYPE_SHIFT


@dataclass(slots=True)
class ScmiStats:
    """What the device counts of its commands and messages; a transport counts chains."""

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


class ScmiCore:
    """The device of ``agent`` on ``transport``; its commands go to ``platform``, which sends by :meth:`emit`.

    ``observe(queue, seconds)``: for the cmdq from the arrival of chains to their answers, for the eventq from when the
    platform had a message to when it was in a buffer. ``plan`` says what goes wrong on purpose, ``dice()`` gives the
    numbers in [0, 1) that decide it, ``names`` are what its rules may call the agent. ``trace`` is told of every
    message.
    """

    offered: Final = FEATURES
    queue_sizes: Final = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(
        self,
        platform: Platform,
        agent: int,
        transport: Transport,
        *,
        clock: Callable[[], float],
        observe: Callable[[int, float], None] = lambda _queue, _seconds: None,
        plan: FaultPlan = NO_FAULTS,
        dice: Callable[[], float] = lambda: 0.0,
        trace: Trace | None = None,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self.platform: Final = platform
        self.agent: Final = agent
        self.transport: Final = transport
        self._cmdq: Final = transport.queues[CMDQ]
        self._eventq: Final = transport.queues[EVENTQ]
        self.clock: Final = clock
        self.observe: Final = observe
        self.stats: Final = ScmiStats()
        self.trace: Final = Trace(clock, 0) if trace is None else trace
        #: eventq buffers in hand: (head, bytes of room)
        self.buffers: deque[tuple[int, int]] = deque()
        #: delayed responses without a buffer: (message, when it was there)
        self.backlog: deque[tuple[bytes, float]] = deque()
        self.faults: Final = Faults(plan, dice, clock, self, names)
        #: entries of the cmdq, 0 before the driver said; commands when the driver last reset the device
        self._cmdq_size = 0
        self._commands_before = 0

    @property
    def p2a(self) -> bool:
        """May the platform send to the agent: was P2A_CHANNELS negotiated, and does the eventq live?"""
        transport = self.transport
        return bool(transport.features & SCMI_F_P2A_CHANNELS) and transport.live(EVENTQ)

    def on_reset(self) -> None:
        """The driver begins anew (§2.4): so does its agent."""
        self.buffers.clear()
        self.backlog.clear()
        self.faults.reset()
        self._cmdq_size, self._commands_before = 0, self.stats.commands
        self.platform.reset_agent(self.agent, settings=False)

    def on_stop(self, queue: int) -> list[int]:
        """Every command that was taken is answered before the cmdq stops, but for those that never are, on purpose;
        eventq buffers go back. Delayed responses that wait for a buffer keep waiting."""
        if queue == EVENTQ:
            unused = [head for head, _ in self.buffers]
            self.buffers.clear()
            return unused
        self.faults.release()
        return []

    def check_size(self, queue: int, size: int) -> None:
        if queue == CMDQ:
            self.faults.check_size(size)
            self._cmdq_size = size

    # --- agent to platform --------------------------------------------------------------------------------------------

    def on_chains(self, queue: int, chains: list[Chain]) -> None:
        if queue == EVENTQ:
            self._take_buffers(chains)
            return
        arrived = self.clock()
        for head, request, segments in chains:
            room = 0
            for _, length, flags in segments:
                if flags & DESC_F_WRITE:
                    room += length
            self._command(head, request, room)
        self.platform.commit()
        self.observe(CMDQ, self.clock() - arrived)

    def _command(self, head: int, request: bytes, room: int) -> None:
        """Answer one chain. One that is no command comes back empty; nothing is executed for it."""
        stats = self.stats
        if len(request) < HEADER.size or room < HEADER.size:
            stats.malformed += 1
            self._cmdq.complete(head, b"")
            return
        stats.commands += 1
        if self.trace.on:
            self.trace.command(self.agent, request)
        reply = self.platform.handle(self.agent, request, head in self._cmdq.again)
        assert reply is not None  # there is a header
        if len(reply) > room:
            stats.truncated += 1
            reply = reply[:room]
        if self.faults.active:
            self.faults.answer(head, reply)
            return
        self._cmdq.complete(head, reply)
        if self.trace.on:
            self.trace.sent(self.agent, reply)

    # --- platform to agent --------------------------------------------------------------------------------------------

    def emit(self, message: bytes) -> bool:
        """Send a notification or a delayed response (whole message).

        False: not taken. A notification is lost then (§5.17.6.4 allows it); a delayed response the caller keeps.
        """
        if not self.p2a:
            return False
        delayed = int.from_bytes(message[: HEADER.size], "little") & TYPE_MASK == _DELAYED
        if self.faults.active:
            return self.faults.delayed(message) if delayed else self.faults.notification(message)
        return self._send(message, delayed)

    def _send(self, message: bytes, delayed: bool) -> bool:
        if not (delayed and self.backlog) and (self._fill(message) or self._found_room(message)):
            self._eventq.flush()
            self.observe(EVENTQ, 0.0)
            return True
        if not delayed:
            self.stats.notifications_dropped += 1
            return False
        if len(self.backlog) >= BACKLOG:
            return False
        self.stats.responses_delayed += 1
        self.backlog.append((message, self.clock()))
        return True

    def _fill(self, message: bytes) -> bool:
        """Put ``message`` into the first buffer that has room for it; buffers too small stay for smaller ones."""
        buffers = self.buffers
        need = len(message)
        for at, (head, room) in enumerate(buffers):
            if room >= need:
                del buffers[at]
                self._eventq.complete(head, message)
                if self.trace.on:
                    self.trace.sent(self.agent, message)
                self.stats.events += 1
                return True
        return False

    def _found_room(self, message: bytes) -> bool:
        """The driver may have given buffers of which the device has not heard yet."""
        self.transport.look(EVENTQ)
        return self._fill(message)

    def _take_buffers(self, chains: list[Chain]) -> None:
        for head, readable, segments in chains:
            room = sum(length for _, length, flags in segments if flags & DESC_F_WRITE)
            if readable or room < HEADER.size:
                # §5.17.6.3: eventq buffers are device-writable only
                self.stats.malformed += 1
                self._eventq.complete(head, b"")
            else:
                self.buffers.append((head, room))
        while self.backlog and self._fill(self.backlog[0][0]):
            _, since = self.backlog.popleft()
            self.observe(EVENTQ, self.clock() - since)

    # --- faults on purpose (the core is their Outlet) -----------------------------------------------------------------

    def check_plan(self, plan: FaultPlan) -> None:
        """Raise RemoteError where ``plan`` would leave the guest without a message."""
        if self._cmdq_size:
            self.faults.check(plan, self._cmdq_size)

    def set_plan(self, plan: FaultPlan) -> None:
        """``plan`` holds from now on. What was held goes out."""
        self.faults.replace(plan, self.stats.commands - self._commands_before)
        self.faults.tick(self.clock())
        self._cmdq.flush()

    def tick(self, now: float) -> bool:
        return self.faults.active and self.faults.tick(now)

    def subscribed(self, protocol: int, event: int, domain: int) -> bool:
        return self.agent in self.platform.subscribed(protocol, event, domain)

    def notify(self, message: bytes) -> bool:
        return self.p2a and self._send(message, False)

    def give(self, head: int, reply: bytes) -> None:
        if not self._cmdq.broken:
            self._cmdq.complete(head, reply)
            if self.trace.on:
                self.trace.sent(self.agent, reply)

    def give_again(self, head: int, reply: bytes) -> None:
        if not self._cmdq.broken:
            self._cmdq.complete_again(head, reply)
            if self.trace.on:
                self.trace.sent(self.agent, reply)

    def hush(self) -> None:
        self._cmdq.hush()

    def post(self, message: bytes) -> bool:
        # nothing is owed by a queue that broke; one that is only stopped goes on later
        return self._eventq.broken or (self.p2a and self._send(message, True))
