"""What a VMM asks of the ITS, and KVM's errors for all that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from common.errors import CallError
from common.gic import commands as op
from common.gic import vmm_ops as ops
from common.gic.commands import Command
from common.gic.registers import (
    BASER_VALID,
    CBASER_VALID,
    GICR_CTLR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GITS_BASER,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_CWRITER,
    GITS_IIDR,
    GITS_TYPER,
)
from common.gic.vmm_ops import EBUSY, EINVAL, ENXIO
from services.gic_its.uaccess import ARGUMENTS
from tests.services.gic_its.machine import CONFIG, ITT, PENDING, PENDING_STEP, QUEUE, QUEUE_BYTES, Machine, standard


@pytest.fixture(params=["kvm", "qemu"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Not programmed; vCPUs are stopped, as the adapter has them."""
    with closing(Machine(request.param)) as made:
        yield made


@pytest.fixture
def kvm() -> Iterator[Machine]:
    with closing(Machine("kvm")) as made:
        yield made


def refused(m: Machine, name: str, *args: object) -> tuple[int, str]:
    """Errno and field."""
    with pytest.raises(CallError) as raised:
        m.vmm(name, *args)
    return raised.value.errno, raised.value.field


# --- who may ask for what ------------------------------------------------------------------------------------------


def test_every_operation_is_there(machine: Machine) -> None:
    names = {value for name, value in vars(ops).items() if name.isupper() and isinstance(value, str)}
    assert set(ARGUMENTS) == names


def test_while_vcpus_run_all_is_busy(machine: Machine) -> None:
    machine.vmm(ops.RUN_VCPUS)
    for name, count in ARGUMENTS.items():
        if name not in (ops.RUN_VCPUS, ops.STOP_VCPUS):
            assert refused(machine, name, *[0] * count) == (EBUSY, name)
    machine.vmm(ops.STOP_VCPUS)
    assert machine.vmm(ops.GET_ITS_REG, GITS_CTLR) == 1 << 31


def test_vcpus_take_interrupts_again_when_they_run(kvm: Machine) -> None:
    kvm.start(*standard()).interrupt(2, 20)
    assert kvm.its.stats.delivered == 0
    kvm.vmm(ops.RUN_VCPUS)
    assert kvm.its.stats.delivered == 1
    kvm.vmm(ops.STOP_VCPUS)
    kvm.interrupt(7, 255)
    assert kvm.its.stats.delivered == 1


@pytest.mark.parametrize("name", ["", "walk", "__init__", "call", "_row", "x" * 10_000, "SET_ITS_REG"])
def test_operations_without_a_name(machine: Machine, name: str) -> None:
    assert refused(machine, name) == (EINVAL, name[:32])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_are_counted(machine: Machine, name: str) -> None:
    for count in {0, 1, 2, 3, 4, 100} - {ARGUMENTS[name]}:
        assert refused(machine, name, *[0] * count) == (EINVAL, name)


@pytest.mark.parametrize("value", [-1, 1 << 64, None, "0", b"", 1.0, True, [], {}, [[[]]], "x" * 100_000])
def test_arguments_are_unsigned_numbers_of_64_bits(machine: Machine, value: object) -> None:
    for name, count in ARGUMENTS.items():
        for at in range(count):
            args: list[object] = [0] * count
            args[at] = value
            assert refused(machine, name, *args) == (EINVAL, name)


# --- registers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0x18, 0x98, 0x140, 0x10040, 0xFFFF_FFFF, (1 << 64) - 1])
def test_no_register_there(machine: Machine, offset: int) -> None:
    for name, first in ((ops.GET_ITS_REG, ()), (ops.GET_DIST_REG, ()), (ops.GET_REDIST_REG, (0,))):
        assert refused(machine, name, *first, offset) == (ENXIO, "offset")
        assert refused(machine, name.replace("get", "set"), *first, offset, 0) == (ENXIO, "offset")


@pytest.mark.parametrize(
    ("offset", "name"), [(1, "GITS_CTLR"), (GITS_CBASER + 4, "GITS_CBASER"), (0x107, "GITS_BASER0")]
)
def test_misaligned_offsets(machine: Machine, offset: int, name: str) -> None:
    assert refused(machine, ops.GET_ITS_REG, offset) == (EINVAL, name)
    assert refused(machine, ops.SET_ITS_REG, offset, 0) == (EINVAL, name)


def test_misaligned_offsets_of_the_others(machine: Machine) -> None:
    assert refused(machine, ops.GET_REDIST_REG, 0, GICR_PROPBASER + 4) == (EINVAL, "GICR_PROPBASER")
    assert refused(machine, ops.SET_DIST_REG, 2, 0) == (EINVAL, "GICD_CTLR")


