"""Each command and each of its error kinds (IHI 0069 §5.3)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from common.gic import commands as op
from common.gic.commands import Command
from common.gic.lpi import config_byte
from services.gic_its.profile import KVM, QEMU, Profile

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

ITT = 0x4300_0000

both = pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)


def kinds(rig: Rig) -> dict[str, int]:
    return {name: count for name, count in asdict(rig.its.errors).items() if count}


#: What both profiles refuse, and as what.
WRONG = [
    (Command(op.MAPD, device=0x10000, size=7, itt=ITT, valid=1), "mapd_device_oor"),
    (Command(op.MAPD, device=0x10000, size=7, itt=ITT, valid=0), "mapd_device_oor"),
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
    (Command(op.MOVI, device=3, event=20, icid=2), "movi_unmapped_interrupt"),
    (Command(op.MOVI, device=2, event=20, icid=9), "movi_unmapped_collection"),
    (Command(op.DISCARD, device=2, event=21), "discard_unmapped_interrupt"),
    (Command(op.CLEAR, device=2, event=21), "clear_unmapped_interrupt"),
    (Command(op.INV, device=2, event=21), "inv_unmapped_interrupt"),
    (Command(op.MOVALL, rdbase=4, rdbase2=0), "movall_procnum_oor"),
    (Command(op.MOVALL, rdbase=0, rdbase2=4), "movall_procnum_oor"),
    (Command(op.INT, device=3, event=0), "int_unmapped_interrupt"),
    (Command(op.INT, device=0x10000, event=0), "int_unmapped_interrupt"),
    (Command(op.INT, device=2, event=256), "int_unmapped_interrupt"),
    (b"\x7f" + bytes(31), "unknown"),
]


@both
@pytest.mark.parametrize(("command", "kind"), WRONG)
async def test_errors_are_skipped_and_counted_by_kind(
    rigs: type[Rig], profile: Profile, command: Command | bytes, kind: str
) -> None:
    rig = rigs(profile=profile)
    await rig.start()
    await rig.standard()
    parts = [(0x4220_0000, 0x4_0000), (0x4240_0000, 0x1_0000), (ITT, 0x2_0000), (0x4270_0000, 0x8_0000)]
    image = [rig.memory.read(addr, length) for addr, length in parts]
    await rig.run(command)
    assert [rig.memory.read(addr, length) for addr, length in parts] == image
    await rig.run(Command(op.INT, device=2, event=20))
    assert kinds(rig) == {kind: 1}
    assert rig.taken == [(3, 8195, 0)]


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


@both
@pytest.mark.parametrize("valid", [0, 1])
async def test_mapd_frees_mappings_and_leaves_what_is_pending(rigs: type[Rig], profile: Profile, valid: int) -> None:
    rig = rigs(profile=profile)
    await rig.start()
    await rig.standard()
    rig.its.hold()
    await rig.run(
        Command(op.INT, device=2, event=20),
        Command(op.MAPD, device=2, size=5, itt=ITT + 0x20000, valid=valid),
        Command(op.INT, device=2, event=20),
    )
    assert rig.its.pending(3) == [8195]
    assert kinds(rig) == {"int_unmapped_interrupt": 1}
    rig.its.resume()
    assert rig.taken == [(3, 8195, 0)]
    rig.its.eoi(3, 8195, 0)
    assert list(rig.its.redistributors[3]) == []


async def test_two_events_share_an_lpi(mapped: Rig) -> None:
    its = mapped.its
    await mapped.run(Command(op.MAPTI, device=2, event=21, intid=8195, icid=3))
    assert its.try_msi(2, 20, 5)
    assert its.try_msi(2, 21, 1)
    assert mapped.taken == [(3, 8195, 5)]
    await mapped.run(Command(op.DISCARD, device=2, event=20))  # clears the LPI, whoever raised it
    assert mapped.done == [(2, 21, 1)]
    its.eoi(3, 8195, 5)
    assert mapped.done == [(2, 21, 1), (2, 20, 5)]
    assert its.try_msi(2, 21, 2)
    assert mapped.taken == [(3, 8195, 5), (3, 8195, 2)]


@both
@pytest.mark.parametrize("clear", [op.CLEAR, op.DISCARD])
async def test_clear_and_discard_confirm_what_they_take_away(rigs: type[Rig], profile: Profile, clear: int) -> None:
    rig = rigs(profile=profile)
    await rig.start()
    await rig.standard()
    rig.its.hold()
    assert await rig.its.msi(2, 20, 4) == ""
    assert rig.its.pending(3) == [8195]
    await rig.run(Command(clear, device=2, event=20))
    assert rig.its.pending(3) == []
    assert rig.done == [(2, 20, 4)]
    rig.its.resume()
    assert rig.taken == []


@both
async def test_what_is_pending_moves_with_movi_and_movall(rigs: type[Rig], profile: Profile) -> None:
    """Where both ends are pending they are one afterwards, with the account of both."""
    rig = rigs(profile=profile)
    await rig.start()
    await rig.standard()
    its = rig.its
    its.hold()
    await rig.run(Command(op.MAPTI, device=7, event=1, intid=8195, icid=2))
    assert await its.msi(2, 20, 1) == ""
    assert await its.msi(7, 1, 6) == ""
    assert (its.pending(2), its.pending(3)) == ([8195], [8195])
    await rig.run(Command(op.MOVALL, rdbase=3, rdbase2=2))
    assert (its.pending(2), its.pending(3)) == ([8195], [])
    its.resume()
    assert rig.taken == [(2, 8195, 0)]
    its.eoi(2, 8195, 0)
    assert sorted(rig.done) == [(2, 20, 1), (7, 1, 6)]
    its.hold()
    assert await its.msi(2, 20, 2) == ""
    await rig.run(Command(op.MOVI, device=2, event=20, icid=2))
    assert (its.pending(2), its.pending(3)) == ([8195], [])
    its.resume()
    assert rig.taken[1:] == [(2, 8195, 2)]


async def test_inv_offers_what_it_enabled(mapped: Rig) -> None:
    mapped.config(8195, config_byte(False))
    await mapped.run(Command(op.INV, device=2, event=20), Command(op.INT, device=2, event=20))
    assert mapped.taken == []
    mapped.config(8195, config_byte(True))
    await mapped.run(Command(op.INV, device=2, event=20))
    assert mapped.taken == [(3, 8195, 0)]


@both
async def test_inv_of_what_leads_nowhere_is_no_error(rigs: type[Rig], profile: Profile) -> None:
    rig = rigs(profile=profile)
    await rig.start()
    await rig.standard()
    await rig.run(
        Command(op.MAPTI, device=2, event=21, intid=8200, icid=9),
        Command(op.INV, device=2, event=21),
        Command(op.INV, device=2, event=20),
    )
    await rig.write(0, 0, 4, "gicr3")
    await rig.run(Command(op.INV, device=2, event=20))
    assert kinds(rig) == {}


async def test_what_moves_out_of_sight_is_forgotten(rigs: type[Rig]) -> None:
    """A guest cannot pile up LPIs that nothing leads to."""
    rig = rigs()
    await rig.start()
    await rig.standard()
    rig.its.hold()
    await rig.run(
        Command(op.INT, device=2, event=20),
        Command(op.MAPD, device=2, valid=0),
        Command(op.MOVALL, rdbase=3, rdbase2=1),
    )
    assert list(rig.its.redistributors[3]) == []
    assert rig.its.pending(1) == [8195]
    await rig.run(
        Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
        Command(op.MAPC, icid=1, rdbase=1, valid=1),
        Command(op.MAPTI, device=2, event=20, intid=8195, icid=1),
        Command(op.DISCARD, device=2, event=20),
    )
    assert list(rig.its.redistributors[1]) == []


async def test_an_msi_that_moves_out_of_sight_leaves_nothing_either(mapped: Rig) -> None:
    its = mapped.its
    its.hold()
    assert its.try_msi(2, 20, 1)
    assert its.try_msi(7, 255, 1)
    await mapped.run(
        Command(op.MAPD, device=2, valid=0),
        Command(op.MAPD, device=7, valid=0),
        Command(op.MOVALL, rdbase=3, rdbase2=1),
    )
    assert [len(list(redistributor)) for redistributor in its.redistributors] == [0, 1, 1, 0]
    await mapped.run(
        Command(op.MAPD, device=2, size=7, itt=ITT, valid=1),
        Command(op.MAPTI, device=2, event=20, intid=8195, icid=9),
        Command(op.MAPC, icid=9, rdbase=1, valid=1),
        Command(op.DISCARD, device=2, event=20),
    )
    assert [len(list(redistributor)) for redistributor in its.redistributors] == [0, 0, 1, 0]


async def test_mapc_of_what_leads_nowhere_reads_what_it_does_not_know(mapped: Rig) -> None:
    """One LPI is known at the PE already; another is read; a third leads elsewhere and is left alone."""
    mapped.config(8300, config_byte(False))
    await mapped.run(
        Command(op.MAPTI, device=2, event=1, intid=8195, icid=9),
        Command(op.MAPTI, device=2, event=2, intid=8300, icid=9),
        Command(op.MAPTI, device=2, event=3, intid=8301, icid=9),
        Command(op.MAPC, icid=9, rdbase=3, valid=1),
        *(Command(op.INT, device=2, event=event) for event in (1, 2, 3)),
    )
    assert mapped.taken == [(3, 8195, 0), (3, 8301, 0)]
    assert mapped.its.pending(3) == [8300]


async def test_mapc_where_lpis_are_off_reads_nothing(mapped: Rig) -> None:
    await mapped.write(0, 0, 4, "gicr1")
    await mapped.run(
        Command(op.MAPTI, device=2, event=1, intid=8300, icid=9), Command(op.MAPC, icid=9, rdbase=1, valid=1)
    )
    known = mapped.its.redistributors[1]
    assert [(lpi.configured, lpi.enabled) for lpi in known] == [(False, False)]
    await mapped.write(0, 1, 4, "gicr1")
    assert [(lpi.configured, lpi.enabled) for lpi in known] == [(True, True)]
