"""What the ITS asks of guest memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from common.errors import LocalError, MemoryFaultError
from services.gic_its.state import Control


class Dma(Protocol):
    """The ITS's way to guest memory. Addresses are guest physical, lengths in bytes."""

    async def read(self, addr: int, length: int) -> bytes:
        """Exactly ``length`` bytes. Raises MemoryFaultError where they are not in guest memory or the guest is gone.

        Sees every write that was posted before it.
        """
        ...

    def write(self, addr: int, data: bytes | int) -> None:
        """A posted write, ``data`` as an int is that many zeros; one that misses guest memory is dropped, as on a
        bus."""
        ...

    def commit(self) -> None:
        """Everything that was written since the last time takes effect now, together with CREADR as it stands."""
        ...


class SupersededError(LocalError):
    """The ITS was reset while a DMA read was under way: whoever awaited it must not touch the new state."""


class GuardedDma:
    """DMA of one ITS. A read that a reset overtakes raises SupersededError instead of giving its data, so no
    half-done command goes on in a state that is no longer its own."""

    __slots__ = ("_control", "_dma", "commit", "write")

    _dma: Final[Dma]
    _control: Final[Control]
    write: Final[Callable[[int, bytes | int], None]]
    commit: Final[Callable[[], None]]

    def __init__(self, dma: Dma, control: Control) -> None:
        self._dma = dma
        self._control = control
        self.write = dma.write
        self.commit = dma.commit

    async def read(self, addr: int, length: int) -> bytes:
        generation = self._control.generation
        try:
            data = await self._dma.read(addr, length)
        except MemoryFaultError:
            self._check(generation)
            raise
        self._check(generation)
        return data

    def _check(self, generation: int) -> None:
        if self._control.generation != generation:
            raise SupersededError("the ITS was reset")
