"""One guest's link, with the guest's real end: bounds, commits, what a lost link leaves, the VMM's calls.

The same over TCP is in test_shell; guests that mean ill are in test_guest_link_hostile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar, cast

import pytest

from common.errors import CallError, LinkDownError, RemoteError
from common.gic import vmm_ops as ops
from common.gic.registers import GITS_CREADR
from common.gic.vmm_ops import EBUSY, EINVAL
from common.runtime.link import Link
from common.wire.messages import Call, DmaCommit, DmaData, Lpi, MmioWrite, Msi, MsiDone, Return
from services.gic_its import guest_link, remote_dma
from services.gic_its.held_tables import HeldTables
from services.guest_driver import its_link
from tests.services.gic_its.guest_end import Wired

T = TypeVar("T")


async def within(work: Awaitable[T]) -> T:
    async with asyncio.timeout(10):  # a hang guard
        return await work


@pytest.fixture(params=["kvm", "qemu"])
async def wired(request: pytest.FixtureRequest) -> AsyncIterator[Wired]:
    """The driver has programmed the ITS and mapped device 1."""
    made = Wired(request.param)
    await within(made.guest.driver.start())
    await within(made.guest.driver.map_device(1, 4))
    yield made
    await made.close()


async def event(wired: Wired, event: int = 0, vcpu: int = 0) -> None:
    """Event of device 1 → LPI 8192 + event of ``vcpu``."""
    await within(wired.guest.driver.map_event(1, event, 8192 + event, vcpu))
    await within(wired.guest.driver.enable_lpi(1, event))


async def taken(wired: Wired, *lpis: tuple[int, int, int]) -> None:
    await within(wired.settle())
    assert wired.guest.vcpus.taken == list(lpis)
    wired.guest.vcpus.taken.clear()


# --- MSIs ------------------------------------------------------------------------------------------------------------


async def test_from_msi_to_confirmation(wired: Wired) -> None:
    await event(wired)
    wired.service.msi(wired, Msi("vm0", 1, 0, 1))
    await taken(wired, (0, 8192, 1))
    assert wired.done == [MsiDone("vm0", 1, 0, 1)]
    assert wired.service.its.control.outstanding == 0


async def test_an_event_that_is_mapped_meanwhile_is_taken_late(wired: Wired) -> None:
    await event(wired)
    await within(wired.guest.link.write("its", 0, 4, 0))
    wired.service.msi(wired, Msi("vm0", 1, 0, 1))
    wired.service.its.control.enabled = True  # before the actor looks
    await taken(wired, (0, 8192, 1))
    assert wired.done == [MsiDone("vm0", 1, 0, 1)]


async def test_refusals_are_counted_by_their_device(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_REFUSED", 2)
    counted: list[str] = []
    wired.service.count_refused = counted.append
    for device in (1, 9, 9, 0x10, 9, 0x11):
        wired.service.msi(wired, Msi("vm0", device, 0, 1))
        await within(wired.settle())
    assert counted == ["0x1", "0x9", "0x9", "other", "0x9", "other"]
    assert wired.service.refused == {"0x1", "0x9", "other"}
    monkeypatch.setattr(guest_link, "MAX_LATE", 0)
    wired.service.msi(wired, Msi("vm0", 1, 0, 2))
    assert counted[6:] == ["0x1"], "dropped"


async def test_refusals_are_logged_once_an_event(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_LOGGED", 2)
    for number in (0, 0, 1, 2, 3):
        wired.service.msi(wired, Msi("vm0", 9, number, 1))
    await within(wired.settle())
    assert [(said["event_id"], said["reason"]) for said in wired.logged] == [(0, "unmapped"), (1, "unmapped")]
    assert wired.service.its.stats.unmapped == 5


async def test_a_storm_of_refused_msis_is_dropped(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_LATE", 2)
    for number in range(5):
        wired.service.msi(wired, Msi("vm0", 9, number, 1))
    assert wired.service.stats.dropped_msis == 3
    await within(wired.settle())
    wired.service.msi(wired, Msi("vm0", 9, 0, 1))
    assert wired.service.stats.dropped_msis == 3


@pytest.mark.parametrize(
    ("msi", "field"),
    [((-1, 0, 1), "device"), ((1 << 32, 0, 1), "device"), ((0, -1, 1), "event"), ((0, 1 << 32, 1), "event"),
     ((0, 0, 0), "number"), ((0, 0, -5), "number")],
)  # fmt: skip
async def test_numbers_that_no_msi_has(wired: Wired, msi: tuple[int, int, int], field: str) -> None:
    with pytest.raises(RemoteError, match=rf"msi\.{field}"):
        wired.service.msi(wired, Msi("vm0", *msi))


async def test_latencies_of_lingering_events_start_over(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_ARRIVED", 1)
    wired.guest.vcpus.masked = True
    for number in range(2):
        await event(wired, number)
        wired.service.msi(wired, Msi("vm0", 1, number, 1))
    await within(wired.settle())
    for number in range(2):
        wired.service.its.eoi(0, 8192 + number, 1)
    assert wired.service.latencies.count <= 1
    assert len(wired.done) == 2


# --- commits --------------------------------------------------------------------------------------------------------


async def test_what_commands_did_comes_as_one(wired: Wired) -> None:
    await event(wired)
    wired.pipe.guest.heard.clear()
    await within(wired.guest.driver.raise_event(1, 0))
    await taken(wired, (0, 8192, 0))
    commits = [message for message in wired.pipe.guest.heard if isinstance(message, DmaCommit)]
    assert [commit.lpis for commit in commits if commit.lpis] == [[(0, 8192, 0)]]
    assert all(commit.last for commit in commits)
    assert commits[-1].creadr == wired.service.its.registers.get("GITS_CREADR")


async def test_a_commit_in_many_frames_is_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each frame on the wire: the tables that the guest has are those of the CREADR that it knows."""
    wired = Wired("kvm")
    await within(wired.guest.driver.start())
    await within(wired.guest.driver.map_device(1, 4))
    monkeypatch.setattr(remote_dma, "MAX_PARTS", 1)
    tables = wired.service.its.tables
    assert isinstance(tables, HeldTables)
    places = (tables.device_table.base, tables.collection_table.base, tables.devices[1].itt)
    wired.pipe.frozen = True
    task = asyncio.create_task(wired.guest.driver.map_device(2, 4))  # two entries of the device table, and an ITT
    states: dict[int, set[bytes]] = {}
    frames = 0
    while not task.done():
        await asyncio.sleep(0)
        for end in (wired.pipe.its, wired.pipe.guest):
            if end.far.sent:
                end.deliver()
                (creadr,) = (a[1] for op, a in wired.guest.link.shadow.restore_calls() if a[:1] == (GITS_CREADR,))
                seen = b"".join(wired.guest.memory.read(place, 256) for place in places)
                states.setdefault(creadr, set()).add(seen)
                frames += isinstance(end.heard[-1], DmaCommit) and not end.heard[-1].last
    assert frames >= 1
    assert len(states) >= 2
    assert {len(seen) for seen in states.values()} == {1}
    wired.pipe.frozen = False
    await wired.close()


