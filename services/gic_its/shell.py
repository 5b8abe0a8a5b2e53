"""The ITS as a service: one :class:`GuestLink` a guest, a link from each device service."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from common.errors import RemoteError
from common.runtime.clock import monotonic
from common.runtime.link import Link, LinkHandler
from common.runtime.metrics import int_fields
from common.runtime.service import Service
from common.wire.messages import Hello, Message, Msi
from services.gic_its.config import ItsConfig
from services.gic_its.guest_link import GuestLink
from services.gic_its.held_tables import Limits
from services.gic_its.profile import PROFILES

REFUSED: Final = "ringmesh_its_refused_msis_total"


@dataclass(slots=True)
class RouteStats:
    """MSIs that never reached an ITS: their guest is not known (yet), and the device sends them again."""

    unknown_guest: int = 0


class DeviceLink:
    """A LinkHandler for a device service: MSIs of all its guests in, confirmations out. It outlives its links."""

    __slots__ = ("_link", "_guests", "_stats")

    def __init__(self, guests: dict[str, GuestLink], stats: RouteStats) -> None:
        self._guests: Final = guests
        self._stats: Final = stats
        self._link: Link | None = None

    def send(self, message: Message) -> None:
        """Dropped while the link is down: the device sends its MSI again and is answered again."""
        if self._link is not None:
            self._link.send(message)

    def link_up(self, link: Link) -> None:
        self._link = link

    def link_frame(self, _link: Link, message: Any) -> None:
        assert isinstance(message, Msi)
        guest = self._guests.get(message.guest)
        if guest is None:
            self._stats.unknown_guest += 1
        else:
            guest.msi(self, message)

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, link: Link, _reason: str) -> None:
        if self._link is link:
            self._link = None


class ItsService(Service[ItsConfig]):
    """``ringmesh serve its``."""

    role = "its"

    def __init__(self, config: ItsConfig) -> None:
        super().__init__(config)
        self.guests: dict[str, GuestLink] = {}
        self.routes = RouteStats()
        self._devices: dict[str, DeviceLink] = {}
        # depth in commands that are queued, and in LPIs that a vCPU has not ended; latencies to CREADR and to the EOI
        guests = self.guests
        self._batches = self.metrics.queue(
            "cmdq", lambda: sum(guest.its.depth.read(guest.its.queued) for guest in guests.values())
        )
        self._latencies = self.metrics.queue(
            "lpi", lambda: sum(guest.depth.read(guest.its.control.outstanding) for guest in guests.values())
        )

    async def start(self) -> None:
        self.listen(self.accept)
        self.metrics.counters_of("its_msi", "MSIs dropped before any ITS", self.routes)
        self.metrics.gauge("ringmesh_guests", "Guests that have a device here.", fn=lambda: len(self.guests))

    def accept(self, hello: Hello) -> LinkHandler:
        """The handler of a new link: a guest's end, or a device service's."""
        if hello.role != "guest":
            if hello.role not in self._devices:
                self._devices[hello.role] = DeviceLink(self.guests, self.routes)
            return self._devices[hello.role]
        if not hello.guest:
            raise RemoteError("guest", "", None, "a guest must say its name")
        guest = self.guests.get(hello.guest)
        if guest is None:
            limit = self.config.limits.guests
            if len(self.guests) >= limit and not self._drop_oldest():
                raise RemoteError("guests", len(self.guests) + 1, limit)
            guest = self._make_guest(hello)
        elif guest.epoch != hello.epoch:
            guest.renew(hello.epoch)
        return guest

    def _make_guest(self, hello: Hello) -> GuestLink:
        limits = self.config.limits
        guest = GuestLink(
            self.world,
            hello.guest,
            hello.epoch,
            cpus=self.config.cpus,
            profile=PROFILES[self.config.gic_profile],
            limits=Limits(limits.devices, limits.collections, limits.events),
            clock=monotonic,
            log=self.log.warning,
        )
        self.guests[hello.guest] = guest
        for prefix, text, stats in _counted(guest):
            self.metrics.counters_of(prefix, text, stats, guest=hello.guest)
        guest.batches, guest.latencies = self._batches, self._latencies
        guest.count_refused = partial(self._count_refused, hello.guest)
        return guest

    def _count_refused(self, guest: str, device: str) -> None:
        text = "MSIs that the ITS did not take, by the DeviceID that they carried."
        self.metrics.counter(REFUSED, text, guest=guest, device=device).value += 1

    def _drop_oldest(self) -> bool:
        """Forget the guest whose link has been down longest; False if all are up. Its counters go with it.

        Should it come back after all it finds an ITS out of reset.
        """
        gone = min((g for g in self.guests.values() if not g.is_up), key=lambda g: g.down_since, default=None)
        if gone is None:
            return False
        del self.guests[gone.guest]
        for prefix, _, stats in _counted(gone):
            for field in int_fields(stats):
                self.metrics.remove(f"ringmesh_{prefix}_{field}_total", guest=gone.guest)
        for device in gone.refused:
            self.metrics.remove(REFUSED, guest=gone.guest, device=device)
        self.log.warning("guest dropped for a new one", guest=gone.guest, down=round(monotonic() - gone.down_since, 3))
        return True


def _counted(guest: GuestLink) -> tuple[tuple[str, str, object], ...]:
    """What is counted for one guest: prefix, help and object of its counters."""
    its = guest.its
    return (
        ("its", "Interrupts", its.stats),
        ("its", "Commands run", its.commands),
        ("its_error", "Commands skipped", its.errors),
        ("its", "Link to the ITS", guest.stats),
    )
