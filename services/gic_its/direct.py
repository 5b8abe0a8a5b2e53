"""An ITS and its guest in one process, without links: for the lab, for tests of drivers, for benchmarks."""

from __future__ import annotations

from typing import Final

from common.errors import MemoryFaultError
from common.world import Memory
from services.gic_its.core import Its


class DirectDma:
    """DMA straight into guest memory: every write takes effect at once."""

    __slots__ = ("_memory",)

    _memory: Final[Memory]

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def read(self, addr: int, length: int) -> bytes:
        return self._memory.read(addr, length)

    def write(self, addr: int, data: bytes | int) -> None:
        try:
            self._memory.write(addr, bytes(data))
        except MemoryFaultError:
            return  # posted: nobody waits for an answer

    def commit(self) -> None:
        """Nothing is kept back."""


class DirectMmio:
    """A guest's MMIO accesses straight into the ITS."""

    __slots__ = ("_its",)

    _its: Final[Its]

    def __init__(self, its: Its) -> None:
        self._its = its

    async def read(self, frame: str, offset: int, size: int) -> int:
        return self._its.read(frame, offset, size)

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        await self._its.mmio_write(frame, offset, size, value)