async def test_a_reconnect_brings_all_back(wired: Wired) -> None:
    await event(wired)
    await event(wired, 1, 1)
    before = wired.service.its.control.generation
    wired.reconnect()
    assert wired.service.its.control.generation > before
    assert wired.service.its.control.devices == ()
    await within(wired.settle())
    assert wired.guest.link.stats.restores == 1
    wired.service.msi(wired, Msi("vm0", 1, 1, 1))
    await within(wired.guest.driver.raise_event(1, 0))
    await within(wired.settle())
    assert sorted(wired.guest.vcpus.taken) == [(0, 8192, 0), (1, 8193, 1)]


async def test_an_lpi_that_a_command_raised_survives(wired: Wired) -> None:
    """Nobody would send it again: it is in the pending table."""
    await within(wired.guest.driver.map_event(1, 0, 8192, 0))  # off in its configuration
    await within(wired.guest.driver.enable_lpi(1, 0, False))
    await within(wired.guest.driver.raise_event(1, 0))
    await taken(wired)
    wired.reconnect()
    await within(wired.settle())
    await within(wired.guest.driver.enable_lpi(1, 0))
    await taken(wired, (0, 8192, 0))


@pytest.mark.parametrize("frames", range(0, 60, 3))
async def test_the_link_breaks_at_any_frame(wired: Wired, frames: int) -> None:
    """The driver does not notice; everything that it mapped is mapped in the end."""
    work = asyncio.create_task(_map_all(wired))
    wired.pipe.frozen = True
    for _ in range(frames):
        await asyncio.sleep(0)
        for end in (wired.pipe.its, wired.pipe.guest):
            if end.far.sent:
                end.deliver()
    wired.reconnect()
    await within(work)
    await within(wired.settle())
    wired.guest.vcpus.taken.clear()
    for number in range(4):
        wired.service.msi(wired, Msi("vm0", 1, number, 1))
    await within(wired.settle())
    assert sorted(wired.guest.vcpus.taken) == [(number % 2, 8192 + number, 1) for number in range(4)] or {
        (vcpu, intid) for vcpu, intid, _ in wired.guest.vcpus.taken
    } == {(number % 2, 8192 + number) for number in range(4)}


async def _map_all(wired: Wired) -> None:
    for number in range(4):
        await event(wired, number, number % 2)


async def test_another_link_takes_the_place_of_one_that_is_up(wired: Wired) -> None:
    await event(wired)
    old = wired.pipe
    its = wired.service.its
    generation = its.control.generation
    wired.service.link_up(cast(Link, wired.pipe.guest))
    assert its.control.generation == generation + 1
    wired.service.link_down(cast(Link, old.its), "late")
    assert wired.service.is_up
    wired.service.link_down(cast(Link, wired.pipe.guest), "lost")
    assert not wired.service.is_up


