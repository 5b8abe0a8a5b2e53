"""Our own SCMI agent, on Linux's transport, behind our own front end: the driver half that the guest service ships."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from common.memory import GuestMemory
from common.runtime.clock import monotonic
from services.guest_driver.layout import Layout
from services.guest_driver.scmi_driver import FEATURES, ScmiDriver
from services.vhost_user.events import LoopEvents
from services.vhost_user.messages import F_PROTOCOL_FEATURES
from services.vhost_user.world import FencedWorld
from tests.services.vhost_user.front_end import GUARD, FrontEnd, GuestRam
from tests.services.vhost_user.scmi_front import Served

CPU, TEMP = 0, 0


class Machine:
    """A guest whose SCMI driver is the guest service's, with eventfds for doorbells and interrupts."""

    def __init__(self, path: Path) -> None:
        self.ram = GuestRam()
        memory = GuestMemory()
        memory.add_region(self.ram.guest, self.ram.size, memoryview(self.ram.bytes))
        self.world = FencedWorld()
        self.front = FrontEnd(path)
        self.driver = ScmiDriver(
            self.world, memory, Layout(self.ram.guest, self.ram.size), self.kick, self.log, cmdq_size=64,
            timeout=GUARD, now_ns=lambda: int(monotonic() * 1e9),
        )  # fmt: skip
        self.logged: list[str] = []

    def log(self, event: str, **_fields: Any) -> None:
        self.logged.append(event)

    def kick(self, queue: int) -> None:
        self.front.kick(queue)

    def bring_up(self) -> None:
        self.front.negotiate()
        assert self.front.features(FEATURES | F_PROTOCOL_FEATURES) == 0
        assert self.front.share(self.ram) == 0
        user = self.ram.user - self.ram.guest
        for plan in self.driver.make_queues(FEATURES):
            at = plan.layout
            areas = (at.desc + user, at.driver + user, at.device + user)
            assert self.front.start_ring(plan.index, at.size, *areas) == 0

    async def __aenter__(self) -> Machine:
        await asyncio.to_thread(self.bring_up)
        events = LoopEvents()
        for queue, irq in ((0, self.driver.cmdq_irq), (1, self.driver.eventq_irq)):
            events.watch(self.front.calls[queue], self.stirred(irq))
        self.driver.start("vm0")
        return self

    def stirred(self, irq: Any) -> Any:
        def interrupt() -> None:
            self.world.stir()
            irq()

        return interrupt

    async def __aexit__(self, *_: object) -> None:
        await self.driver.stop()
        await self.world.close()
        for queue in (0, 1):
            LoopEvents().unwatch(self.front.calls[queue])
        self.front.close()


async def test_the_agent_finds_everything(tmp_path: Path) -> None:
    path = tmp_path / "vm0.sock"
    async with Served(str(path)) as served, Machine(path) as machine, asyncio.timeout(GUARD):
        agent = machine.driver.agent
        assert await agent.base.vendor() == "acme"

        async def many(worker: int) -> None:
            for turn in range(25):
                assert await agent.clock.rate_get(CPU, poll=(turn + worker) % 2 == 0) == 300

        await asyncio.gather(*(many(n) for n in range(4)))
        stats = agent.stats
        assert stats.response_polled_ok >= 50
        assert stats.response_ok >= 50
        assert stats.xfers_response_timeout == stats.xfers_response_polled_timeout == 0
        assert served.value("ringmesh_scmi_device_commands_total", guest="vm0") == stats.sent_ok
        assert [one.value for one in await agent.sensor.reading_get_async(TEMP)]
        assert served.value("ringmesh_scmi_device_events_total", guest="vm0") == 1, "the delayed response"
        assert not machine.logged
