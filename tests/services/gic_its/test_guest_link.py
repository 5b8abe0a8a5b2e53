"""Bounds of one guest's link; the way through it is tested over TCP in test_shell."""

from __future__ import annotations

from typing import Any, cast

import pytest

from common.errors import RemoteError
from common.memory import GuestMemory
from common.runtime.link import Link
from common.runtime.world import AsyncWorld
from common.wire.messages import DmaData, DmaRead, DmaWrite, Lpi, MmioWrite, Msi, MsiDone
from services.gic_its import guest_link
from services.gic_its.commands import Limits
from services.gic_its.guest_link import GuestLink
from services.gic_its.profile import KVM
from services.guest_driver.its_driver import ItsDriver


class Wire:
    """Stands where a link does: DMA is answered at once, the rest is kept; also the source of MSIs."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.memory = GuestMemory(0x40_0000, 0x4000_0000)
        self.world = AsyncWorld()
        self.logged: list[dict[str, Any]] = []
        self.guest = GuestLink(
            self.world, "vm0", 1, cpus=1, profile=KVM, limits=Limits(), clock=lambda: 0.0,
            log=lambda _event, **said: self.logged.append(said),
        )  # fmt: skip
        self.free = 0x4000_0000
        self.driver = ItsDriver(self.world, self, self.memory, self.allocate, cpus=1)

    @property
    def link(self) -> Link:
        return cast(Link, self)

    def allocate(self, size: int, align: int) -> int:
        addr = (self.free + align - 1) & ~(align - 1)
        self.free = addr + size
        return addr

    def send(self, message: Any) -> None:
        if isinstance(message, DmaRead):
            data = self.memory.read(message.addr, message.length)
            self.world.loop.call_soon(lambda: self.guest.link_frame(self.link, DmaData(message.seq, data)))
        elif isinstance(message, DmaWrite):
            self.memory.write(message.addr, message.data)
        else:
            self.sent.append(message)

    async def read(self, frame: str, offset: int, size: int) -> int:
        return self.guest.its.read(frame, offset, size)

    async def write(self, frame: str, offset: int, size: int, value: int) -> None:
        await self.guest.its.mmio_write(frame, offset, size, value)

    async def settle(self) -> None:
        while self.world.actors:
            await self.world.relax()


@pytest.fixture
async def wire() -> Wire:
    wire = Wire()
    wire.guest.link_up(wire.link)
    await wire.driver.start()
    await wire.driver.map_device(1, 2)
    return wire


async def test_an_event_that_is_mapped_meanwhile_is_taken_late(wire: Wire) -> None:
    await wire.driver.map_event(1, 0, 8192, 0)
    await wire.driver.enable_lpi(1, 0)
    await wire.write("its", 0, 4, 0)
    wire.guest.msi(wire, Msi("vm0", 1, 0, 1))
    wire.guest.its.control.enabled = True  # before the actor looks
    await wire.settle()
    assert wire.sent == [Lpi(0, 8192, 1)]
    wire.guest.its.eoi(0, 8192, 1)
    assert wire.sent[-1] == MsiDone("vm0", 1, 0, 1)
    assert wire.guest.latencies.count == 0  # its arrival was not kept


async def test_refusals_are_logged_once_an_event(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_LOGGED", 2)
    for event in (0, 0, 1, 2, 3):
        wire.guest.msi(wire, Msi("vm0", 9, event, 1))
    await wire.settle()
    assert [(said["event_id"], said["reason"]) for said in wire.logged] == [(0, "unmapped"), (1, "unmapped")]
    assert wire.guest.its.stats.unmapped == 5


async def test_a_storm_of_refused_msis_is_dropped(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_LATE", 2)
    for event in range(5):
        wire.guest.msi(wire, Msi("vm0", 9, event, 1))
    assert wire.guest.stats.dropped_msis == 3
    await wire.settle()


async def test_writes_under_way_are_bounded(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_WRITES", 2)
    for seq in range(2):
        wire.guest.link_frame(wire.link, MmioWrite(seq, "its", 0x90, 8, 0))
    with pytest.raises(RemoteError, match="mmio_write"):
        wire.guest.link_frame(wire.link, MmioWrite(3, "its", 0x90, 8, 0))
    await wire.settle()


async def test_latencies_of_lingering_events_start_over(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_ARRIVED", 1)
    for event in range(2):
        await wire.driver.map_event(1, event, 8192 + event, 0)
        await wire.driver.enable_lpi(1, event)
        wire.guest.msi(wire, Msi("vm0", 1, event, 1))
    for event in range(2):
        wire.guest.its.eoi(0, 8192 + event, 1)
    assert wire.guest.latencies.count == 1


async def test_a_link_that_was_replaced_does_not_take_the_new_one_down(wire: Wire) -> None:
    old = Wire()
    wire.guest.link_down(old.link, "replaced")
    held = [wire.guest.its.control.held]
    wire.guest.link_down(wire.link, "lost")
    held.append(wire.guest.its.control.held)
    assert held == [False, True]
    sent = len(wire.sent)
    wire.guest.its.resume()
    assert len(wire.sent) == sent
