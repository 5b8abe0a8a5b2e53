"""What the ITS knows: devices, collections, events, LPIs, numbered MSIs. All of it is made by the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.gic.lpi import LPI_LIMIT
from services.gic_its.ordered import Ids

#: ``Lpi.out`` while the vCPU holds none.
NONE: Final = -1
#: Number of a delivery that no single device's numbers can describe: raised by INT, found in the pending table, or
#: of an LPI that several events share. The guest takes it always.
UNCOUNTED: Final = 0
#: The vCPU of a collection that is not mapped.
UNMAPPED: Final = -1
#: Of ``Control.purge``: what a BASER took away, and the runner is to forget.
PURGE_DEVICES: Final = 1
PURGE_COLLECTIONS: Final = 2
#: ``Event.icid`` where the collection table itself was taken away.
NO_COLLECTION: Final = -1


@dataclass(slots=True)
class Control:
    """State of the ITS itself. ``generation`` changes at every reset, so that a batch of commands notices one.

    ``held``: vCPUs take no interrupts; ``forwards``: the distributor lets them through; ``in_slice``: a slice of
    commands is being run and its commit is to come; ``in_walk``: it waits within a command, which may be half done,
    so that nothing is to be committed. ``devices`` is sorted; ``collections`` is in the order of their table.
    ``events`` counts the events mapped, ``outstanding`` the LPIs that vCPUs hold, ``work`` the table entries that
    commands walked over in this slice. ``intid_limit`` is one past the largest INTID that this slice may map.
    ``purge`` is a set of PURGE_* bits.
    """

    enabled: bool = False
    held: bool = False
    forwards: bool = False
    in_slice: bool = False
    in_walk: bool = False
    generation: int = 0
    devices: Ids = ()
    collections: tuple[int, ...] = ()
    events: int = 0
    work: int = 0
    purge: int = 0
    intid_limit: int = LPI_LIMIT
    outstanding: int = 0


@dataclass(slots=True)
class RedistState:
    """State of one redistributor: its vCPU, and whether EnableLPIs has taken effect."""

    vcpu: int
    enabled: bool = False


@dataclass(slots=True, eq=False)
class Source:
    """The MSIs of one (DeviceID, EventID): ``number`` is the highest seen, ``sent`` the highest handed to a vCPU,
    ``done`` the highest confirmed: done <= sent <= number. ``held`` counts the deliveries that a vCPU has not ended,
    ``at`` is the LPI that it raised last and that has not been handed on."""

    device: int
    event: int
    number: int = 0
    sent: int = 0
    done: int = 0
    held: int = 0
    at: Lpi | None = None


@dataclass(slots=True, eq=False)
class Lpi:
    """One LPI at one redistributor.

    ``pending`` is the pending bit: raised, and not yet handed to the vCPU; ``raised`` are the MSIs that it stands
    for, ``uncounted`` says that something else raised it, too; ``stored`` is its bit in the pending table as the ITS
    last wrote it. ``out`` is the number under which the vCPU holds it (:data:`NONE`, :data:`UNCOUNTED` or a device's
    number) and ``covers`` what its EOI confirms. ``enabled`` and ``priority`` are the cached configuration byte;
    ``configured`` says whether it was read. ``events`` counts the events that lead here.
    """

    port: RedistState
    intid: int
    enabled: bool = False
    priority: int = 0
    configured: bool = False
    pending: bool = False
    uncounted: bool = False
    stored: bool = False
    raised: tuple[Source, ...] = ()
    out: int = NONE
    covers: tuple[tuple[Source, int], ...] = ()
    events: int = 0


@dataclass(slots=True, eq=False)
class Event:
    """One interrupt translation entry: ``event`` of ``device`` is LPI ``intid`` of collection ``icid``.

    ``place`` is the entry's guest address where the tables are in guest memory only. Where the ITS holds them ``lpi``
    is where the event leads now, None while its collection is not mapped, and ``source`` counts its MSIs.
    """

    device: int
    event: int
    intid: int
    icid: int
    place: int = 0
    lpi: Lpi | None = None
    source: Source | None = None


@dataclass(slots=True, eq=False)
class Device:
    """One mapped DeviceID. ``dte`` is the guest address of its table entry; ``events`` the EventIDs mapped, where the
    ITS holds its tables."""

    device: int
    dte: int
    itt: int
    bits: int
    events: Ids = ()


@dataclass(slots=True, eq=False)
class Collection:
    """One collection in use; ``vcpu`` is UNMAPPED where an event named it before any MAPC."""

    icid: int
    vcpu: int = UNMAPPED
