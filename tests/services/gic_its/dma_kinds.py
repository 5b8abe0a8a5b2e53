"""Ways to guest memory that do more than work: they wait, fault, keep a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from common.errors import MemoryFaultError
from common.memory import GuestMemory
from services.gic_its.direct import DirectDma
from services.gic_its.profile import KVM, Profile
from tests.services.gic_its.conftest import Rig


class Gate(DirectDma):
    """While it is not ``open``, reads wait until they are let through, one ``step`` each; then, with ``fault``, they
    fail."""

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory)
        self.memory = memory
        self.open = True
        self.fault = False
        self.waiting: list[asyncio.Future[None]] = []

    async def read(self, addr: int, length: int) -> bytes:
        if not self.open:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(future)
            await future
        if self.fault:
            raise MemoryFaultError("addr", addr)
        return await super().read(addr, length)

    def step(self) -> None:
        self.waiting.pop(0).set_result(None)


class Turning(DirectDma):
    """Every read gives all others a turn, as one over a link does."""

    async def read(self, addr: int, length: int) -> bytes:
        await asyncio.sleep(0)
        return await super().read(addr, length)


class Journal(DirectDma):
    """As over a link: writes are posted and take effect with a commit; a read commits first what was posted before it.

    ``commits`` has (CREADR, image) of each commit: ``image()`` is whatever part of memory the test looks at. ``log``
    has every access in order, as ("read" | "write" | "commit", address or CREADR).
    """

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory)
        self.posted: list[tuple[int, bytes | int]] = []
        self.commits: list[tuple[int, object]] = []
        self.log: list[tuple[str, int]] = []
        self.creadr: Callable[[], int] = lambda: 0
        self.image: Callable[[], object] = lambda: None

    async def read(self, addr: int, length: int) -> bytes:
        if self.posted:
            self.commit()
        self.log.append(("read", addr))
        await asyncio.sleep(0)
        return await super().read(addr, length)

    def write(self, addr: int, data: bytes | int) -> None:
        self.log.append(("write", addr))
        self.posted.append((addr, data))

    def commit(self) -> None:
        for addr, data in self.posted:
            super().write(addr, data)
        self.posted = []
        self.log.append(("commit", self.creadr()))
        self.commits.append((self.creadr(), self.image()))


async def turns(count: int = 5) -> None:
    """Let everything that is ready have its turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Give turns until it holds."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def gated(profile: Profile = KVM) -> tuple[Rig, Gate]:
    """The standard set-up behind a gate, which is open."""
    gates: list[Gate] = []

    def dma(memory: GuestMemory) -> Gate:
        gates.append(Gate(memory))
        return gates[0]

    rig = Rig(dma=dma, profile=profile)
    await rig.start()
    await rig.standard()
    return rig, gates[0]
