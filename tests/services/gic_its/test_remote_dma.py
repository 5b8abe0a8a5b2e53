"""DMA by frames: answers, faults, lost links, answers that nobody asked for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from common.errors import MemoryFaultError, RemoteError
from common.runtime.link import Link
from common.wire.limits import MAX_DMA
from common.wire.messages import DmaData, DmaRead, DmaWrite
from services.gic_its.remote_dma import RemoteDma


class Sent(list[Any]):
    """Stands where a link does; keeps what is sent."""

    def send(self, message: Any) -> None:
        self.append(message)


def attached() -> tuple[RemoteDma, Sent]:
    dma, sent = RemoteDma(), Sent()
    dma.attach(cast(Link, sent))
    return dma, sent


async def begin(dma: RemoteDma, length: int = 4) -> asyncio.Task[bytes]:
    task = asyncio.create_task(dma.read(0x1000, length))
    await asyncio.sleep(0)
    return task


async def test_a_read_and_its_answer() -> None:
    dma, sent = attached()
    task = await begin(dma)
    assert sent == [DmaRead(1, 0x1000, 4)]
    dma.answer(DmaData(1, b"abcd"))
    assert await task == b"abcd"


async def test_faults() -> None:
    dma, _ = attached()
    task = await begin(dma)
    dma.answer(DmaData(1, None))
    with pytest.raises(MemoryFaultError, match="cannot be read"):
        await task
    lost = await begin(dma)
    gone = await begin(dma)
    gone.cancel()
    await asyncio.sleep(0)
    dma.detach()
    with pytest.raises(MemoryFaultError):
        await lost
    with pytest.raises(MemoryFaultError, match="link is down"):
        await dma.read(0, 1)
    dma.write(0, b"dropped")


async def test_answers_that_do_not_fit_are_refused() -> None:
    dma, _ = attached()
    with pytest.raises(RemoteError, match=r"dma_data\.seq"):
        dma.answer(DmaData(1, b""))
    task = await begin(dma)
    with pytest.raises(RemoteError, match=r"dma_data\.data"):
        dma.answer(DmaData(1, b"abc"))
    with pytest.raises(MemoryFaultError):
        await task
    gone = await begin(dma)
    gone.cancel()
    await asyncio.sleep(0)
    dma.answer(DmaData(2, b"abcd"))
    with pytest.raises(RemoteError):
        dma.answer(DmaData(2, b"abcd"))


def test_long_writes_are_split() -> None:
    dma, sent = attached()
    dma.write(0x1000, bytes(MAX_DMA + 8))
    assert [(m.addr, len(m.data)) for m in sent if isinstance(m, DmaWrite)] == [
        (0x1000, MAX_DMA),
        (0x1000 + MAX_DMA, 8),
    ]
