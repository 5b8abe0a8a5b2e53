"""The ITS service in a process of its own, a guest's end and a device's end of its links in this one, for bench_its.

The guest's end is as small as it can be: memory behind DMA, EOIs at once, MMIO. So what is measured is the ITS.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from common.gic import commands as op
from common.gic.commands import Command, encode
from common.gic.lpi import LPI_BASE
from common.memory import GuestMemory
from common.runtime.link import Link, LinkClient
from common.runtime.metrics import Metrics
from common.wire.messages import DmaCommit, DmaData, DmaRead, Eoi, Lpi, MmioDone, MmioRead, MmioWrite, Msi, MsiDone
from services.mesh.ports import free_ports
from tests.bench import rig

BASE: Final = 0x4200_0000
QUEUE: Final = 0x1_0000
ITT: Final = 0x4300_0000
CPUS: Final = 4
DEVICE: Final = 2
#: of DEVICE, whose MSIs are measured, and of LOADED, whom the commands are about
EVENTS: Final = 512
LOADED: Final = 3
#: MSIs under way where their rate is measured
WINDOW: Final = 256


def latencies(waits: Sequence[float]) -> dict[str, float]:
    """Percentiles in microseconds."""
    cuts = statistics.quantiles(waits, n=100)
    return {"p50_us": round(cuts[49] * 1e6, 1), "p99_us": round(cuts[98] * 1e6, 1), "samples": len(waits)}


class GuestEnd:
    """Memory, MMIO, and the time at which each LPI came."""

    def __init__(self) -> None:
        self.memory = GuestMemory(0x200_0000, BASE)
        self.link: Link | None = None
        self.lpis: dict[int, float] = {}
        self.taken = 0
        self.came = asyncio.Event()
        self._seq = 0
        self._waiting: dict[int, asyncio.Future[int]] = {}

    def link_up(self, link: Link) -> None:
        self.link = link

    def link_frame(self, link: Link, message: Any) -> None:
        kind = type(message)
        if kind is Lpi:
            self._take(link, message.vcpu, message.intid, message.number)
        elif kind is DmaRead:
            link.send(DmaData(message.seq, self.memory.read(message.addr, message.length)))
        elif kind is DmaCommit:
            for addr, data in message.writes:
                self.memory.write(addr, bytes(data))
            for lpi in message.lpis:
                self._take(link, *lpi)
        elif kind is MmioDone:
            self._waiting.pop(message.seq).set_result(message.value)

    def _take(self, link: Link, vcpu: int, intid: int, number: int) -> None:
        self.lpis[intid] = time.perf_counter()
        self.taken += 1
        self.came.set()
        link.send(Eoi(vcpu, intid, number))

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, link: Link, reason: str) -> None:
        raise AssertionError(f"the link went down: {reason}")

    async def access(self, make: type[MmioRead | MmioWrite], *what: Any) -> int:
        self._seq += 1
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[self._seq] = future
        assert self.link is not None
        self.link.send(make(self._seq, *what))
        self.link.flush()
        return await future


class DeviceEnd:
    """Counts what was confirmed."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.done = 0
        self.confirmed = asyncio.Event()

    def link_up(self, link: Link) -> None:
        self.link = link

    def link_frame(self, link: Link, message: Any) -> None:
        assert type(message) is MsiDone
        self.done += 1
        self.confirmed.set()

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, link: Link, reason: str) -> None:
        """At the end."""


