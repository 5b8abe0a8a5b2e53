"""The guest's end of the link to the ITS: MMIO out, DMA and LPIs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from common.errors import LinkDownError, MemoryFaultError, RemoteError
from common.memory import GuestMemory
from common.runtime.link import Link
from common.wire.limits import MAX_DMA
from common.wire.messages import DmaData, DmaRead, DmaWrite, Eoi, Lpi, MmioDone, MmioRead, MmioWrite
from services.guest_driver.vcpu import Vcpus


class ItsLink:
    """A LinkHandler for role ``guest`` towards the ITS; the Mmio of the ITS driver.

    ``on_up(restarted)`` is called at every link_up; ``restarted`` where the ITS has lost what it was told.
    """

    def __init__(self, memory: GuestMemory, vcpus: Vcpus, *, on_up: Callable[[bool], None]) -> None:
        self._memory: Final = memory
        self._vcpus: Final = vcpus
        self._on_up: Final = on_up
        self._link: Link | None = None
        self._epoch = 0
        self._seq = 0
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self.dma_reads = 0
        self.dma_writes = 0
        self.dma_faults = 0

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._link = link
        restarted = link.peer_epoch != self._epoch
        self._epoch = link.peer_epoch
        self._vcpus.expect_repeats()
        self._on_up(restarted)

    def link_frame(self, link: Link, message: Any) -> None:
        kind = type(message)
        if kind is Lpi:
            if self._vcpus.take(message.vcpu, message.intid, message.number):
                link.send(Eoi(message.vcpu, message.intid, message.number))
        elif kind is MmioDone:
            future = self._waiting.pop(message.seq, None)
            if future is not None and not future.done():
                future.set_result(message.value)
        elif kind is DmaRead:
            link.send(DmaData(message.seq, self._dma_read(message)))
        elif kind is DmaWrite:
            self._dma_write(message)

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, _link: Link, reason: str) -> None:
        self._link = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(LinkDownError("mmio", None, None, reason))

    # --- DMA ----------------------------------------------------------------------------------------------------------

    def _dma_read(self, message: DmaRead) -> bytes | None:
        self.dma_reads += 1
        if not 0 < message.length <= MAX_DMA:
            raise RemoteError("dma_read.length", message.length, MAX_DMA)
        try:
            return self._memory.read(message.addr, message.length)
        except MemoryFaultError:
            self.dma_faults += 1
            return None

    def _dma_write(self, message: DmaWrite) -> None:
        self.dma_writes += 1
        try:
            self._memory.write(message.addr, message.data)
        except MemoryFaultError:
            self.dma_faults += 1  # posted: nobody waits for an answer

    # --- MMIO ---------------------------------------------------------------------------------------------------------

    async def read(self, frame: str, offset: int, size: int) -> int:
        """Read ``size`` bytes of a register frame. Raises LinkDownError when the link goes first."""
        return await self._access(MmioRead(self._next(), frame, offset, size))

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        """Write a register and wait until it took effect. Raises LinkDownError when the link goes first."""
        await self._access(MmioWrite(self._next(), frame, offset, size, value))

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    async def _access(self, message: MmioRead | MmioWrite) -> int:
        link = self._link
        if link is None:
            raise LinkDownError("mmio", message.offset, None, "the link is down")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[message.seq] = future
        link.send(message)
        link.flush()
        return await future