async def test_a_guest_that_began_anew_finds_nothing(wired: Wired) -> None:
    await event(wired)
    wired.service.renew(7)
    assert wired.service.epoch == 7
    assert wired.service.its.control.devices == ()
    assert not wired.service.its.control.enabled


async def test_stopped_vcpus_run_again_with_the_next_link(wired: Wired) -> None:
    await event(wired)
    await within(wired.guest.link.vmm.calls.call(ops.STOP_VCPUS))
    assert wired.service.its.control.held
    wired.pipe.down()
    assert not wired.service.its.control.held


# --- the VMM ------------------------------------------------------------------------------------------------------


async def test_calls_are_answered_in_order_with_kvms_errors(wired: Wired) -> None:
    call = wired.guest.link.vmm.calls.call
    answers = await within(
        asyncio.gather(
            call(ops.SAVE_TABLES), call("no_such_thing"), call(ops.STOP_VCPUS), call(ops.GET_ITS_REG, 0),
            call(ops.RUN_VCPUS), call(ops.GET_ITS_REG, 0), return_exceptions=True,
        )
    )  # fmt: skip
    assert [a.errno if isinstance(a, CallError) else a for a in answers] == [EBUSY, EINVAL, 0, 1 << 31 | 1, 0, EBUSY]
    heard = [message for message in wired.pipe.guest.heard if isinstance(message, Return)]
    assert [message.seq for message in heard] == sorted(message.seq for message in heard)


async def test_a_vmm_saves_and_restores_elsewhere(wired: Wired) -> None:
    await event(wired)
    await event(wired, 1, 1)
    await within(wired.guest.driver.enable_lpi(1, 1, False))
    await within(wired.guest.driver.raise_event(1, 1))
    saved = await within(wired.guest.link.vmm.save())
    assert saved.profile == wired.service.its.profile.name
    other = Wired(wired.service.its.profile.name)
    await within(other.guest.link.vmm.restore(saved))
    again = await within(other.guest.link.vmm.save())
    assert (again.its, again.dist, again.memory) == (saved.its, saved.dist, saved.memory)
    assert other.service.its.pending(1) == [8193]
    other.service.msi(other, Msi("vm0", 1, 0, 1))
    await taken(other, (0, 8192, 1))
    # and the other way: what it is now survives its link
    other.reconnect()
    await within(other.settle())
    assert other.service.its.pending(1) == [8193]
    await other.close()


async def test_calls_under_way_end_with_the_link(wired: Wired) -> None:
    await event(wired)
    call = wired.guest.link.vmm.calls.call
    await within(call(ops.STOP_VCPUS))
    wired.pipe.frozen = True
    waiting = [asyncio.create_task(call(name)) for name in (ops.RESTORE_TABLES, ops.SAVE_TABLES, ops.RUN_VCPUS)]
    await asyncio.sleep(0)
    for _ in range(3):
        wired.pipe.its.deliver()
    await asyncio.sleep(0.01)
    wired.reconnect()
    for done in waiting:
        with pytest.raises(LinkDownError):
            await within(done)
    await within(wired.settle())
    wired.service.msi(wired, Msi("vm0", 1, 0, 1))
    await taken(wired, (0, 8192, 1))


# --- bounds ---------------------------------------------------------------------------------------------------------


async def test_writes_under_way_are_bounded(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_WRITES", 2)
    for seq in range(2):
        wired.service.link_frame(wired.pipe.its, MmioWrite(9000 + seq, "gicr0", 0, 4, 1))  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="mmio_write"):
        wired.service.link_frame(wired.pipe.its, MmioWrite(9003, "gicr0", 0, 4, 1))  # type: ignore[arg-type]
    await within(wired.settle())
    wired.service.link_frame(wired.pipe.its, MmioWrite(9004, "gicr0", 0, 4, 1))  # type: ignore[arg-type]
    await within(wired.settle())


async def test_calls_under_way_are_bounded(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_link, "MAX_CALLS", 2)
    for seq in range(2):
        wired.service.link_frame(wired.pipe.its, Call(9000 + seq, ops.STOP_VCPUS, []))  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="call"):
        wired.service.link_frame(wired.pipe.its, Call(9003, ops.STOP_VCPUS, []))  # type: ignore[arg-type]
    await within(wired.settle())


async def test_an_answer_that_nobody_asked_for(wired: Wired) -> None:
    with pytest.raises(RemoteError, match="dma_data"):
        wired.service.link_frame(wired.pipe.its, DmaData(77, b""))  # type: ignore[arg-type]


async def test_lpis_go_out_at_once_or_with_their_commit(wired: Wired) -> None:
    await event(wired)
    wired.pipe.guest.heard.clear()
    wired.service.msi(wired, Msi("vm0", 1, 0, 1))
    await within(wired.settle())
    assert [m for m in wired.pipe.guest.heard if isinstance(m, Lpi)] == [Lpi(0, 8192, 1)]
    assert its_link.MAX_COMMIT >= 65536 * 8
