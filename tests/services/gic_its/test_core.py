"""Frames, command queue, MSIs, reset: the ITS as a guest and its devices see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import FrameError, MemoryFaultError
from common.gic import commands as op
from common.gic.commands import COMMANDS, Command, encode
from common.gic.lpi import config_byte
from common.memory import GuestMemory

if TYPE_CHECKING:
    from tests.services.gic_its.conftest import Rig

INT_2_20 = Command(op.INT, device=2, event=20)
INT_7_255 = Command(op.INT, device=7, event=255)


class Gate:
    """DMA whose reads wait until they are let through, one ``step`` each; with ``fault`` they fail."""

    def __init__(self, memory: GuestMemory) -> None:
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
        return self.memory.read(addr, length)

    def write(self, addr: int, data: bytes) -> None:
        self.memory.write(addr, data)

    def step(self) -> None:
        self.waiting.pop(0).set_result(None)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


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
        assert await its.msi(2, 20, 1) == "lpis_off"
        await mapped.run(Command(op.MAPC, icid=2, valid=0))
        assert await its.msi(7, 255, 1) == "unmapped"
        await mapped.write(0, 0, 4)
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
        assert its.pending(2) == [8196]
        its.resume()
        assert mapped.taken == [(3, 8195, 1), (2, 8196, 1), (3, 8195, 1)]
        assert its.stats.redelivered == 1
        assert its.control.outstanding == 2

    async def test_a_cpu_write_to_translater_has_no_device(self, mapped: Rig) -> None:
        await mapped.write(0x40, 20, 4, "trans")
        assert mapped.taken == []
        assert mapped.its.stats.unmapped == 1


class TestFrames:
    @pytest.mark.parametrize(
        ("frame", "offset", "size", "field"),
        [("gicr4", 0, 4, "frame"), ("gicd", 0, 4, "frame"), ("its", 0x10000, 4, "offset"), ("its", -4, 4, "offset"),
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


class TestQueue:
    async def test_commands_before_enable_run_at_enable(self, rigs: type[Rig]) -> None:
        rig = rigs()
        await rig.start(enable=False)
        rig.queue(Command(op.MAPD, device=2, size=7, itt=0x43000000, valid=1))
        await rig.write(0x88, rig.at)
        assert await rig.read(0x90) == 0
        assert await rig.read(0, 4) == 0
        assert rig.its.queued == 1
        await rig.write(0, 1, 4)
        assert await rig.read(0x90) == 0x20
        assert await rig.read(0, 4) == 1 << 31 | 1

    async def test_the_queue_wraps(self, mapped: Rig) -> None:
        for _ in range(3):
            await mapped.run(*[Command(op.SYNC)] * 1500)
        assert mapped.its.commands.command_sync == 4500
        await mapped.run(INT_2_20)
        assert mapped.taken == [(3, 8195, 0)]

    async def test_cwriter_past_the_end_is_dropped(self, mapped: Rig) -> None:
        before = await mapped.read(0x88)
        for beyond in (0x10000, 0x10020, 0xFFFE0):
            await mapped.write(0x88, beyond)
            assert await mapped.read(0x88) == before
        assert mapped.its.stats.cwriter_dropped == 3

    async def test_an_unreadable_queue_is_skipped(self, rigs: type[Rig]) -> None:
        rig = rigs()
        await rig.start(enable=False)
        await rig.write(0x80, 1 << 63 | 0x7000_0000)
        await rig.write(0, 1, 4)
        await rig.write(0x88, 0x60)
        assert await rig.read(0x90) == 0x60
        assert rig.its.errors.unreadable == 3

    async def test_a_second_writer_waits_and_its_commands_run_after(self, rigs: type[Rig]) -> None:
        gates: list[Gate] = []

        def dma(memory: GuestMemory) -> Gate:
            gates.append(Gate(memory))
            return gates[0]

        rig = rigs(dma=dma)
        await rig.start()
        await rig.standard()
        gate = gates[0]
        gate.open = False
        start = rig.at
        rig.queue(INT_2_20)
        first = asyncio.create_task(rig.write(0x88, rig.at))
        await turns()
        rig.queue(INT_7_255)
        second = asyncio.create_task(rig.write(0x88, rig.at))
        await turns()
        assert len(gate.waiting) == 1
        assert await rig.read(0x88) == start + 0x20
        assert rig.its.try_msi(7, 255, 1)  # translated while the batch waits for its slice
        gate.step()
        await turns()
        assert await rig.read(0x90) == start + 0x20
        assert len(gate.waiting) == 1
        gate.step()
        await asyncio.gather(first, second)
        assert rig.taken == [(2, 8196, 1), (3, 8195, 0)]
        assert await rig.read(0x90) == start + 0x40

    @pytest.mark.parametrize("fault", [False, True])
    async def test_reset_overtakes_a_batch(self, rigs: type[Rig], fault: bool) -> None:
        gates: list[Gate] = []

        def dma(memory: GuestMemory) -> Gate:
            gates.append(Gate(memory))
            return gates[0]

        rig = rigs(dma=dma)
        await rig.start()
        await rig.standard()
        gate = gates[0]
        gate.open = False
        rig.queue(Command(op.MAPD, device=9, size=7, itt=0x43000000, valid=1))
        first = asyncio.create_task(rig.write(0x88, rig.at))
        second = asyncio.create_task(rig.write(0x88, rig.at))
        await turns()
        gate.step()  # the slice; MAPD probes its entry next
        await turns()
        rig.its.reset()
        gate.fault = fault
        gate.step()
        await asyncio.gather(first, second)
        assert rig.its.control.devices == ()
        assert await rig.read(0x88) == await rig.read(0x90) == 0
        gate.open, gate.fault = True, False
        await rig.start()
        await rig.standard()
        await rig.run(INT_2_20)
        assert rig.taken == [(3, 8195, 0)]


class TestReset:
    async def test_old_mappings_do_not_come_back(self, mapped: Rig) -> None:
        its = mapped.its
        its.try_msi(2, 20, 1)
        its.reset()
        assert await mapped.read(0, 4) == 1 << 31
        assert its.control.outstanding == 0
        its.eoi(3, 8195, 1)
        assert mapped.done == []
        await mapped.start()
        assert await its.msi(2, 20, 2) == "unmapped"
        await mapped.standard()
        assert its.try_msi(2, 20, 1)
        assert mapped.taken == [(3, 8195, 1), (3, 8195, 1)]


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


@settings(max_examples=100, deadline=None)
@given(
    stream=st.lists(hostile(), min_size=1, max_size=60),
    msis=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6)), max_size=12),
)
async def test_no_stream_of_commands_breaks_the_its(
    rigs: type[Rig], stream: list[bytes], msis: list[tuple[int, int]]
) -> None:
    """Invariant: nothing raises, CREADR reaches CWRITER, the books of events and LPIs agree with each other."""
    rig = rigs(cpus=2)
    await rig.start()
    await rig.run(*stream)
    for number, (device, event) in enumerate(msis, 1):
        await rig.its.msi(device, event, number)
    await rig.run(*stream)
    its = rig.its
    for vcpu, intid, number in rig.taken:
        its.eoi(vcpu, intid, number)
    for vcpu, redistributor in enumerate(its.redistributors):
        for lpi in redistributor:
            assert lpi.port.vcpu == vcpu
            assert lpi.events or lpi.pending or lpi.out >= 0
            for mapped in lpi.events:
                assert mapped.lpi is lpi
                assert mapped.intid == lpi.intid
    await rig.write(0, 0, 4)
    await rig.write(0x100, 0)
    assert its.control.events == 0
    assert its.control.devices == ()
    assert not any(lpi.events for redistributor in its.redistributors for lpi in redistributor)
