"""The far end of the guest's link to the ITS, as told by a test, over loopback; and the guest's end with what it needs.

Imported as ``tests.services.guest_driver.its_peer``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from common.gic.registers import (
    BASER_VALID,
    CBASER_VALID,
    CTLR_ENABLED,
    GITS_BASER,
    GITS_CBASER,
    GITS_CTLR,
)
from common.histogram import Histogram
from common.memory import GuestMemory
from common.runtime.link import Link, LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.runtime.world import AsyncWorld
from common.wire.messages import Call, DmaData, DmaRead, Message, MmioDone, MmioRead, MmioWrite, Return
from services.guest_driver.its_link import ItsLink
from services.guest_driver.vcpu import IrqLine, Vcpus
from tests.services.guest_driver.mesh_rig import Quiet, until, within

BASE: Final = 0x4000_0000
SIZE: Final = 1 << 18
#: MMIO writes that make an ITS one that is on.
ENABLE: Final = (
    (GITS_CBASER, 8, CBASER_VALID | BASE), (GITS_BASER, 8, BASER_VALID | BASE), (GITS_BASER + 8, 8, BASER_VALID | BASE),
    (GITS_CTLR, 4, CTLR_ENABLED),
)  # fmt: skip


class Peer:
    """A LinkHandler. It answers MMIO while ``answers`` (reads with their offset), and calls by ``call(op, args)``
    (errno and value; None: not at all)."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.link: Link
        self.ups = self.downs = 0
        self.answers = False
        self.call: Callable[[str, list[Any]], tuple[int, Any] | None] = lambda _op, _args: (0, None)

    def link_up(self, link: Link) -> None:
        self.link = link
        self.ups += 1

    def link_frame(self, link: Link, message: Any) -> None:
        self.heard.append(message)
        if isinstance(message, Call):
            answer = self.call(message.op, message.args)
            if answer is not None:
                link.send(Return(message.seq, *answer))
        elif self.answers and isinstance(message, (MmioRead, MmioWrite)):
            link.send(MmioDone(message.seq, message.offset))

    def link_batch(self, link: Link) -> None: ...

    def link_down(self, _link: Link, _reason: str) -> None:
        self.downs += 1

    @property
    def ops(self) -> list[str]:
        return [message.op for message in self.heard if isinstance(message, Call)]

    def mmio(self, kind: type[MmioRead] | type[MmioWrite] = MmioWrite) -> list[tuple[str, int]]:
        """Frame and offset of the accesses that came."""
        return [(message.frame, message.offset) for message in self.heard if isinstance(message, kind)]


class Bench:
    """Two vCPUs, one line, and both ends of the link."""

    def __init__(self) -> None:
        self.world = AsyncWorld()
        self.memory = GuestMemory(SIZE, BASE)
        self.vcpus = Vcpus(lambda: 1.0, Histogram())
        self.ran = 0
        self.line = IrqLine("nic0", 0x20, 0, 8192, 1, self.handler)
        self.vcpus.request_irq(self.line)
        self.log = Quiet()
        self.refused = 0
        self.its_link = ItsLink(
            self.world, self.memory, self.vcpus, cpus=2, log=self.log.warning, on_refused=self.on_refused
        )
        self.its = Peer()
        self.port = 0
        self.server: LinkServer
        self.client: LinkClient

    def handler(self) -> None:
        self.ran += 1

    def on_refused(self) -> None:
        self.refused += 1

    async def serve(self, epoch: int) -> None:
        self.server = LinkServer(
            role="its", token="", epoch=epoch, accept=lambda _hello: self.its, metrics=Metrics("its")
        )
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port

    async def start(self) -> None:
        await self.serve(5)
        self.client = LinkClient(
            role="guest", peer="its", host="127.0.0.1", port=self.port, token="", epoch=2, handler=self.its_link,
            metrics=Metrics("guest"), guest="vm", stir=self.world.stir,
        )  # fmt: skip
        await self.client.start()
        await within(self.client.wait_up())

    async def close(self) -> None:
        await self.client.close()
        await self.server.close()
        await self.world.close()

    async def enable(self) -> None:
        """Make the ITS one that has something to be restored."""
        self.its.answers = True
        for offset, size, value in ENABLE:
            await within(self.its_link.write("its", offset, size, value))

    async def break_link(self) -> None:
        """The link goes down, and comes up again; what was heard before is forgotten."""
        ups = self.its.ups
        self.its.heard.clear()
        self.its.link.close("test")
        await until(lambda: self.its.ups > ups)

    async def ask(self, *messages: Message) -> list[Any]:
        """Send; what the guest said when it had also answered one more read."""
        before = len(self.its.heard)
        for message in messages:
            self.its.link.send(message)
        self.its.link.send(DmaRead(999, BASE, 1))
        await until(lambda: any(isinstance(m, DmaData) and m.seq == 999 for m in self.its.heard[before:]))
        return self.its.heard[before:-1]
