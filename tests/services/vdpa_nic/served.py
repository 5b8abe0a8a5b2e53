"""A NIC service on loopback, with guests whose port, driver and VMM are the test's own.

Imported as ``tests.services.vdpa_nic.served``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import structlog

from common.runtime.config import AdminConfig, ListenConfig, LogConfig, PeerConfig
from common.runtime.link import Link, LinkClient
from common.runtime.metrics import Metrics
from common.virtio.features import DeviceId
from common.wire.messages import Irq, Message, Notice, Return
from services.guest_driver.calls import Calls
from services.guest_driver.virtio_bus import DevicePlan, QueuePlan, VirtioBus
from services.vdpa_nic.backends.backend import Backend
from services.vdpa_nic.config import NicConfig
from services.vdpa_nic.nic import NicDevice
from services.vdpa_nic.shell import NicService
from tests.services.guest_driver.mesh_rig import TOKEN, until, within
from tests.services.vdpa_nic.pairs_rig import PairsRig


class Bus(VirtioBus):
    """The driver's link: the port sends by it."""

    def __init__(self, guest: Served) -> None:
        super().__init__(
            "nic",
            guest.port,
            spawn=lambda name, coro: guest.tasks.append(asyncio.get_running_loop().create_task(coro, name=name)),
            log=structlog.get_logger(),
            on_restart=lambda: None,
        )
        self._guest = guest

    def link_up(self, link: Link) -> None:
        self._guest.link = link
        super().link_up(link)

    def link_frame(self, link: Link, message: Any) -> None:
        if isinstance(message, Notice):
            self._guest.notices.append(message)
        if self._guest.held is not None:
            self._guest.held.append(message)
            return
        super().link_frame(link, message)

    def link_down(self, link: Link, reason: str) -> None:
        self._guest.link = None
        super().link_down(link, reason)


class VmmSide:
    """The VMM's link: calls by hand."""

    def __init__(self) -> None:
        self.calls = Calls("vmm")
        self.returned: list[Return] = []

    def link_up(self, link: Link) -> None:
        self.calls.attach(link)

    def link_frame(self, _link: Link, message: Any) -> None:
        self.returned.append(message)
        self.calls.returned(message)

    def link_batch(self, link: Link) -> None:
        pass

    def link_down(self, _link: Link, reason: str) -> None:
        self.calls.detach(reason)


class Served(PairsRig):
    """One guest of a service. Its interrupts are taken when its port asks for them; no ITS stands between."""

    def __init__(self, name: str, service: NicService, *, epoch: int = 1, **kwargs: Any) -> None:
        self.link: Link | None = None
        self.service = service
        super().__init__(size=16, **kwargs)
        self.name = name
        self.tasks: list[asyncio.Task[None]] = []
        self.notices: list[Notice] = []
        #: what the NIC sent, where the test wants the guest's side to wait with it
        self.held: list[Message] | None = None
        self.bus = Bus(self)
        self.vmm_side = VmmSide()
        self.clients = [
            LinkClient(
                role=role, peer="nic", host="127.0.0.1", port=service._servers[0].port, token=TOKEN, epoch=epoch,
                handler=handler, metrics=Metrics(role), guest=name,
            )
            for role, handler in (("guest", self.bus), ("vmm", self.vmm_side))
        ]  # fmt: skip

    def make_device(self, backend: Backend | None = None) -> None:
        """The service's."""

    @property
    def nic(self) -> NicDevice:
        return self.service.attachments[self.name].device

    def from_port(self, message: Message) -> None:
        if isinstance(message, Irq):
            self.irqs[message.queue] = message.number
            self.pending[message.queue] = True
            asyncio.get_running_loop().call_soon(self.interrupts)
        if self.link is not None:
            self.link.send(message)

    async def say_map(self) -> None:
        await within(self.vmm_side.calls.call("set_map", 0, self.space.ranges()))

    async def come_up(self) -> Served:
        for client in self.clients:
            await client.start()
            await within(client.wait_up())
        await self.say_map()
        plans = [QueuePlan(index, area, 40 + index) for index, area in enumerate(self.areas)]
        await within(self.bus.probe(DevicePlan(DeviceId.NET, self.features, lambda _features: plans)))
        for net in self.nets:
            net.start()
        return self

    def let_go(self) -> None:
        """The guest's side goes on."""
        held, self.held = self.held or [], None
        assert self.link is not None
        for message in held:
            self.bus.link_frame(self.link, message)

    async def transmit(self, pair: int, frames: list[bytes]) -> None:
        """Send them all, as there is room."""
        net = self.nets[pair]
        while frames:
            await until(lambda: net.room)
            frames = frames[net.transmit(frames) :]

    async def commanded(self, cls: int, command: int, data: bytes) -> int:
        """Carry out one control command; its ack."""
        self.ask(cls, command, data)
        ring = self.rings[self.ctrl_queue]
        await until(lambda: ring.poll(ring.snapshot()))
        return self.answer()

    async def gone(self) -> None:
        for client in self.clients:
            await within(client.close())
        for task in self.tasks:
            task.cancel()


class Serving:
    """``async with Serving(…) as serving``: a service, and guests by :meth:`guest`."""

    def __init__(self, **config: Any) -> None:
        self.service = NicService(
            NicConfig(
                token=TOKEN, admin=AdminConfig(port=0), log=LogConfig(level="error"), listen=ListenConfig(port=0),
                its=PeerConfig(port=1), queue_size=64, drain_seconds=8.0, **{"queue_pairs": 2, **config},
            )
        )  # fmt: skip
        self.guests: list[Served] = []

    async def __aenter__(self) -> Serving:
        self._task = asyncio.get_running_loop().create_task(self.service.run())
        await until(lambda: self._task.done() or self.service._phase == "")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for guest in self.guests:
            await guest.gone()
        self.service.shut_down()
        assert await within(self._task) == 0

    async def guest(self, name: str, **kwargs: Any) -> Served:
        made = Served(name, self.service, **kwargs)
        self.guests.append(made)
        return await made.come_up()

    async def ask(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """POST to the administration."""
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
            session.post(f"http://127.0.0.1:{self.service.admin.port}{path}", json=body) as response,
        ):
            return response.status, await response.json()
