"""The adapter as others drive it: odd accesses, a move or a reset at any time, many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest

from common.errors import CallError, FrameError, LocalError
from common.gic import commands as op
from common.gic.commands import Command
from services.gic_its.adapter import MAX_CPUS, RAM_BASE, RAM_END, CaseAdapter
from tests.services.gic_its.machine import (
    CONFIG,
    DEVICES,
    ITT,
    NOWHERE,
    PENDING,
    PENDING_STEP,
    PTZ,
    QUEUE_BYTES,
    Machine,
    standard,
)
from tests.services.gic_its.stream_differences import differences
from tests.services.gic_its.stream_player import EXTRAS, RARE

SPURIOUS = 1023


@pytest.fixture(params=["qemu", "kvm"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with closing(Machine(request.param)) as made:
        yield made


# --- what a case may say of its machine ----------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [1, 4, 8, 123])
def test_any_number_of_vcpus(cpus: int) -> None:
    with closing(Machine("kvm", cpus)) as m:
        last = cpus - 1
        m.start(
            Command(op.MAPD, device=1, size=3, itt=ITT, valid=1),
            Command(op.MAPC, icid=0, rdbase=last, valid=1),
            Command(op.MAPTI, device=1, event=0, intid=8192, icid=0),
        )
        m.interrupt(1, 0)
        m.migrate()
        assert m.ack(last) == 8192
        with pytest.raises(FrameError, match="gicr"):
            m.mmio_read(f"gicr{cpus}", 0, 4)


def test_four_vcpus_where_nothing_is_said() -> None:
    cases: tuple[dict[str, Any], ...] = ({}, {"config": {}})
    for case in cases:
        with closing(CaseAdapter(case)) as adapter:
            assert adapter.mmio_read("gicr3", 0x14, 4) == adapter.mmio_read("gicr0", 0x14, 4)
            with pytest.raises(LocalError, match="vCPU 4"):
                adapter.pending_all(4)


@pytest.mark.parametrize("cpus", [0, -1, MAX_CPUS + 1, None, "4"])
def test_numbers_of_vcpus_that_cannot_be(cpus: object) -> None:
    with pytest.raises(LocalError, match="vCPUs"):
        CaseAdapter({"config": {"cpus": cpus}})


def test_the_profile_is_a_known_one() -> None:
    with pytest.raises(LocalError, match="'xen'"):
        CaseAdapter({}, "xen")


# --- accesses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "off", "size"),
    [("uart", 0, 4), ("gicr4", 0, 4), ("", 0, 4), ("its", 0, 3), ("its", 0, 0), ("its", 0, 16), ("its", 0x10000, 4),
     ("its", 0xFFFC, 8), ("its", -8, 8)],
)  # fmt: skip
def test_accesses_that_no_frame_takes(machine: Machine, frame: str, off: int, size: int) -> None:
    with pytest.raises(FrameError):
        machine.mmio_read(frame, off, size)
    with pytest.raises(FrameError):
        machine.mmio_write(frame, off, size, 0)


def test_values_of_every_width(machine: Machine) -> None:
    machine.mmio_write("its", 0x80, 8, -1)
    assert (
        machine.mmio_read("its", 0x80, 8) == machine.mmio_read("its", 0x80, 4) | machine.mmio_read("its", 0x84, 4) << 32
    )
    machine.mmio_write("its", 0x80, 8, 1 << 100 | 7)
    assert machine.mmio_read("its", 0x80, 8) == 7
    for size in (1, 2):
        machine.mmio_write("its", 0x80, size, 1)
        assert machine.mmio_read("its", 0x80, size) == 0
    assert machine.mmio_read("its", 0x80, 8) == 7


def test_memory_ends_where_ram_does(machine: Machine) -> None:
    for start, inside in ((RAM_BASE - 4, slice(4, 8)), (RAM_END - 4, slice(0, 4))):
        machine.mem_write(start, b"abcdefgh")
        assert machine.mem_read(start, 8) == bytes(8)[: inside.start] + b"abcdefgh"[inside] + bytes(8)[inside.stop :]
        machine.mem_fill(start, 8, 0x1FF)
        assert machine.mem_read(start, 8).count(0xFF) == 4
    for addr in (0, RAM_BASE - 8, RAM_END, NOWHERE, -8, 1 << 80):
        machine.mem_write(addr, b"abcdefgh")
        machine.mem_fill(addr, 8, 1)
        assert machine.mem_read(addr, 8) == bytes(8)
    assert machine.mem_read(RAM_BASE, 0) == machine.mem_read(0, 0) == b""


def test_a_fill_of_more_than_there_is_costs_what_there_is(machine: Machine) -> None:
    machine.mem_fill(RAM_END - 16, 1 << 60, 7)
    assert machine.mem_read(RAM_END - 32, 32) == bytes(16) + b"\x07" * 16


@pytest.mark.parametrize("devid", [-1, 1 << 32, 1 << 80, 0xFFFF_FFFF, 3])
def test_msis_of_devices_that_are_not_there(machine: Machine, devid: int) -> None:
    machine.start(*standard())
    machine.msi(devid, 20)
    assert machine.all_pending() == [[], [], [], []]


def test_an_msi_has_32_bits(machine: Machine) -> None:
    machine.start(*standard())
    machine.msi(1, 1 << 32 | 20)  # the EventID 20 of device 1, not of device 2
    assert machine.all_pending() == [[], [], [], []]
    machine.msi(2, 1 << 32 | 20)
    machine.msi(7, 255 - (1 << 32))
    assert machine.all_pending() == [[], [], [8196], [8195]]


# --- acknowledge -----------------------------------------------------------------------------------------------------


def four(m: Machine, *priorities: int) -> None:
    """Four events of device 1 at vCPU 0, LPIs 8192 … with these configuration bytes, all pending."""
    m.start(
        Command(op.MAPD, device=1, size=3, itt=ITT, valid=1),
        Command(op.MAPC, icid=0, rdbase=0, valid=1),
    )
    for event, byte in enumerate(priorities):
        m.mem_write(CONFIG + event, bytes([byte]))
        m.run(Command(op.MAPTI, device=1, event=event, intid=8192 + event, icid=0))
        m.interrupt(1, event)


def taken(m: Machine, cpu: int = 0) -> list[int]:
    found = []
    while (intid := m.ack(cpu)) != SPURIOUS:
        found.append(intid)
    return found


def test_the_highest_priority_is_taken_first_then_the_lowest_intid(machine: Machine) -> None:
    four(machine, 0xA1, 0x41, 0xA1, 0x01)
    assert machine.pending_all(0) == [8192, 8193, 8194, 8195]
    assert taken(machine) == [8195, 8193, 8192, 8194]
    assert machine.pending_all(0) == []


def test_an_lpi_that_is_off_stays(machine: Machine) -> None:
    four(machine, 0xA0, 0xA1, 0x00, 0x41)
    assert taken(machine) == [8195, 8193]
    assert machine.pending_all(0) == [8192, 8194]
    machine.mem_write(CONFIG, b"\xa1\xa1\x01\xa1")
    machine.run(Command(op.INV, device=1, event=0))
    assert taken(machine) == [8192]
    machine.run(Command(op.INVALL, icid=0))
    assert taken(machine) == [8194]
    machine.mem_write(CONFIG, b"\xa0")
    machine.interrupt(1, 0)
    machine.run(Command(op.INV, device=1, event=0))
    assert taken(machine) == []
    assert machine.pending(0, 8192) == 1


@pytest.mark.parametrize(("frame", "off"), [("gicd", 0), ("gicr0", 0)])
def test_nothing_is_taken_while_the_way_is_closed(machine: Machine, frame: str, off: int) -> None:
    four(machine, 0xA1)
    machine.mmio_write(frame, off, 4, 0)
    assert machine.ack(0) == SPURIOUS
    machine.mmio_write(frame, off, 4, 0x13 if frame == "gicd" else 1)


@pytest.mark.parametrize("cpu", [-1, 4, 1 << 40])
def test_vcpus_that_are_not_there(machine: Machine, cpu: int) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: machine.ack(cpu), lambda: machine.pending(cpu, 8192), lambda: machine.pending_all(cpu)
    )  # fmt: skip
    for call in calls:
        with pytest.raises(LocalError, match="none of 4"):
            call()


def test_lpis_that_are_not_there(machine: Machine) -> None:
    assert [machine.pending(0, lpi) for lpi in (-1, 0, SPURIOUS, 65536)] == [0, 0, 0, 0]


# --- a move, a reset, an end at any time ---------------------------------------------------------------------------


def test_a_machine_that_nobody_has_programmed_moves_and_resets(machine: Machine) -> None:
    for step in (machine.migrate, machine.migrate, machine.reset, machine.migrate, machine.reset, machine.drain):
        step()
    machine.start(*standard()).interrupt(2, 20)
    assert machine.all_pending() == [[], [], [], [8195]]


@pytest.mark.parametrize("stage", ["queue only", "tables", "off", "commands wait", "off again"])
def test_a_machine_moves_half_programmed(machine: Machine, stage: str) -> None:
    machine.lpis()
    if stage == "queue only":
        machine.mmio_write("its", 0x80, 8, 1 << 63 | 0x4200_0000 | 15)
        machine.migrate()
    machine.tables()
    if stage == "tables":
        machine.migrate()
    machine.put(*standard())
    machine.mmio_write("its", 0x88, 8, machine.at)
    if stage == "commands wait":
        machine.migrate()
        assert machine.creadr == 0
    machine.mmio_write("its", 0, 4, 1)
    if stage == "off again":
        machine.mmio_write("its", 0, 4, 0)
        machine.migrate()
        machine.mmio_write("its", 0, 4, 1)
    machine.interrupt(2, 20)
    assert machine.creadr == machine.at
    assert machine.all_pending() == [[], [], [], [8195]]


def test_what_is_pending_moves(machine: Machine) -> None:
    four(machine, 0xA1, 0xA0, 0x41)
    assert machine.ack(0) == 8194
    for _ in range(2):
        machine.migrate()
        assert machine.pending_all(0) == [8192, 8193]
    assert taken(machine) == [8192]
    machine.migrate()
    assert machine.pending_all(0) == [8193]


def test_lpis_that_are_off_stay_in_their_table(machine: Machine) -> None:
    four(machine, 0xA1, 0xA1)
    machine.mmio_write("gicr0", 0, 4, 0)
    assert machine.mem_read(PENDING + 8192 // 8, 1) == b"\x03"
    machine.migrate()
    assert machine.pending_all(0) == []
    machine.mmio_write("gicr0", 0x78, 8, PENDING | 0x780)
    machine.mmio_write("gicr0", 0, 4, 1)
    assert machine.pending_all(0) == [8192, 8193]


def test_a_queue_that_has_wrapped_moves(machine: Machine) -> None:
    machine.start(*standard())
    while machine.at < QUEUE_BYTES - 64:
        machine.run(*[Command(op.SYNC)] * 200 if machine.at + 200 * 32 < QUEUE_BYTES - 64 else [Command(op.SYNC)])
    machine.mmio_write("its", 0, 4, 0)
    machine.run(Command(op.SYNC), Command(op.SYNC), Command(op.INT, device=2, event=20))
    assert machine.at == 32
    machine.migrate()
    assert machine.creadr == QUEUE_BYTES - 64
    machine.mmio_write("its", 0, 4, 1)
    assert machine.creadr == 32
    assert machine.all_pending() == [[], [], [], [8195]]


def test_a_stalled_queue_moves() -> None:
    with closing(Machine("qemu")) as m:
        m.start(*standard())
        at = m.at
        m.run(Command(op.MAPD, device=9, size=3, itt=NOWHERE, valid=1),
              Command(op.MAPTI, device=9, event=0, intid=8200, icid=3), Command(op.SYNC))  # fmt: skip
        assert m.creadr == at + 32 | 1
        m.migrate()
        assert m.creadr == at + 32 | 1
        m.interrupt(2, 20)
        assert m.creadr == at + 32 | 1
        assert m.all_pending() == [[], [], [], []]


def test_what_cannot_be_carried_stays() -> None:
    with closing(Machine("kvm")) as m:
        m.start(*standard(), Command(op.MAPD, device=9, size=3, itt=NOWHERE, valid=1))
        its = m.its
        with pytest.raises(CallError, match="no memory"):
            m.migrate()
        assert m.its is its
        m.interrupt(2, 20)
        m.msi(7, 255)
        assert m.all_pending() == [[], [], [8196], [8195]]
        m.run(Command(op.MAPD, device=9, valid=0))
        m.migrate()
        assert m.all_pending() == [[], [], [8196], [8195]]


def test_a_reset_forgets_all_but_memory(machine: Machine) -> None:
    machine.start(*standard())
    machine.msi(2, 20)
    machine.reset()
    assert machine.all_pending() == [[], [], [], []]
    assert machine.mmio_read("its", 0, 4) == 1 << 31
    assert machine.creadr == 0
    assert machine.word(DEVICES + 16)
    machine.msi(2, 20)
    machine.mem_fill(PENDING, 4 * PENDING_STEP, 0)
    machine.start(*standard())
    machine.msi(2, 20)
    assert machine.all_pending() == [[], [], [], [8195]]


def test_pending_bits_and_ptz(machine: Machine) -> None:
    """PTZ says that there are none; QEMU looks all the same."""
    machine.mem_write(PENDING + 8195 // 8, bytes([1 << 8195 % 8]))
    kvm = machine.its.profile.holds_tables
    for ptz, found in ((True, [] if kvm else [8195]), (False, [8195])):
        machine.reset()
        machine.lpis(ptz=ptz)
        assert machine.pending_all(0) == found
        assert bool(machine.its.redistributors[0].registers.get("GICR_PENDBASER") & PTZ) is ptz


def test_the_end_may_come_twice(machine: Machine) -> None:
    machine.start(*standard())
    machine.close()
    machine.close()


def test_a_machine_costs_only_the_memory_that_is_touched() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    with closing(Machine("kvm")) as one, closing(Machine("qemu")) as other:
        one.start(*standard())
        other.start(*standard())
        assert process.memory_info().rss - before < 128 << 20


# --- moves at random times -------------------------------------------------------------------------------------------


class Restless(CaseAdapter):
    """Moves whenever somebody looks whether its commands are done."""

    def drain(self) -> None:
        super().drain()
        if not self.moving:
            self.moving = True
            self.migrate()
            self.moving = False

    moving = False


@pytest.mark.parametrize("profile", ["qemu", "kvm"])
@pytest.mark.parametrize("hostile", [False, True])
def test_a_machine_that_moves_shows_what_another_shows(profile: str, hostile: bool) -> None:
    found = differences(
        lambda: CaseAdapter({}, profile), lambda: Restless({}, profile), seed=3, n=600, profile=profile,
        hostile=hostile, nowhere=profile == "qemu", wide_pes=True, extras=tuple(EXTRAS | RARE),
    )  # fmt: skip
    assert found is None, found
