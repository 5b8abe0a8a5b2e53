"""All of an ITS, and an ITS from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from common.errors import CallError
from common.gic import commands as op
from common.gic.commands import Command
from common.gic.saved import check
from common.gic.vmm_ops import EFAULT, EINVAL
from tests.services.gic_its.machine import DEVICES, ITT, NOWHERE, PENDING, PENDING_STEP, PTZ, Machine, standard


@pytest.fixture(params=["kvm", "qemu"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with closing(Machine(request.param)) as made:
        made.start(*standard())
        yield made


def test_what_is_saved(machine: Machine) -> None:
    machine.interrupt(2, 20)
    saved = machine.saved()
    check(saved)
    assert (saved.profile, saved.cpus, saved.memory) == (machine.its.profile.name, 4, [])
    assert saved.its["GITS_CTLR"] & 1
    assert saved.its["GITS_CREADR"] == saved.its["GITS_CWRITER"] == machine.at
    assert saved.its["GITS_IIDR"] == machine.its.profile.iidr
    assert saved.redists[3]["GICR_PENDBASER"] & ~PTZ == PENDING + 3 * PENDING_STEP | 0x780
    assert machine.mem_read(PENDING + 3 * PENDING_STEP + 8195 // 8, 1) == b"\x08"
    assert machine.its.control.held
    assert machine.all_pending() == [[], [], [], [8195]]  # and stays


def test_a_file_is_the_whole_machine(machine: Machine) -> None:
    machine.interrupt(2, 20)
    file = machine.file()
    with closing(Machine(machine.its.profile.name)) as other:
        other.load(file)
        assert other.all_pending() == [[], [], [], [8195]]
        other.interrupt(7, 255)
        other.msi(2, 20)
        assert other.all_pending() == [[], [], [8196], [8195]]
        assert other.ack(3) == 8195
        with closing(Machine(machine.its.profile.name)) as third:
            third.load(other.file())
            assert third.all_pending() == [[], [], [8196], []]


def test_what_devices_raised_comes_along(machine: Machine) -> None:
    """Nobody sends it again to another machine."""
    machine.msi(2, 20)
    machine.msi(7, 255)
    file = machine.file()
    with closing(Machine(machine.its.profile.name)) as other:
        other.load(file)
        assert other.all_pending() == [[], [], [8196], [8195]]


def test_an_its_that_nobody_has_programmed() -> None:
    for profile in ("kvm", "qemu"):
        with closing(Machine(profile)) as m:
            saved = m.saved()
            assert saved.its["GITS_CBASER"] == 0
            m.restored(saved)
            m.start(*standard()).interrupt(2, 20)
            assert m.all_pending() == [[], [], [], [8195]]


def test_tables_without_a_queue_are_left_alone() -> None:
    with closing(Machine("kvm")) as m:
        m.tables()
        m.mmio_write("its", 0x80, 8, 0)
        m.mem_fill(DEVICES, 64, 0xFF)  # nobody enabled it: this is still the guest's
        saved = m.saved()
        m.restored(saved)
        assert m.mem_read(DEVICES, 64) == b"\xff" * 64
        assert m.saved() == saved


@pytest.mark.parametrize(
    ("name", "value", "errno"), [("GITS_IIDR", 0x4B00143B, EINVAL), ("GITS_CREADR", 0x1_0000, EINVAL)]
)
def test_registers_that_are_refused(machine: Machine, name: str, value: int, errno: int) -> None:
    saved = machine.saved()
    saved.its[name] = value
    refused(machine, saved, errno)


def refused(machine: Machine, saved: object, errno: int) -> None:
    with pytest.raises(CallError) as raised:
        machine.restored(saved)  # type: ignore[arg-type]
    assert raised.value.errno == errno
    assert machine.its.control.devices == ()
    assert machine.mmio_read("its", 0, 4) == 1 << 31
    assert [machine.mmio_read(f"gicr{cpu}", 0, 4) & 1 for cpu in range(4)] == [0] * 4
    machine.start(*standard()).interrupt(2, 20)
    assert machine.all_pending() == [[], [], [], [8195]]


def test_tables_that_are_refused_leave_it_as_after_a_reset() -> None:
    with closing(Machine("kvm")) as m:
        m.start(*standard())
        saved = m.saved()
        m.put_word(DEVICES + 16, 1 << 63 | NOWHERE >> 3 | 7)
        refused(m, saved, EFAULT)


def test_redistributors_that_are_not_there() -> None:
    with closing(Machine("kvm", 8)) as big, closing(Machine("kvm", 4)) as small:
        saved = big.saved()
        with pytest.raises(CallError, match="4 is none of 4"):
            small.restored(saved)


def test_numbers_of_msis_begin_anew(machine: Machine) -> None:
    """What was confirmed to a device before is not known to the next instance: it takes every number."""
    machine.msi(2, 20)
    assert machine.ack(3) == 8195
    machine.migrate()
    machine.msi(2, 20)
    assert machine.ack(3) == 8195


def test_lpis_that_a_vcpu_holds_are_pending_again(machine: Machine) -> None:
    machine.interrupt(2, 20)
    assert machine.its.acknowledge(3)[0] == 8195
    assert machine.all_pending() == [[], [], [], []]
    machine.restored(machine.saved())
    assert machine.all_pending() == [[], [], [], [8195]]


def test_a_second_save_is_the_same(machine: Machine) -> None:
    machine.run(Command(op.MAPD, device=3, size=2, itt=ITT + 0x2_0000, valid=1), Command(op.INT, device=7, event=255))
    file = machine.file()
    assert machine.file() == file
    machine.load(file)
    assert machine.file() == file
