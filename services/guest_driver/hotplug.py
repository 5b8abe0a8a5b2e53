"""Memory hotplug: DIMMs come and go while traffic runs, and the NIC's memory map follows.

A DIMM is plugged, mapped for the NIC, and holds packet buffers as soon as the NIC has confirmed that. One that shall
go is retired: its buffers are not handed out again, traffic uses up those that lie in receive rings, and where no
traffic does, the receive queue is reset. Once all are back it is unmapped, and unplugged when the NIC has confirmed.

What fails (the NIC is away, or refuses) leaves the DIMM where it is on that way; the next change goes on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

from common.errors import CallError, RingmeshError
from common.memory import GuestMemory
from common.world import Event, World
from services.guest_driver.buffers import BufferPool
from services.guest_driver.net_pair import NetPair

#: Guest address of the first slot, above RAM and clear of the VMM's window.
SLOTS_BASE: Final = 0x9000_0000
#: Slots for DIMMs, and bytes of guest addresses from one to the next.
SLOTS: Final = 8
SLOT_BYTES: Final = 4 << 20
#: A DIMM begins on a page, somewhere in its slot.
PAGE: Final = 4096

#: Buffers that the DIMMs hold, one after the other.
SIZES: Final = (64, 24, 128, 8, 96, 40, 16)
#: DIMMs that stay plugged; beyond them one comes and one goes in turn.
PLUGGED: Final = 3

#: Seconds that traffic is given to use up what lies in receive rings.
PATIENCE: Final = 0.25


class UnplugBusyError(RingmeshError):
    """Buffers of the DIMM are still in use; try again."""


class Mapper(Protocol):
    """What puts a map in force; both may be tried again after LinkDownError and CallError."""

    async def map(self, base: int, size: int) -> None: ...
    async def unmap(self, base: int, size: int) -> None: ...


@dataclass(slots=True)
class HotplugStats:
    """What is counted."""

    plugged: int = 0
    unplugged: int = 0
    #: the NIC refused to map a DIMM: it was taken out again
    plug_refused: int = 0
    #: receive queues that had to be reset to get buffers back
    queues_reset: int = 0
    #: times that the buffers of a DIMM were not all back in time
    unplug_busy: int = 0


@dataclass(slots=True)
class Dimm:
    """One bank: ``size`` bytes at guest address ``base``. ``back`` is set when all its buffers are back."""

    base: int
    size: int
    back: Event
    retired: bool = False


class Hotplug:
    """DIMMs of ``memory`` that hold buffers of ``pool``, which the queue pairs ``pairs`` share.

    ``reset_rx(pair)`` resets a pair's receive queue, may be tried again as ``vmm``'s operations may, and is None where
    the device cannot. A reset drops what the device has for that pair, so it is done only where ``quiet(index)`` says
    that it has nothing. ``sizes`` are the DIMMs' in buffers, in turn.
    """

    def __init__(
        self,
        world: World,
        memory: GuestMemory,
        pool: BufferPool,
        vmm: Mapper,
        pairs: Sequence[NetPair],
        *,
        reset_rx: Callable[[NetPair], Awaitable[None]] | None,
        quiet: Callable[[int], bool],
        patience: float = PATIENCE,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        self._world: Final = world
        self._memory: Final = memory
        self._pool: Final = pool
        self._vmm: Final = vmm
        self._pairs: Final = pairs
        self._reset_rx: Final = reset_rx
        self._quiet: Final = quiet
        self._patience: Final = patience
        self.stats: Final = HotplugStats()
        #: those that hold buffers, the oldest first
        self.dimms: Final[deque[Dimm]] = deque()
        self._coming: Dimm | None = None
        self._going: Dimm | None = None
        #: the pair whose receive queue is being reset
        self._resetting: NetPair | None = None
        self._shapes: Final = self._made_up(sizes)

    def _made_up(self, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Base and bytes of one DIMM after the other."""
        for n in count():
            size = -(-sizes[n % len(sizes)] * self._pool.size // PAGE) * PAGE
            spare = (SLOT_BYTES - size) // PAGE
            yield SLOTS_BASE + n % SLOTS * SLOT_BYTES + n * 37 % spare * PAGE, size

    async def change(self) -> None:
        """One DIMM comes, or one goes; what did not come to its end goes on. Returns when the NIC has confirmed.

        Raises LinkDownError, CallError or UnplugBusyError where it does not come to its end now either.
        """
        if self._coming is None and self._going is None:
            if len(self.dimms) <= PLUGGED:
                base, size = next(self._shapes)
                self._memory.add_region(base, size)
                self._coming = Dimm(base, size, self._world.event())
            else:
                self._going = self.dimms.popleft()
        if self._coming is not None:
            await self._plug(self._coming)
        elif self._going is not None:
            await self._unplug(self._going)

    async def _plug(self, dimm: Dimm) -> None:
        try:
            await self._vmm.map(dimm.base, dimm.size)
        except CallError:
            self.stats.plug_refused += 1
            # it holds no buffers: unmapped, it may go
            dimm.retired = True
            dimm.back.set()
            self._coming, self._going = None, dimm
            raise
        self._coming = None
        self._pool.add_bank(dimm.base, dimm.size)
        self.dimms.append(dimm)
        self.stats.plugged += 1

    async def _unplug(self, dimm: Dimm) -> None:
        if not dimm.retired:
            dimm.retired = True
            self._pool.retire(dimm.base, dimm.back.set)
        if self._resetting is not None or not await dimm.back.wait(self._patience):
            await self._get_back(dimm)
        if not dimm.back.is_set():
            self.stats.unplug_busy += 1
            raise UnplugBusyError(f"{self._pool.outstanding(dimm.base)} buffers of the DIMM at {dimm.base:#x} in use")
        await self._vmm.unmap(dimm.base, dimm.size)
        self._going = None
        self._memory.remove_region(dimm.base)
        self.stats.unplugged += 1

    async def _get_back(self, dimm: Dimm) -> None:
        """Reset the receive queues that hold buffers of ``dimm`` and no traffic uses."""
        if self._reset_rx is None:
            return
        start, stop = dimm.base, dimm.base + dimm.size
        while True:
            if self._resetting is None:
                idle = (pair for pair in self._pairs if self._quiet(pair.index))
                self._resetting = next((pair for pair in idle if pair.held(start, stop)[0]), None)
            if self._resetting is None:
                return
            await self._reset_rx(self._resetting)
            self._resetting = None
            self.stats.queues_reset += 1
