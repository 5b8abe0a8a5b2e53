"""Tables written through to guest memory in KVM's layout, revision 0 (arm-vgic-its.rst)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.entries import DTE_NEXT_MAX, ITE_NEXT_MAX, NOT_MAPPED, Cte, Dte, Ite
from services.gic_its.held_tables import Limits

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

DEVICES, COLLECTIONS, ITT = 0x4220_0000, 0x4240_0000, 0x4300_0000


def dte(rig: Rig, device: int) -> Dte:
    return Dte.unpack(rig.memory.read(DEVICES + 8 * device, 8))


def ite(rig: Rig, event: int, itt: int = ITT) -> Ite:
    return Ite.unpack(rig.memory.read(itt + 8 * event, 8))


def ctes(rig: Rig, count: int) -> list[Cte]:
    return [Cte.unpack(rig.memory.read(COLLECTIONS + 8 * n, 8)) for n in range(count)]


async def test_devices_are_chained(mapped: Rig) -> None:
    assert dte(mapped, 2) == Dte(True, ITT, 8, 5)
    assert dte(mapped, 7) == Dte(True, ITT + 0x10000, 8, 0)
    await mapped.run(Command(op.MAPD, device=4, size=3, itt=ITT + 0x20000, valid=1))
    assert [dte(mapped, n).next for n in (2, 4, 7)] == [2, 3, 0]
    await mapped.run(Command(op.MAPD, device=4, valid=0), Command(op.MAPD, device=7, valid=0))
    assert dte(mapped, 2).next == 0
    assert not dte(mapped, 4).valid


async def test_a_device_that_is_mapped_anew(mapped: Rig) -> None:
    mapped.memory.fill(ITT + 0x20000, 8 * 17, 0xEE)
    await mapped.run(Command(op.MAPD, device=2, size=3, itt=ITT + 0x20000, valid=1))
    assert dte(mapped, 2) == Dte(True, ITT + 0x20000, 4, 5)
    assert mapped.memory.read(ITT + 0x20000, 8 * 17) == bytes(8 * 16) + b"\xee" * 8
    assert ite(mapped, 20).intid == 8195  # the old ITT is the guest's again, as it is


async def test_distances_are_capped(mapped: Rig) -> None:
    far = 2 + DTE_NEXT_MAX + 1000
    await mapped.run(Command(op.MAPD, device=7, valid=0), Command(op.MAPD, device=far, size=15, itt=ITT, valid=1))
    assert dte(mapped, 2).next == DTE_NEXT_MAX
    await mapped.run(
        Command(op.MAPTI, device=far, event=0, intid=8200, icid=3),
        Command(op.MAPTI, device=far, event=65535, intid=8201, icid=3),
    )
    assert ite(mapped, 0).next == ITE_NEXT_MAX == 65535


async def test_events_are_chained(mapped: Rig) -> None:
    assert ite(mapped, 20) == Ite(8195, 3, 0)
    await mapped.run(
        Command(op.MAPTI, device=2, event=25, intid=8201, icid=3),
        Command(op.MAPTI, device=2, event=22, intid=8202, icid=2),
    )
    assert [ite(mapped, n) for n in (20, 22, 25)] == [Ite(8195, 3, 2), Ite(8202, 2, 3), Ite(8201, 3, 0)]
    await mapped.run(Command(op.DISCARD, device=2, event=22), Command(op.MOVI, device=2, event=20, icid=2))
    assert [ite(mapped, n) for n in (20, 22)] == [Ite(8195, 2, 5), Ite(0, 0, 0)]
    await mapped.run(Command(op.DISCARD, device=2, event=20))
    assert ite(mapped, 25) == Ite(8201, 3, 0)


async def test_collections_are_a_list(mapped: Rig) -> None:
    assert ctes(mapped, 3) == [Cte(True, 3, 3), Cte(True, 2, 2), Cte(False, 0, 0)]
    await mapped.run(
        Command(op.MAPTI, device=2, event=1, intid=8200, icid=9),  # in use, but not mapped
        Command(op.MAPC, icid=2, rdbase=1, valid=1),
    )
    assert ctes(mapped, 4) == [Cte(True, 3, 3), Cte(True, 1, 2), Cte(True, NOT_MAPPED, 9), Cte(False, 0, 0)]
    await mapped.run(Command(op.MAPC, icid=4, valid=0))  # nobody knows it
    assert ctes(mapped, 4)[3] == Cte(False, 0, 0)


async def test_a_collection_taken_from_the_middle_leaves_no_hole(mapped: Rig) -> None:
    await mapped.run(
        Command(op.MAPC, icid=5, rdbase=0, valid=1),
        Command(op.MAPC, icid=6, rdbase=1, valid=1),
        Command(op.MAPC, icid=5, valid=0),
    )
    assert ctes(mapped, 4) == [Cte(True, 3, 3), Cte(True, 2, 2), Cte(True, 1, 6), Cte(False, 0, 0)]


async def test_events_that_lost_their_collection_are_in_one_that_is_not_mapped(mapped: Rig) -> None:
    await mapped.run(Command(op.MAPC, icid=3, valid=0))
    assert ctes(mapped, 3) == [Cte(True, 2, 2), Cte(True, NOT_MAPPED, 8191), Cte(False, 0, 0)]
    assert ite(mapped, 20) == Ite(8195, 8191, 0)
    await mapped.run(Command(op.MAPC, icid=2, valid=0))  # the same one again
    assert ctes(mapped, 2) == [Cte(True, NOT_MAPPED, 8191), Cte(False, 0, 0)]
    assert ite(mapped, 255, ITT + 0x10000) == Ite(8196, 8191, 0)


async def test_a_full_collection_table_has_no_end_mark(rigs: type[Rig]) -> None:
    room = 65536 // 8
    rig = rigs(limits=Limits(collections=room))
    await rig.start()
    rig.memory.fill(COLLECTIONS, 0x10008, 0xEE)
    for first in range(0, room, 2000):
        await rig.run(*(Command(op.MAPC, icid=n, rdbase=n % 4, valid=1) for n in range(first, min(first + 2000, room))))
    assert rig.memory.read(COLLECTIONS, 65536) == b"".join(Cte(True, n % 4, n).pack() for n in range(room))
    assert rig.word(COLLECTIONS + 0x10000) == 0xEEEE_EEEE_EEEE_EEEE
    await rig.run(
        Command(op.MAPD, device=1, size=3, itt=ITT, valid=1),
        Command(op.MAPTI, device=1, event=1, intid=8200, icid=5),
        Command(op.MAPC, icid=5, valid=0),  # no other is left to put its events into
        Command(op.INT, device=1, event=1),
    )
    assert rig.its.errors.int_unmapped_interrupt == 1
    assert rig.word(COLLECTIONS + 0xFFF8) == 0


MAPPINGS = st.lists(
    st.tuples(st.sampled_from(["map", "map", "discard", "move", "mapd", "unmapd", "mapc", "unmapc"]),
              st.integers(0, 3), st.integers(0, 7), st.integers(0, 3)),
    max_size=60,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(MAPPINGS)
async def test_memory_says_what_is_mapped(rigs: type[Rig], steps: list[tuple[str, int, int, int]]) -> None:
    """Read back by the rules of the ABI (chains, the first invalid entry of the list), it is what the ITS holds."""
    rig = rigs(cpus=2)
    await rig.start()
    made = []
    for kind, device, event, icid in steps:
        match kind:
            case "map":
                made.append(Command(op.MAPTI, device=device, event=event, intid=8192 + event, icid=icid))
            case "discard":
                made.append(Command(op.DISCARD, device=device, event=event))
            case "move":
                made.append(Command(op.MOVI, device=device, event=event, icid=icid))
            case "mapd" | "unmapd":
                itt = ITT + device * 0x10000
                made.append(Command(op.MAPD, device=device, size=2, itt=itt, valid=int(kind == "mapd")))
            case _:
                made.append(Command(op.MAPC, icid=icid, rdbase=event % 2, valid=int(kind == "mapc")))
    await rig.run(*made)
    held = rig.its.tables
    collections = {}
    index = 0
    while (cte := Cte.unpack(rig.memory.read(COLLECTIONS + 8 * index, 8))).valid:
        assert cte.icid not in collections
        collections[cte.icid] = -1 if cte.rdbase == NOT_MAPPED else cte.rdbase
        index += 1
    found = {}
    device = 0
    while device < 8 and not dte(rig, device).valid:
        device += 1
    while device < 8:
        entry = dte(rig, device)
        event, step = 0, 1
        first = True
        while event < 1 << entry.bits:
            mapping = ite(rig, event, entry.itt)
            if mapping.intid:
                found[device, event] = (mapping.intid, collections[mapping.icid])
                if not mapping.next:
                    break
                step, first = mapping.next, False
            else:
                assert first
                step = 1
            event += step
        if not entry.next:
            break
        device += entry.next
    assert set(rig.its.control.collections) == set(collections)
    seen = {}
    for number in range(4):
        for event in range(8):
            known = await held.event(number, event)
            if known is not None:
                seen[number, event] = (known.intid, -1 if known.lpi is None else known.lpi.port.vcpu)
                assert known.icid in collections
    assert found == seen
