"""Notifications a second from the platform to a handler, beside the frames that a bare echo returns with 64 in flight.

The way: platform, eventq, port, interrupt by the ITS, rx channel, the event's fifo, its worker, the handler.

* ``notify_64``, ``notify_256``: an eventq of so many entries, and a platform that fills every buffer that it is given.
* ``notify_overload``: 64 entries, and a platform that has ``OFFERED`` notifications a second, buffers or not.
  ``platform_dropped`` (no buffer) and ``fifo_dropped`` (no room in the agent's fifo) are shares of what was offered.

``python -m tests.bench.bench_notify [ROUNDS [MILLISECONDS]]``
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from typing import Any

import structlog
import uvloop

from common.scmi import clock
from services.guest_driver.notify_events import Notification
from services.guest_driver.scmi_agent import ScmiAgent
from tests.bench import rig
from tests.bench.bench_mesh import PING
from tests.bench.echo import Client
from tests.bench.flood import CLOCK

ROUNDS = 5
MILLISECONDS = 1000
WINDOW = 64
OFFERED = 50_000
#: after which nothing is on its way any more
SETTLE = 0.2


async def listen(agent: ScmiAgent, seconds: float) -> dict[str, float]:
    """One round with a handler registered: ``delivered`` per second, and the shares that were dropped where."""
    numbers: list[int] = []
    event = clock.Notification.CLOCK_RATE_CHANGED

    def handler(notification: Notification) -> None:
        numbers.append(notification.report.rate)

    queue = agent.notifications.queues[clock.PROTOCOL].stats
    dropped = queue.dropped
    await agent.clock.on_rate_changed(handler, CLOCK)
    began, before = time.perf_counter(), len(numbers)
    while True:
        await asyncio.sleep(seconds)
        if len(numbers) > before:
            break
    delivered, took = len(numbers) - before, time.perf_counter() - began
    await agent.clock.notify_rate(CLOCK, False)  # the source dries up before the handler goes: nothing is unhandled
    await asyncio.sleep(SETTLE)
    await agent.notifications.unregister(clock.PROTOCOL, event, handler, CLOCK)
    assert numbers == sorted(set(numbers)), "doubled, or out of order"
    dropped = queue.dropped - dropped
    arrived = len(numbers) + dropped
    # what was dropped behind the last one leaves no gap in the numbers
    offered = max(numbers[-1] + 1 - numbers[0], arrived)
    return {
        "delivered": delivered / took,
        "fifo_dropped": dropped / offered,
        "platform_dropped": (offered - arrived) / offered,
    }


async def compare(client: Client, agent: ScmiAgent, rounds: int, seconds: float) -> dict[str, float]:
    found, bare = [], []
    for _ in range(rounds):
        bare.append(await client.rate(PING, WINDOW, seconds))
        found.append(await listen(agent, seconds))
    median = statistics.median
    shares = {key: round(median(one[key] for one in found), 3) for key in ("platform_dropped", "fifo_dropped")}
    return {
        "per_s": round(median(one["delivered"] for one in found)),
        "bare_frames_per_s": round(median(bare)),
        "ratio": round(median(one["delivered"] / frames for one, frames in zip(found, bare, strict=True)), 3),
        **shares,
    }


async def main(rounds: int = ROUNDS, milliseconds: int = MILLISECONDS) -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rig.pin_client()
    figures: dict[str, Any] = {}
    async with rig.echo() as client:
        for name, entries, offered in (
            ("notify_64", 64, 0),
            ("notify_256", 256, 0),
            ("notify_overload", 64, OFFERED),
        ):
            quiet = {"map_seconds": 0.0, "inv_seconds": 0.0, "eventq_size": entries}
            async with rig.mesh(("flood", str(offered)), **quiet) as service:
                figures[name] = await compare(client, service.guests[0].agent, rounds, milliseconds / 1000)
    return figures


if __name__ == "__main__":
    json.dump(uvloop.run(main(*map(int, sys.argv[1:]))), sys.stdout, indent=2)
    print()