@pytest.mark.parametrize("vcpu", [4, 512, (1 << 64) - 1])
def test_no_such_redistributor(machine: Machine, vcpu: int) -> None:
    assert refused(machine, ops.GET_REDIST_REG, vcpu, GICR_CTLR) == (ENXIO, "vcpu")
    assert refused(machine, ops.SET_REDIST_REG, vcpu, GICR_CTLR, 0) == (ENXIO, "vcpu")


def test_what_the_guest_wrote_is_what_the_vmm_reads(machine: Machine) -> None:
    machine.start(*standard())
    for offset in (GITS_CTLR, GITS_IIDR, GITS_TYPER, GITS_CBASER, GITS_CWRITER, GITS_CREADR, GITS_BASER):
        size = 4 if offset in (GITS_CTLR, GITS_IIDR) else 8
        assert machine.vmm(ops.GET_ITS_REG, offset) == machine.mmio_read("its", offset, size)
    assert machine.vmm(ops.GET_DIST_REG, 0) == machine.mmio_read("gicd", 0, 4)
    assert machine.vmm(ops.GET_REDIST_REG, 1, GICR_PROPBASER) == machine.mmio_read("gicr1", GICR_PROPBASER, 8)


def test_ptz_is_read_by_the_vmm_only(kvm: Machine) -> None:
    """A guest of KVM reads 0; who saves the register wants to know."""
    kvm.lpis(enabled=False)
    assert kvm.mmio_read("gicr0", GICR_PENDBASER, 8) == PENDING | 0x780
    assert kvm.vmm(ops.GET_REDIST_REG, 0, GICR_PENDBASER) == PENDING | 0x780 | 1 << 62


def test_what_cannot_be_read_reads_0(kvm: Machine) -> None:
    rows = [row for row in kvm.its.redistributors[0].registers.map if not row.readable]
    assert rows
    for row in rows:
        assert kvm.vmm(ops.GET_REDIST_REG, 0, row.offset) == 0


def test_the_vmm_writes_as_the_guest_does(machine: Machine) -> None:
    machine.vmm(ops.SET_DIST_REG, 0, 0x13)
    assert machine.mmio_read("gicd", 0, 4) & 2
    machine.vmm(ops.SET_ITS_REG, GITS_CBASER, CBASER_VALID | QUEUE | 15)
    machine.vmm(ops.SET_ITS_REG, GITS_CWRITER, 64)
    assert machine.mmio_read("its", GITS_CWRITER, 8) == 64
    machine.vmm(ops.SET_ITS_REG, GITS_TYPER, 0)  # read-only: ignored
    assert machine.mmio_read("its", GITS_TYPER, 8)


# --- CREADR, IIDR ----------------------------------------------------------------------------------------------------


def test_creadr_while_the_its_is_on(machine: Machine) -> None:
    machine.start(*standard())
    assert refused(machine, ops.SET_ITS_REG, GITS_CREADR, 0) == (EBUSY, "GITS_CREADR")
    assert machine.creadr == machine.at


@pytest.mark.parametrize(("offset", "errno"), [(0, 0), (QUEUE_BYTES - 32, 0), (QUEUE_BYTES, EINVAL), (0xFFFE0, EINVAL)])
def test_creadr_past_the_queue(machine: Machine, offset: int, errno: int) -> None:
    machine.tables()
    if errno:
        assert refused(machine, ops.SET_ITS_REG, GITS_CREADR, offset) == (errno, "GITS_CREADR")
        assert machine.creadr == 0
    else:
        machine.vmm(ops.SET_ITS_REG, GITS_CREADR, offset)
        assert machine.creadr == offset


def test_creadr_keeps_what_the_implementation_has(machine: Machine) -> None:
    machine.tables()
    machine.vmm(ops.SET_ITS_REG, GITS_CREADR, 0xFFF0_0000_0000_001F | 64)
    assert machine.creadr == 64 | (machine.its.profile.stalls and 1)


def test_cbaser_resets_creadr_so_it_comes_first(kvm: Machine) -> None:
    kvm.start(*standard())
    saved = {at: kvm.vmm(ops.GET_ITS_REG, at) for at in (GITS_CBASER, GITS_CWRITER, GITS_CREADR)}
    kvm.vmm(ops.CTRL_RESET)
    kvm.vmm(ops.SET_ITS_REG, GITS_CREADR, saved[GITS_CREADR])
    kvm.vmm(ops.SET_ITS_REG, GITS_CBASER, saved[GITS_CBASER])
    assert kvm.creadr == 0
    for at in (GITS_CWRITER, GITS_CREADR):
        kvm.vmm(ops.SET_ITS_REG, at, saved[at])
    assert kvm.creadr == kvm.mmio_read("its", GITS_CWRITER, 8) == kvm.at


