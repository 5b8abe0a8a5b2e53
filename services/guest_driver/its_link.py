"""The guest's end of the link to the ITS: MMIO out, commits, DMA and LPIs in.

::

    DOWN ── link_up ──> RESTORING ── the VMM is done ──> OPEN
      ^                     │  ^───── hold() ──────────────│
      └───── link_down ─────┴──────────────────────────────┘

MMIO goes through where the link is OPEN and waits everywhere else: a vCPU does not notice that its ITS was away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from common.errors import BackpressureError, CallError, LinkDownError, MemoryFaultError, RemoteError
from common.gic.entries import ENTRY_SIZE
from common.gic.registers import CREADR_STALLED, QUEUE_OFFSET
from common.memory import GuestMemory
from common.runtime.link import Link
from common.wire.limits import MAX_DMA
from common.wire.messages import DmaCommit, DmaData, DmaRead, Eoi, Lpi, MmioDone, MmioRead, MmioWrite, Return
from common.world import World
from services.guest_driver.its_shadow import ItsShadow
from services.guest_driver.its_vmm import ItsVmm
from services.guest_driver.vcpu import Vcpus

#: Writes without a waiter that the ITS has not answered; a further one is refused.
MAX_POSTED: Final = 400
#: Bytes of one commit of several frames, zeros not counted; a command writes at most an entry for each of 65536 events.
MAX_COMMIT: Final = 16 << 20


@dataclass(slots=True)
class ItsLinkStats:
    """What the guest's end counts. ``dma_writes`` are those of commits; ``mmio_waited`` are accesses that found the
    ITS away, ``mmio_again`` those that were sent to two of them."""

    dma_reads: int = 0
    dma_commits: int = 0
    dma_writes: int = 0
    dma_faults: int = 0
    mmio_waited: int = 0
    mmio_again: int = 0
    posted: int = 0
    posted_done: int = 0
    restores: int = 0
    restore_refused: int = 0


@dataclass(slots=True)
class Access:
    """One MMIO access; without ``future`` nobody waits for its answer."""

    message: MmioRead | MmioWrite
    future: asyncio.Future[int] | None

    @property
    def given_up(self) -> bool:
        return self.future is not None and self.future.done()

    def answer(self, value: int) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(value)


@dataclass(slots=True)
class CommitParts:
    """The frames of a commit whose last one is still to come, and their bytes."""

    writes: list[tuple[int, bytes | int]] = field(default_factory=list)
    size: int = 0


class ItsLink:
    """A LinkHandler for role ``guest`` towards the ITS; the Mmio of the ITS driver, the Gate of the VMM.

    ``on_refused()`` is called when the ITS does not take back what it was: it is as after a reset then, and the driver
    must program it.
    """

    def __init__(
        self,
        world: World,
        memory: GuestMemory,
        vcpus: Vcpus,
        *,
        cpus: int,
        log: Callable[..., Any],
        on_refused: Callable[[], None],
    ) -> None:
        self._world: Final = world
        self._memory: Final = memory
        self._vcpus: Final = vcpus
        self._log: Final = log
        self._link: Link | None = None
        self._open = False
        #: the link under which hold() closed the gate
        self._held: Link | None = None
        self._seq = 0
        self._parts = CommitParts()
        #: seq → access that the ITS has not answered, in the order in which they were sent
        self._sent: dict[int, Access] = {}
        self._waiting: Final[deque[Access]] = deque()
        self._reason = ""
        self.stats: Final = ItsLinkStats()
        self.shadow: Final = ItsShadow()
        self.vmm: Final = ItsVmm(world, memory, self.shadow, self, cpus=cpus, on_refused=on_refused)

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._link = link
        self.vmm.calls.attach(link)
        self._vcpus.expect_repeats()
        if self.shadow.programmed:
            self._world.spawn("its restore", self._restore(link))
        else:
            self._go(link)

    def link_frame(self, link: Link, message: Any) -> None:
        kind = type(message)
        if kind is Lpi:
            self._take(link, message.vcpu, message.intid, message.number)
        elif kind is MmioDone:
            self._answered(message)
        elif kind is DmaRead:
            link.send(DmaData(message.seq, self._dma_read(message)))
        elif kind is DmaCommit:
            self._commit(link, message)
        elif kind is Return:
            self.vmm.calls.returned(message)

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, _link: Link, reason: str) -> None:
        self._link = None
        self._open = False
        self._parts = CommitParts()
        self.shadow.lost()
        self.vmm.calls.detach(reason)

    def _take(self, link: Link, vcpu: int, intid: int, number: int) -> None:
        if self._vcpus.take(vcpu, intid, number):
            link.send(Eoi(vcpu, intid, number))

    # --- restore ------------------------------------------------------------------------------------------------------

    async def _restore(self, link: Link) -> None:
        """Over a link that has just come up: make the ITS behind it what it was before, then let MMIO go on."""
        try:
            await self.vmm.replay()
        except LinkDownError:
            return  # the next link_up begins again
        except CallError as error:
            self.stats.restore_refused += 1
            if str(error) != self._reason:
                self._reason = str(error)
                self._log("ITS not restored: the driver programs it", error=self._reason)
        else:
            self.stats.restores += self._link is link
        if self._link is link:
            self._go(link)

    def _go(self, link: Link) -> None:
        """The ITS is there. Writes that the old one did not answer are in the shadow, so they are done; reads, and
        MSIs of CPUs, are sent again; then what waited goes."""
        self._open = True
        sent, self._sent = self._sent, {}
        for access in sent.values():
            message = access.message
            if type(message) is MmioWrite and self.shadow.holds(message.frame):
                self._count_answer(access)
                access.answer(0)
            elif not access.given_up:
                self.stats.mmio_again += 1
                self._send(link, access)
        while self._waiting:
            access = self._waiting.popleft()
            if not access.given_up:
                self._send(link, access)
        link.flush()

    async def hold(self) -> None:
        link = self._link
        if link is None or not self._open:
            raise LinkDownError("its", None, None, "the ITS is not there")
        self._open = False
        self._held = link
        while self._sent:
            await self._world.relax()
            if self._link is not link:
                raise LinkDownError("its", None, None, "the link went down")

    def release(self) -> None:
        link = self._held
        if link is not None and link is self._link:
            self._vcpus.expect_repeats()  # what was restored may be pending again
            self._go(link)
        self._held = None

    # --- DMA ----------------------------------------------------------------------------------------------------------

    def _dma_read(self, message: DmaRead) -> bytes | None:
        self.stats.dma_reads += 1
        if not 0 < message.length <= MAX_DMA:
            raise RemoteError("dma_read.length", message.length, MAX_DMA)
        try:
            return self._memory.read(message.addr, message.length)
        except MemoryFaultError:
            self.stats.dma_faults += 1
            return None

    def _commit(self, link: Link, message: DmaCommit) -> None:
        """All of it, when its last frame is here; of what a lost link cut off, nothing."""
        if message.creadr & ~(QUEUE_OFFSET | CREADR_STALLED):
            raise RemoteError("dma_commit.creadr", message.creadr, QUEUE_OFFSET | CREADR_STALLED)
        parts = self._parts
        for _, data in message.writes:
            if isinstance(data, bytes):
                parts.size += len(data)
            elif data < 0:
                raise RemoteError("dma_commit.writes", data, 0, "zeros to write")
            else:
                parts.size += ENTRY_SIZE  # what it costs to keep it
        parts.writes.extend(message.writes)
        if not message.last:
            if parts.size > MAX_COMMIT:
                raise RemoteError("dma_commit.writes", parts.size, MAX_COMMIT, "bytes in one commit")
            return
        writes, parts.writes, parts.size = parts.writes, [], 0
        self.stats.dma_commits += 1
        for addr, data in writes:
            self._dma_write(addr, data)
        self.shadow.committed(message.creadr)
        for vcpu, intid, number in message.lpis:
            self._take(link, vcpu, intid, number)

    def _dma_write(self, addr: int, data: bytes | int) -> None:
        self.stats.dma_writes += 1
        try:
            if isinstance(data, int):
                self._memory.check(addr, data)
                self._memory.fill(addr, data, 0)
            else:
                self._memory.write(addr, data)
        except MemoryFaultError:
            self.stats.dma_faults += 1  # posted: nobody waits for an answer

    # --- MMIO ---------------------------------------------------------------------------------------------------------

    async def read(self, frame: str, offset: int, size: int) -> int:
        """Read ``size`` bytes of a register frame."""
        return await self._access(MmioRead(self._next(), frame, offset, size))

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        """Write a register and wait until it took effect."""
        await self._access(MmioWrite(self._next(), frame, offset, size, value))

    def post_write(self, frame: str, offset: int, size: int, value: int) -> None:
        """Write a register without waiting until it took effect. Raises BackpressureError where MAX_POSTED such
        writes are unanswered."""
        if self.stats.posted - self.stats.posted_done >= MAX_POSTED:
            raise BackpressureError(f"{MAX_POSTED} posted writes wait for the ITS")
        self.stats.posted += 1
        self._issue(Access(MmioWrite(self._next(), frame, offset, size, value), None))

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    async def _access(self, message: MmioRead | MmioWrite) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._issue(Access(message, future))
        return await future

    def _issue(self, access: Access) -> None:
        link = self._link
        if self._open and link is not None:
            self._send(link, access)
            link.flush()
        else:
            self.stats.mmio_waited += 1
            self._waiting.append(access)

    def _send(self, link: Link, access: Access) -> None:
        message = access.message
        link.send(message)
        self._sent[message.seq] = access
        if isinstance(message, MmioWrite):
            self.shadow.written(message.frame, message.offset, message.size, message.value)

    def _answered(self, message: MmioDone) -> None:
        access = self._sent.pop(message.seq, None)
        if access is None:
            return
        sent = access.message
        if isinstance(sent, MmioWrite):
            self.shadow.done(sent.frame, sent.offset)
            self._count_answer(access)
        else:
            self.shadow.read(sent.frame, sent.offset, sent.size, message.value)
        access.answer(message.value)

    def _count_answer(self, access: Access) -> None:
        self.stats.posted_done += access.future is None
