"""DMA over the guest's link: reads are a frame and its answer, writes are posted in the same order."""

from __future__ import annotations

import asyncio
from typing import Final

from common.errors import MemoryFaultError, RemoteError
from common.runtime.link import Link
from common.wire.limits import MAX_DMA
from common.wire.messages import DmaData, DmaRead, DmaWrite


class RemoteDma:
    """Guest memory at the other end of a link. While the link is down every read faults and writes are dropped.

    There is one read under way for each MMIO write under way, which the GuestLink bounds.
    """

    __slots__ = ("_link", "_seq", "_waiting")

    def __init__(self) -> None:
        self._link: Link | None = None
        self._seq = 0
        self._waiting: Final[dict[int, tuple[int, asyncio.Future[bytes | None]]]] = {}

    def attach(self, link: Link) -> None:
        self._link = link

    def detach(self) -> None:
        """The link is gone: whoever waits for an answer gets a fault."""
        self._link = None
        for _, future in self._waiting.values():
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def answer(self, message: DmaData) -> None:
        """Raises RemoteError for an answer that nobody asked for or of the wrong length."""
        found = self._waiting.pop(message.seq, None)
        if found is None:
            raise RemoteError("dma_data.seq", message.seq, self._seq, "no such read is under way")
        length, future = found
        wrong = message.data is not None and len(message.data) != length
        if not future.done():
            future.set_result(None if wrong else message.data)
        if wrong:
            raise RemoteError("dma_data.data", len(message.data or b""), length)

    async def read(self, addr: int, length: int) -> bytes:
        link = self._link
        if link is None:
            raise MemoryFaultError("addr", hex(addr), None, "the guest's link is down")
        self._seq += 1
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[self._seq] = (length, future)
        link.send(DmaRead(self._seq, addr, length))
        data = await future
        if data is None:
            raise MemoryFaultError("addr", hex(addr), None, f"{length} bytes cannot be read")
        return data

    def write(self, addr: int, data: bytes) -> None:
        if self._link is not None:
            for at in range(0, len(data), MAX_DMA):
                self._link.send(DmaWrite(addr + at, data[at : at + MAX_DMA]))
