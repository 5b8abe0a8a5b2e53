"""One platform in a service, whatever carries its guests' queues: agents, device cores, time, metrics, faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from common.runtime.admin import Admin
from common.runtime.clock import monotonic
from common.runtime.metrics import Metrics
from common.virtio.device_core import Transport
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.control import Control
from services.scmi_platform.core import ScmiCore
from services.scmi_platform.faults_control import FaultControl, FaultRequest
from services.scmi_platform.raw_port import RawPort
from services.scmi_platform.state_file import StateFile
from services.scmi_platform.trace import Trace, TraceRequest
from services.scmi_platform.vendor import registry_for

#: Seconds between two ticks of the platform: how late a delayed response or a sensor's event may be.
PLATFORM_TICK: Final = 0.01
#: Seconds between two flushes of the state file to the disk.
STATE_SYNC: Final = 1.0
#: What the queues of a device are called in metrics, by index.
QUEUE_NAMES: Final = ("cmdq", "eventq")


class PlatformHost:
    """The platform of ``config.board`` and the device cores of its guests; ``log`` is the service's.

    Raises ConfigError for a board that cannot be read or contradicts itself.
    """

    def __init__(self, config: ScmiConfig, metrics: Metrics, log: Any) -> None:
        self.config: Final = config
        self.metrics: Final = metrics
        board = Board.load(config.board)
        registry = registry_for(board, config.board)
        board = board.with_profile(config.profile) if config.profile else board
        self.agents: Final = Agents(board, monotonic, registry)
        self.agents.platform.guard.tell = self._vendor_failed
        self._state: Final = StateFile(Path(config.state), self.agents.platform) if config.state else None
        self.agents.restored()
        self.faults: Final = FaultControl(config.faults)
        #: the core that each guest has now, by its name
        self.cores: Final[dict[str, ScmiCore]] = {}
        self.control: Final = Control(self.agents.platform, log.info)
        self.trace: Final = Trace(monotonic, config.trace)
        self._raw: Final = RawPort(config.raw, self.agents, metrics) if config.raw.listen else None
        self._log: Final = log

    def _vendor_failed(self, protocol: int, error: Exception) -> None:
        self._log.error("a vendor's protocol failed", protocol=hex(protocol), error=repr(error), exc_info=error)

    def start(self) -> None:
        """Export what the platform counts; say what will go wrong on purpose."""
        if self.config.faults.any:
            self._log.warning("faults on purpose", **msgspec.to_builtins(self.config.faults))
        self.metrics.counters_of("scmi", "SCMI platform", self.agents.platform.stats)
        if self._state is not None:
            self.metrics.counters_of("scmi_state", "State file of the SCMI platform", self._state.stats)

    def serve(self, admin: Admin) -> None:
        """Add the platform's routes: faults on purpose, its trace, a hand on the board."""
        admin.get("/faults", self.faults.show)
        admin.post("/faults", self._set_faults, FaultRequest)
        admin.get("/trace", lambda: self.trace.answer(self.trace.lines()), guarded=True)
        admin.post("/trace", self.trace.change, TraceRequest)
        admin.post("/trace/pipe", lambda _body: self.trace.answer(self.trace.drain()))
        self.control.serve(admin, self.metrics)

    def _set_faults(self, request: FaultRequest) -> dict[str, Any]:
        shown = self.faults.replace(request)
        self._log.warning("faults on purpose", **msgspec.to_builtins(request))
        return shown

    async def open(self) -> None:
        """Listen at the raw port, if there is to be one. Raises ConfigError if its address cannot be had."""
        if self._raw is not None:
            await self._raw.start()

    async def close(self) -> None:
        """Close what open() opened."""
        if self._raw is not None:
            await self._raw.close()
        if self._state is not None:
            self._state.close()

    async def ticks(self) -> None:
        """Let the platform's time go on, flush the state file now and then; ends never."""
        platform = self.agents.platform
        synced = monotonic()
        flushing: asyncio.Future[None] | None = None
        while True:
            await asyncio.sleep(PLATFORM_TICK)
            now = monotonic()
            platform.tick(now)
            platform.commit()
            if self._state is None or now - synced < STATE_SYNC or not (flushing is None or flushing.done()):
                continue
            synced = now
            flush = self._state.sync()
            if flush is not None:  # a slow disk holds up nobody
                flushing = asyncio.get_running_loop().run_in_executor(None, flush)

    def core(self, guest: str, transport: Transport, observe: Callable[[int, float], None]) -> ScmiCore:
        """The device core of ``guest`` on ``transport``, in the place of one that it had; ``observe`` as ScmiCore's.

        The agent begins anew, what it had set stays. Raises RemoteError when all agent ids are taken.
        """
        agent = self.agents.allot(guest)
        names = frozenset((guest, str(agent), self.agents.platform.agents[agent].name))
        core = ScmiCore(
            self.agents.platform,
            agent,
            transport,
            clock=monotonic,
            observe=observe,
            plan=self.faults.plan_of(names),
            dice=random.Random(f"{self.config.faults.seed} {guest}").random,
            trace=self.trace,
            names=names,
        )
        self.faults.attach(guest, core)
        self.agents.attach(agent, core)
        self.cores[guest] = core
        self._measure(guest, core)
        return core

    def _measure(self, guest: str, core: ScmiCore) -> None:
        self.metrics.counters_of("scmi_device", "SCMI device", core.stats, guest=guest)
        faults = core.faults
        self.metrics.counters_of("scmi_faults", "Faults on purpose", faults.stats, guest=guest)
        self.metrics.gauge(
            "ringmesh_scmi_faults_held", "Messages that are held on purpose.", fn=lambda: faults.held, guest=guest
        )
