"""A guest's end of the link to its ITS: the real ItsLink and driver, vCPUs that write down what they take.

Imported as ``tests.services.gic_its.guest_end``.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, cast

from common.errors import RemoteError
from common.histogram import Histogram
from common.memory import GuestMemory
from common.runtime.link import Link
from common.runtime.world import AsyncWorld
from common.wire.codec import decode, encode
from common.wire.limits import PREFIX
from common.wire.messages import Message
from services.gic_its.guest_link import GuestLink
from services.gic_its.held_tables import Limits
from services.gic_its.profile import PROFILES
from services.guest_driver.its_driver import ItsDriver
from services.guest_driver.its_link import ItsLink
from services.guest_driver.vcpu import Vcpus

BASE: Final = 0x4000_0000
SIZE: Final = 0x80_0000


class WritingVcpus(Vcpus):
    """vCPUs that take every LPI, and end it unless ``masked``."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0, Histogram())
        self.taken: list[tuple[int, int, int]] = []
        self.masked = False

    def take(self, vcpu: int, intid: int, number: int) -> bool:
        self.taken.append((vcpu, intid, number))
        return not self.masked


class GuestEnd:
    """Memory, vCPUs, driver, and ``link``: the LinkHandler that its LinkClient is given."""

    def __init__(self, cpus: int = 2) -> None:
        self.world: Final = AsyncWorld()
        self.memory: Final = GuestMemory(SIZE, BASE)
        self.free = BASE
        self.vcpus: Final = WritingVcpus()
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.refused = 0
        self.link: Final = ItsLink(
            self.world, self.memory, self.vcpus, cpus=cpus, log=self._log, on_refused=self._on_refused
        )
        self.driver: Final = ItsDriver(self.world, self.link, self.memory, self.allocate, cpus=cpus)

    def allocate(self, size: int, align: int) -> int:
        addr = (self.free + align - 1) & ~(align - 1)
        self.free = addr + size
        return addr

    def _log(self, event: str, **said: Any) -> None:
        self.logged.append((event, said))

    def _on_refused(self) -> None:
        self.refused += 1


class End:
    """One end of a Pipe, where a Link would be."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        #: frames that this end sent, on their way
        self.sent: deque[bytes] = deque()
        self.far: End
        self.handler: Any
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        if self._pipe.up:
            self.sent.append(encode(message))
            self._pipe.stir()

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self, reason: str) -> None:
        self._pipe.down(reason)

    def deliver(self) -> None:
        """One frame of the far end, as it comes off the wire."""
        message = decode(self.far.sent.popleft()[PREFIX:])
        self.heard.append(message)
        try:
            self.handler.link_frame(self, message)
        except RemoteError as error:
            self._pipe.refused.append(error)
            self._pipe.down(str(error))


class Pipe:
    """Both ends of a link in one event loop, without sockets: each frame is encoded, and arrives in a turn of its own
    unless ``frozen``. A new one replaces the old one, as after a reconnect."""

    def __init__(self, service: GuestLink, guest: ItsLink) -> None:
        self.its, self.guest = End(self), End(self)
        self.its.far, self.guest.far = self.guest, self.its
        self.its.handler, self.guest.handler = service, guest
        self.refused: list[RemoteError] = []
        self.up = True
        self.frozen = False
        self._stirred = False
        self._loop = service._world.loop  # type: ignore[attr-defined]
        service.link_up(cast(Link, self.its))
        guest.link_up(cast(Link, self.guest))

    def stir(self) -> None:
        if not (self._stirred or self.frozen):
            self._stirred = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._stirred = False
        for end in (self.its, self.guest):
            if self.up and end.far.sent:
                end.deliver()
        if self.up and (self.its.sent or self.guest.sent):
            self.stir()

    def down(self, reason: str = "test") -> None:
        """Both ends hear that it is down; what was on its way is lost."""
        if self.up:
            self.up = False
            for end in (self.its, self.guest):
                end.sent.clear()
                end.handler.link_down(cast(Link, end), reason)


class Wired:
    """A GuestLink and a guest's end, joined by a Pipe; also a source of MSIs."""

    def __init__(self, profile: str = "kvm", cpus: int = 2, limits: Limits | None = None) -> None:
        self.world: Final = AsyncWorld()
        self.logged: list[dict[str, Any]] = []
        self.done: list[Message] = []
        self.service: Final = GuestLink(
            self.world, "vm0", 1, cpus=cpus, profile=PROFILES[profile], limits=limits or Limits(),
            clock=lambda: 0.0, log=lambda _event, **said: self.logged.append(said),
        )  # fmt: skip
        self.guest: Final = GuestEnd(cpus)
        self.pipe = Pipe(self.service, self.guest.link)

    def reconnect(self) -> None:
        self.pipe.down()
        self.pipe = Pipe(self.service, self.guest.link)

    def send(self, message: Message) -> None:
        """An MSI was confirmed."""
        self.done.append(message)

    async def settle(self) -> None:
        """Until nobody has anything left to do but wait."""
        for _ in range(3):
            while self.world.actors or self.guest.world.actors or self.pipe.its.sent or self.pipe.guest.sent:
                await self.world.relax()
            await self.world.relax()

    async def close(self) -> None:
        self.pipe.down()
        await self.world.close()
        await self.guest.world.close()
