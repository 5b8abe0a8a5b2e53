"""From pending LPIs to vCPUs and back: numbers, coalescing, confirmation. Nothing here waits.

An MSI carries its event's number. A delivery hands one LPI to its vCPU and *covers* each of its events up to the
number reached then. While the vCPU holds the LPI, further MSIs coalesce into one more delivery. The EOI confirms what
the delivery covered and, if anything came meanwhile, delivers again at once. So every number is covered by a
delivery that began after it was raised, and confirmed only when the guest has taken that delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from services.gic_its.state import NONE, UNCOUNTED, Control, Event, Lpi
from services.gic_its.stats import ItsStats

Deliver = Callable[[int, int, int], None]
"""``(vcpu, intid, number)``"""

Done = Callable[[int, int, int], None]
"""``(device, event, number)``: the guest took an LPI that covers the event's MSIs up to ``number``."""


class Delivery:
    """The way to the vCPUs, shared by all redistributors of one guest."""

    __slots__ = ("_control", "_deliver", "_done", "_stats")

    def __init__(self, control: Control, stats: ItsStats, deliver: Deliver, done: Done) -> None:
        self._control: Final = control
        self._stats: Final = stats
        self._deliver: Final = deliver
        self._done: Final = done

    def msi(self, event: Event, lpi: Lpi, number: int) -> None:
        """MSI ``number`` of ``event``, which leads to ``lpi``; its redistributor has LPIs enabled."""
        stats = self._stats
        stats.msis += 1
        if number <= event.done:
            stats.repeated += 1
            self._done(event.device, event.event, event.done)
            return
        if number > event.number:
            event.number = number
        elif number <= event.sent and lpi.out != NONE:
            stats.coalesced += 1  # resent, and the delivery that covers it is on its way
            return
        if lpi.pending or lpi.out != NONE:
            lpi.pending = True
            stats.coalesced += 1
            return
        lpi.pending = True
        self.offer(lpi)

    def set_pending(self, lpi: Lpi) -> None:
        """Raise ``lpi`` without a number: INT, or a bit of the pending table."""
        if not lpi.pending:
            lpi.pending = True
            self.offer(lpi)

    def offer(self, lpi: Lpi) -> None:
        """Hand ``lpi`` to its vCPU if it is pending and nothing speaks against it."""
        port = lpi.port
        if not (lpi.pending and lpi.enabled and lpi.out == NONE and port.enabled) or self._control.held:
            return
        lpi.pending = False
        events = lpi.events
        number = UNCOUNTED
        if len(events) == 1:
            event = events[0]
            if event.number > event.done:
                number = event.sent = event.number
                lpi.covers = ((event, number),)
            else:
                lpi.covers = ()
        else:
            lpi.covers = tuple((event, event.number) for event in events if event.number > event.done)
            for event, covered in lpi.covers:
                event.sent = covered
        lpi.out = number
        self._control.outstanding += 1
        self._stats.delivered += 1
        self._deliver(port.vcpu, lpi.intid, number)

    def offer_all(self, lpis: Iterable[Lpi]) -> None:
        """Offer several that may have become deliverable at once: by priority, then by lowest INTID."""
        for lpi in sorted((lpi for lpi in lpis if lpi.pending), key=lambda lpi: (lpi.priority, lpi.intid)):
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
        for event, covered in lpi.covers:
            if covered > event.done:
                event.done = covered
                stats.confirmed += 1
                self._done(event.device, event.event, covered)
        lpi.covers = ()
        if lpi.pending:
            self.offer(lpi)

    def again(self, lpi: Lpi) -> None:
        """Deliver once more what the vCPU may have missed while its link was down."""
        if lpi.out != NONE:
            self._stats.redelivered += 1
            self._deliver(lpi.port.vcpu, lpi.intid, lpi.out)
