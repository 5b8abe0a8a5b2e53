"""Frames, command queue, MSIs, reset: the ITS as a guest and its devices see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import FrameError
from common.gic import commands as op
from common.gic.commands import COMMANDS, Command, encode
from common.gic.entries_qemu import Dte
from common.gic.lpi import config_byte
from common.memory import GuestMemory
from services.gic_its.core import SPURIOUS
from services.gic_its.profile import KVM, QEMU, Profile
from tests.services.gic_its.dma_kinds import Journal, gated, turns, until

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

INT_2_20 = Command(op.INT, device=2, event=20)
INT_7_255 = Command(op.INT, device=7, event=255)


class TestKvmUnitTestsTrigger:
    """kvm-unit-tests arm/gic.c, its-trigger."""

    async def test_int_reaches_the_right_pe_once(self, mapped: Rig) -> None:
        await mapped.run(INT_2_20)
        assert mapped.taken == [(3, 8195, 0)]
        await mapped.run(INT_7_255)
        assert mapped.taken == [(3, 8195, 0), (2, 8196, 0)]

    async def test_config_off_inv_int_gives_none(self, mapped: Rig) -> None:
        mapped.config(8195, config_byte(False))
        await mapped.run(Command(op.INV, device=2, event=20), INT_2_20)
        assert mapped.taken == []

    async def test_on_int_invall_has_arrived_by_the_end_of_invall(self, mapped: Rig) -> None:
        mapped.config(8195, config_byte(False))
        await mapped.run(Command(op.INV, device=2, event=20))
        mapped.config(8195, config_byte(True))
        await mapped.run(INT_2_20)
        assert mapped.taken == []
        await mapped.run(Command(op.INVALL, icid=3))
        assert mapped.taken == [(3, 8195, 0)]

    async def test_mapd_v0_int_gives_none(self, mapped: Rig) -> None:
        await mapped.run(Command(op.MAPD, device=2, size=7, valid=0), INT_2_20)
        assert mapped.taken == []
        assert mapped.its.errors.int_unmapped_interrupt == 1

    async def test_unmapped_collection(self, rig: Rig) -> None:
        await rig.run(
            Command(op.MAPD, device=2, size=7, itt=0x43000000, valid=1),
            Command(op.MAPTI, device=2, event=20, intid=8195, icid=3),
            INT_2_20,
        )
        assert rig.taken == []
        assert rig.its.errors.int_unmapped_interrupt == 1
        await rig.run(Command(op.MAPC, icid=3, rdbase=3, valid=1), Command(op.INVALL, icid=3), INT_2_20)
        assert rig.taken == [(3, 8195, 0)]


class TestMsi:
    async def test_try_msi_delivers_and_eoi_confirms(self, mapped: Rig) -> None:
        its = mapped.its
        assert its.try_msi(2, 20, 1)
        assert its.try_msi(2, 20, 2)
        assert mapped.taken == [(3, 8195, 1)]
        its.eoi(3, 8195, 1)
        its.eoi(3, 8195, 2)
        assert mapped.taken == [(3, 8195, 1), (3, 8195, 2)]
        assert mapped.done == [(2, 20, 1), (2, 20, 2)]

    async def test_refusals_say_why_and_are_never_confirmed(self, mapped: Rig) -> None:
        its = mapped.its
        assert not its.try_msi(9, 0, 1)
        assert await its.msi(9, 0, 1) == "unmapped"
        assert await its.msi(2, 21, 1) == "unmapped"
        await mapped.write(0, 0, 4, "gicr3")
        assert not its.try_msi(2, 20, 1)
        assert await its.msi(2, 20, 1) == "lpis_off"
        await mapped.run(Command(op.MAPC, icid=2, valid=0))
        assert await its.msi(7, 255, 1) == "unmapped"
        await mapped.write(0, 0, 4)
        assert not its.try_msi(7, 255, 1)
        assert await its.msi(7, 255, 1) == "disabled"
        assert (its.stats.unmapped, its.stats.lpis_off, its.stats.disabled) == (3, 1, 1)
        assert mapped.done == mapped.taken == []

    async def test_msi_takes_what_try_msi_takes(self, mapped: Rig) -> None:
        assert await mapped.its.msi(2, 20, 1) == ""
        assert mapped.taken == [(3, 8195, 1)]

    @pytest.mark.parametrize("eoi", [(9, 8195, 0), (-1, 8195, 0), (3, 9000, 0), (3, 8195, 0), (3, 8195, -1)])
    async def test_stray_eois_are_counted(self, mapped: Rig, eoi: tuple[int, int, int]) -> None:
        mapped.its.eoi(*eoi)
        assert mapped.its.stats.stray_eois == 1

    async def test_hold_and_resume(self, mapped: Rig) -> None:
        its = mapped.its
        its.try_msi(2, 20, 1)
        its.hold()
        its.try_msi(7, 255, 1)
        its.try_msi(2, 20, 2)
        its.eoi(3, 8195, 1)
        assert (its.pending(2), its.pending(3)) == ([8196], [8195])
        its.resume()
        assert mapped.taken == [(3, 8195, 1), (2, 8196, 1), (3, 8195, 2)]
        assert its.control.outstanding == 2

    @pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
    async def test_a_cpu_write_to_translater(self, rigs: type[Rig], profile: Profile) -> None:
        """KVM: it has no DeviceID. QEMU: it is one of device 0, whatever its size."""
        rig = rigs(profile=profile)
        await rig.start()
        await rig.run(
            Command(op.MAPD, device=0, size=7, itt=0x43000000, valid=1),
            Command(op.MAPC, icid=1, rdbase=1, valid=1),
            Command(op.MAPTI, device=0, event=20, intid=8200, icid=1),
        )
        await rig.write(0x40, 0xFFFF_0014, 2, "trans")
        if profile is KVM:
            assert rig.taken == []
            assert rig.its.stats.unmapped == 1
            return
        assert rig.taken == [(1, 8200, 1)]
        rig.its.eoi(1, 8200, 1)
        await rig.write(0x40, 20, 4, "trans")
        await rig.write(0x40, 21, 4, "trans")
        assert rig.taken == [(1, 8200, 1), (1, 8200, 2)]
        assert rig.its.stats.unmapped == 1

    async def test_a_table_fault_is_a_reason_too(self, rigs: type[Rig]) -> None:
        rig = rigs(profile=QEMU)
        await rig.start()
        await rig.standard()
        rig.memory.write(0x42200000 + 8 * 2, Dte(True, 0x7000_0000, 8).pack())
        assert await rig.its.msi(2, 20, 1) == "fault"
        assert rig.its.stats.unreadable_msis == 1
        assert await rig.its.msi(7, 255, 1) == ""

    async def test_a_reset_overtakes_an_msi_that_is_looked_up(self) -> None:
        rig, gate = await gated(QEMU)
        gate.open = False
        msi = asyncio.create_task(rig.its.msi(2, 20, 1))
        await turns()
        rig.its.reset()
        gate.step()
        assert await msi == "disabled"
        assert (rig.taken, rig.its.stats.disabled) == ([], 1)

    async def test_a_reset_overtakes_lpis_that_are_switched_on(self) -> None:
        rig, gate = await gated()
        for overtaken in (1, 2):
            await rig.start(ptz=False)
            await rig.write(0, 0, 4, "gicr3")
            gate.open = False
            writes = [asyncio.create_task(rig.write(0, 1, 4, "gicr3")) for _ in range(overtaken)]
            await turns()
            rig.its.reset()
            gate.open = True
            gate.step()
            await asyncio.gather(*writes)
            assert not rig.its.redistributors[3].port.enabled
            assert await rig.read(0, 4, "gicr3") & 1 == 0

    async def test_an_msi_that_waits_for_lpis_to_be_switched_on(self) -> None:
        """It is looked up after a slice of commands, and after whoever switches LPIs on behind that."""
        rig, gate = await gated()
        await rig.write(0, 0, 4, "gicr3")
        gate.open = False
        rig.queue(Command(op.MAPD, device=9, size=3, itt=0x43020000, valid=1))
        write = asyncio.create_task(rig.write(0x88, rig.at))
        await turns()
        gate.step()  # the slice is read; MAPD looks at its entry
        await turns()
        switched = asyncio.create_task(rig.write(0, 1, 4, "gicr3"))
        await turns()
        msi = asyncio.create_task(rig.its.msi(2, 20, 1))
        await turns()
        gate.open = True
        gate.step()
        assert await msi == ""
        await asyncio.gather(write, switched)
        assert rig.taken == [(3, 8195, 1)]

    async def test_a_configuration_that_is_not_there_leaves_the_lpi_off(self, rigs: type[Rig]) -> None:
        rig = rigs(profile=QEMU)
        await rig.start()
        await rig.standard()
        await rig.write(0x70, 0x7000_000F, frame="gicr3")
        assert await rig.its.msi(2, 20, 1) == ""
        assert rig.its.pending(3) == [8195]
        assert rig.its.stats.config_faults == 1
        await rig.write(0x70, 0x4260_000F, frame="gicr3")
        await rig.run(Command(op.INVALL, icid=3))
        assert rig.taken == [(3, 8195, 1)]


class TestAcknowledge:
    """ICC_IAR1_EL1 of a vCPU that is held."""

    async def test_priority_then_intid(self, mapped: Rig) -> None:
        its = mapped.its
        its.hold()
        for event, priority in ((30, 0xA0), (31, 0x40), (32, 0x40), (33, 0x10)):
            mapped.config(8300 + event, config_byte(event != 33, priority))
            await mapped.run(Command(op.MAPTI, device=2, event=event, intid=8300 + event, icid=3))
        for event in (30, 33, 32, 31):
            assert its.try_msi(2, event, 1)
        assert [its.acknowledge(3)[0] for _ in range(4)] == [8331, 8332, 8330, SPURIOUS]
        assert its.pending(3) == [8333]
        assert its.acknowledge(2) == (SPURIOUS, 0)

    async def test_what_is_acknowledged_is_ended_by_its_number(self, mapped: Rig) -> None:
        its = mapped.its
        its.hold()
        its.try_msi(2, 20, 1)
        intid, number = its.acknowledge(3)
        assert (intid, number) == (8195, 1)
        its.try_msi(2, 20, 2)
        its.eoi(3, intid, number)
        assert mapped.done == [(2, 20, 1)]
        assert its.acknowledge(3) == (8195, 2)

    async def test_nothing_where_lpis_or_the_group_are_off(self, mapped: Rig) -> None:
        its = mapped.its
        its.hold()
        its.try_msi(2, 20, 1)
        await mapped.write(0, 0x11, 4, "gicd")
        assert its.acknowledge(3) == (SPURIOUS, 0)
        await mapped.write(0, 0x13, 4, "gicd")
        its.redistributors[3].port.enabled = False
        assert its.acknowledge(3) == (SPURIOUS, 0)
        its.redistributors[3].port.enabled = True
        assert its.acknowledge(3) == (8195, 1)


class TestGroup1:
    async def test_lpis_wait_until_the_distributor_lets_them_through(self, mapped: Rig) -> None:
        await mapped.write(0, 0, 4, "gicd")
        mapped.config(8196, config_byte(True, 0x10))
        await mapped.run(Command(op.MAPC, icid=2, rdbase=3, valid=1), Command(op.INVALL, icid=2), INT_2_20, INT_7_255)
        assert mapped.its.pending(3) == [8195, 8196]
        assert mapped.taken == []
        await mapped.write(0, 0x13, 4, "gicd")
        assert mapped.taken == [(3, 8196, 0), (3, 8195, 0)]
        await mapped.write(0, 0x11, 4, "gicd")
        mapped.its.eoi(3, 8195, 0)
        assert mapped.its.try_msi(2, 20, 1)
        assert len(mapped.taken) == 2


class TestFrames:
    @pytest.mark.parametrize(
        ("frame", "offset", "size", "field"),
        [("gicr4", 0, 4, "frame"), ("gic", 0, 4, "frame"), ("its", 0x10000, 4, "offset"), ("its", -4, 4, "offset"),
         ("its", 0xFFFC, 8, "offset"), ("its", 0, 3, "size"), ("its", 0, 0, "size")],
    )  # fmt: skip
    async def test_bad_accesses_name_the_field(self, rig: Rig, frame: str, offset: int, size: int, field: str) -> None:
        with pytest.raises(FrameError, match=f"mmio.{field}"):
            await rig.read(offset, size, frame)
        with pytest.raises(FrameError, match=f"mmio.{field}"):
            await rig.write(offset, 0, size, frame)

    async def test_enable_needs_both_tables_and_the_queue(self, rigs: type[Rig]) -> None:
        for missing in (0x80, 0x100, 0x108):
            rig = rigs()
            await rig.start(enable=False)
            await rig.write(missing, 0)
            await rig.write(0, 1, 4)
            assert await rig.read(0, 4) & 1 == 0
            assert rig.its.stats.enables_refused == 1

    async def test_tables_and_queue_are_fixed_while_enabled(self, mapped: Rig) -> None:
        for offset in (0x80, 0x100, 0x108):
            before = await mapped.read(offset)
            await mapped.write(offset, 0)
            assert await mapped.read(offset) == before
        await mapped.run(INT_2_20)
        assert mapped.taken == [(3, 8195, 0)]

    async def test_cbaser_moves_both_ends_of_the_queue(self, mapped: Rig) -> None:
        await mapped.write(0, 0, 4)
        await mapped.write(0x80, await mapped.read(0x80))
        assert (await mapped.read(0x88), await mapped.read(0x90)) == (0, 0)

    async def test_clearing_a_baser_forgets_its_mappings(self, mapped: Rig) -> None:
        its = mapped.its
        await mapped.write(0, 0, 4)
        await mapped.write(0x108, 0)
        assert its.control.collections == ()
        await mapped.write(0x100, 0)
        assert its.control.devices == ()
        assert its.control.events == 0
        assert not any(lpi for rd in its.redistributors for lpi in rd)

    async def test_creadr_is_read_only(self, mapped: Rig) -> None:
        await mapped.write(0x90, 0x40)
        assert await mapped.read(0x90) == mapped.at


class TestReset:
    @pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
    async def test_old_mappings_do_not_come_back(self, rigs: type[Rig], profile: Profile) -> None:
        rig = rigs(profile=profile)
        await rig.start()
        await rig.standard()
        its = rig.its
        assert await its.msi(2, 20, 1) == ""
        tables = rig.memory.read(0x42200000, 0x400000)
        its.reset()
        assert rig.memory.read(0x42200000, 0x400000) == tables
        assert await rig.read(0, 4) == 1 << 31
        assert await rig.read(0, 4, "gicd") & 2 == 0
        assert its.control.outstanding == 0
        its.eoi(3, 8195, 1)
        assert rig.done == []
        rig.memory.fill(0x42200000, 0x400000, 0)
        await rig.start()
        assert await its.msi(2, 20, 2) == "unmapped"
        await rig.standard()
        assert await its.msi(2, 20, 1) == ""
        assert rig.taken == [(3, 8195, 1), (3, 8195, 1)]

    async def test_what_was_posted_before_lands_before(self, rigs: type[Rig]) -> None:
        """Not with the next commit, when the memory may be somebody else's."""
        journals: list[Journal] = []

        def dma(memory: GuestMemory) -> Journal:
            journals.append(Journal(memory))
            return journals[0]

        rig = rigs(dma=dma)
        await rig.start()
        await rig.run(Command(op.MAPD, device=2, size=15, itt=0x43000000, valid=1))
        await rig.run(Command(op.MAPC, icid=3, rdbase=3, valid=1))
        await rig.run(*(Command(op.MAPTI, device=2, event=n, intid=8192 + n, icid=3) for n in range(1500)))
        rig.queue(Command(op.MAPC, icid=3, valid=0))
        write = asyncio.create_task(rig.write(0x88, rig.at))
        await until(lambda: bool(journals[0].posted))
        rig.its.reset()
        await write
        assert journals[0].posted == []


