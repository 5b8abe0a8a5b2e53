"""The SCMI platform behind vhost-user: ``ringmesh serve scmi --listen vhost-user:PATH``.

One platform; every socket is one agent of it, whose device lives as long as the service: a front end that comes back
finds it as it was, unless its driver begins anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from common.errors import ConfigError, LocalError
from common.runtime.clock import monotonic
from common.runtime.service import Service
from services.scmi_platform.core import ScmiCore
from services.scmi_platform.host import QUEUE_NAMES, PlatformHost
from services.vhost_user.config import SocketPlan, VhostUserConfig, plans
from services.vhost_user.connection import Listener, close_fd
from services.vhost_user.device import VhostDevice
from services.vhost_user.events import LoopEvents
from services.vhost_user.mapping import Mapper, check_event
from services.vhost_user.messages import ALL_PROTOCOL_FEATURES, ProtocolFeature
from services.vhost_user.session import Session, SessionStats
from services.vhost_user.world import FencedWorld

#: virtio-scmi has no configuration space.
PROTOCOL_FEATURES: Final = ALL_PROTOCOL_FEATURES & ~ProtocolFeature.CONFIG
#: Seconds between two ticks of every device.
TICK: Final = 0.005


class Counted(Counter[str]):
    """Counts that are told on as they change."""

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        super().__init__()
        self._tell = tell

    def __setitem__(self, key: str, value: int) -> None:
        super().__setitem__(key, value)
        self._tell(key, value)


class VhostUserScmi(Service[VhostUserConfig]):
    """Raises ConfigError for a board that cannot be used, and for sockets that cannot be listened at."""

    role = "scmi"

    def __init__(self, config: VhostUserConfig) -> None:
        super().__init__(config)
        self.world = FencedWorld(on_failure=self.fail)
        self.plans: Final = plans(config.sockets)
        self.host: Final = PlatformHost(config, self.metrics, self.log)
        self.devices: Final[dict[str, VhostDevice[ScmiCore]]] = {}
        self.listeners: Final[list[Listener]] = []
        self._waits = [self.metrics.queue(name, partial(self._depth, index)) for index, name in enumerate(QUEUE_NAMES)]

    async def start(self) -> None:
        self.host.start()
        self.host.serve(self.admin)
        await self.host.open()
        self.metrics.gauge("ringmesh_guests", "Guests that have a device here.", fn=lambda: len(self.devices))
        for plan in self.plans:
            listener = self._offer(plan)
            try:
                await listener.start()
            except LocalError as error:
                raise ConfigError("--listen", str(plan.path), str(error)) from None
            self.listeners.append(listener)
            self.log.info("listening", path=str(plan.path), agent=plan.agent)
        self.world.spawn("platform tick", self.host.ticks())
        self.world.spawn("tick", self._ticks())

    async def stop(self) -> None:
        for listener in self.listeners:
            await listener.stop()
        await self.host.close()

    def _offer(self, plan: SocketPlan) -> Listener:
        """The device of ``plan``'s agent, and the socket at which its front end is awaited."""
        log = self.log.bind(guest=plan.agent).warning
        mapper = Mapper()
        device = VhostDevice(
            lambda transport: self.host.core(plan.agent, transport, self._observe),
            len(QUEUE_NAMES),
            world=self.world,
            events=LoopEvents(),
            log=log,
            whole=mapper.still_whole,
            lost=lambda: listener.drop(),
        )
        self.devices[plan.agent] = device
        self._measure(plan.agent, device)
        stats = SessionStats(
            Counted(partial(self._count, "requests", "Requests of a front end", "request", plan.agent)),
            Counted(partial(self._count, "refused", "What was refused of a front end", "reason", plan.agent)),
        )

        def session() -> Session:
            return Session(
                device, map_fd=mapper.map, close=close_fd, check_event=check_event, log=log, stats=stats,
                offered=PROTOCOL_FEATURES,
            )  # fmt: skip

        listener = Listener(plan.path, session, log)
        return listener

    # --- metrics ------------------------------------------------------------------------------------------------------

    def _measure(self, guest: str, device: VhostDevice[ScmiCore]) -> None:
        self.metrics.counters_of("vhost_device", "Device behind vhost-user", device.stats, guest=guest)
        for queue, name in zip(device.queues, QUEUE_NAMES, strict=True):
            self.metrics.counters_of("vhost_queue", "Queue behind vhost-user", queue.stats, guest=guest, queue=name)

    def _count(self, what: str, text: str, label: str, guest: str, key: str, value: int) -> None:
        counter = self.metrics.counter(f"ringmesh_vhost_user_{what}_total", f"{text}.", guest=guest, **{label: key})
        counter.value = value

    def _depth(self, index: int) -> float:
        queues = [device.queues[index] for device in self.devices.values()]
        return sum(queue.depth.read(queue.in_hand) for queue in queues)

    def _observe(self, queue: int, seconds: float) -> None:
        self._waits[queue].observe(seconds)

    # --- time ---------------------------------------------------------------------------------------------------------

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = monotonic()
            for device in self.devices.values():
                device.tick(now)
