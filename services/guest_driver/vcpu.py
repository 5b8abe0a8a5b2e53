"""vCPUs: they take the LPIs that the ITS delivers and run the handler of the interrupt, and keep the books."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from common.errors import RingmeshError
from common.histogram import Histogram


@dataclass(slots=True)
class IrqLine:
    """One interrupt of the guest: an (device, event) pair that the ITS translates to ``intid`` on ``vcpu``.

    ``raised`` is the highest number that the device's port asked for, ``taken`` the highest that was taken.
    """

    name: str
    device: int
    event: int
    intid: int
    vcpu: int
    handler: Callable[[], None]
    raised: int = 0
    raised_at: float = 0.0
    taken: int = 0
    delivered: int = 0
    #: numbers up to this one may be delivered again: the ITS was restarted or its link was down
    repeat_upto: int = 0
    repeated: int = 0
    #: handlers that failed: the device broke its ring
    failed: int = 0
    #: vCPUs that it is being moved away from, and where it may still arrive
    leaving: tuple[int, ...] = ()


@dataclass(slots=True)
class IrqStats:
    """The books of all lines together, for the report."""

    raised: int = 0
    delivered: int = 0
    coalesced: int = 0
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0


class Vcpus:
    """All vCPUs of a guest. ``latency`` observes seconds from the port's request to the handler's start;
    ``log(event, **fields)`` is told once a line that its handler fails."""

    def __init__(
        self, clock: Callable[[], float], latency: Histogram, log: Callable[..., Any] = lambda *_args, **_fields: None
    ) -> None:
        self._clock: Final = clock
        self._latency: Final = latency
        self._log: Final = log
        self._lines: dict[int, IrqLine] = {}
        self.duplicated = 0
        self.corrupted = 0

    def request_irq(self, line: IrqLine) -> None:
        """Bind a handler to an INTID (Linux ``request_irq``)."""
        self._lines[line.intid] = line

    @property
    def lines(self) -> list[IrqLine]:
        return list(self._lines.values())

    @contextmanager
    def moving(self, line: IrqLine, vcpu: int) -> Iterator[None]:
        """The line goes to another vCPU; as long as the block runs, or if it fails, it may still arrive at the old
        one. Blocks that overlap end in the order in which they began."""
        line.leaving, line.vcpu = (*line.leaving, line.vcpu), vcpu
        yield
        line.leaving = line.leaving[1:]

    @contextmanager
    def anywhere(self, vcpus: int) -> Iterator[None]:
        """As long as the block runs every line may arrive at any of ``vcpus`` vCPUs: the ITS is an older one."""
        lines = self.lines
        for line in lines:
            line.leaving = (*range(vcpus), *line.leaving)
        try:
            yield
        finally:
            for line in lines:
                line.leaving = line.leaving[vcpus:]

    def raised(self, line: IrqLine, number: int) -> None:
        """The device's port asked for interrupt ``number`` of ``line``."""
        if line.raised == line.taken:
            line.raised_at = self._clock()
        line.raised = number

    def take(self, vcpu: int, intid: int, number: int) -> bool:
        """An LPI arrived: acknowledge it and run its handler. False if it is none of ours (do not end it)."""
        line = self._lines.get(intid)
        if line is None or (vcpu != line.vcpu and vcpu not in line.leaving) or number > line.raised:
            self.corrupted += 1
            return False
        if number <= line.taken:
            # taken already: the ITS or the device could not know. Linux's handler would find nothing to do.
            if number <= line.repeat_upto:
                line.repeated += 1
            else:
                self.duplicated += 1
            self._handle(line)
            return True
        line.taken = number
        line.delivered += 1
        now = self._clock()
        self._latency.observe(now - line.raised_at)
        if line.raised > number:
            line.raised_at = now
        self._handle(line)
        return True

    def _handle(self, line: IrqLine) -> None:
        """Run the handler. What a device did to its ring is no fault of the ITS: the interrupt is ended even so."""
        try:
            line.handler()
        except RingmeshError as error:
            line.failed += 1
            if line.failed == 1:
                self._log("interrupt handler failed", line=line.name, intid=line.intid, error=str(error))

    def expect_repeats(self) -> None:
        """The ITS may deliver again what it delivered before."""
        for line in self._lines.values():
            line.repeat_upto = line.raised

    def settled(self) -> bool:
        """Is every interrupt that was asked for covered by one that was taken?"""
        return all(line.taken >= line.raised for line in self._lines.values())

    def close(self) -> IrqStats:
        """The books. What was raised and not delivered under its own number was covered by a later one, or lost."""
        stats = IrqStats(duplicated=self.duplicated, corrupted=self.corrupted)
        for line in self._lines.values():
            stats.raised += line.raised
            stats.delivered += line.delivered
            stats.lost += max(0, line.raised - line.taken)
        stats.coalesced = stats.raised - stats.delivered - stats.lost
        return stats
