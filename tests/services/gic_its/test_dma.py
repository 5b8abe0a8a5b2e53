from __future__ import annotations

import pytest

from common.errors import MemoryFaultError
from services.gic_its.dma import GuardedDma, SupersededError
from services.gic_its.state import Control


class ResettingDma:
    """A reset happens during each read."""

    def __init__(self, control: Control, fault: bool) -> None:
        self.control = control
        self.fault = fault
        self.resets = 1

    async def read(self, addr: int, length: int) -> bytes:
        self.control.generation += self.resets
        if self.fault:
            raise MemoryFaultError("addr", addr)
        return bytes(length)

    def write(self, addr: int, data: bytes) -> None:
        return None


@pytest.mark.parametrize("fault", [False, True])
async def test_a_read_that_a_reset_overtook_gives_nothing(fault: bool) -> None:
    control = Control()
    dma = ResettingDma(control, fault)
    guarded = GuardedDma(dma, control)
    with pytest.raises(SupersededError):
        await guarded.read(0, 8)
    dma.resets = 0
    if fault:
        with pytest.raises(MemoryFaultError):
            await guarded.read(0, 8)
    else:
        assert await guarded.read(0, 8) == bytes(8)
