"""One guest's ITS and the links that meet in it: MMIO, DMA and LPIs to the guest, MSIs from devices.

The ITS is there as long as the guest's link. What it was told is in guest memory, whole after every command, and its
registers are known to the guest's VMM, which restores them over the next link: to this process or to another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from common.errors import CallError, RemoteError
from common.gic.registers import GITS_CWRITER
from common.histogram import Histogram
from common.runtime.clock import Clock
from common.runtime.link import Link
from common.virtio.depth import Depth
from common.wire.messages import (
    Call,
    DmaData,
    Eoi,
    Lpi,
    Message,
    MmioDone,
    MmioRead,
    MmioWrite,
    Msi,
    MsiDone,
    Return,
)
from common.world import World
from services.gic_its.core import Its
from services.gic_its.dma import SupersededError
from services.gic_its.held_tables import Limits
from services.gic_its.profile import Profile
from services.gic_its.remote_dma import RemoteDma
from services.gic_its.uaccess import Uaccess

#: MMIO writes of one guest that may be under way at a time: one for each command of the longest queue.
MAX_WRITES: Final = 32768
#: VMM operations of one guest that may wait for their turn.
MAX_CALLS: Final = 4096
#: Events of one guest whose latency is being measured (unmapped ones linger; then all start over).
MAX_ARRIVED: Final = 65536
#: Refused MSIs of one guest whose reason is being looked up at a time; further ones are dropped and counted.
MAX_LATE: Final = 1024
#: Events of one guest whose refusal was logged; further ones are only counted.
MAX_LOGGED: Final = 256
#: DeviceIDs of one guest by which refused MSIs are counted; those of further ones are counted together.
MAX_REFUSED: Final = 64
#: What stands in the place of these further DeviceIDs.
OTHER: Final = "other"
#: DeviceIDs and EventIDs are 32 bits wide on the bus.
ID_LIMIT: Final = (1 << 32) - 1


@dataclass(slots=True)
class GuestLinkStats:
    """What the link counts beside its Its."""

    dropped_msis: int = 0


class Source(Protocol):
    """Where an MSI came from, and where its confirmation goes."""

    def send(self, message: Message) -> None: ...


class GuestLink:
    """A LinkHandler for one guest. It lives on while the link is down, and starts anew with the guest's epoch.

    ``batches`` observes seconds from a CWRITER write until CREADR caught up, ``latencies`` from an MSI until the EOI
    that covers it.
    """

    __slots__ = (
        "_arrived", "_calls", "_clock", "_dma", "_late", "_link", "_log", "_logged", "_sources", "_world", "_writes",
        "batches", "count_refused", "depth", "down_since", "epoch", "guest", "its", "latencies", "refused", "stats",
        "vmm",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        guest: str,
        epoch: int,
        *,
        cpus: int,
        profile: Profile,
        limits: Limits,
        clock: Clock,
        log: Callable[..., Any],
    ) -> None:
        self.guest: Final = guest
        self.epoch = epoch
        self.batches = Histogram()
        self.latencies = Histogram()
        #: LPIs that a vCPU has not ended, as EOIs left them
        self.depth: Final = Depth()
        self.stats: Final = GuestLinkStats()
        #: counts an MSI that was not taken, by its DeviceID in hexadecimal or OTHER
        self.count_refused: Callable[[str], None] = lambda _device: None
        #: what it was called with so far
        self.refused: Final[set[str]] = set()
        self._world: Final = world
        self._clock: Final = clock
        self._log: Final = log
        self._link: Link | None = None
        #: When the link went down, in the clock's seconds; until the first link_up, when this was made.
        self.down_since = clock()
        self._dma: Final = RemoteDma(self._creadr)
        self._calls: Final[deque[Call]] = deque()
        self._sources: Final[dict[int, Source]] = {}
        self._arrived: Final[dict[int, float]] = {}
        self._logged: Final[set[tuple[int, int, str]]] = set()
        self._writes = 0
        self._late = 0
        self.its: Final = Its(
            world, self._dma, cpus=cpus, deliver=self._deliver, done=self._done, profile=profile, limits=limits
        )
        self.vmm: Final = Uaccess(self.its)

    def renew(self, epoch: int) -> None:
        """The guest started anew and knows of nothing that was set up here."""
        if self._link is not None:
            self.link_down(self._link, "the guest started anew")
        self.epoch = epoch
        self._arrived.clear()
        self._logged.clear()

    # --- the guest's link ------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self._link is not None

    def link_up(self, link: Link) -> None:
        if self._link is not None:
            self.link_down(self._link, "another took its place")
        self._link = link
        self._dma.attach(link)

    def link_frame(self, link: Link, message: Any) -> None:
        kind = type(message)
        if kind is Eoi:
            self.its.eoi(message.vcpu, message.intid, message.number)
        elif kind is DmaData:
            self._dma.answer(message)
        elif kind is MmioRead:
            link.send(MmioDone(message.seq, self.its.read(message.frame, message.offset, message.size)))
        elif kind is MmioWrite:
            self._mmio_write(link, message)
        else:
            self._call(link, message)

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, link: Link, reason: str) -> None:
        if self._link is link:
            self._link = None
            self.down_since = self._clock()
            self._calls.clear()
            self._dma.detach()  # first: what a half-done command wrote is not committed
            self.its.reset()
            self.its.resume()

    def _creadr(self) -> int:
        return self.its.registers.get("GITS_CREADR")

    def _mmio_write(self, link: Link, message: MmioWrite) -> None:
        if self._writes >= MAX_WRITES:
            raise RemoteError("mmio_write", self._writes + 1, MAX_WRITES, "writes under way")
        self._writes += 1
        self.its.post(
            message.frame,
            message.offset,
            message.size,
            message.value,
            partial(self._written, link, message, self._clock()),
        )

    def _written(self, link: Link, message: MmioWrite, started: float) -> None:
        self._writes -= 1
        if message.offset == GITS_CWRITER and message.frame == "its":
            self.batches.observe(self._clock() - started)
        if self._link is link:
            link.send(MmioDone(message.seq, 0))

    def _deliver(self, vcpu: int, intid: int, number: int) -> None:
        if self.its.control.in_slice:
            self._dma.lpi(vcpu, intid, number)
        elif self._link is not None:
            self._link.send(Lpi(vcpu, intid, number))

    # --- the guest's VMM -------------------------------------------------------------------------------------------

    def _call(self, link: Link, message: Call) -> None:
        """An operation of the VMM: one after the other, in the order in which they came."""
        if len(self._calls) >= MAX_CALLS:
            raise RemoteError("call", len(self._calls) + 1, MAX_CALLS, "operations under way")
        self._calls.append(message)
        if len(self._calls) == 1:
            self._world.spawn(f"vmm {self.guest}", self._answer_calls(link))

    async def _answer_calls(self, link: Link) -> None:
        while self._link is link and self._calls:
            call = self._calls[0]
            try:
                answer = Return(call.seq, 0, await self.vmm.call(call.op, call.args))
            except CallError as error:
                answer = Return(call.seq, error.errno, f"{error.field}: {error.detail}")
            except SupersededError:
                return  # the link went down
            if self._link is link:
                self._calls.popleft()
                link.send(answer)

    # --- devices ---------------------------------------------------------------------------------------------------

    def msi(self, source: Source, message: Msi) -> None:
        """An MSI of this guest's device. Raises RemoteError for numbers that no MSI can have."""
        device, event, number = message.device, message.event, message.number
        if not 0 <= device <= ID_LIMIT:
            raise RemoteError("msi.device", device, ID_LIMIT)
        if not 0 <= event <= ID_LIMIT:
            raise RemoteError("msi.event", event, ID_LIMIT)
        if number < 1:
            raise RemoteError("msi.number", number, 1, "MSIs count from 1")
        key = device << 32 | event
        arrived = self._arrived
        if key not in arrived:
            if len(arrived) >= MAX_ARRIVED:
                arrived.clear()
            arrived[key] = self._clock()
        previous = self._sources.get(device)
        if previous is not source:
            self._sources[device] = source
        if not self.its.try_msi(device, event, number):
            arrived.pop(key)
            if previous is None:
                self._sources.pop(device)
            if self._late >= MAX_LATE:
                self.stats.dropped_msis += 1
                self._refuse(device)
                return
            self._late += 1
            self._world.spawn(f"msi {self.guest}", self._msi_late(source, message))

    async def _msi_late(self, source: Source, message: Msi) -> None:
        """An MSI that the cache does not know: taken after all, or refused for a reason that is logged once."""
        try:
            reason = await self.its.msi(message.device, message.event, message.number)
        finally:
            self._late -= 1
        if not reason:
            self._sources[message.device] = source
            return
        self._refuse(message.device)
        said = (message.device, message.event, reason)
        if said not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(said)
            self._log("msi refused", guest=self.guest, device=message.device, event_id=message.event, reason=reason)

    def _refuse(self, device: int) -> None:
        name = f"{device:#x}"
        if name not in self.refused:
            if len(self.refused) >= MAX_REFUSED:
                name = OTHER
            self.refused.add(name)
        self.count_refused(name)

    def _done(self, device: int, event: int, number: int) -> None:
        self.depth.seen(self.its.control.outstanding)
        arrived = self._arrived.pop(device << 32 | event, None)
        if arrived is not None:
            self.latencies.observe(self._clock() - arrived)
        source = self._sources.get(device)
        if source is not None:
            source.send(MsiDone(self.guest, device, event, number))