SMALL = {"device": 8, "event": 6, "icid": 5, "rdbase": 5, "rdbase2": 5, "size": 3, "valid": 1}


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A command: sensible small fields, any fields, or any bytes."""
    kind = draw(st.sampled_from(["small", "small", "small", "any", "bytes"]))
    if kind == "bytes":
        return draw(st.binary(min_size=32, max_size=32))
    spec = draw(st.sampled_from(COMMANDS))
    values = {}
    for name, _, field in spec.fields:
        if kind == "any":
            values[name] = draw(st.integers(0, field.limit)) << field.scale
        elif name == "itt":
            values[name] = draw(st.sampled_from([0x43000000, 0x43010000, 0x700000000000]))
        elif name == "intid":
            values[name] = draw(st.integers(8190, 8200))
        else:
            values[name] = draw(st.integers(0, SMALL[name]))
    return encode(Command(spec.op, **values))


@settings(max_examples=60, deadline=None)
@given(
    stream=st.lists(hostile(), min_size=1, max_size=60),
    msis=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6)), max_size=12),
)
@pytest.mark.parametrize("profile", [KVM, QEMU], ids=lambda profile: profile.name)
async def test_no_stream_of_commands_breaks_the_its(
    rigs: type[Rig], profile: Profile, stream: list[bytes], msis: list[tuple[int, int]]
) -> None:
    """Invariant: nothing raises, CREADR reaches CWRITER unless it is stalled, the books agree with each other."""
    rig = rigs(cpus=2, profile=profile)
    await rig.start()
    its = rig.its
    for number in range(1, 3):
        rig.queue(*stream)
        await rig.write(0x88, rig.at)
        assert its.queue.outstanding == 0 or await rig.read(0x90) & 1
        for device, event in msis:
            await its.msi(device, event, number)
    for vcpu, intid, count in rig.taken:
        its.eoi(vcpu, intid, count)
    for vcpu, redistributor in enumerate(its.redistributors):
        for lpi in redistributor:
            assert lpi.port.vcpu == vcpu
            assert (lpi.intid in its.pending(vcpu)) == lpi.pending
            assert profile is QEMU or lpi.events or lpi.pending or lpi.out >= 0
            assert lpi.events >= 0
    assert its.control.outstanding == sum(lpi.out >= 0 for rd in its.redistributors for lpi in rd)
    await rig.write(0, 0, 4)
    await rig.write(0x100, 0)
    assert its.control.events == 0
    assert its.control.devices == ()
    assert not any(lpi.events for redistributor in its.redistributors for lpi in redistributor)
