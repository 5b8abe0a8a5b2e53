"""Microseconds of CPU a command in the guest: ``python tests/bench/bench_scmi_agent.py``. Not collected by pytest.

Agent, transport and ring, against a device half that answers at the doorbell; what the device half takes is measured
apart and taken off. The best of five rounds, which is the figure least disturbed by the machine.
"""

from __future__ import annotations

import asyncio
import time

from common.runtime.world import AsyncWorld
from common.virtio.split_device import SplitDevice
from common.virtio.split_driver import SplitDriver
from common.virtio.split_layout import SplitLayout
from common.workqueue import WorkQueue
from services.guest_driver.layout import Layout
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_trace import EVENTS, AgentRing, Tracer
from services.guest_driver.scmi_virtio import TxChannel

NUMBER = 20_000
ROUNDS = 5


class Loopback:
    def __init__(self) -> None:
        self.world = world = AsyncWorld()
        self.memory = world.memory(1 << 20)
        at = SplitLayout.packed_at(0, 256)
        self.device = world.new(SplitDevice, world, self.memory, at, event_idx=True)
        driver = world.new(SplitDriver, world, self.memory, at, event_idx=True)
        self.agent = world.new(ScmiAgent, world, lambda _event, **_fields: None)
        self.tx = world.new(
            TxChannel, world, self.memory, driver, Layout(at.end, 1 << 18), self.doorbell, self.agent.rx_callback,
            world.new(WorkQueue, world),
        )  # fmt: skip
        self.agent.attach(self.tx)
        self.interrupt = False
        self.device_seconds = 0.0

    def doorbell(self) -> None:
        start = time.perf_counter()
        memory, device = self.memory, self.device
        while (popped := device.pop()) is not None:
            head, segments, _ = popped
            request = memory.read(segments[0][0], segments[0][1])
            memory.write(segments[1][0], request[:4] + bytes(12))
            device.push(head, 16)
        device.enable_notify()
        self.device_seconds += time.perf_counter() - start
        if self.interrupt:
            asyncio.get_running_loop().call_soon(self.tx.complete_cb)

    async def measure(self, name: str, poll: bool) -> float:
        self.interrupt = not poll
        best = float("inf")
        for _ in range(ROUNDS):
            self.device_seconds, start = 0.0, time.process_time()
            for _ in range(NUMBER):
                await self.agent.do_xfer(0x14, 6, bytes(4), expect=8, poll=poll)
            best = min(best, time.process_time() - start - self.device_seconds)
        print(f"{name:32} {best / NUMBER * 1e6:6.2f} µs")
        return best / NUMBER * 1e6


async def main() -> None:
    loopback = Loopback()
    await loopback.measure("polled command", poll=True)
    await loopback.measure("interrupt-driven command", poll=False)
    for name, events in (("scmi_msg_dump", ["scmi_msg_dump"]), ("every event", EVENTS)):
        loopback.agent.tracer = Tracer("guest0", AgentRing(), time.monotonic, events)
        await loopback.measure(f"polled, tracing {name}", poll=True)


if __name__ == "__main__":
    asyncio.run(main())