def test_an_iidr_of_other_tables(machine: Machine) -> None:
    """Who made the ITS, and the revision of its tables."""
    iidr = machine.vmm(ops.GET_ITS_REG, GITS_IIDR)
    machine.vmm(ops.SET_ITS_REG, GITS_IIDR, iidr)
    for other in (*(revision << 12 for revision in range(1, 16)), 1, 1 << 11, 1 << 24, 1 << 31):
        assert refused(machine, ops.SET_ITS_REG, GITS_IIDR, iidr ^ other) == (EINVAL, "GITS_IIDR")
    assert machine.vmm(ops.GET_ITS_REG, GITS_IIDR) == iidr


# --- order of a restore ----------------------------------------------------------------------------------------------


def test_commands_that_ran_do_not_run_again(machine: Machine) -> None:
    """CREADR before CTLR."""
    machine.start(*standard(), Command(op.INT, device=2, event=20))
    assert machine.ack(3) == 8195
    at = machine.at
    machine.power_cycle()
    for register in (GITS_CWRITER, GITS_CREADR):
        machine.vmm(ops.SET_ITS_REG, register, at)
    machine.vmm(ops.RESTORE_TABLES)
    machine.vmm(ops.SET_ITS_REG, GITS_CTLR, 1)
    assert machine.all_pending() == [[], [], [], []]
    machine.at = at
    machine.interrupt(2, 20)
    assert machine.all_pending() == [[], [], [], [8195]]


def test_commands_that_wait_run_when_the_its_is_on(machine: Machine) -> None:
    machine.start(*standard())
    machine.mmio_write("its", GITS_CTLR, 4, 0)
    machine.run(Command(op.INT, device=2, event=20))
    saved = machine.saved()
    machine.restored(saved)
    assert machine.all_pending() == [[], [], [], []]
    machine.vmm(ops.SET_ITS_REG, GITS_CTLR, 1)
    assert machine.all_pending() == [[], [], [], [8195]]


def test_tables_need_their_registers(machine: Machine) -> None:
    for at in (GITS_CBASER, GITS_BASER, GITS_BASER + 8):
        machine.vmm(ops.CTRL_RESET)
        machine.tables()
        machine.mmio_write("its", at, 8, 0)
        for name in (ops.SAVE_TABLES, ops.RESTORE_TABLES):
            assert refused(machine, name) == (ENXIO, name)
    machine.tables()
    for name in (ops.SAVE_TABLES, ops.RESTORE_TABLES):
        assert machine.vmm(name) == 0


def test_ctlr_is_refused_before_the_tables_are_there(kvm: Machine) -> None:
    kvm.vmm(ops.SET_ITS_REG, GITS_CTLR, 1)
    assert kvm.vmm(ops.GET_ITS_REG, GITS_CTLR) == 1 << 31


def test_enabling_lpis_reads_the_pending_table_in_any_case(machine: Machine) -> None:
    machine.mem_write(PENDING + PENDING_STEP + 8195 // 8, bytes([1 << 8195 % 8]))
    machine.mem_fill(CONFIG, 0x1_0000, 0xA1)
    machine.vmm(ops.SET_REDIST_REG, 1, GICR_PROPBASER, CONFIG | 0x78F)
    machine.vmm(ops.SET_REDIST_REG, 1, GICR_PENDBASER, PENDING + PENDING_STEP | 1 << 62)
    machine.vmm(ops.SET_REDIST_REG, 1, GICR_CTLR, 1)
    assert machine.all_pending() == [[], [8195], [], []]


def test_pending_tables_are_written_for_all(machine: Machine) -> None:
    machine.start(*standard())
    machine.msi(2, 20)
    machine.msi(7, 255)
    table = PENDING + 8192 // 8
    if machine.its.profile.holds_tables:  # QEMU's table in guest memory is current at any time
        assert machine.mem_read(table + 3 * PENDING_STEP, 1) == machine.mem_read(table + 2 * PENDING_STEP, 1) == b"\0"
    machine.vmm(ops.SAVE_PENDING_TABLES)
    assert machine.mem_read(table + 3 * PENDING_STEP, 1) == b"\x08"
    assert machine.mem_read(table + 2 * PENDING_STEP, 1) == b"\x10"
    # what a vCPU has not ended is pending again for whoever restores it
    machine.its.acknowledge(3)
    machine.vmm(ops.SAVE_PENDING_TABLES)
    assert machine.mem_read(table + 3 * PENDING_STEP, 1) == b"\x08"


def test_a_reset_leaves_vcpus_stopped(machine: Machine) -> None:
    machine.start(*standard())
    machine.vmm(ops.CTRL_RESET)
    assert machine.its.control.held
    assert machine.vmm(ops.GET_ITS_REG, GITS_BASER) & BASER_VALID == 0
    assert [machine.vmm(ops.GET_ITS_REG, at) for at in (GITS_CBASER, GITS_CREADR, GITS_CWRITER)] == [0, 0, 0]
    assert machine.word(ITT + 20 * machine.its.profile.itt_entry)  # guest memory stays
