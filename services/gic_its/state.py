"""What the ITS knows: devices, collections, events and LPIs. All of it is made by the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gic_its.ordered import Ids

#: ``Lpi.out`` while the vCPU holds none.
NONE: Final = -1
#: Number of a delivery that no single event's numbers can describe: raised by INT, found in the pending table, or
#: of an LPI that several events share. The guest takes it always.
UNCOUNTED: Final = 0
#: ``Collection.vcpu`` while it is not mapped.
UNMAPPED: Final = -1


@dataclass(slots=True)
class Control:
    """State of the ITS itself. ``generation`` changes at every reset, so that a batch of commands notices one.

    ``devices`` is sorted; ``collections`` is in the order of their table. ``events`` counts the events mapped,
    ``outstanding`` the LPIs that vCPUs hold, ``work`` the table entries that commands walked over in this slice.
    """

    enabled: bool = False
    held: bool = False
    generation: int = 0
    devices: Ids = ()
    collections: tuple[int, ...] = ()
    events: int = 0
    work: int = 0
    outstanding: int = 0


@dataclass(slots=True)
class RedistState:
    """State of one redistributor: its vCPU, and whether EnableLPIs has taken effect."""

    vcpu: int
    enabled: bool = False


@dataclass(slots=True, eq=False)
class Lpi:
    """One LPI at one redistributor.

    ``pending`` is the pending bit: raised, and not yet handed to the vCPU. ``out`` is the number under which the vCPU
    holds it (:data:`NONE`, :data:`UNCOUNTED` or a device's number) and ``covers`` what its EOI confirms. ``enabled``
    and ``priority`` are the cached configuration byte; ``configured`` says whether it was ever read.
    """

    port: RedistState
    intid: int
    enabled: bool = False
    priority: int = 0
    configured: bool = False
    pending: bool = False
    out: int = NONE
    covers: tuple[tuple[Event, int], ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(slots=True, eq=False)
class Event:
    """One interrupt translation entry. ``lpi`` is where it leads now, None while its collection is not mapped.

    ``number`` is the highest MSI seen, ``sent`` the highest handed to a vCPU, ``done`` the highest confirmed:
    done <= sent <= number.
    """

    device: int
    event: int
    intid: int
    icid: int
    lpi: Lpi | None = None
    number: int = 0
    sent: int = 0
    done: int = 0


@dataclass(slots=True, eq=False)
class Device:
    """One mapped DeviceID. ``dte`` is the guest address of its table entry; ``events`` the EventIDs mapped."""

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
