"""The VMM's link to the NIC of one guest: what is mapped, changed by the operations of vDPA while the NIC runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Literal

from common.errors import CallError, LinkDownError
from common.memory import ACCESS_RW
from common.runtime.link import Link
from common.wire.messages import Return
from services.guest_driver.calls import Calls
from services.guest_driver.vmm import AddressSpace

MapOp = Literal["set_map", "dma_map"]

#: The address space of the NIC's queues.
ASID: Final = 0


class Vmm:
    """The LinkHandler for role ``vmm``.

    ``space`` is what shall be mapped; ``op`` how a change is said: ``set_map`` says the whole map, ``dma_map`` (and
    dma_unmap) the one range. After each link_up the whole map is said, by the first change at the latest: the NIC may
    have restarted, or never have heard it. To one that has it nothing changes. ``window`` (base, bytes) is the bank
    that :meth:`change_map` shows and hides.
    """

    def __init__(
        self, space: AddressSpace, spawn: Callable[..., None], *, window: tuple[int, int], op: MapOp = "set_map"
    ) -> None:
        self.space: Final = space
        self.calls: Final = Calls("vmm")
        #: changes that the NIC confirmed
        self.changes = 0
        #: of the NIC that the link reaches, or reached last
        self.epoch = 0
        self._op: Final = op
        self._window: Final = window
        self._spawn: Final = spawn
        #: the NIC has confirmed a whole map over this link
        self._whole = False

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self.epoch = link.peer_epoch
        self._whole = False
        self.calls.attach(link)
        if self.space.banks:
            self._spawn("set_map again", self._say_again())

    def link_frame(self, _link: Link, message: Any) -> None:
        if type(message) is Return:
            self.calls.returned(message)

    def link_batch(self, link: Link) -> None:
        """Nothing is kept back between frames."""

    def link_down(self, _link: Link, reason: str) -> None:
        self.calls.detach(reason)

    # --- changes ------------------------------------------------------------------------------------------------------

    async def set_map(self) -> None:
        """Put in force what shall be mapped. This and all below raise LinkDownError or CallError; what was asked for
        stays asked for: the NIC is told again when it is back."""
        await self._say()
        self.changes += 1

    async def map(self, base: int, size: int) -> None:
        """Map ``size`` bytes of guest memory at ``base``; may be tried again. Raises LocalError where another bank is
        mapped there."""
        if base not in self.space.banks:
            self.space.add(base, size)
        await self._change("dma_map", base, size, base, ACCESS_RW)

    async def unmap(self, base: int, size: int) -> None:
        """Unmap what :meth:`map` mapped; may be tried again."""
        if base in self.space.banks:
            self.space.remove(base)
        await self._change("dma_unmap", base, size)

    async def change_map(self) -> None:
        """The window comes, or goes: a change of map that no driver has a part in."""
        base, size = self._window
        await (self.unmap if base in self.space.banks else self.map)(base, size)

    async def _change(self, op: str, base: int, *rest: int) -> None:
        if self._whole and self._op == "dma_map":
            await self.calls.call(op, ASID, base + self.space.iova, *rest)
        else:
            await self._say()
        self.changes += 1

    async def _say(self) -> None:
        await self.calls.call("set_map", ASID, self.space.ranges())
        self._whole = True

    async def _say_again(self) -> None:
        with suppress(LinkDownError, CallError):  # the next link_up says it again, and so does the next change
            await self._say()

    # --- questions ----------------------------------------------------------------------------------------------------

    async def vq_states(self, queues: Iterable[int]) -> dict[int, int]:
        """Queue → the u16 avail index that the NIC says (``get_vq_state``), all asked for at once."""
        asked = list(queues)
        answers = await asyncio.gather(*(self.calls.call("get_vq_state", queue, kind=int) for queue in asked))
        return dict(zip(asked, answers, strict=True))
