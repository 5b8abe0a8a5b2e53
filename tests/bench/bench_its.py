"""The ITS: its core in this process, and the service with a guest and a device.

* ``kvm``, ``qemu``: commands a second by type, with 2000 mapped events, 2000 commands of the type behind one CWRITER
  write (INVALL and MOVALL: 40, over 1000 pending LPIs, MOVALL_10 over 10; INT_pending: of LPIs that are pending);
  MSIs a second that the core translates to LPIs and that are ended (``msi``), and of those that coalesce.
* ``memory``: bytes of this process for each mapped event, in the core of profile kvm; for each that had an MSI.
* ``mesh_*``: through a service process and two links: MSIs a second with many under way; latency of an MSI until its
  LPI, one at a time, while the queue is empty (``idle``) and while 64 KiB queues of INT, of MAPTI and DISCARD, and of
  MOVI are processed one after the other; their ratio at the 99th percentile; commands a second meanwhile.

``python -m tests.bench.bench_its [SECONDS [ROUNDS]]``
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any, Final

import structlog
import uvloop

from common.gic import commands as op
from common.gic.commands import Command, encode
from common.gic.lpi import LPI_BASE
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from services.gic_its.profile import PROFILES
from tests.bench import rig
from tests.bench.its_mesh import ItsMesh, latencies

BASE: Final = 0x4200_0000
MEMORY: Final = 0x200_0000
QUEUE: Final = 0x1_0000
DEVICES, COLLECTIONS = 0x4220_0000, 0x4240_0000
CONFIG, PENDING, ITT = 0x4260_0000, 0x4270_0000, 0x4300_0000
CPUS: Final = 4
BATCH: Final = 2000


class Core:
    """An ITS over memory of its own, programmed; :meth:`batch` runs commands and gives the seconds."""

    def __init__(self, profile: str, rounds: int = 1) -> None:
        self.memory = GuestMemory(MEMORY, BASE)
        self.taken: list[tuple[int, int, int]] = []
        self.its = Its(
            AsyncWorld(),
            DirectDma(self.memory),
            cpus=CPUS,
            deliver=lambda *lpi: self.taken.append(lpi),
            done=lambda *_msi: None,
            profile=PROFILES[profile],
        )
        self.at = 0
        self.rounds = rounds

    async def start(self) -> None:
        write = self.its.mmio_write
        self.memory.fill(CONFIG, 0xE000, 0xA1)
        await write("gicd", 0, 4, 0x13)
        for cpu in range(CPUS):
            await write(f"gicr{cpu}", 0x70, 8, CONFIG | 0x78F)
            await write(f"gicr{cpu}", 0x78, 8, PENDING + cpu * 0x20000 | 1 << 62)
            await write(f"gicr{cpu}", 0, 4, 1)
        await write("its", 0x80, 8, 1 << 63 | BASE | 15)
        await write("its", 0x100, 8, 1 << 63 | DEVICES | 0x207)
        await write("its", 0x108, 8, 1 << 63 | COLLECTIONS | 0x200)
        await write("its", 0, 4, 1)
        devices = [Command(op.MAPD, device=d, size=13, itt=ITT + d * 0x40000, valid=1) for d in range(CPUS)]
        await self.batch(devices + [Command(op.MAPC, icid=c, rdbase=c, valid=1) for c in range(CPUS)])

    async def batch(self, commands: Sequence[Command]) -> float:
        data = b"".join(map(encode, commands))
        first = QUEUE - self.at
        self.memory.write(BASE + self.at, data[:first])
        if len(data) > first:
            self.memory.write(BASE, data[first:])
        self.at = (self.at + len(data)) % QUEUE
        started = time.perf_counter()
        await self.its.mmio_write("its", 0x88, 8, self.at)
        return time.perf_counter() - started

    async def rate(self, *batches: Sequence[Command]) -> int:
        """Commands a second of the first batch; the others put back what it did, and are not timed."""
        best = float("inf")
        for _ in range(self.rounds):
            best = min(best, await self.batch(batches[0]))
            for back in batches[1:]:
                await self.batch(back)
        return round(len(batches[0]) / best)


def mapti(device: int, first: int, count: int) -> list[Command]:
    """``count`` events of ``device``, each with an LPI of its own."""
    return [
        Command(op.MAPTI, device=device, event=event, intid=LPI_BASE + device * 8192 + event, icid=device)
        for event in range(first, first + count)
    ]


async def core_rates(profile: str, rounds: int) -> dict[str, int]:
    core = Core(profile, rounds)
    await core.start()
    maps = mapti(0, 0, BATCH)
    events = [(0, event) for event in range(BATCH)]
    every = {name: [Command(getattr(op, name), device=d, event=e) for d, e in events] for name in ("INT", "INV")}
    clear, discard = ([Command(o, device=d, event=e) for d, e in events] for o in (op.CLEAR, op.DISCARD))
    figures = {"MAPTI": await core.rate(maps, discard)}
    await core.batch(maps)
    figures["DISCARD"] = await core.rate(discard, maps)
    core.its.hold()  # an LPI that is made pending stays so
    figures["INT"] = await core.rate(every["INT"], clear)
    await core.batch(every["INT"])
    figures["INT_pending"] = await core.rate(every["INT"])
    figures["CLEAR"] = await core.rate(clear, every["INT"])
    await core.batch(clear)
    figures["SYNC"] = await core.rate([Command(op.SYNC, rdbase=1)] * BATCH)
    figures["INV"] = await core.rate(every["INV"])
    back = [Command(op.MOVI, device=d, event=e, icid=0) for d, e in events]
    figures["MOVI"] = await core.rate([Command(op.MOVI, device=d, event=e, icid=1) for d, e in events], back)
    figures["MAPD"] = await core.rate(
        [
            Command(op.MAPD, device=16 + n % 64, size=4, itt=ITT + 0x20_0000 + n % 64 * 256, valid=1)
            for n in range(BATCH)
        ]
    )
    movall = [Command(op.MOVALL, rdbase=n % 2, rdbase2=1 - n % 2) for n in range(40)]
    await core.batch(every["INT"][:10])
    figures["MOVALL_10"] = await core.rate(movall)
    await core.batch(every["INT"][:1000])
    figures["INVALL"] = await core.rate([Command(op.INVALL, icid=0)] * 40)
    figures["MOVALL"] = await core.rate(movall)
    await core.batch(clear)
    core.its.resume()
    figures["msi"] = await msi_rate(core, ended=True)
    figures["coalesced"] = await msi_rate(core, ended=False)
    return figures


async def msi_rate(core: Core, ended: bool) -> int:
    """MSIs a second: each one an LPI of its own that is ended, or all but the first in one that the vCPU holds."""
    its, taken = core.its, core.taken
    count = 100_000 if its.profile.holds_tables else 10_000
    best = float("inf")
    number = 1
    for _ in range(core.rounds):
        taken.clear()
        started = time.perf_counter()
        for n in range(count):
            event = n % 1000
            if not its.try_msi(0, event, number + n):
                await its.msi(0, event, number + n)
            if ended:
                its.eoi(*taken.pop())
        best = min(best, time.perf_counter() - started)
        number += count
        for lpi in taken:
            its.eoi(*lpi)
    return round(count / best)


async def memory_per_event() -> dict[str, int]:
    core = Core("kvm")
    await core.start()
    count = 30_000
    maps = [mapti(n // 8192, n % 8192, 1)[0] for n in range(count)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for at in range(0, count, BATCH):
        await core.batch(maps[at : at + BATCH])
    gc.collect()
    mapped = tracemalloc.get_traced_memory()[0]
    for command in maps:
        core.its.try_msi(command.device, command.event, 1)
    for lpi in core.taken:
        core.its.eoi(*lpi)
    core.taken.clear()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {"mapped_bytes": round((mapped - before) / count), "used_bytes": round((used - before) / count)}


async def mesh_figures(seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with ItsMesh() as mesh:
        await mesh.map()
        figures["msi_per_s"] = await mesh.msi_rate(seconds)
        idle = await mesh.latencies(seconds)
        figures["idle"] = latencies(idle)
        for kind in ("INT", "MAPTI", "MOVI"):
            commands, waits = await mesh.under_load(kind, seconds)
            load = latencies(waits)
            load["commands_per_s"] = round(commands / seconds)
            load["p99_ratio"] = round(load["p99_us"] / figures["idle"]["p99_us"], 2)
            figures[kind] = load
    return figures


async def main(seconds: float = 3.0, rounds: int = 5) -> None:
    rig.pin_client()
    figures: dict[str, Any] = {profile: await core_rates(profile, rounds) for profile in ("kvm", "qemu")}
    figures["memory"] = await memory_per_event()
    figures.update({f"mesh_{name}": value if isinstance(value, dict) else {"rate": value}
                    for name, value in (await mesh_figures(seconds)).items()})  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    gc.freeze()
    uvloop.install()
    asyncio.run(main(*(kind(text) for kind, text in zip((float, int), sys.argv[1:], strict=False))))
