"""The SCMI driver of one machine: two rings, two channels, the deferred worker and the agent, put together once.

Whoever holds the port and the bus drives it: a :class:`~services.guest_driver.guest.Guest`, or a script's session.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from common.errors import RingError
from common.memory import Mapping, MemoryKey, MemoryMap
from common.virtio.features import SCMI_F_P2A_CHANNELS, DeviceId, Feature, mask
from common.virtio.split_driver import SplitDriver
from common.workqueue import WorkQueue
from common.world import Memory, World
from services.guest_driver.layout import Layout
from services.guest_driver.notify_events import ProtocolEvents
from services.guest_driver.notify_queue import EVENT_HEADER
from services.guest_driver.scmi_agent import RX_TIMEOUT, ScmiAgent
from services.guest_driver.scmi_virtio import TxChannel
from services.guest_driver.scmi_virtio_rx import RxChannel
from services.guest_driver.virtio_bus import DevicePlan, QueuePlan

CMDQ: Final = 0
EVENTQ: Final = 1
#: What the driver can use (virtio 1.3 §5.17.3, §6).
FEATURES: Final = mask(Feature.VERSION_1, Feature.EVENT_IDX) | SCMI_F_P2A_CHANNELS

_IDENTITY: Final = MemoryKey(MemoryMap([Mapping(0, 1 << 64, 0)]), 0)


def key_of(generation: int) -> MemoryKey | None:
    """The memory key of the SCMI device: it has no IOMMU, so generation 0 is all of memory and there is no other."""
    return _IDENTITY if generation == 0 else None


def holding(events: ProtocolEvents, entries: int) -> ProtocolEvents:
    """The same with a fifo that takes what an eventq of ``entries`` can bring between two runs of the worker: where one
    loop serves both, the interrupt empties the eventq before the worker's turn."""
    most = entries * (EVENT_HEADER.size + max(event.max_payload for event in events.events))
    return replace(events, queue_size=max(events.queue_size, 1 << (most - 1).bit_length()))


class ScmiDriver:
    """``world.new(ScmiDriver, world, memory, layout, notify, log)``; probe the bus with :meth:`plan`, then
    :meth:`start`.

    ``notify(queue)`` rings a doorbell; ``log``, ``timeout``, ``atomic_threshold_us`` and ``now_ns`` are
    :class:`ScmiAgent`'s. The owner calls :meth:`cmdq_irq` and :meth:`eventq_irq` for the queues' interrupts and
    :meth:`restarted` when the platform came back without its memory. The agent is there from the start; it answers
    LinkDownError until the queues are.
    """

    __slots__ = ("_atomic", "_layout", "_memory", "_notify", "_sizes", "_started", "_world", "agent", "rings",
                 "rx_channel", "tx_channel", "workqueue")  # fmt: skip

    _world: Final[World]
    _memory: Final[Memory]
    _layout: Final[Layout]
    _notify: Final[Callable[[int], None]]
    _sizes: Final[tuple[int, int]]
    _atomic: Final[bool]
    agent: Final[ScmiAgent]
    workqueue: Final[WorkQueue]
    rings: Final[dict[str, SplitDriver]]

    def __init__(
        self,
        world: World,
        memory: Memory,
        layout: Layout,
        notify: Callable[[int], None],
        log: Callable[..., None],
        *,
        cmdq_size: int = 256,
        eventq_size: int = 64,
        timeout: float = RX_TIMEOUT,
        atomic_transport: bool = True,
        atomic_threshold_us: int = 0,
        now_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self._world = world
        self._memory = memory
        self._layout = layout
        self._notify = notify
        self._sizes = (cmdq_size, eventq_size)
        self._atomic = atomic_transport
        self._started = False
        self.agent = world.new(
            ScmiAgent, world, log, timeout=timeout, atomic_threshold_us=atomic_threshold_us, now_ns=now_ns
        )
        for events in self.agent.event_tables():
            self.agent.notifications.register_protocol_events(holding(events, eventq_size))
        #: the tx channel's own, which ends it
        self.workqueue = world.new(WorkQueue, world)
        #: by name, for who measures them: cmdq, eventq
        self.rings = {}
        self.tx_channel: TxChannel
        #: None for a device without P2A_CHANNELS: it has no eventq (virtio 1.3 §5.17.2)
        self.rx_channel: RxChannel | None = None

    # --- bring-up -----------------------------------------------------------------------------------------------------

    def plan(self) -> DevicePlan:
        """What the bus probes the device with."""
        return DevicePlan(DeviceId.SCMI, FEATURES, self.make_queues)

    def make_queues(self, features: int) -> list[QueuePlan]:
        """Rings and channels for the ``features`` that were negotiated; the agent sends by them from now on. Raises
        LocalError where guest memory is used up."""
        world, memory, layout, bell, agent = self._world, self._memory, self._layout, self._notify, self.agent
        cmdq_at, eventq_at = (layout.ring(size) for size in self._sizes)
        event_idx = bool(features & Feature.EVENT_IDX.bit)
        cmdq = self.rings["cmdq"] = world.new(SplitDriver, world, memory, cmdq_at, event_idx=event_idx)
        self.tx_channel = world.new(
            TxChannel, world, memory, cmdq, layout, lambda: bell(CMDQ), agent.rx_callback, self.workqueue,
            atomic_enabled=self._atomic,
        )  # fmt: skip
        agent.attach(self.tx_channel)
        self.rx_channel = None
        if not features & SCMI_F_P2A_CHANNELS:
            return [QueuePlan(CMDQ, cmdq_at, CMDQ)]
        eventq = self.rings["eventq"] = world.new(SplitDriver, world, memory, eventq_at, event_idx=event_idx)
        rx = world.new(RxChannel, world, memory, eventq, layout, lambda: bell(EVENTQ), agent.rx_callback)
        rx.on_broken = agent.channel_broken
        self.rx_channel = rx
        return [QueuePlan(CMDQ, cmdq_at, CMDQ), QueuePlan(EVENTQ, eventq_at, EVENTQ)]

    def start(self, name: str) -> None:
        """Once the device is configured: run the workers, give the device the buffers of its eventq."""
        self._started = True
        self._world.spawn(f"{name} deferred tx", self.workqueue.run())
        self.agent.notifications.start(name)
        if self.rx_channel is not None:
            self.rx_channel.start()

    # --- events -------------------------------------------------------------------------------------------------------

    def cmdq_irq(self) -> None:
        """The cmdq's interrupt. Raises RingError where the device broke the ring."""
        self.tx_channel.complete_cb()

    def eventq_irq(self) -> None:
        """The eventq's interrupt. Raises RingError where the device broke the ring."""
        if self.rx_channel is not None:
            self.rx_channel.complete_cb()

    def restarted(self) -> None:
        """The platform came back without its memory. Everything that it sent before it went is on the rings; the
        notifications that it was asked for are asked for again."""
        self.tx_channel.deferred_tx_worker()
        with suppress(RingError):  # on_broken has heard of it
            self.eventq_irq()
        self.agent.platform_reset()
        self._world.spawn("scmi notifications again", self.agent.notifications.restore())

    # --- the end ------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Let nobody into the channels any more; every wait ends with LinkDownError. What was queued for handlers is
        delivered before this returns."""
        if self._started:
            self._started = False
            await self.tx_channel.close()
            if self.rx_channel is not None:
                await self.rx_channel.close()
        self.agent.detach()
        await self.agent.notifications.close()
