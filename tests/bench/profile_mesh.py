"""Where the time goes: ``python -m tests.bench.profile_mesh``.

* A polled SCMI command, phase by phase: medians over many commands of the moments at which the guest's link writes,
  is given data, and is done with it.
* A second of NIC traffic in the guest's process: processor time by source file (cProfile, whose own cost inflates
  files with many small calls).
"""

from __future__ import annotations

import cProfile
import logging
import pstats
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import structlog
import uvloop

from common.runtime.session import Link
from services.guest_driver.shell import GuestService
from tests.bench import rig
from tests.bench.bench_mesh import nic_rate

COMMANDS = 3000


class Stamps:
    """Stamps the first write of the guest's link to the platform and the first data that comes back."""

    def __init__(self) -> None:
        self.marks: dict[str, float] = {}
        self._flush, self._data = Link.flush, Link.data_received

    def __enter__(self) -> Stamps:
        stamps, flush, data = self, self._flush, self._data

        def stamped_flush(link: Link) -> None:
            if link.peer_role != "scmi":
                return flush(link)
            stamps.marks.setdefault("write", time.perf_counter())
            flush(link)
            stamps.marks.setdefault("written", time.perf_counter())
            return None

        def stamped_data(link: Link, received: bytes) -> None:
            if link.peer_role != "scmi":
                return data(link, received)
            stamps.marks.setdefault("came", time.perf_counter())
            data(link, received)
            stamps.marks.setdefault("taken", time.perf_counter())
            return None

        # before any link is made: uvloop keeps the bound methods of a protocol
        Link.flush = stamped_flush  # type: ignore[method-assign,assignment]
        Link.data_received = stamped_data  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *_exception: object) -> None:
        Link.flush, Link.data_received = self._flush, self._data  # type: ignore[method-assign]


PHASES = (
    ("agent, transport, ring, port, until the write", "begin", "write"),
    ("write (one system call)", "write", "written"),
    ("wire, platform process, wire", "written", "came"),
    ("decode, scatter, used ring", "came", "taken"),
    ("poller wakes, takes its reply", "taken", "end"),
    ("whole round trip", "begin", "end"),
)


async def polled_command(service: GuestService, stamps: Stamps) -> None:
    clock = service.guests[0].agent.clock
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(COMMANDS):
        stamps.marks = {"begin": time.perf_counter()}
        await clock.rate_get(0, poll=True)
        marks = stamps.marks | {"end": time.perf_counter()}
        for phase, start, stop in PHASES:
            times[phase].append((marks[stop] - marks[start]) * 1e6)
    print(f"a polled SCMI command, medians of {COMMANDS}, µs")
    for phase, _, _ in PHASES:
        print(f"  {statistics.median(times[phase]):6.1f}  {phase}")


async def nic_traffic(service: GuestService) -> None:
    profile = cProfile.Profile()
    profile.enable()
    frames = await nic_rate(service)
    profile.disable()
    by_file: dict[str, float] = defaultdict(float)
    entries: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (path, _, _), (_, _, own, _, _) in entries.items():
        by_file[str(Path(path).relative_to(rig.ROOT)) if path.startswith(str(rig.ROOT)) else "built in"] += own
    total = sum(by_file.values())
    print(f"NIC traffic in the guest's process under the profiler ({frames:.0f} frames/s), share of its time")
    for name, own in sorted(by_file.items(), key=lambda item: -item[1])[:12]:
        print(f"  {own / total:6.1%}  {name}")


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rig.pin_client()
    quiet = {"map_seconds": 0.0, "inv_seconds": 0.0}
    with Stamps() as stamps:
        async with rig.mesh(**quiet) as service:
            await polled_command(service, stamps)
    async with rig.mesh(**quiet, scmi_workers=0, net_window=256) as service:
        await nic_traffic(service)


if __name__ == "__main__":
    uvloop.run(main())
