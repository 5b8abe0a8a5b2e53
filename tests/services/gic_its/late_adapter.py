"""An ITS whose guest does not wait: writes are posted, DMA takes its time, memory changes with commits only."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.adapter import CaseAdapter
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma
from tests.services.gic_its import streams

#: Turns of the event loop that a DMA read takes, or that go by after a write, at most.
TURNS: Final = 4


class LateDma(DirectDma):
    """What is written takes effect with the next commit or read; a read gives others a number of turns first."""

    def __init__(self, memory: GuestMemory, rng: random.Random) -> None:
        super().__init__(memory)
        self._rng = rng
        self._posted: list[tuple[int, bytes | int]] = []

    async def read(self, addr: int, length: int) -> bytes:
        self.commit()
        await turns(self._rng)
        return await super().read(addr, length)

    def write(self, addr: int, data: bytes | int) -> None:
        self._posted.append((addr, data))

    def commit(self) -> None:
        posted, self._posted = self._posted, []
        for addr, data in posted:
            super().write(addr, data)


class LateAdapter(CaseAdapter):
    """Writes to the ITS's frame are posted, one behind the other, and commands are put into the queue meanwhile.
    Whatever else is done or looked at waits until the ITS is at rest; then each write has been answered once."""

    def __init__(self, case: dict[str, Any], profile: str, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._waiting = 0
        #: Writes that were posted while another one was under way.
        self.overlapped = 0
        super().__init__(case, profile)

    def _make(self) -> Its:
        its = Its(
            AsyncWorld(),
            LateDma(self._memory, self._rng),
            cpus=self._cpus,
            deliver=_nobody,
            done=_nobody,
            profile=self._profile,
        )
        its.hold()
        return its

    def mmio_write(self, frame: str, off: int, size: int, value: int) -> None:
        if frame == "its":
            self._run(self._post(off, size, value))
        else:
            self.drain()
            super().mmio_write(frame, off, size, value)

    async def _post(self, off: int, size: int, value: int) -> None:
        self.overlapped += self._waiting > 0
        self._waiting += 1
        self.its.post("its", off, size, value, self._answered)
        await turns(self._rng)

    def _answered(self) -> None:
        self._waiting -= 1

    def drain(self) -> None:
        super().drain()
        assert self._waiting == 0

    def mem_write(self, addr: int, data: bytes) -> None:
        if not streams.QUEUE <= addr < streams.DEVICES:
            self.drain()
        super().mem_write(addr, data)

    def mem_fill(self, addr: int, n: int, byte: int) -> None:
        self.drain()
        super().mem_fill(addr, n, byte)

    def mem_read(self, addr: int, n: int) -> bytes:
        self.drain()
        return super().mem_read(addr, n)

    def mmio_read(self, frame: str, off: int, size: int) -> int:
        self.drain()
        return super().mmio_read(frame, off, size)

    def msi(self, devid: int, data: int) -> None:
        self.drain()
        super().msi(devid, data)

    def reset(self) -> None:
        self.drain()
        super().reset()


async def turns(rng: random.Random) -> None:
    for _ in range(rng.randrange(TURNS)):
        await asyncio.sleep(0)


def _nobody(*_what: int) -> None:
    """vCPUs are held."""
