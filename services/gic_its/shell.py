"""The ITS as a service: one :class:`GuestPort` a guest, a link from each device service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from common.errors import RemoteError
from common.runtime.clock import monotonic
from common.runtime.link import Link, LinkHandler
from common.runtime.service import Service
from common.wire.messages import Hello, Message, Msi
from services.gic_its.commands import Limits
from services.gic_its.config import ItsConfig
from services.gic_its.guest_port import GuestPort
from services.gic_its.profile import PROFILES


@dataclass(slots=True)
class RouteStats:
    """MSIs that never reached an ITS: their guest is not known (yet), and the device sends them again."""

    unknown_guest: int = 0


class DeviceLink:
    """A LinkHandler for a device service: MSIs of all its guests in, confirmations out. It outlives its links."""

    __slots__ = ("_link", "_ports", "_stats")

    def __init__(self, ports: dict[str, GuestPort], stats: RouteStats) -> None:
        self._ports: Final = ports
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
        port = self._ports.get(message.guest)
        if port is None:
            self._stats.unknown_guest += 1
        else:
            port.msi(self, message)

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
        self.ports: dict[str, GuestPort] = {}
        self.routes = RouteStats()
        self._devices: dict[str, DeviceLink] = {}
        # depth in commands that are queued, and in LPIs that a vCPU has not ended; latencies to CREADR and to the EOI
        ports = self.ports
        self._batches = self.metrics.queue("cmdq", lambda: sum(port.its.queued for port in ports.values()))
        self._latencies = self.metrics.queue(
            "lpi", lambda: sum(port.its.control.outstanding for port in ports.values())
        )

    async def start(self) -> None:
        self.listen(self.accept)
        self.metrics.counters_of("its_msi", "MSIs dropped before any ITS", self.routes)
        self.metrics.gauge("ringmesh_guests", "Guests that have a device here.", fn=lambda: len(self.ports))

    def accept(self, hello: Hello) -> LinkHandler:
        """The handler of a new link: a guest's port, or a device service's end."""
        if hello.role != "guest":
            if hello.role not in self._devices:
                self._devices[hello.role] = DeviceLink(self.ports, self.routes)
            return self._devices[hello.role]
        if not hello.guest:
            raise RemoteError("guest", "", None, "a guest must say its name")
        port = self.ports.get(hello.guest)
        if port is None:
            limits = self.config.limits
            if len(self.ports) >= limits.guests:
                raise RemoteError("guests", len(self.ports) + 1, limits.guests)
            port = self._make_port(hello)
        elif port.epoch != hello.epoch:
            port.renew(hello.epoch)
        return port

    def _make_port(self, hello: Hello) -> GuestPort:
        limits = self.config.limits
        guest = hello.guest
        port = GuestPort(
            self.world,
            guest,
            hello.epoch,
            cpus=self.config.cpus,
            profile=PROFILES[self.config.profile],
            limits=Limits(limits.devices, limits.collections, limits.events),
            clock=monotonic,
            log=self.log.warning,
        )
        its = port.its
        self.ports[guest] = port
        self.metrics.counters_of("its", "Interrupts", its.stats, guest=guest)
        self.metrics.counters_of("its", "Commands run", its.commands, guest=guest)
        self.metrics.counters_of("its_error", "Commands skipped", its.errors, guest=guest)
        self.metrics.counters_of("its", "Link to the ITS", port.stats, guest=guest)
        port.batches, port.latencies = self._batches, self._latencies
        return port
