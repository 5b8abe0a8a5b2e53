"""Each command and each of its error kinds (IHI 0069 §5.3)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from services.gic_its.commands import Limits

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

ITT = 0x4300_0000


def kinds(rig: Rig) -> dict[str, int]:
    return {name: count for name, count in asdict(rig.its.errors).items() if count}


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (Command(op.MAPD, device=0x10000, size=7, itt=ITT, valid=1), "mapd_device_oor"),
        (Command(op.MAPD, device=9, size=16, itt=ITT, valid=1), "mapd_ittsize_oor"),
        (Command(op.MAPC, icid=1, rdbase=4, valid=1), "mapc_procnum_oor"),
        (Command(op.MAPC, icid=0x2000, rdbase=1, valid=1), "mapc_collection_oor"),
        (Command(op.MAPTI, device=3, event=0, intid=8200, icid=3), "mapti_unmapped_device"),
        (Command(op.MAPTI, device=2, event=256, intid=8200, icid=3), "mapti_id_oor"),
        (Command(op.MAPTI, device=2, event=1, intid=8191, icid=3), "mapti_physicalid_oor"),
        (Command(op.MAPTI, device=2, event=1, intid=65536, icid=3), "mapti_physicalid_oor"),
        (Command(op.MAPI, device=2, event=40, icid=3), "mapti_physicalid_oor"),
        (Command(op.MAPTI, device=2, event=1, intid=8200, icid=0x2000), "mapc_collection_oor"),
        (Command(op.MOVI, device=2, event=21, icid=2), "movi_unmapped_interrupt"),
        (Command(op.MOVI, device=2, event=20, icid=9), "movi_unmapped_collection"),
        (Command(op.DISCARD, device=2, event=21), "discard_unmapped_interrupt"),
        (Command(op.CLEAR, device=2, event=21), "clear_unmapped_interrupt"),
        (Command(op.INV, device=2, event=21), "inv_unmapped_interrupt"),
        (Command(op.INVALL, icid=9), "invall_unmapped_collection"),
        (Command(op.MOVALL, rdbase=4, rdbase2=0), "movall_procnum_oor"),
        (Command(op.MOVALL, rdbase=0, rdbase2=4), "movall_procnum_oor"),
        (Command(op.INT, device=3, event=0), "int_unmapped_interrupt"),
        (b"\x7f" + bytes(31), "unknown"),
    ],
)
async def test_errors_are_skipped_and_counted_by_kind(mapped: Rig, command: Command | bytes, kind: str) -> None:
    await mapped.run(command, Command(op.INT, device=2, event=20))
    assert kinds(mapped) == {kind: 1}
    assert mapped.taken == [(3, 8195, 0)]


async def test_int_where_lpis_are_off(mapped: Rig) -> None:
    await mapped.write(0, 0, 4, "gicr3")
    await mapped.run(Command(op.INT, device=2, event=20))
    assert kinds(mapped) == {"int_lpis_off": 1}


async def test_commands_are_counted_by_name(mapped: Rig) -> None:
    counts = asdict(mapped.its.commands)
    assert {name: count for name, count in counts.items() if count} == {
        "command_mapd": 2, "command_mapc": 2, "command_mapti": 2, "command_invall": 2,
    }  # fmt: skip


async def test_discard_drops_mapping_and_pending_state(mapped: Rig) -> None:
    mapped.its.hold()
    await mapped.run(Command(op.INT, device=2, event=20), Command(op.DISCARD, device=2, event=20))
    assert mapped.its.pending(3) == []
    assert await mapped.its.msi(2, 20, 1) == "unmapped"
    await mapped.run(Command(op.MAPTI, device=2, event=20, intid=8300, icid=2), Command(op.INT, device=2, event=20))
    assert mapped.its.pending(2) == [8300]


async def test_clear_drops_pending_state_only(mapped: Rig) -> None:
    mapped.its.hold()
    await mapped.run(Command(op.INT, device=2, event=20), Command(op.CLEAR, device=2, event=20))
    assert mapped.its.pending(3) == []
    await mapped.run(Command(op.INT, device=2, event=20))
    assert mapped.its.pending(3) == [8195]


async def test_movi_takes_pending_state_along(mapped: Rig) -> None:
    mapped.its.hold()
    mapped.its.try_msi(2, 20, 1)
    await mapped.run(Command(op.MOVI, device=2, event=20, icid=2))
    assert (mapped.its.pending(3), mapped.its.pending(2)) == ([], [8195])
    mapped.its.resume()
    assert mapped.taken == [(2, 8195, 1)]
    mapped.its.eoi(2, 8195, 1)
    assert mapped.done == [(2, 20, 1)]


async def test_movi_to_the_same_pe(mapped: Rig) -> None:
    mapped.its.hold()
    await mapped.run(
        Command(op.MAPC, icid=5, rdbase=3, valid=1),
        Command(op.INT, device=2, event=20),
        Command(op.MOVI, device=2, event=20, icid=5),
    )
    assert mapped.its.pending(3) == [8195]


async def test_movi_while_the_old_vcpu_holds_it(mapped: Rig) -> None:
    its = mapped.its
    its.try_msi(2, 20, 1)
    await mapped.run(Command(op.MOVI, device=2, event=20, icid=2))
    its.try_msi(2, 20, 2)
    assert mapped.taken == [(3, 8195, 1), (2, 8195, 2)]
    its.eoi(2, 8195, 2)
    its.eoi(3, 8195, 1)
    assert mapped.done == [(2, 20, 2)]
    assert list(its.redistributors[3]) == []


async def test_movall_moves_what_is_pending_and_leaves_mappings(mapped: Rig) -> None:
    mapped.its.hold()
    await mapped.run(Command(op.INT, device=2, event=20), Command(op.MOVALL, rdbase=3, rdbase2=1))
    assert (mapped.its.pending(3), mapped.its.pending(1)) == ([], [8195])
    await mapped.run(Command(op.MOVALL, rdbase=1, rdbase2=1), Command(op.INT, device=2, event=20))
    assert (mapped.its.pending(3), mapped.its.pending(1)) == ([8195], [8195])


async def test_mapc_to_another_pe_moves_pending_state(mapped: Rig) -> None:
    mapped.its.hold()
    await mapped.run(Command(op.INT, device=2, event=20), Command(op.MAPC, icid=3, rdbase=0, valid=1))
    assert (mapped.its.pending(3), mapped.its.pending(0)) == ([], [8195])


async def test_mapc_unmap_loses_the_collection_for_good(mapped: Rig) -> None:
    await mapped.run(
        Command(op.MAPC, icid=3, valid=0),
        Command(op.MAPC, icid=9, valid=0),
        Command(op.MAPC, icid=3, rdbase=3, valid=1),
        Command(op.INT, device=2, event=20),
        Command(op.CLEAR, device=2, event=20),
        Command(op.DISCARD, device=2, event=20),
        Command(op.INV, device=2, event=20),
    )
    assert kinds(mapped) == {
        "int_unmapped_interrupt": 1, "clear_unmapped_interrupt": 1, "discard_unmapped_interrupt": 1,
    }  # fmt: skip


async def test_mapti_on_a_mapped_event_keeps_the_old_one(mapped: Rig) -> None:
    await mapped.run(Command(op.MAPTI, device=2, event=20, intid=8300, icid=2), Command(op.INT, device=2, event=20))
    assert mapped.taken == [(3, 8195, 0)]


async def test_mapi_uses_the_event_as_intid(rig: Rig) -> None:
    await rig.run(
        Command(op.MAPD, device=1, size=15, itt=ITT, valid=1),
        Command(op.MAPC, icid=0, rdbase=1, valid=1),
        Command(op.MAPI, device=1, event=8200, icid=0),
        Command(op.INT, device=1, event=8200),
    )
    assert rig.taken == [(1, 8200, 0)]


async def test_mapd_again_frees_the_old_mappings(mapped: Rig) -> None:
    mapped.its.hold()
    await mapped.run(
        Command(op.INT, device=2, event=20),
        Command(op.MAPD, device=2, size=3, itt=ITT + 0x20000, valid=1),
        Command(op.INT, device=2, event=20),
    )
    assert mapped.its.pending(3) == []
    assert kinds(mapped) == {"int_unmapped_interrupt": 1}
    assert mapped.its.control.events == 1


async def test_two_events_share_an_lpi(mapped: Rig) -> None:
    its = mapped.its
    await mapped.run(Command(op.MAPTI, device=2, event=21, intid=8195, icid=3))
    assert its.try_msi(2, 20, 5)
    assert its.try_msi(2, 21, 1)
    assert mapped.taken == [(3, 8195, 0)]
    await mapped.run(Command(op.DISCARD, device=2, event=20))
    its.eoi(3, 8195, 0)
    assert mapped.taken == [(3, 8195, 0), (3, 8195, 1)]
    its.eoi(3, 8195, 1)
    assert mapped.done == [(2, 20, 5), (2, 21, 1)]


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


async def test_a_storm_of_walks_ends_its_slice_early(mapped: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gic_its.core.WORK", 1)
    flips = [Command(op.MAPC, icid=3, rdbase=n % 2, valid=1) for n in range(200)]
    await mapped.run(*flips, Command(op.INT, device=2, event=20))
    assert mapped.taken == [(1, 8195, 0)]
    assert mapped.its.commands.command_mapc == 202