class ItsMesh:
    """``async with``: the service is up and programmed."""

    def __init__(self) -> None:
        self.guest = GuestEnd()
        self.device = DeviceEnd()
        self.at = 0
        self.number = 0

    async def __aenter__(self) -> ItsMesh:
        (port,) = free_ports(1)
        env = {"RINGMESH_LOG__LEVEL": "error", "RINGMESH_ADMIN__PORT": "0", "RINGMESH_LISTEN__PORT": str(port)}
        self.process: subprocess.Popen[bytes] = rig.spawn([sys.executable, "-m", "services.cli", "serve", "its"], env)
        self.clients = [
            LinkClient(role=role, peer="its", host="127.0.0.1", port=port, token="", epoch=1, handler=handler,
                       metrics=Metrics(role), guest=guest, patient=guest != "")
            for role, handler, guest in (("guest", self.guest, "vm0"), ("nic", self.device, ""))
        ]  # fmt: skip
        for client in self.clients:
            await client.start()
            await client.wait_up()
        await self._program()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.guest.link_down = lambda *_what: None  # type: ignore[method-assign]
        for client in self.clients:
            await client.close()
        self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        await self.guest.access(MmioWrite, frame, offset, size, value)

    async def _program(self) -> None:
        write = self.write
        self.guest.memory.fill(0x4260_0000, 0xE000, 0xA1)
        await write("gicd", 0, 4, 0x13)
        for cpu in range(CPUS):
            await write(f"gicr{cpu}", 0x70, 8, 0x4260_078F)
            await write(f"gicr{cpu}", 0x78, 8, 0x4270_0000 + cpu * 0x20000 | 1 << 62)
            await write(f"gicr{cpu}", 0, 4, 1)
        await write("its", 0x80, 8, 1 << 63 | BASE | 15)
        await write("its", 0x100, 8, 1 << 63 | 0x4220_0207)
        await write("its", 0x108, 8, 1 << 63 | 0x4240_0200)
        await write("its", 0, 4, 1)

    async def batch(self, commands: Sequence[Command]) -> None:
        """At most a queue of commands; returns when they have run."""
        data = b"".join(map(encode, commands))
        first = QUEUE - self.at
        self.guest.memory.write(BASE + self.at, data[:first])
        if len(data) > first:
            self.guest.memory.write(BASE, data[first:])
        self.at = (self.at + len(data)) % QUEUE
        await self.write("its", 0x88, 8, self.at)

    async def map(self) -> None:
        """A collection for each vCPU; DEVICE's events on all of them; LOADED with room for a queue of events."""
        await self.batch([
            *(Command(op.MAPC, icid=cpu, rdbase=cpu, valid=1) for cpu in range(CPUS)),
            *(Command(op.MAPD, device=d, size=12, itt=ITT + d * 0x8000, valid=1) for d in (DEVICE, LOADED)),
            *(Command(op.MAPTI, device=DEVICE, event=e, intid=LPI_BASE + e, icid=e % CPUS) for e in range(EVENTS)),
        ])  # fmt: skip

    def _msi(self, event: int) -> None:
        self.number += 1
        assert self.device.link is not None
        self.device.link.send(Msi("vm0", DEVICE, event, self.number))

    async def msi_rate(self, seconds: float) -> int:
        """MSIs a second, WINDOW of them under way, each of another event than the ones around it."""
        sent, until = 0, time.perf_counter() + seconds
        before = self.device.done
        while time.perf_counter() < until:
            while sent - (self.device.done - before) < WINDOW:
                self._msi(sent % EVENTS)
                sent += 1
            assert self.device.link is not None
            self.device.link.flush()
            self.device.confirmed.clear()
            await self.device.confirmed.wait()
        while self.device.done - before < sent:
            self.device.confirmed.clear()
            await self.device.confirmed.wait()
        return round(sent / seconds)

    async def latencies(self, seconds: float) -> list[float]:
        """Seconds from an MSI to its LPI, one at a time."""
        waits = []
        until = time.perf_counter() + seconds
        event = 0
        while time.perf_counter() < until:
            event = (event + 1) % EVENTS
            self.guest.lpis.pop(LPI_BASE + event, None)
            started = time.perf_counter()
            self._msi(event)
            assert self.device.link is not None
            self.device.link.flush()
            while LPI_BASE + event not in self.guest.lpis:
                self.guest.came.clear()
                await self.guest.came.wait()
            waits.append(self.guest.lpis[LPI_BASE + event] - started)
            await asyncio.sleep(0.0005)
        return waits

    async def under_load(self, kind: str, seconds: float) -> tuple[int, list[float]]:
        """The same while 64 KiB queues of one kind of command run, one after the other; how many commands ran."""
        count = QUEUE // 32 - 1
        maps = [Command(op.MAPTI, device=LOADED, event=e, intid=16384 + e, icid=0) for e in range(count)]
        drops = [Command(op.DISCARD, device=LOADED, event=e) for e in range(count)]
        queues = [maps, drops]
        if kind != "MAPTI":
            await self.batch(maps)
            queues = [[Command(op.SYNC, rdbase=0)] * count]
            if kind == "MOVI":
                queues = [[Command(op.MOVI, device=LOADED, event=e, icid=c) for e in range(count)] for c in (1, 0)]
            elif kind == "INT":
                # masked: the LPIs stay pending, or this process would be busy with them
                self.guest.memory.fill(0x4260_0000 + 8192, count, 0xA0)
                await self.batch([Command(op.INVALL, icid=0)])
                queues = [[Command(op.INT, device=LOADED, event=e) for e in range(count)]]
        stop = asyncio.Event()
        ran = 0

        async def load() -> None:
            nonlocal ran
            while not stop.is_set():
                for commands in queues:
                    await self.batch(commands)
                    ran += count

        loader = asyncio.create_task(load())
        waits = await self.latencies(seconds)
        stop.set()
        await loader
        if kind != "MAPTI":
            await self.batch(drops)
        return ran, waits
