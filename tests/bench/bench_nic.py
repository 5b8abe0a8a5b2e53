"""The NIC beside a bare batch echo, in turns, in the same minute, pinned the same way; and what a change of map costs.

* ``batch_N``: N frames in flight. Descriptors a second (a frame is a transmit and a receive descriptor), their ratio to
  a bare echo of frames of N descriptors, 64 at most, one frame in flight; and the round trip of a frame.
* ``map_RxQ``: ``set_map`` of R regions under load on Q queues, 64 frames in flight on each pair: how long the call
  takes, and the silence that it makes: the longest time between two completions on a receive queue, of all queues.
  ``usual_us`` is that longest time where as long a while passes without a change.

``python -m tests.bench.bench_nic [ROUNDS [SECONDS [CHANGES]]]``
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, Final

import structlog
import uvloop

from common.memory import ACCESS_RW
from services.guest_driver.guest import RAM_BASE, Guest
from services.guest_driver.shell import GuestService
from services.guest_driver.vmm_link import ASID
from tests.bench import rig
from tests.bench.bench_mesh import BATCH, batch_of, echo_rate, nic_rate
from tests.bench.echo import Client

WINDOWS = (1, 4, 16, 64, 256)
REGIONS = (1, 8, 64, 512)
QUEUES = (2, 4, 8)
#: what is varied is varied with the other at its first value
SHAPES = tuple(dict.fromkeys([(regions, QUEUES[0]) for regions in REGIONS] + [(REGIONS[0], q) for q in QUEUES]))

#: I/O virtual addresses of the regions beside RAM, each a page with a hole behind it
FAR = 1 << 40
PAGE = 4096
#: seconds after which a queue is dead
GUARD = 60.0


def open_window(service: GuestService, frames: int) -> None:
    """Keep so many in flight from the next start on."""
    (load,) = service.loads
    load.config.net_window = frames
    load.guest.nic.on_pairs(load.net.pairs())  # the books begin anew


async def batches(client: Client, service: GuestService, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    rtt = service.loads[0].net.rtt
    figures = {}
    for window in WINDOWS:
        batch = min(window, BATCH)
        payload = batch_of(batch)
        open_window(service, window)
        rtt.counts, rtt.max = [0] * len(rtt.counts), 0.0
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(await echo_rate(client, payload, batch, seconds))
            ours.append(2 * await nic_rate(service, seconds))
        figures[f"batch_{window}"] = {
            "descriptors_per_s": round(statistics.median(ours)),
            "bare_descriptors_per_s": round(statistics.median(theirs)),
            "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2),
            "p50_us": round(rtt.quantile(0.5) * 1e6),
            "p99_us": round(rtt.quantile(0.99) * 1e6),
        }
    return figures


def longest_gap(stamps: Sequence[float], start: float, stop: float) -> float:
    """The longest time between two neighbours of ``stamps`` (ascending), some of which lies in ``start`` … ``stop``.
    Raises ValueError where there is nothing before or behind."""
    first, last = bisect_right(stamps, start) - 1, bisect_left(stamps, stop)
    if first < 0 or last == len(stamps):
        raise ValueError("no completions on both sides")
    return max((b - a for a, b in zip(stamps[first:last], stamps[first + 1 : last + 1], strict=True)), default=0.0)


class Completions:
    """When frames were received, by queue pair."""

    def __init__(self, guest: Guest) -> None:
        self.stamps: Final[list[list[float]]] = [[] for _ in guest.nic.net.pairs]
        inner = guest.nic.receive

        def stamped(pair: int, frames: list[bytes]) -> None:
            self.stamps[pair].append(time.perf_counter())
            inner(pair, frames)

        guest.nic.receive = stamped

    async def on_all(self) -> float:
        """Wait until something came on every pair; the moment."""
        since = time.perf_counter()
        async with asyncio.timeout(GUARD):
            while not all(stamps and stamps[-1] > since for stamps in self.stamps):  # noqa: ASYNC110  (many events)
                await asyncio.sleep(0.001)
        return time.perf_counter()

    def silence(self, start: float, stop: float) -> float:
        """The longest time without completions of a pair, of all pairs, that touches ``start`` … ``stop``."""
        return max(longest_gap(stamps, start, stop) for stamps in self.stamps)


async def map_change(service: GuestService, regions: int, changes: int) -> dict[str, float]:
    """``changes`` maps of so many regions, each another than the one before, under load."""
    (load,) = service.loads
    guest = load.guest
    (ram, *_) = guest.nic.vmm.space.ranges()
    iova, size, base, _ = ram
    assert base == RAM_BASE
    beside = [(FAR + 2 * n * PAGE, PAGE, base + n * PAGE, ACCESS_RW) for n in range(regions - 1)]
    completions = Completions(guest)
    took, silent, usual = [], [], []
    load.start()
    for turn in range(changes):
        start = await completions.on_all()
        # the last page of RAM, that nobody uses, comes and goes
        ranges = [(iova, size - turn % 2 * PAGE, base, ACCESS_RW), *beside]
        await guest.nic.vmm.calls.call("set_map", ASID, ranges)
        stop = time.perf_counter()
        calm = await completions.on_all()
        took.append(stop - start)
        silent.append(completions.silence(start, stop))
        await asyncio.sleep(stop - start)
        calm_until = time.perf_counter()
        await completions.on_all()
        usual.append(completions.silence(calm, calm_until))
        for stamps in completions.stamps:
            stamps.clear()
    await load.stop()
    return {
        "set_map_us": round(statistics.median(took) * 1e6),
        "silence_us": round(statistics.median(silent) * 1e6),
        "silence_max_us": round(max(silent) * 1e6),
        "usual_us": round(statistics.median(usual) * 1e6),
    }


async def main(rounds: int = 5, seconds: float = 1.0, changes: int = 50) -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rig.pin_client()
    quiet = {"map_seconds": 0.0, "inv_seconds": 0.0, "scmi_workers": 0}
    figures: dict[str, Any] = {}
    async with rig.echo() as client, rig.mesh(**quiet) as service:
        figures |= await batches(client, service, rounds, seconds)
    for regions, queues in SHAPES:
        pairs = queues // 2
        async with rig.mesh(**quiet, net_pairs=pairs, net_window=BATCH * pairs) as service:
            figures[f"map_{regions}x{queues}"] = await map_change(service, regions, changes)
    return figures


if __name__ == "__main__":
    arguments = [kind(text) for kind, text in zip((int, float, int), sys.argv[1:], strict=False)]
    json.dump(uvloop.run(main(*arguments)), sys.stdout, indent=2)
    print()
