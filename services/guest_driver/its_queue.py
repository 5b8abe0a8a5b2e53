"""The command queue of the ITS as its driver writes it (IHI 0069 §5.3; Linux its_allocate_entry, its_post_commands).

A command goes into the next 32-byte slot; the slot before CREADR stays empty, or a full queue would look like an
empty one; CWRITER is written once a batch, after a write barrier; the batch is done when CREADR has passed its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from common.errors import CallError
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
from common.world import Fifo, Memory, World

#: Seconds after which an ITS whose CREADR does not move counts as hung (Linux: one second).
TIMEOUT: Final = 1.0
#: Batches that CREADR has not passed; a further one waits. The ITS takes so many writes at a time and more.
MAX_BATCHES: Final = 256
ETIMEDOUT: Final = 110
ENXIO: Final = 6


class Mmio(Protocol):
    """The guest's way to the registers of the ITS. While the ITS is away accesses wait, as those of a vCPU do whose
    VMM is busy; they take effect in the order in which they were made."""

    async def read(self, frame: str, offset: int, size: int) -> int: ...
    async def write(self, frame: str, offset: int, size: int, value: int) -> None: ...
    def post_write(self, frame: str, offset: int, size: int, value: int) -> None:
        """Write without waiting until it took effect."""
        ...


@dataclass(slots=True)
class QueueState:
    """How far the driver has written the queue, and how far the ITS has read it as CREADR last said: bytes since the
    queue was first programmed, which go on over its end. The queue begins where they are multiples of its size."""

    write: int = 0
    read: int = 0


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
    """``size`` bytes of commands at guest address ``base``. Any number of vCPUs may use it at once: their batches
    stand in the queue, and CWRITER says so, in the order in which each got the lock."""

    __slots__ = ("_base", "_batches", "_lock", "_look", "_memory", "_mmio", "_size", "_state", "_stats", "_timeout",
                 "_world")  # fmt: skip

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
        #: Held by who puts commands into the queue.
        self._lock: Final = world.mutex()
        #: Held by who reads CREADR: an older value must not be taken for a newer one.
        self._look: Final = world.mutex()
        #: Where the batches end that CREADR has not passed.
        self._batches: Final[Fifo[int]] = world.queue()

    async def program(self) -> None:
        """Tell a disabled ITS where the queue is; it is empty then. Whoever waits for what was in it waits no more."""
        pages = self._size // CBASER_PAGE - 1
        cbaser = CBASER_VALID | CBASER_ADDR.put(self._base) | CBASER_PAGES.put(pages) | ATTRIBUTES_ITS
        async with self._lock, self._look:
            await self._mmio.write("its", GITS_CBASER, 8, cbaser)
            await self._mmio.write("its", GITS_CWRITER, 8, 0)
            state = self._state
            state.write += -state.write % self._size
            self._passed(state.write)

    async def resync(self) -> None:
        """The ITS is an older one, and CWRITER is where it was then. What was queued since has run: nobody waits."""
        async with self._lock, self._look:
            cwriter = await self._mmio.read("its", GITS_CWRITER, 8) & QUEUE_OFFSET
            state = self._state
            state.write += (cwriter - state.write) % self._size
            self._passed(state.write)

    async def run(self, commands: Sequence[Command]) -> None:
        """Queue a batch and wait until CREADR has passed its end. Raises CallError (ETIMEDOUT) where it does not move
        for so long."""
        await self.wait(await self.post(commands))

    async def post(self, commands: Sequence[Command]) -> int:
        """Queue a batch and say so to the ITS; returns what :meth:`wait` waits for. Waits only for room, and raises
        CallError (ETIMEDOUT) where there comes none."""
        data = b"".join(encode(command) for command in commands)
        state, step = self._state, self._size // 2
        async with self._lock:
            for at in range(0, len(data), step):
                await self._put(data[at : at + step])
            self._stats.batches += bool(data)
            return state.write

    async def wait(self, target: int) -> None:
        """Wait until the ITS has run what was queued up to ``target``. Raises CallError (ETIMEDOUT)."""
        state = self._state
        await self._until(lambda: state.read >= target)

    async def _put(self, data: bytes) -> None:
        """Put at most half a queue of commands into it."""
        state, size = self._state, self._size
        if not self._has_room(len(data)):
            self._stats.queue_full += 1
            await self._until(lambda: self._has_room(len(data)))
        at = state.write % size
        self._memory.write(self._base + at, data[: size - at])
        if len(data) > size - at:
            self._memory.write(self._base, data[size - at :])
        if self._world.wmb is not None:
            self._world.wmb()  # the commands must be in memory before CWRITER says so
        state.write += len(data)
        self._batches.append(state.write)
        self._stats.commands += len(data) // COMMAND_SIZE
        self._mmio.post_write("its", GITS_CWRITER, 8, state.write % size)

    def _has_room(self, length: int) -> bool:
        free = self._size - COMMAND_SIZE - (self._state.write - self._state.read)
        return length <= free and len(self._batches) < MAX_BATCHES

    def _passed(self, read: int) -> None:
        """The ITS has read up to ``read``."""
        self._state.read = read
        while len(self._batches) and next(iter(self._batches)) <= read:
            self._batches.popleft()

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Look where CREADR stands until that is where ``holds`` wants it; others run between two looks."""
        state = self._state
        deadline = self._world.deadline(self._timeout)
        while not holds():
            before = state.read
            access = self._world.deadline(self._timeout)
            async with self._look:
                if not holds():
                    await self._read_creadr()
            held_up = access.expired  # the ITS was away, and could not have moved
            access.cancel()
            if holds():
                break
            if state.read != before or held_up:
                deadline.cancel()
                deadline = self._world.deadline(self._timeout)
            elif deadline.expired:
                self._stats.timeouts += 1
                raise CallError("CREADR", ETIMEDOUT, f"no progress in {self._timeout} s")
            await self._world.relax()
        deadline.cancel()

    async def _read_creadr(self) -> None:
        self._stats.creadr_polls += 1
        creadr = await self._mmio.read("its", GITS_CREADR, 8) & QUEUE_OFFSET
        state = self._state
        moved = (creadr - state.read) % self._size
        if moved <= state.write - state.read:  # it cannot pass CWRITER: a broken ITS does not move
            self._passed(state.read + moved)
