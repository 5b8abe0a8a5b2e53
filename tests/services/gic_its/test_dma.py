from __future__ import annotations

import pytest

from common.errors import MemoryFaultError
from services.gic_its.dma import GuardedDma, SupersededError
from services.gic_its.state import Control


class ResettingDma:
    """A reset happens during each read; what is written and committed is noted."""

    def __init__(self, control: Control, fault: bool) -> None:
        self.control = control
        self.fault = fault
        self.resets = 1
        self.seen: list[object] = []

    async def read(self, addr: int, length: int) -> bytes:
        self.control.generation += self.resets
        if self.fault:
            raise MemoryFaultError("addr", addr)
        return bytes(length)

    def write(self, addr: int, data: bytes | int) -> None:
        self.seen.append((addr, data))

    def commit(self) -> None:
        self.seen.append("commit")


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


def test_writes_and_commits_go_through_in_order() -> None:
    control = Control()
    dma = ResettingDma(control, False)
    guarded = GuardedDma(dma, control)
    guarded.write(8, b"x")
    guarded.write(16, 4)
    guarded.commit()
    assert dma.seen == [(8, b"x"), (16, 4), "commit"]
