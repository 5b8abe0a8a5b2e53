"""The command queue of the ITS as its driver writes it (IHI 0069 §5.3; Linux its_allocate_entry, its_post_commands).

A command goes into the next 32-byte slot; the slot before CREADR stays empty, or a full queue would look like an
empty one; CWRITER is written once a batch, after a write barrier; the batch is done when CREADR has passed its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from common.errors import BackpressureError, CallError
from common.gic.commands import COMMAND_SIZE, Command, encode
from common.gic.registers import (
    ATTRIBUTES_ITS,
    CBASER_ADDR,
    CBASER_PAGE,
    CBASER_PAGES,
    CBASER_VALID,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CWRITER,
    QUEUE_OFFSET,
)
from common.world import Deadline, Memory, World

#: Seconds after which a batch that CREADR has not passed counts as hung (Linux: one second).
TIMEOUT: Final = 1.0
#: Bytes of commands that may wait for a lost link to come back.
BACKLOG: Final = 1 << 20
ETIMEDOUT: Final = 110
ENXIO: Final = 6


class Mmio(Protocol):
    """The guest's way to the ITS's registers. Either call raises LinkDownError if the ITS goes away meanwhile."""

    async def read(self, frame: str, offset: int, size: int) -> int: ...
    async def write(self, frame: str, offset: int, size: int, value: int) -> None: ...


@dataclass(slots=True)
class QueueState:
    """Byte offsets of the next free slot and of CREADR as last read.

    ``cut`` holds the commands of a batch that has not been seen to end; ``unsure`` says that a lost link may have
    taken its CWRITER write along.
    """

    write: int = 0
    read: int = 0
    cut: bytes = b""
    unsure: bool = False


@dataclass(slots=True)
class ItsDriverStats:
    """What the driver counts."""

    commands: int = 0
    batches: int = 0
    queue_full: int = 0
    creadr_polls: int = 0
    restores: int = 0
    timeouts: int = 0


class CommandQueue:
    """``size`` bytes of commands at guest address ``base``. The caller serialises the batches."""

    __slots__ = ("_base", "_memory", "_mmio", "_size", "_state", "_stats", "_timeout", "_world")

    def __init__(
        self, world: World, mmio: Mmio, memory: Memory, base: int, size: int, timeout: float, stats: ItsDriverStats
    ) -> None:
        self._world: Final = world
        self._mmio: Final = mmio
        self._memory: Final = memory
        self._base: Final = base
        self._size: Final = size
        self._timeout: Final = timeout
        self._stats: Final = stats
        self._state: Final = world.new(QueueState)

    async def program(self) -> None:
        """Tell a disabled ITS where the queue is; it is empty then, and what was cut off is forgotten."""
        pages = self._size // CBASER_PAGE - 1
        cbaser = CBASER_VALID | CBASER_ADDR.put(self._base) | CBASER_PAGES.put(pages) | ATTRIBUTES_ITS
        await self._mmio.write("its", GITS_CBASER, 8, cbaser)
        await self._mmio.write("its", GITS_CWRITER, 8, 0)
        state = self._state
        state.write = state.read = 0
        state.cut, state.unsure = b"", False

    async def run(self, commands: Sequence[Command]) -> None:
        """Run a batch; returns when CREADR has passed its end. Raises CallError (ETIMEDOUT) if it does not.

        Where a LinkDownError cuts a batch off, the next call runs it again first; an empty one does, too. Raises
        BackpressureError if more than BACKLOG bytes were cut off.
        """
        state = self._state
        data = state.cut + b"".join(encode(command) for command in commands)
        if not data:
            return
        if len(data) > BACKLOG:
            raise BackpressureError(f"{len(data)} bytes of ITS commands wait for a link")
        state.cut = data
        if state.unsure:
            state.write = await self._mmio.read("its", GITS_CWRITER, 8) & QUEUE_OFFSET
            state.read = await self._mmio.read("its", GITS_CREADR, 8) & QUEUE_OFFSET
        state.unsure = True
        for at in range(0, len(data), self._size // 2):
            try:
                await self._post(data[at : at + self._size // 2])
            except CallError:
                state.cut = b""  # the ITS hangs and the caller knows: nothing is run behind its back
                raise
        state.cut, state.unsure = b"", False
        self._stats.batches += 1

    async def _post(self, data: bytes) -> None:
        """Put at most half a queue of commands into it and wait until the ITS has run them."""
        state, size = self._state, self._size
        deadline = self._world.deadline(self._timeout)
        while (state.read - state.write - COMMAND_SIZE) % size < len(data):
            self._stats.queue_full += 1
            await self._read_creadr(deadline)
        first = size - state.write
        self._memory.write(self._base + state.write, data[:first])
        if len(data) > first:
            self._memory.write(self._base, data[first:])
        if self._world.wmb is not None:
            self._world.wmb()  # the commands must be in memory before CWRITER says so
        state.write = (state.write + len(data)) % size
        self._stats.commands += len(data) // COMMAND_SIZE
        await self._mmio.write("its", GITS_CWRITER, 8, state.write)
        while state.read != state.write:
            await self._read_creadr(deadline)
        deadline.cancel()

    async def _read_creadr(self, deadline: Deadline) -> None:
        """Look where CREADR stands; if the queue is not empty yet, let others run."""
        self._stats.creadr_polls += 1
        self._state.read = await self._mmio.read("its", GITS_CREADR, 8) & QUEUE_OFFSET
        if self._state.read != self._state.write:
            await self._pause(deadline, "CREADR")

    async def _pause(self, deadline: Deadline, what: str) -> None:
        if deadline.expired:
            self._stats.timeouts += 1
            raise CallError(what, ETIMEDOUT, f"no progress in {self._timeout} s")
        await self._world.relax()
