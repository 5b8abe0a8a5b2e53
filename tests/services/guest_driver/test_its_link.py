"""The guest's end of the ITS link over loopback: MMIO out, DMA and LPIs in, and what an ITS must not ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import LinkDownError, RingError
from common.histogram import Histogram
from common.memory import GuestMemory
from common.runtime.link import Link, LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.wire.limits import MAX_DMA
from common.wire.messages import (
    DmaData,
    DmaRead,
    DmaWrite,
    Eoi,
    Lpi,
    Message,
    MmioDone,
    MmioRead,
    MmioWrite,
)
from services.guest_driver.its_link import ItsLink
from services.guest_driver.vcpu import IrqLine, Vcpus
from tests.services.guest_driver.mesh_rig import until, within

BASE = 0x4000_0000
SIZE = 1 << 17


class Its:
    """The far end. A LinkHandler."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.link: Link
        self.downs = 0

    def link_up(self, link: Link) -> None:
        self.link = link

    def link_frame(self, _link: Link, message: Message) -> None:
        self.heard.append(message)

    def link_batch(self, link: Link) -> None: ...

    def link_down(self, _link: Link, _reason: str) -> None:
        self.downs += 1


class Bench:
    def __init__(self) -> None:
        self.memory = GuestMemory(SIZE, BASE)
        self.vcpus = Vcpus(lambda: 1.0, Histogram())
        self.ran = 0
        self.line = IrqLine("nic0", 0x20, 0, 8192, 1, self.handler)
        self.vcpus.request_irq(self.line)
        self.ups: list[bool] = []
        self.its_link = ItsLink(self.memory, self.vcpus, on_up=self.ups.append)
        self.its = Its()
        self.port = 0
        self.server: LinkServer
        self.client: LinkClient

    def handler(self) -> None:
        self.ran += 1

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
            metrics=Metrics("guest"), guest="vm",
        )  # fmt: skip
        await self.client.start()
        await within(self.client.wait_up())

    async def ask(self, *messages: Message) -> list[Any]:
        """Send; what the guest said when it had also answered one more read."""
        before = len(self.its.heard)
        for message in messages:
            self.its.link.send(message)
        self.its.link.send(DmaRead(999, BASE, 1))
        await until(lambda: any(isinstance(m, DmaData) and m.seq == 999 for m in self.its.heard[before:]))
        return self.its.heard[before:-1]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    await made.client.close()
    await made.server.close()


async def test_dma(bench: Bench) -> None:
    heard = await bench.ask(DmaWrite(BASE + 5, b"hello"), DmaRead(1, BASE + 4, 7), DmaRead(2, BASE, MAX_DMA))
    assert heard[0] == DmaData(1, b"\0hello\0")
    assert len(heard[1].data) == MAX_DMA
    assert (bench.its_link.dma_reads, bench.its_link.dma_writes, bench.its_link.dma_faults) == (3, 1, 0)


@pytest.mark.parametrize("addr", [0, BASE - 1, BASE + SIZE - 3, (1 << 64) - 2])
async def test_dma_out_of_bounds(bench: Bench, addr: int) -> None:
    before = bench.memory.read(BASE, 64), bench.memory.read(BASE + SIZE - 64, 64)
    assert await bench.ask(DmaRead(1, addr, 4), DmaWrite(addr, b"\xff" * 4)) == [DmaData(1, None)]
    assert bench.its_link.dma_faults == 2
    assert (bench.memory.read(BASE, 64), bench.memory.read(BASE + SIZE - 64, 64)) == before
    assert bench.its.downs == 0, "a fault is the ITS's to handle"


@pytest.mark.parametrize("length", [0, -1, MAX_DMA + 1, 1 << 40])
async def test_dma_of_a_length_that_cannot_be(bench: Bench, length: int) -> None:
    bench.its.link.send(DmaRead(1, BASE, length))
    await until(lambda: bench.its.downs)
    assert bench.its.heard == []
    await until(lambda: len(bench.ups) == 2)
    assert bench.ups == [True, False], "refused, and connected again to the same ITS"


async def test_lpis_are_taken_and_ended(bench: Bench) -> None:
    bench.vcpus.raised(bench.line, 1)
    bench.vcpus.raised(bench.line, 2)
    heard = await bench.ask(Lpi(1, 8192, 2), Lpi(0, 8192, 2), Lpi(1, 9000, 1), Lpi(1, 8192, 3))
    assert heard == [Eoi(1, 8192, 2)], "what is not ours is not ended"
    assert bench.ran == 1
    assert bench.vcpus.corrupted == 3


async def test_a_handler_that_fails_costs_the_its_nothing(bench: Bench) -> None:
    def handler() -> None:
        raise RingError("used.idx", 9, 4)

    bench.line.handler = handler
    bench.vcpus.raised(bench.line, 1)
    assert await bench.ask(Lpi(1, 8192, 1)) == [Eoi(1, 8192, 1)]
    assert (bench.line.failed, bench.its.downs) == (1, 0)


async def test_mmio(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    read = loop.create_task(bench.its_link.read("its", 8, 8))
    write = loop.create_task(bench.its_link.write("gicr0", 0x70, 4, 7))
    await until(lambda: len(bench.its.heard) == 2)
    first, second = bench.its.heard
    assert (type(first), first.frame, first.offset, first.size) == (MmioRead, "its", 8, 8)
    assert (type(second), second.frame, second.offset, second.size, second.value) == (MmioWrite, "gicr0", 0x70, 4, 7)
    for done in (MmioDone(second.seq, 0), MmioDone(77, 1), MmioDone(first.seq, 0x1234), MmioDone(first.seq, 5)):
        bench.its.link.send(done)
    assert await within(read) == 0x1234
    await within(write)


async def test_a_link_that_goes_down_under_an_access(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    access, given_up = (loop.create_task(bench.its_link.read("its", 8, 8)) for _ in range(2))
    await until(lambda: len(bench.its.heard) == 2)
    given_up.cancel()
    bench.its.link.close("test")
    with pytest.raises(LinkDownError):
        await within(access)
    await within(bench.client.wait_up())
    late = loop.create_task(bench.its_link.write("its", 0, 4, 1))
    await until(lambda: len(bench.its.heard) == 3)
    given_up_too = loop.create_task(bench.its_link.read("its", 8, 8))
    await until(lambda: len(bench.its.heard) == 4)
    given_up_too.cancel()
    bench.its.link.send(MmioDone(bench.its.heard[3].seq, 0))
    bench.its.link.send(MmioDone(bench.its.heard[2].seq, 0))
    await within(late)
    await bench.client.close()
    with pytest.raises(LinkDownError, match="the link is down"):
        await bench.its_link.read("its", 8, 8)


async def test_who_comes_back(bench: Bench) -> None:
    """The same ITS, and a fresh one."""
    bench.vcpus.raised(bench.line, 1)
    await bench.ask(Lpi(1, 8192, 1))
    bench.its.link.close("test")
    await until(lambda: len(bench.ups) == 2)
    await bench.server.close()
    await bench.serve(6)
    await until(lambda: len(bench.ups) == 3)
    assert bench.ups == [True, False, True]
    await bench.ask(Lpi(1, 8192, 1))
    assert (bench.line.repeated, bench.vcpus.duplicated) == (1, 0), "an ITS that was away may deliver again"
