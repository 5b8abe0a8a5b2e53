from __future__ import annotations

import pytest

from common.errors import MemoryFaultError
from common.memory import GuestMemory
from common.runtime.world import AsyncWorld
from services.gic_its.core import Its
from services.gic_its.direct import DirectDma, DirectMmio


async def test_dma_reads_writes_and_drops_what_misses() -> None:
    dma = DirectDma(GuestMemory(64, 0x1000))
    dma.write(0x1008, b"abc")
    assert await dma.read(0x1008, 3) == b"abc"
    dma.write(0x1009, 2)
    dma.commit()
    assert await dma.read(0x1008, 3) == b"a\0\0"
    dma.write(0x2000, b"abc")
    dma.write(0x2000, 3)
    with pytest.raises(MemoryFaultError):
        await dma.read(0x2000, 3)


async def test_mmio_reaches_the_its() -> None:
    its = Its(AsyncWorld(), DirectDma(GuestMemory(64)), cpus=1, deliver=lambda *_: None, done=lambda *_: None)
    mmio = DirectMmio(its)
    await mmio.write("its", 0x80, 8, 0x1_0000)
    assert await mmio.read("its", 0x80, 8) == 0x1_0000
