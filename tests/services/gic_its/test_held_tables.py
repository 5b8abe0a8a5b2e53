"""Tables that the ITS holds: limits, collections that go and come, BASERs that take tables away."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.entries import NOT_MAPPED, Cte, Dte, Ite
from services.gic_its.held_tables import Limits

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

ITT = 0x4300_0000


def kinds(rig: Rig) -> dict[str, int]:
    return {name: count for name, count in asdict(rig.its.errors).items() if count}


async def test_limits_of_one_guest(rigs: type[Rig]) -> None:
    rig = rigs(limits=Limits(devices=2, collections=2, events=1))
    await rig.start()
    await rig.standard()
    assert kinds(rig) == {"mapti_limit": 1}
    await rig.run(
        Command(op.MAPD, device=3, size=7, itt=ITT, valid=1),
        Command(op.MAPC, icid=0, rdbase=0, valid=1),
        Command(op.DISCARD, device=2, event=20),
        Command(op.MAPTI, device=2, event=20, intid=8195, icid=0),
    )
    assert kinds(rig) == {"mapti_limit": 1, "mapd_limit": 1, "mapc_limit": 2}
    await rig.run(
        Command(op.MAPD, device=2, size=3, itt=ITT, valid=1),  # known ones may be mapped anew
        Command(op.MAPC, icid=2, rdbase=0, valid=1),
        Command(op.MAPTI, device=2, event=3, intid=8195, icid=2),
        Command(op.MAPD, device=7, valid=0),
        Command(op.MAPC, icid=3, valid=0),
        Command(op.MAPD, device=3, size=7, itt=ITT + 0x20000, valid=1),
        Command(op.MAPC, icid=0, rdbase=0, valid=1),
    )
    assert kinds(rig) == {"mapti_limit": 1, "mapd_limit": 1, "mapc_limit": 2}


async def test_unmapping_at_the_limit_is_no_error(rigs: type[Rig]) -> None:
    rig = rigs(limits=Limits(devices=1, collections=1, events=1))
    await rig.start()
    await rig.run(
        Command(op.MAPD, device=1, size=7, itt=ITT, valid=1),
        Command(op.MAPC, icid=1, rdbase=0, valid=1),
        Command(op.MAPD, device=2, valid=0),
        Command(op.MAPC, icid=2, valid=0),
    )
    assert kinds(rig) == {}
    assert rig.its.control.devices == ((1,),)


async def test_events_of_a_device_that_goes_make_room(rigs: type[Rig]) -> None:
    rig = rigs(limits=Limits(events=2))
    await rig.start()
    await rig.standard()
    assert rig.its.control.events == 2
    await rig.run(Command(op.MAPD, device=2, valid=0), Command(op.MAPTI, device=7, event=1, intid=8200, icid=3))
    assert rig.its.control.events == 2
    assert kinds(rig) == {}


class TestCollections:
    async def test_mapc_v0_takes_the_collection_for_good(self, mapped: Rig) -> None:
        await mapped.run(
            Command(op.MAPC, icid=3, valid=0),
            Command(op.MAPC, icid=9, valid=0),
            Command(op.MAPC, icid=3, rdbase=3, valid=1),
            Command(op.INT, device=2, event=20),
            Command(op.CLEAR, device=2, event=20),
            Command(op.DISCARD, device=2, event=20),
            Command(op.INV, device=2, event=20),
            Command(op.MOVI, device=2, event=20, icid=3),
        )
        assert kinds(mapped) == {
            "int_unmapped_interrupt": 1, "clear_unmapped_interrupt": 1, "discard_unmapped_interrupt": 1,
            "movi_unmapped_collection": 1,
        }  # fmt: skip
        assert mapped.taken == []
        await mapped.run(  # a new mapping of its device brings the event back
            Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
            Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
            Command(op.INT, device=2, event=20),
        )
        assert mapped.taken == [(3, 8195, 0)]

    async def test_what_is_pending_when_its_collection_goes_stays(self, mapped: Rig) -> None:
        mapped.its.hold()
        assert mapped.its.try_msi(2, 20, 1)
        await mapped.run(Command(op.MAPC, icid=3, valid=0))
        assert mapped.its.pending(3) == [8195]
        mapped.its.resume()
        mapped.its.eoi(3, 8195, 1)
        assert mapped.done == [(2, 20, 1)]
        assert list(mapped.its.redistributors[3]) == []

    async def test_lost_events_do_not_come_back_when_the_last_collections_are_in_use(self, mapped: Rig) -> None:
        """The ITS takes another that is not mapped."""
        await mapped.run(
            Command(op.MAPC, icid=8191, rdbase=0, valid=1),
            Command(op.MAPC, icid=8190, rdbase=0, valid=1),
            Command(op.MAPC, icid=3, valid=0),
        )
        event = await mapped.its.tables.event(2, 20)
        assert event is not None
        assert event.icid == 8189
        await mapped.run(Command(op.MAPC, icid=8190, valid=0), Command(op.MAPC, icid=8189, valid=0))
        event = await mapped.its.tables.event(2, 20)
        assert event is not None
        assert await mapped.its.tables.vcpu(event.icid) == -1

    async def test_lost_events_whose_place_is_taken_away_again(self, mapped: Rig) -> None:
        """MAPC V = 0 of the very collection that they were put into: they are in another one of the table."""
        await mapped.run(Command(op.MAPC, icid=3, valid=0), Command(op.MAPC, icid=8191, valid=0))
        event = await mapped.its.tables.event(2, 20)
        assert event is not None
        assert event.icid == 8190
        assert mapped.its.control.collections == (2, 8190)
        await mapped.run(Command(op.MAPC, icid=8191, rdbase=0, valid=1), Command(op.INT, device=2, event=20))
        assert mapped.taken == []

    async def test_an_event_may_name_a_collection_before_mapc(self, rig: Rig) -> None:
        await rig.run(
            Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
            Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
            Command(op.INT, device=2, event=20),
            Command(op.MAPC, icid=3, rdbase=3, valid=1),
            Command(op.INT, device=2, event=20),
        )
        assert rig.taken == [(3, 8195, 0)]
        assert kinds(rig) == {"int_unmapped_interrupt": 1}

    async def test_mapc_to_where_it_is_writes_nothing(self, mapped: Rig) -> None:
        mapped.memory.fill(0x4240_0000, 16, 0xEE)
        await mapped.run(Command(op.MAPC, icid=3, rdbase=3, valid=1))
        assert mapped.memory.read(0x4240_0000, 16) == b"\xee" * 16

    async def test_mapc_brings_configuration_to_a_pe_that_knew_none(self, mapped: Rig) -> None:
        """What was cached goes along; it is not read again."""
        mapped.config(8195, 0x40)  # off, and not told
        await mapped.run(Command(op.MAPC, icid=3, rdbase=0, valid=1), Command(op.INT, device=2, event=20))
        assert mapped.taken == [(0, 8195, 0)]
        await mapped.run(Command(op.INV, device=2, event=20))
        lpi = mapped.its.redistributors[0].find(8195)
        assert lpi is not None
        assert (lpi.enabled, lpi.priority) == (False, 0x40)


class TestBasers:
    @pytest.mark.parametrize("offset", [0x100, 0x108])
    async def test_a_table_that_goes_takes_its_mappings_and_is_not_written(self, mapped: Rig, offset: int) -> None:
        its = mapped.its
        image = mapped.memory.read(0x4220_0000, 0x30_0000)
        await mapped.write(0, 0, 4)
        await mapped.write(offset, 0)
        if offset == 0x108:
            assert its.control.collections == ()
            assert its.control.events == 2
            event = await its.tables.event(2, 20)
            assert event is not None
            assert (event.icid, event.lpi) == (-1, None)
        else:
            assert its.control.devices == ()
            assert its.control.events == 0
            assert its.control.collections == (3, 2)
        assert not any(lpi for rd in its.redistributors for lpi in rd)
        assert mapped.memory.read(0x4220_0000, 0x30_0000) == image

    async def test_events_without_any_collection_can_go(self, mapped: Rig) -> None:
        await mapped.write(0, 0, 4)
        await mapped.write(0x108, 0)
        await mapped.write(0x108, 1 << 63 | 2 << 8 | 0x4240_0000)
        await mapped.write(0, 1, 4)
        await mapped.run(
            Command(op.MAPC, icid=3, rdbase=3, valid=1),
            Command(op.INT, device=2, event=20),
            Command(op.MAPD, device=2, valid=0),
            Command(op.MAPD, device=7, valid=0),
        )
        assert mapped.taken == []
        assert mapped.its.control.events == 0

    @pytest.mark.parametrize("offset", [0x100, 0x108])
    @pytest.mark.parametrize("where", ["address", "levels", "same", "longer"])
    async def test_a_table_that_is_elsewhere_has_nothing_in_it(self, mapped: Rig, offset: int, where: str) -> None:
        """One of the same place and layout is the same table, whatever its attributes and its length."""
        table = 0x4220_0000 if offset == 0x100 else 0x4240_0000
        value = 1 << 63 | 2 << 8 | (table + 0x10_0000 if where == "address" else table)
        if offset == 0x100:
            value |= mapped.device_pages - 1
        if where == "levels":
            value |= 1 << 62
        elif where == "longer":
            value |= 7 << 59 | 15
        await mapped.write(0, 0, 4)
        await mapped.write(offset, value)
        await mapped.write(0, 1, 4)
        await mapped.run(Command(op.INT, device=2, event=20))
        kept = where in ("same", "longer") or (where == "levels" and offset == 0x108)  # KVM has no such bit there
        assert mapped.taken == ([(3, 8195, 0)] if kept else [])

    async def test_events_that_outlive_the_collection_table_are_in_the_new_one(self, mapped: Rig) -> None:
        await mapped.write(0, 0, 4)
        await mapped.write(0x108, 1 << 63 | 2 << 8 | 0x4241_0000)
        event = await mapped.its.tables.event(2, 20)
        assert event is not None
        assert event.icid == 8191
        assert Cte.unpack(mapped.memory.read(0x4241_0000, 8)) == Cte(True, NOT_MAPPED, 8191)
        assert Ite.unpack(mapped.memory.read(ITT + 160, 8)) == Ite(8195, 8191, 0)


async def test_write_all_brings_back_every_entry(mapped: Rig) -> None:
    """KVM_DEV_ARM_ITS_SAVE_TABLES."""
    await mapped.run(Command(op.MAPTI, device=2, event=25, intid=8201, icid=9))
    parts = [(0x4220_0000, 64), (0x4240_0000, 32), (ITT + 160, 48), (ITT + 0x10000 + 255 * 8, 8)]
    before = [mapped.memory.read(addr, length) for addr, length in parts]
    for addr, length in parts:
        mapped.memory.fill(addr, length, 0)
    tables = mapped.its.tables
    tables.write_all()  # type: ignore[attr-defined]
    assert [mapped.memory.read(addr, length) for addr, length in parts] == before


async def test_reset_forgets_and_writes_nothing(mapped: Rig) -> None:
    mapped.its.tables.reset()  # type: ignore[attr-defined]
    assert (mapped.its.control.devices, mapped.its.control.collections, mapped.its.control.events) == ((), (), 0)
    assert Dte.unpack(mapped.memory.read(0x4220_0000 + 16, 8)).valid
    assert Ite.unpack(mapped.memory.read(ITT + 160, 8)).intid == 8195


async def test_a_large_device_is_walked_in_groups(rigs: type[Rig]) -> None:
    rig = rigs()
    await rig.start()
    await rig.run(Command(op.MAPD, device=1, size=15, itt=ITT, valid=1), Command(op.MAPC, icid=0, rdbase=0, valid=1))
    await rig.run(*(Command(op.MAPTI, device=1, event=n, intid=8192 + n, icid=n % 2) for n in range(1000)))
    await rig.run(Command(op.MAPC, icid=1, rdbase=1, valid=1), Command(op.MAPC, icid=0, rdbase=2, valid=1))
    for event in range(1000):
        assert rig.its.try_msi(1, event, 1)
    assert rig.taken == [(1 if n % 2 else 2, 8192 + n, 1) for n in range(1000)]
    await rig.run(Command(op.MAPD, device=1, valid=0))
    assert rig.its.control.events == 0
    assert not rig.its.try_msi(1, 5, 2)
