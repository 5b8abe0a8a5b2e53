"""What a service with one virtio device a guest needs: links from guests, the link to the ITS, ticks, metrics.

A device lives as long as its guest's process: it survives lost connections, and is made anew when the guest's epoch
changes. Other roles (a VMM in a process of its own) come and go beside it. Its MSIs go out over one link to the ITS,
which all guests share.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from common.errors import RemoteError
from common.runtime.clock import monotonic
from common.runtime.config import BaseConfig, PeerConfig
from common.runtime.link import Link, LinkHandler
from common.runtime.service import Service
from common.virtio.device import VirtioDevice
from common.virtio.msi_source import MsiSource
from common.wire.messages import Hello, Message, MsiDone

#: Seconds between two ticks of every device.
TICK: float = 0.005
#: Guests that one service takes.
MAX_GUESTS: int = 256


class DeviceConfig(BaseConfig, kw_only=True):
    """Settings of a device service: where the ITS is, and the DeviceID that MSIs carry."""

    its: PeerConfig
    device_id: int


C = TypeVar("C", bound=DeviceConfig)
D = TypeVar("D", bound=VirtioDevice)


class Attachment(Generic[D]):
    """The device of one guest and the link that it is reached by. A LinkHandler."""

    def __init__(self, guest: str, epoch: int | None, device_id: int, send_msi: Callable[[Message], None]) -> None:
        self.guest = guest
        #: of the guest's process; None while no guest has come for the device that another role had made
        self.epoch = epoch
        self.link: Link | None = None
        self.msi = MsiSource(guest, device_id, send_msi)
        self.device: D
        #: called at every link_up, before anything is sent or received over the new link
        self.on_up: Callable[[], None] = lambda: None

    def send(self, message: Message) -> None:
        """To the guest; dropped while its link is down: the resync that follows says it again."""
        if self.link is not None:
            self.link.send(message)

    def link_up(self, link: Link) -> None:
        self.link = link
        self.on_up()

    def link_frame(self, _link: Link, message: Message) -> None:
        self.device.frame(message)

    def link_batch(self, _link: Link) -> None:
        self.device.batch_end()

    def link_down(self, link: Link, _reason: str) -> None:
        if self.link is link:
            self.link = None


class DeviceService(Service[C], Generic[C, D]):
    """A service whose guests each get a device from :meth:`make_device`."""

    #: names of the device's queues in metrics, by index; a service whose devices vary overrides :meth:`name_queues`
    queue_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: C) -> None:
        super().__init__(config)
        self.attachments: dict[str, Attachment[D]] = {}
        self._its: Link | None = None
        self._waits = [self.metrics.queue(name, self._depth_of(index)) for index, name in enumerate(self.name_queues())]

    def name_queues(self) -> tuple[str, ...]:
        """Names of the device's queues in metrics, by index."""
        return self.queue_names

    @abstractmethod
    def make_device(self, attachment: Attachment[D]) -> D:
        """The device of a guest; it sends by ``attachment.send`` and interrupts by ``attachment.msi``."""

    async def start(self) -> None:
        self.listen(self.accept)
        self.connect("its", self.config.its, self)
        self.metrics.gauge("ringmesh_guests", "Guests that have a device here.", fn=lambda: len(self.attachments))
        self.world.spawn("tick", self._ticks())

    def _depth_of(self, index: int) -> Callable[[], float]:
        def depth() -> float:
            queues = [attachment.device.queues[index] for attachment in self.attachments.values()]
            return sum(queue.depth.read(queue.in_hand) for queue in queues)

        return depth

    # --- guests -------------------------------------------------------------------------------------------------------

    def accept(self, hello: Hello) -> LinkHandler:
        """The handler of a new link; more roles than ``guest`` by overriding."""
        return self.attach(hello)

    def attach(self, hello: Hello) -> Attachment[D]:
        """The device of ``hello.guest``, made if there is none or if the guest started anew.

        Only the guest renews it, and no other process while its link is up: that one is refused and may try again
        (RemoteError; the link of a machine that is gone ends by itself in a few seconds). Another role is given the
        device that stands, or one that the guest which comes first adopts; it is refused (RemoteError: it tries
        again) while it cannot be known whether the device stays, because the guest is away and the peer belongs to
        another process than the guest did.
        """
        if not hello.guest:
            raise RemoteError("guest", "", None, "a guest must say its name")
        attachment = self.attachments.get(hello.guest)
        is_guest = hello.role == "guest"
        if attachment is not None and attachment.epoch is None and is_guest:
            attachment.epoch = hello.epoch
        same = attachment is not None and attachment.epoch in (None, hello.epoch)
        if attachment is not None and not is_guest and not same and attachment.link is None:
            raise RemoteError("guest", hello.guest, None, f"away: its device may not be the one for this {hello.role}")
        if attachment is not None and is_guest and not same and attachment.link is not None:
            raise RemoteError("guest", hello.guest, None, "is connected from another process")
        if attachment is None or (is_guest and not same):
            if attachment is None and len(self.attachments) >= MAX_GUESTS:
                raise RemoteError("guests", len(self.attachments) + 1, MAX_GUESTS)
            epoch = hello.epoch if is_guest else None
            attachment = Attachment(hello.guest, epoch, self.config.device_id, self._send_msi)
            attachment.device = self.make_device(attachment)
            self.attachments[hello.guest] = attachment
            self.measure(attachment)
        return attachment

    def measure(self, attachment: Attachment[D]) -> None:
        """Export what the device counts."""
        device = attachment.device
        self.metrics.counters_of("device", "Virtio device", device.stats, guest=attachment.guest)

    def observe(self, queue: int, seconds: float) -> None:
        """Work on ``queue`` waited ``seconds`` before it was taken."""
        self._waits[queue].observe(seconds)

    # --- the ITS (this service is the handler of its link) ------------------------------------------------------------

    def _send_msi(self, message: Message) -> None:
        if self._its is not None:
            self._its.send(message)

    def link_up(self, link: Link) -> None:
        self._its = link
        now = monotonic()
        for attachment in self.attachments.values():
            attachment.msi.resend_all(now)

    def link_frame(self, _link: Link, message: Any) -> None:
        assert isinstance(message, MsiDone)
        attachment = self.attachments.get(message.guest)
        if attachment is not None and message.device == attachment.msi.device:
            attachment.msi.done(message.event, message.number)

    def link_batch(self, _link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, _link: Link, _reason: str) -> None:
        self._its = None

    # --- time ---------------------------------------------------------------------------------------------------------

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = monotonic()
            for attachment in self.attachments.values():
                attachment.msi.tick(now)
                attachment.device.tick(now)
