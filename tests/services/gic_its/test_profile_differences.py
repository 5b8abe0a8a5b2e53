"""Where KVM and QEMU differ, one fact after the other: each row is told by what the two show."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from common.gic import commands as op
from common.gic.commands import Command, encode
from services.gic_its.profile import KVM, QEMU
from tests.services.gic_its.conftest import COLLECTIONS, DEVICES, ITT, Rig

CTLR, IIDR, TYPER, CBASER, CWRITER, CREADR, BASER0, BASER1 = 0x0, 0x4, 0x8, 0x80, 0x88, 0x90, 0x100, 0x108
INT = Command(op.INT, device=2, event=20)
VALID = 1 << 63

Look = Callable[[Rig], Awaitable[Any]]


async def stall(rig: Rig) -> object:
    """A fault in an ITT."""
    rig.queue(Command(op.MAPD, device=9, size=7, itt=0x7000_0000, valid=1))
    rig.queue(Command(op.MAPTI, device=9, event=0, intid=8200, icid=3), Command(op.INT, device=9, event=0))
    start = rig.at - 0x60
    await rig.write(CWRITER, rig.at)
    creadr = await rig.read(CREADR)
    return hex(creadr - start), rig.taken


async def enable_without(rig: Rig) -> object:
    await rig.write(CTLR, 0, 4)
    seen = []
    for offset in (CBASER, BASER0, BASER1):
        value = await rig.read(offset)
        await rig.write(offset, value & ~VALID)
        await rig.write(CTLR, 1, 4)
        seen.append(await rig.read(CTLR, 4) & 1)
        await rig.write(CTLR, 0, 4)
        await rig.write(offset, value)
    return seen, rig.its.stats.enables_refused


async def cwriter_past(rig: Rig) -> object:
    before = rig.at
    rig.queue(INT)
    await rig.write(CWRITER, 0x10000)
    return hex(await rig.read(CWRITER) - before), rig.taken


async def cwriter_bits(rig: Rig) -> object:
    await rig.write(CWRITER, 0xABCD << 32 | rig.at | 0x1E)
    return hex(await rig.read(CWRITER) - rig.at)


async def cbaser(rig: Rig) -> object:
    await rig.write(CTLR, 0, 4)
    await rig.write(CBASER, VALID | 0x4200_1000)
    address = await rig.read(CBASER) & 0xFFFF_FFFF_F000
    return await rig.read(CREADR), hex(await rig.read(CWRITER)), hex(address)


async def creadr_write(rig: Rig) -> object:
    await rig.write(CREADR, 0x20)
    return await rig.read(CREADR) == 0x20, await rig.read(CREADR) == rig.at


async def creadr_write_with_two_security_states(rig: Rig) -> object:
    rig.its.distributor.registers.set("GICD_CTLR", 0x13)
    return (await creadr_write(rig), rig.its.stats.creadr_writes)


async def quiescent(rig: Rig) -> object:
    await rig.write(CTLR, 0, 4)
    rig.queue(INT)
    await rig.write(CWRITER, rig.at)
    return await rig.read(CTLR, 4) >> 31


async def page_sizes(rig: Rig) -> object:
    await rig.write(CTLR, 0, 4)
    seen = []
    for size in range(4):
        await rig.write(BASER0, VALID | size << 8 | DEVICES)
        seen.append(await rig.read(BASER0) >> 8 & 3)
    await rig.write(BASER1, VALID | 1 << 62 | COLLECTIONS)
    return seen, await rig.read(BASER1) >> 62 & 1


async def mapti_again(rig: Rig) -> object:
    await rig.run(Command(op.MAPTI, device=2, event=20, intid=8300, icid=2), INT)
    return rig.taken


async def upper_limit(rig: Rig) -> object:
    for cpu in range(4):
        frame = f"gicr{cpu}"
        await rig.write(0, 0, 4, frame)
        await rig.write(0x70, 0x4260_000D, frame=frame)  # 14 bits
        await rig.write(0, 1, 4, frame)
    await rig.run(
        Command(op.MAPTI, device=2, event=1, intid=16383, icid=3),
        Command(op.MAPTI, device=2, event=2, intid=16384, icid=3),
        Command(op.MAPTI, device=2, event=3, intid=65536, icid=3),
        Command(op.INT, device=2, event=1),
        Command(op.INT, device=2, event=2),
    )
    errors = rig.its.errors
    return errors.mapti_physicalid_oor, errors.int_unmapped_interrupt, errors.int_lpis_off, rig.taken


async def mapc_retarget(rig: Rig) -> object:
    rig.its.hold()
    await rig.run(INT, Command(op.MAPC, icid=3, rdbase=0, valid=1))
    first = rig.its.pending(3), rig.its.pending(0)
    await rig.run(INT)
    return first, (rig.its.pending(3), rig.its.pending(0))


async def mapc_off_and_on(rig: Rig) -> object:
    await rig.run(Command(op.MAPC, icid=3, valid=0), INT, Command(op.MAPC, icid=3, rdbase=1, valid=1), INT)
    return rig.taken


async def mapd_off_and_on(rig: Rig) -> object:
    await rig.run(Command(op.MAPD, device=2, valid=0), INT, Command(op.MAPD, device=2, size=7, itt=ITT, valid=1), INT)
    return rig.taken


async def mapd_off_with_a_size(rig: Rig) -> object:
    await rig.run(Command(op.MAPD, device=2, size=20, valid=0), INT)
    return rig.its.errors.mapd_ittsize_oor, rig.taken


async def mapc_off_beyond(rig: Rig) -> object:
    await rig.run(Command(op.MAPC, icid=0x2000, valid=0))
    return rig.its.errors.mapc_collection_oor


async def wiped_tables(rig: Rig) -> object:
    rig.memory.fill(DEVICES, 0x1000, 0)
    await rig.run(INT)
    return rig.taken


async def entry_sizes(rig: Rig) -> object:
    typer = await rig.read(TYPER)
    return (typer >> 4 & 0xF) + 1, typer >> 36 & 1, [await rig.read(BASER0 + 8 * n) >> 48 & 0x1F for n in range(2)]


async def identification(rig: Rig) -> object:
    offsets = (0xFFE0, 0xFFE4, 0xFFE8, 0xFFEC, 0xFFD0, 0xFFF0, 0xFFF4, 0xFFF8, 0xFFFC)
    return hex(await rig.read(IIDR, 4)), bytes([await rig.read(offset, 4) for offset in offsets]).hex()


async def translater(rig: Rig) -> object:
    await rig.run(Command(op.MAPD, device=0, size=7, itt=ITT + 0x20000, valid=1),
                  Command(op.MAPTI, device=0, event=5, intid=8200, icid=3))  # fmt: skip
    await rig.write(0x40, 5, 4, "trans")
    return [intid for _, intid, _ in rig.taken]


async def invall(rig: Rig) -> object:
    """Both LPIs go off in memory; INVALL names the collection of one."""
    rig.config(8195, 0)
    rig.config(8196, 0)
    rig.its.hold()
    await rig.run(INT, Command(op.INT, device=7, event=255), Command(op.INVALL, icid=3))
    rig.its.resume()
    return sorted(intid for _, intid, _ in rig.taken)


async def invall_of_no_collection(rig: Rig) -> object:
    await rig.run(Command(op.INVALL, icid=99))
    return rig.its.errors.invall_unmapped_collection


async def table_bases(rig: Rig) -> object:
    await rig.write(0x70, 0x4261_000F, frame="gicr0")
    return await rig.read(0x70, frame="gicr0") == 0x4261_000F, await rig.read(0x78, frame="gicr0") >> 62 & 1


async def rdbase_bits(rig: Rig) -> object:
    """Which bits of RDbase count: one far up for MAPC (RDbase bit 24), one at the top for MOVALL (bit 33)."""

    def with_bit(command: Command, bit: int) -> bytes:
        data = bytearray(encode(command))
        data[16 + bit // 8] |= 1 << bit % 8
        return bytes(data)

    await rig.run(
        with_bit(Command(op.MAPC, icid=9, rdbase=1, valid=1), 40), with_bit(Command(op.MOVALL, rdbase=1, rdbase2=2), 49)
    )
    return rig.its.errors.mapc_procnum_oor, rig.its.errors.movall_procnum_oor


FACTS: list[tuple[Look, object, object]] = [
    (stall, ("0x60", [(3, 8200, 0)]), ("0x21", [])),
    (enable_without, ([0, 0, 0], 3), ([1, 1, 1], 0)),
    (cwriter_past, ("0x0", []), ("0xff00", [])),
    (cwriter_bits, "0x0", hex(0xABCD << 32 | 0x1E)),
    (cbaser, (0, "0x0", "0x42000000"), (0, "0x100", "0x42001000")),
    (creadr_write, (False, True), (True, False)),
    (creadr_write_with_two_security_states, ((False, True), 0), ((False, True), 0)),
    (quiescent, 0, 1),
    (page_sizes, ([2, 2, 2, 2], 0), ([0, 1, 2, 3], 1)),
    (mapti_again, [(3, 8195, 0)], [(2, 8300, 0)]),
    (upper_limit, (2, 1, 0, [(3, 16383, 0)]), (1, 0, 1, [(3, 16383, 0)])),
    (mapc_retarget, (([], [8195]), ([], [8195])), (([8195], []), ([8195], [8195]))),
    (mapc_off_and_on, [], [(1, 8195, 0)]),
    (mapd_off_and_on, [], [(3, 8195, 0)]),
    (mapd_off_with_a_size, (0, []), (1, [(3, 8195, 0)])),
    (mapc_off_beyond, 0, 1),
    (wiped_tables, [(3, 8195, 0)], []),
    (entry_sizes, (8, 0, [7, 7]), (12, 1, [7, 7])),
    (identification, ("0x4b00043b", "92b43b0040" + "0df005b1"), ("0x43b", "94b43b0044" + "0df005b1")),
    (translater, [], [8200]),
    (invall, [8196], []),
    (invall_of_no_collection, 1, 0),
    (table_bases, (False, 0), (True, 1)),
    (rdbase_bits, (1, 0), (0, 1)),
]


@pytest.mark.parametrize(("look", "kvm", "qemu"), FACTS, ids=lambda look: getattr(look, "__name__", ""))
async def test_a_fact(look: Look, kvm: object, qemu: object) -> None:
    for profile, expected in ((KVM, kvm), (QEMU, qemu)):
        rig = Rig(profile=profile)
        await rig.start()
        await rig.standard()
        assert await look(rig) == expected, profile.name


async def test_every_field_of_the_profile_is_told_by_a_fact() -> None:
    """A profile that has all of KVM's but one field is neither: some fact shows it."""
    told = {
        "stalls", "enable_needs_tables", "drops_cwriter_past_queue", "cbaser_clears_cwriter", "creadr_writable",
        "always_quiescent", "any_page_size", "mapti_obeys_id_bits",
        "unmap_forgets", "holds_tables", "mapd_checks_unmap", "invall_rescans_all", "cpu_device", "loose_redistributor",
        "cil", "itt_entry", "iidr", "ids", "mapc_rdbase", "movall_rdbase", "enable_obeys_ptz",
    }  # fmt: skip
    same = {"device_bits", "event_bits", "icid_bits", "name"}
    differ = {name for name in KVM.__dataclass_fields__ if getattr(KVM, name) != getattr(QEMU, name)}
    assert differ - {"name"} <= told
    assert told | same == set(KVM.__dataclass_fields__)
