"""What commands and MSIs ask of the translation tables (IHI 0069 §5.2), wherever they are kept.

Two things answer: :class:`services.gic_its.held_tables.HeldTables` (KVM: the ITS holds what is mapped, and writes it
through) and :class:`services.gic_its.guest_tables.GuestTables` (QEMU: every use is a look at guest memory). What waits
only looks; what changes something is a plain function and is called after all that a command needs has been read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from common.errors import LocalError
from services.gic_its.state import Device, Event

#: Why a command was skipped: a field of :class:`services.gic_its.stats.ErrorStats`.
Kind = str


class TableFaultError(LocalError):
    """A table or an ITT does not lie in guest memory. Where the profile stalls, the command is tried again later."""


class Tables(Protocol):
    """Devices, collections and events of one ITS. Each look raises TableFaultError where memory is missing."""

    async def place(self, device: int) -> int | None:
        """Guest address of the entry of ``device``; None where the device table does not reach."""
        ...

    async def device(self, device: int) -> Device | None:
        """A mapped DeviceID."""
        ...

    async def event(self, device: int, event: int) -> Event | None:
        """A mapped event of a mapped device."""
        ...

    async def vcpu(self, icid: int) -> int:
        """The PE of a mapped collection, UNMAPPED for any other."""
        ...

    async def collection_place(self, icid: int) -> int | Kind:
        """Guest address of the entry of ``icid``, or why there can be none."""
        ...

    async def event_fault(self, device: Device, event: int, icid: int) -> Kind | None:
        """Why ``event`` of ``device`` cannot be mapped to ``icid``; None if it can, "" if it is to stay as it is."""
        ...

    def set_device(self, device: int, place: int, itt: int, bits: int, valid: bool) -> Kind | None:
        """MAPD; the device's events were forgotten. Returns why it is refused."""
        ...

    def set_collection(self, icid: int, vcpu: int, place: int, valid: bool) -> None:
        """MAPC; the collection's events are the caller's affair."""
        ...

    def set_event(self, device: Device, event: int, intid: int, icid: int, vcpu: int) -> Event:
        """MAPTI, MAPI: ``vcpu`` is the collection's PE or UNMAPPED."""
        ...

    def move_event(self, event: Event, icid: int, vcpu: int) -> None:
        """MOVI: ``vcpu`` is the PE of ``icid``. Pending state of an event that the ITS holds goes along."""
        ...

    def erase_event(self, event: Event) -> None:
        """DISCARD."""
        ...

    # Walks over events that the ITS holds, in batches, so that others get their turn; nothing where it holds none.

    def batches(self) -> Iterator[list[Event]]: ...

    def batches_of(self, icid: int) -> Iterator[list[Event]]:
        """The events of a collection; an empty batch where many others were walked over."""
        ...

    def lost(self) -> Iterator[list[Event]]:
        """Events whose collections went with their table, where there is a table again."""
        ...

    def batches_in(self, device: int) -> Iterator[list[Event]]: ...

    def retarget(self, batch: list[Event], vcpu: int) -> None:
        """The batch's collection leads to ``vcpu``; pending state goes along."""
        ...

    def strand(self, batch: list[Event]) -> None:
        """The batch's collection is taken away: its events lead nowhere, and MAPC does not bring them back."""
        ...

    def forget(self, batch: list[Event]) -> None:
        """A batch of one device's events is unmapped; what it made pending stays so."""
        ...

    def lose(self, batch: list[Event]) -> None:
        """The batch's collections went with their table: its events lead nowhere."""
        ...

    # A table is taken away, or all of them at a reset. Nothing is written.

    def free_devices(self) -> None:
        """Forget every device; their events were forgotten."""
        ...

    def free_collections(self) -> None:
        """Forget every collection; their events have lost them."""
        ...

    def drop(self) -> None:
        """Forget everything; the redistributors are reset, too."""
        ...


def event_key(device: int, event: int) -> int:
    """Key of a table of events."""
    return device << 32 | event
