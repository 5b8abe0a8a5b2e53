"""From pending LPIs to vCPUs and back: numbers, coalescing, confirmation. Nothing here waits.

An MSI carries its event's number. A delivery hands one LPI to its vCPU and *covers* each MSI that raised it up to the
number reached then. While the vCPU holds the LPI, further MSIs coalesce into one more delivery. The EOI confirms what
the delivery covered and, if anything came meanwhile, delivers again at once. So every number is covered by a
delivery that began after it was raised, and confirmed only when the guest has taken that delivery, or when software
took the pending state away (CLEAR, DISCARD).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from common.world import Fifo, Table, World
from services.gic_its.state import NONE, UNCOUNTED, Control, Lpi, Source
from services.gic_its.stats import ItsStats

Deliver = Callable[[int, int, int], None]
"""``(vcpu, intid, number)``"""

Done = Callable[[int, int, int], None]
"""``(device, event, number)``: the guest took an LPI that covers the event's MSIs up to ``number``."""

#: Events whose MSIs are remembered; then those with nothing unconfirmed are forgotten.
MAX_SOURCES: Final = 65536
#: Events that one pending LPI keeps account of. The MSIs of others are not confirmed, and sent again.
MAX_RAISED: Final = 64


class Delivery:
    """The way to the vCPUs, shared by all redistributors of one guest."""

    __slots__ = ("_control", "_deliver", "_done", "_sources", "_stats", "_world", "dirty", "mirrors", "resting")

    _world: Final[World]
    _control: Final[Control]
    _stats: Final[ItsStats]
    _deliver: Final[Deliver]
    _done: Final[Done]
    _sources: Final[Table[Source]]
    #: vCPU → INTID → the LPIs that stay pending: disabled, held back, or waiting for an EOI.
    resting: Final[tuple[Table[Lpi], ...]]
    #: LPIs whose bit in the pending table may have to be written.
    dirty: Final[Fifo[Lpi]]

    #: The pending table in guest memory has every LPI that is pending, not only those that no device would raise again.
    mirrors: Final[bool]

    def __init__(
        self,
        world: World,
        control: Control,
        stats: ItsStats,
        deliver: Deliver,
        done: Done,
        cpus: int,
        mirrors: bool = False,
    ) -> None:
        self.mirrors = mirrors
        self._world = world
        self._control = control
        self._stats = stats
        self._deliver = deliver
        self._done = done
        self._sources = world.table()
        self.resting = tuple(world.table() for _ in range(cpus))
        self.dirty = world.queue()

    def source(self, device: int, event: int) -> Source:
        """The account of an event's MSIs, made if it is new."""
        sources = self._sources
        key = device << 32 | event
        found = sources.get(key)
        if found is None:
            if len(sources) >= MAX_SOURCES:
                self._forget_sources()
            found = sources[key] = self._world.new(Source, device, event)
        return found

    def _forget_sources(self) -> None:
        """Room for more: of the oldest, those with nothing unconfirmed; where there is none, the oldest, whose MSIs
        count as new when they are sent again."""
        oldest = list(islice(self._sources, 256))
        idle = [key for key in oldest if self._sources[key].done == self._sources[key].number]
        for key in idle or oldest[:1]:
            self._sources.pop(key)

    def walked(self, count: int) -> None:
        """A command went over so many LPIs."""
        self._control.work += count

    # --- raising -------------------------------------------------------------------------------------------------

    def msi(self, source: Source, lpi: Lpi, number: int) -> None:
        """MSI ``number`` of ``source`` leads to ``lpi``, whose redistributor has LPIs enabled."""
        stats = self._stats
        stats.msis += 1
        if number <= source.done:
            stats.repeated += 1
            self._done(source.device, source.event, source.done)
            return
        if number > source.number:
            source.number = number
        elif number <= source.sent and source.held:
            stats.coalesced += 1  # resent, and the delivery that covers it is on its way
            return
        if source.at is not lpi and len(lpi.raised) < MAX_RAISED:
            lpi.raised = (*lpi.raised, source)
            source.at = lpi
        if lpi.pending:
            stats.coalesced += 1
            return
        lpi.pending = True
        if lpi.out != NONE:
            stats.coalesced += 1
            self._rest(lpi)
        else:
            self.offer(lpi)

    def set_pending(self, lpi: Lpi) -> None:
        """Raise ``lpi`` without a number: INT, or a bit of the pending table."""
        if not lpi.uncounted:
            lpi.uncounted = True
            if lpi.pending:
                self.dirty.append(lpi)
        if not lpi.pending:
            lpi.pending = True
            self.offer(lpi)

    def clear(self, lpi: Lpi) -> None:
        """Software takes the pending state away; the MSIs that it stood for have had their effect."""
        if lpi.pending:
            self._unrest(lpi)
            lpi.pending = lpi.uncounted = False
            raised, lpi.raised = lpi.raised, ()
            for source in raised:
                source.at = None
                self._confirm(source, source.number)

    def drop(self, lpi: Lpi) -> None:
        """What is pending goes back into the table. The MSIs that it stood for are not confirmed: where the table is
        lost, their devices send them again."""
        self._unrest(lpi)
        lpi.pending = lpi.uncounted = False
        for source in lpi.raised:
            source.at = None
        lpi.raised = ()

    def move(self, lpi: Lpi, target: Lpi) -> None:
        """What is pending at ``lpi`` is pending at ``target`` instead (MOVI, MOVALL, MAPC)."""
        if not lpi.pending:
            return
        self._unrest(lpi)
        if not target.configured and lpi.configured:
            target.enabled, target.priority, target.configured = lpi.enabled, lpi.priority, True
        was_pending = target.pending
        target.pending = True
        if lpi.uncounted:
            target.uncounted = True
            if was_pending:
                self.dirty.append(target)
        for source in lpi.raised:
            known = source in target.raised
            if not known and len(target.raised) < MAX_RAISED:
                target.raised = (*target.raised, source)
                known = True
            source.at = target if known else None
        lpi.pending = lpi.uncounted = False
        lpi.raised = ()
        if not was_pending:
            self.offer(target)

    def _rest(self, lpi: Lpi) -> None:
        self.resting[lpi.port.vcpu][lpi.intid] = lpi
        if (lpi.uncounted or self.mirrors) and not lpi.stored:
            self.dirty.append(lpi)

    def _unrest(self, lpi: Lpi) -> None:
        self.resting[lpi.port.vcpu].pop(lpi.intid, None)
        if lpi.stored:
            self.dirty.append(lpi)

    # --- delivering ----------------------------------------------------------------------------------------------

    def offer(self, lpi: Lpi) -> None:
        """Hand ``lpi``, which is pending, to its vCPU if nothing speaks against it."""
        port = lpi.port
        control = self._control
        if not (lpi.enabled and lpi.out == NONE and port.enabled and control.forwards) or control.held:
            self._rest(lpi)
            return
        number = self.take(lpi)
        self._stats.delivered += 1
        self._deliver(port.vcpu, lpi.intid, number)

    def take(self, lpi: Lpi) -> int:
        """The vCPU acknowledges ``lpi``: it is not pending but held. Returns the number of the delivery."""
        self._unrest(lpi)
        lpi.pending = lpi.uncounted = False
        raised = lpi.raised
        number = UNCOUNTED
        if len(raised) == 1:
            source = raised[0]
            number = source.sent = source.number
            source.held += 1
            source.at = None
            lpi.covers = ((source, number),)
            lpi.raised = ()
        elif raised:
            lpi.covers = tuple((source, source.number) for source in raised)
            for source, covered in lpi.covers:
                source.sent = covered
                source.held += 1
                source.at = None
            lpi.raised = ()
        lpi.out = number
        self._control.outstanding += 1
        return number

    def offer_all(self, lpis: Iterable[Lpi]) -> None:
        """Offer several that may have become deliverable at once: by priority, then by lowest INTID."""
        if self._control.forwards and not self._control.held:
            ready = [lpi for lpi in lpis if lpi.pending and lpi.enabled and lpi.out == NONE]
            ready.sort(key=order)
            for lpi in ready:
                self.offer(lpi)

    def eoi(self, lpi: Lpi, number: int) -> None:
        """The vCPU ended ``lpi``, delivered under ``number``; any other number is a stray EOI."""
        stats = self._stats
        if number == NONE or lpi.out != number:
            stats.stray_eois += 1
            return
        stats.eois += 1
        self._control.outstanding -= 1
        lpi.out = NONE
        covers = lpi.covers
        if covers:
            lpi.covers = ()
            for source, covered in covers:
                source.held -= 1
                self._confirm(source, covered)
        if lpi.pending:
            self.offer(lpi)
        elif lpi.stored:
            self.dirty.append(lpi)  # it was saved while the vCPU held it

    def _confirm(self, source: Source, number: int) -> None:
        if number > source.done:
            source.done = number
            if source.sent < number:
                source.sent = number
            self._stats.confirmed += 1
            self._done(source.device, source.event, number)

    def reset(self) -> None:
        """Out of reset nothing is pending and no MSI was seen."""
        for table in self.resting:
            for intid in list(table):
                table.pop(intid)
        for key in list(self._sources):
            self._sources.pop(key)
        while len(self.dirty):
            self.dirty.popleft()
        self._control.outstanding = 0


def order(lpi: Lpi) -> tuple[int, int]:
    """In which order pending LPIs are taken: by priority, then by lowest INTID."""
    return lpi.priority, lpi.intid
