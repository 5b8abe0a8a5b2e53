"""The mesh beside a bare uvloop + msgpack echo, in turns, in the same minute, pinned the same way.

* ``scmi_polled``, ``scmi_interrupt``: round trip of CLOCK_RATE_GET through agent, rings, port, TCP, platform and back.
* ``nic_64``, ``nic_256``: descriptors a second (a frame is a transmit and a receive descriptor) through driver, port,
  NIC and back with 64 and 256 frames in flight, beside a bare echo of frames of 64 descriptors.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import uvloop

from services.guest_driver.guest import Guest
from services.guest_driver.shell import GuestService
from tests.bench import rig
from tests.bench.echo import Client

ROUNDS = 5
COMMANDS = 3000
SECONDS = 1.0
BATCH = 64
#: what an SCMI command and its reply weigh on the wire, as a message of like shape
PING = ["avail", 0, 0, 4711, [[5, b"\x05" * 12, [[0x4000_1000, 12, 0], [0x4000_1100, 16, 2]]]], 4711, False]


async def round_trips(ask: Callable[[], Awaitable[Any]], count: int) -> list[float]:
    """Sorted round trips in µs, one after the other."""
    times = []
    clock = time.perf_counter
    for _ in range(count):
        began = clock()
        await ask()
        times.append((clock() - began) * 1e6)
    times.sort()
    return times


def quantile(times: list[float], q: float) -> float:
    return times[min(int(len(times) * q), len(times) - 1)]


async def compare_rtt(client: Client, guest: Guest, poll: bool) -> dict[str, float]:
    clock = guest.agent.clock
    ratios, ours, theirs, p99 = [], [], [], []
    for _ in range(ROUNDS):
        bare = await round_trips(lambda: client.ask(PING), COMMANDS)
        full = await round_trips(lambda: clock.rate_get(0, poll=poll), COMMANDS)
        ours.append(quantile(full, 0.5))
        theirs.append(quantile(bare, 0.5))
        p99.append(quantile(full, 0.99) / quantile(bare, 0.99))
        ratios.append(ours[-1] / theirs[-1])
    return {
        "p50_us": round(statistics.median(ours), 1),
        "bare_p50_us": round(statistics.median(theirs), 1),
        "ratio_p50": round(statistics.median(ratios), 2),
        "ratio_p99": round(statistics.median(p99), 2),
    }


def batch_of(count: int) -> list[Any]:
    """A message of like shape with ``count`` descriptors."""
    frame = bytes(217 + 28)  # the shipped capture's mean frame, trailer and virtio header
    return ["avail", 1, 1, 4711, [[i, frame, [[0x1_4000_0000 + i, len(frame), 0]]] for i in range(count)], 4711]


async def echo_rate(client: Client, payload: list[Any], batch: int = BATCH, seconds: float = SECONDS) -> float:
    """Descriptors a second of a bare echo whose frames carry ``batch`` of them, one frame in flight."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await client.ask(payload)
        count += batch
    return count / (time.perf_counter() - began)


async def nic_rate(service: GuestService, seconds: float = SECONDS) -> float:
    """Frames a second that come back from the NIC: each crosses as a transmit and as a receive descriptor."""
    load = service.loads[0]
    before, began = load.net.rx, time.perf_counter()
    load.start()
    await asyncio.sleep(seconds)
    count, took = load.net.rx - before, time.perf_counter() - began
    await load.stop()
    return count / took


async def compare_nic(client: Client, service: GuestService) -> dict[str, float]:
    payload = batch_of(BATCH)
    ratios, ours, theirs = [], [], []
    for _ in range(ROUNDS):
        theirs.append(await echo_rate(client, payload))
        ours.append(2 * await nic_rate(service))
        ratios.append(ours[-1] / theirs[-1])
    return {
        "descriptors_per_s": round(statistics.median(ours)),
        "bare_descriptors_per_s": round(statistics.median(theirs)),
        "ratio": round(statistics.median(ratios), 2),
    }


async def main() -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rig.pin_client()
    figures: dict[str, Any] = {}
    quiet = {"map_seconds": 0.0, "inv_seconds": 0.0}
    async with rig.echo() as client:
        async with rig.mesh(**quiet) as service:
            guest = service.guests[0]
            figures["scmi_polled"] = await compare_rtt(client, guest, True)
            figures["scmi_interrupt"] = await compare_rtt(client, guest, False)
        for window in (BATCH, 4 * BATCH):
            async with rig.mesh(**quiet, scmi_workers=0, net_window=window) as service:
                figures[f"nic_{window}"] = await compare_nic(client, service)
    return figures


if __name__ == "__main__":
    json.dump(uvloop.run(main()), sys.stdout, indent=2)
    print()
