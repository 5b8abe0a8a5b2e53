"""DMA over the guest's link: reads are a frame and its answer, writes wait for the commit that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from common.errors import MemoryFaultError, RemoteError
from common.runtime.link import Link
from common.wire.limits import MAX_DMA
from common.wire.messages import DmaCommit, DmaData, DmaRead, Lpi

#: Writes and LPIs of one frame of a commit.
MAX_PARTS: Final = 2048


class RemoteDma:
    """Guest memory at the other end of a link. While the link is down every read faults and writes are dropped.

    ``creadr()`` is where the ITS stands; it changes between commands only. There is one read under way for each slice
    of commands and each MMIO write under way, which the GuestLink bounds.
    """

    __slots__ = ("_creadr", "_link", "_lpis", "_said", "_seq", "_waiting", "_writes")

    def __init__(self, creadr: Callable[[], int]) -> None:
        self._creadr: Final = creadr
        self._link: Link | None = None
        self._seq = 0
        #: CREADR as the guest knows it
        self._said = 0
        self._writes: list[tuple[int, bytes | int]] = []
        self._lpis: list[tuple[int, int, int]] = []
        self._waiting: Final[dict[int, tuple[int, asyncio.Future[bytes | None]]]] = {}

    def attach(self, link: Link) -> None:
        self._link = link
        self._said = 0

    def detach(self) -> None:
        """The link is gone: whoever waits for an answer gets a fault, what was not committed is lost."""
        self._link = None
        self._writes, self._lpis = [], []
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
        self.commit()  # a command reads before it writes: what waits here are whole commands
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

    def write(self, addr: int, data: bytes | int) -> None:
        if self._link is None:
            return
        if isinstance(data, int) or len(data) <= MAX_DMA:
            self._writes.append((addr, data))
            return
        for at in range(0, len(data), MAX_DMA):
            self._writes.append((addr + at, data[at : at + MAX_DMA]))

    def lpi(self, vcpu: int, intid: int, number: int) -> None:
        """An LPI that a command delivers: it goes out with what the command did."""
        self._lpis.append((vcpu, intid, number))

    def commit(self) -> None:
        link, creadr = self._link, self._creadr()
        writes, lpis = self._writes, self._lpis
        if link is None or not (writes or lpis or creadr != self._said):
            return
        self._writes, self._lpis = [], []
        self._said = creadr
        part: list[tuple[int, bytes | int]] = []
        size = 0
        for write in writes:
            length = 0 if isinstance(write[1], int) else len(write[1])
            if len(part) == MAX_PARTS or size + length > MAX_DMA:
                link.send(DmaCommit(creadr, part, [], last=False))
                part, size = [], 0
            part.append(write)
            size += length
        for lpi in lpis[MAX_PARTS:]:
            link.send(Lpi(*lpi))  # before CREADR has passed its command: it may come twice, and is not lost
        link.send(DmaCommit(creadr, part, lpis[:MAX_PARTS]))
