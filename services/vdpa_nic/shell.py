"""The NIC as a service: one :class:`NicDevice` a guest, its VMM's link beside the driver's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import ConfigError, RemoteError
from common.pcap import read_frames
from common.runtime.clock import monotonic
from common.runtime.device_service import Attachment, DeviceService
from common.runtime.link import Link, LinkHandler
from common.virtio.net_header import MAX_ETHERNET
from common.wire.messages import Call, Hello, Message
from services.vdpa_nic.backend import Backend, Echo, Replay
from services.vdpa_nic.config import NicConfig
from services.vdpa_nic.core import NicDevice


class VmmLink:
    """A LinkHandler: the VMM of one guest, that changes the memory map of its NIC.

    ``device_of`` gives the NIC that the guest has now.
    """

    def __init__(self, device_of: Callable[[], NicDevice]) -> None:
        self._device_of = device_of
        self._link: Link | None = None

    def send(self, message: Message) -> None:
        if self._link is not None:
            self._link.send(message)

    def link_up(self, link: Link) -> None:
        self._link = link
        self._device_of().answer_vmm = self.send

    def link_frame(self, _link: Link, message: Any) -> None:
        assert isinstance(message, Call)
        self._device_of().vmm_frame(message)

    def link_batch(self, _link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, link: Link, _reason: str) -> None:
        if self._link is link:
            self._link = None

    def guest_renewed(self) -> None:
        """The guest has another NIC, which knows no map yet: a VMM says its map when it connects."""
        if self._link is not None:
            self._link.close("the guest started anew")


class NicService(DeviceService[NicConfig, NicDevice]):
    """``ringmesh serve nic``."""

    role = "nic"
    queue_names = ("rx0", "tx0")

    def __init__(self, config: NicConfig) -> None:
        super().__init__(config)
        self._frames: list[bytes] = []
        #: guest → its number, kept when the guest starts anew: its NIC keeps its MAC
        self._numbers: dict[str, int] = {}
        #: guest → the handler of its VMM's last link
        self._vmms: dict[str, VmmLink] = {}
        backend = config.backend
        if backend.kind == "replay":
            try:
                with Path(backend.pcap).open("rb") as file:
                    self._frames = read_frames(file, MAX_ETHERNET)
            except (OSError, RemoteError) as error:
                raise ConfigError(backend.pcap, "backend.pcap", str(error)) from error

    def accept(self, hello: Hello) -> LinkHandler:
        attachment = self.attach(hello)
        if hello.role == "vmm":
            self._vmms[hello.guest] = vmm = VmmLink(lambda: self.attachments[hello.guest].device)
            return vmm
        return attachment

    def _backend(self) -> Backend:
        if self._frames:
            return Replay(self._frames, self.config.backend.rate)
        return Echo()

    def make_device(self, attachment: Attachment[NicDevice]) -> NicDevice:
        number = self._numbers.setdefault(attachment.guest, len(self._numbers))
        device = NicDevice(
            send=attachment.send,
            answer_vmm=lambda _message: None,
            msi=attachment.msi,
            clock=monotonic,
            backend=self._backend(),
            queue_size=self.config.queue_size,
            # locally administered, one a guest
            mac=bytes((0x02, 0x52, 0x4D, 0x00, number >> 8, number & 0xFF)),
            log=self.log.bind(guest=attachment.guest).warning,
            observe=self.observe,
        )
        attachment.on_up = device.reconnected
        vmm = self._vmms.get(attachment.guest)
        if vmm is not None:
            vmm.guest_renewed()
        return device

    def measure(self, attachment: Attachment[NicDevice]) -> None:
        super().measure(attachment)
        self.metrics.counters_of("nic", "vDPA NIC", attachment.device.nic_stats, guest=attachment.guest)
