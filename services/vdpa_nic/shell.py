"""The NIC as a service: one :class:`NicDevice` a guest, its VMM's link beside the driver's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from zlib import crc32

import msgspec

from common.errors import RemoteError
from common.runtime.clock import monotonic
from common.runtime.device_service import Attachment, DeviceService
from common.runtime.link import Link, LinkHandler
from common.wire.messages import Call, Hello, Message
from services.vdpa_nic.config import NicConfig
from services.vdpa_nic.nic import NicDevice
from services.vdpa_nic.plugs import Plugs


class GuestRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /nic/announce``."""

    guest: str


class LinkRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /nic/link``."""

    guest: str
    up: bool


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

    def __init__(self, config: NicConfig) -> None:
        super().__init__(config)
        #: guest → the last three bytes of its MAC
        self._macs: dict[str, int] = {}
        #: guest → the handler of its VMM's last link
        self._vmms: dict[str, VmmLink] = {}
        self._plugs: Final = Plugs(config.backend, config.queue_pairs, self.log.warning, self.wake)

    def name_queues(self) -> tuple[str, ...]:
        pairs = [f"{kind}{pair}" for pair in range(self.config.queue_pairs) for kind in ("rx", "tx")]
        return (*pairs, "ctrl")

    async def start(self) -> None:
        await super().start()
        self.admin.post("/nic/link", self._set_link, LinkRequest)
        self.admin.post("/nic/announce", self._announce, GuestRequest)
        self._plugs.measure(self.metrics)

    async def stop(self) -> None:
        self._plugs.close()
        await super().stop()

    def accept(self, hello: Hello) -> LinkHandler:
        attachment = self.attach(hello)
        if hello.role == "vmm":
            self._vmms[hello.guest] = vmm = VmmLink(lambda: self.attachments[hello.guest].device)
            return vmm
        return attachment

    def _mac(self, guest: str) -> bytes:
        """Locally administered, made of the guest's name: it is the same when guest or NIC start anew."""
        number = self._macs.get(guest)
        if number is None:
            number = crc32(guest.encode()) & 0xFFFFFF
            while number in self._macs.values():
                number = (number + 1) & 0xFFFFFF
            self._macs[guest] = number
        return b"\x02RM" + number.to_bytes(3, "big")

    def wake(self, guest: str) -> None:
        """Packets for ``guest`` came from another one: they move in the next turn of the loop, all together."""
        attachment = self.attachments.get(guest)
        if attachment is not None:
            asyncio.get_running_loop().call_soon(attachment.device.batch_end)

    def make_device(self, attachment: Attachment[NicDevice]) -> NicDevice:
        guest = attachment.guest
        device = NicDevice(
            self._plugs.plug(guest),
            send=attachment.send,
            answer_vmm=lambda _message: None,
            msi=attachment.msi,
            clock=monotonic,
            queue_size=self.config.queue_size,
            mac=self._mac(guest),
            max_pairs=self.config.queue_pairs,
            mtu=self.config.mtu,
            policy=self.config.firmware.policy,
            log=self.log.bind(guest=guest).warning,
            observe=self.observe,
        )
        attachment.on_up = device.reconnected
        vmm = self._vmms.get(guest)
        if vmm is not None:
            vmm.guest_renewed()
        return device

    def measure(self, attachment: Attachment[NicDevice]) -> None:
        super().measure(attachment)
        device, guest = attachment.device, attachment.guest
        for prefix, what, stats in (
            ("nic", "NIC's packets", device.core.stats),
            ("nic", "NIC's control queue", device.core.ctrl_stats),
            ("vdpa", "vDPA device", device.vdpa_stats),
        ):
            self.metrics.counters_of(prefix, what, stats, guest=guest)

    # --- the cable ----------------------------------------------------------------------------------------------------

    def _device(self, guest: str) -> NicDevice:
        attachment = self.attachments.get(guest)
        if attachment is None:
            raise RemoteError("guest", guest, None, f"there are {', '.join(sorted(self.attachments)) or 'none'}")
        return attachment.device

    async def _set_link(self, request: LinkRequest) -> dict[str, Any]:
        """Plug or pull the cable of a guest's NIC (§5.1.4, VIRTIO_NET_S_LINK_UP)."""
        state = self._device(request.guest).core.state
        state.set_link(request.up)
        return {"guest": request.guest, "up": state.link_up, "generation": state.generation}

    async def _announce(self, request: GuestRequest) -> dict[str, Any]:
        """Ask the driver to announce itself (§5.1.6.5.4), as after a migration."""
        state = self._device(request.guest).core.state
        return {"guest": request.guest, "asked": state.ask_announce(), "generation": state.generation}
