"""The model against what QEMU showed, and against KVM's behaviour as the facts have it."""

from __future__ import annotations

import struct

import pytest

from common.gic import commands as op
from common.gic.commands import Command, encode
from tests.services.gic_its import case_steps, streams
from tests.services.gic_its.oracle import Oracle
from tests.services.gic_its.stream_player import PENDBASER, Move, Player

PROFILES = ("qemu", "kvm")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "name",
    case_steps.names() or [pytest.param("", marks=pytest.mark.skip(reason=f"no recorded cases in {case_steps.CASES}"))],
)
def test_recorded_cases(name: str, profile: str) -> None:
    """Every label, whatever its kind: as recorded, or as EXCEPTIONS says."""
    case = case_steps.load(name)
    cpus, _ = case_steps.adapter_config(case)
    assert case_steps.compare(case, case_steps.play(case, Oracle(cpus, profile)), profile) == []


class Bench:
    """An Oracle that is set up, and commands that go through its queue."""

    def __init__(self, profile: str) -> None:
        self.oracle = Oracle(4, profile)
        self._player = Player(self.oracle, 4, profile)
        self._player.set_up()

    def run(self, *commands: Command) -> None:
        self._player.play(Move("run", tuple(map(encode, commands))))

    def map_one(self, event: int = 1, intid: int = 8195, icid: int = 3, cpu: int = 3) -> None:
        self.run(
            Command(op.MAPD, device=2, size=4, itt=streams.itt_of(2, 0), valid=1),
            Command(op.MAPC, icid=icid, rdbase=cpu, valid=1),
            Command(op.MAPTI, device=2, event=event, intid=intid, icid=icid),
        )

    def word(self, addr: int) -> int:
        return int.from_bytes(self.oracle.mem_read(addr, 8), "little")

    def pending(self) -> list[list[int]]:
        return [self.oracle.pending_all(cpu) for cpu in range(4)]


INT = Command(op.INT, device=2, event=1)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_vcpu_takes_by_priority_then_by_number(profile: str) -> None:
    bench = Bench(profile)
    bench.map_one()
    for event, (intid, byte) in enumerate([(8200, 0xA1), (8196, 0xA1), (8300, 0x41), (8193, 0x00)], start=2):
        bench.oracle.mem_write(streams.CONFIG + intid - 8192, bytes([byte]))
        bench.run(
            Command(op.MAPTI, device=2, event=event, intid=intid, icid=3),
            Command(op.INT, device=2, event=event),
        )
    assert [bench.oracle.ack(3) for _ in range(4)] == [8300, 8196, 8200, 1023]
    assert bench.oracle.pending(3, 8193)  # disabled by its configuration byte
    bench.oracle.mem_write(streams.CONFIG + 1, b"\xa1")
    assert bench.oracle.ack(3) == 1023
    bench.run(Command(op.INV, device=2, event=5))
    bench.oracle.mmio_write("gicd", 0, 4, 0)
    assert bench.oracle.ack(3) == 1023
    bench.oracle.mmio_write("gicd", 0, 4, 2)
    assert bench.oracle.ack(3) == 8193


@pytest.mark.parametrize("profile", PROFILES)
def test_pending_survives_off_and_on_in_the_table(profile: str) -> None:
    bench = Bench(profile)
    bench.map_one()
    bench.run(INT)
    bench.oracle.mmio_write("gicr3", 0, 4, 0)
    table = streams.PENDING + 3 * streams.PENDING_STEP
    assert bench.oracle.mem_read(table + 8195 // 8, 1) == bytes([1 << 8195 % 8])
    bench.run(Command(op.MAPTI, device=2, event=3, intid=8300, icid=3), Command(op.INT, device=2, event=3))
    bench.oracle.mem_write(table + 8200 // 8, bytes([1]))
    bench.oracle.mmio_write("gicr3", PENDBASER, 8, table)
    bench.oracle.mmio_write("gicr3", 0, 4, 1)
    assert bench.pending() == [[], [], [], [8195, 8200]]


@pytest.mark.parametrize("profile", PROFILES)
def test_pending_state_outlives_its_mapping(profile: str) -> None:
    bench = Bench(profile)
    bench.map_one()
    bench.run(INT, Command(op.MAPD, device=2, valid=0))
    assert bench.pending() == [[], [], [], [8195]]
    bench.run(INT, Command(op.MOVALL, rdbase=3, rdbase2=1))
    assert bench.pending() == [[], [8195], [], []]


@pytest.mark.parametrize(("profile", "cpu"), [("qemu", 3), ("kvm", 0)])
def test_mapc_to_another_pe(profile: str, cpu: int) -> None:
    bench = Bench(profile)
    bench.map_one()
    bench.run(INT, Command(op.MAPC, icid=3, rdbase=0, valid=1))
    assert bench.oracle.pending_all(cpu) == [8195]


def test_kvm_tables_chain_what_is_mapped() -> None:
    bench = Bench("kvm")
    bench.map_one()
    bench.run(
        Command(op.MAPD, device=0xFFFF, size=7, itt=streams.itt_of(0xFFFF, 0), valid=1),
        Command(op.MAPTI, device=2, event=20, intid=8200, icid=9),
    )
    valid = 1 << 63
    own = streams.OWN_DEVICE
    assert bench.word(streams.DEVICES + 2 * 8) == valid | own - 2 << 49 | streams.itt_of(2, 0) >> 3 | 4
    assert bench.word(streams.DEVICES + own * 8) == valid | (1 << 14) - 1 << 49 | streams.OWN_ITT >> 3 | 3
    assert bench.word(streams.DEVICES + 0xFFFF * 8) == valid | streams.itt_of(0xFFFF, 0) >> 3 | 7
    assert bench.word(streams.itt_of(2, 0) + 8) == 19 << 48 | 8195 << 16 | 3
    assert bench.word(streams.itt_of(2, 0) + 20 * 8) == 8200 << 16 | 9
    collections = struct.unpack("<7Q", bench.oracle.mem_read(streams.COLLECTIONS, 56))
    mapped = [valid | cpu << 16 | streams.OWN_ICID + cpu for cpu in range(4)]
    assert list(collections) == [*mapped, valid | 3 << 16 | 3, valid | 0xFFFFFFFF << 16 | 9, 0]
    bench.run(Command(op.MAPC, icid=3, valid=0), Command(op.MAPD, device=0xFFFF, valid=0))
    limbo = 0x1_0000 // 8 - 1
    assert bench.word(streams.COLLECTIONS + 4 * 8) == valid | 0xFFFFFFFF << 16 | 9
    assert bench.word(streams.COLLECTIONS + 5 * 8) == valid | 0xFFFFFFFF << 16 | limbo
    assert bench.word(streams.COLLECTIONS + 6 * 8) == 0
    assert bench.word(streams.itt_of(2, 0) + 8) == 19 << 48 | 8195 << 16 | limbo
    assert bench.word(streams.DEVICES + own * 8) == valid | streams.OWN_ITT >> 3 | 3
    assert bench.word(streams.DEVICES + 0xFFFF * 8) == 0


def test_kvm_zeroes_an_itt_when_it_is_mapped() -> None:
    bench = Bench("kvm")
    bench.oracle.mem_fill(streams.itt_of(2, 0), 0x200, 0xFF)
    bench.run(Command(op.MAPD, device=2, size=4, itt=streams.itt_of(2, 0), valid=1))
    assert bench.oracle.mem_read(streams.itt_of(2, 0), 0x108) == bytes(0x100) + b"\xff" * 8


@pytest.mark.parametrize("migrates", [False, True])
def test_kvm_events_that_lost_their_collection(migrates: bool) -> None:
    bench = Bench("kvm")
    bench.map_one()
    bench.run(Command(op.MAPC, icid=3, valid=0), Command(op.MAPC, icid=3, rdbase=3, valid=1), INT)
    assert bench.pending() == [[], [], [], []]
    if migrates:
        bench.oracle.migrate()
    bench.run(Command(op.MAPTI, device=2, event=1, intid=8196, icid=3), INT)
    assert bench.pending() == [[], [], [], []]
    bench.run(Command(op.MAPD, device=2, valid=0))
    bench.map_one()
    bench.run(INT)
    assert bench.oracle.pending_all(3) == [8195]


def test_kvm_events_lose_their_collection_with_its_table() -> None:
    bench = Bench("kvm")
    bench.map_one()
    o = bench.oracle
    o.mmio_write("its", 0, 4, 0)
    for valid in (0, 1):
        o.mmio_write("its", 0x108, 8, valid << 63 | streams.COLLECTIONS)
    o.mmio_write("its", 0, 4, 1)
    o.migrate()
    bench.run(Command(op.MAPC, icid=3, rdbase=3, valid=1), INT)
    assert bench.pending() == [[], [], [], []]


def test_kvm_migrates_a_two_level_device_table() -> None:
    bench = Bench("kvm")
    o = bench.oracle
    o.mmio_write("its", 0, 4, 0)
    o.mmio_write("its", 0x100, 8, 0)
    o.mmio_write("its", 0x100, 8, 1 << 63 | 1 << 62 | streams.DEVICES)
    o.mem_fill(streams.DEVICES, 0x3_0000, 0)
    for slot, page in ((0, 1), (7, 2)):
        o.mem_write(streams.DEVICES + slot * 8, (1 << 63 | streams.DEVICES + page * 0x1_0000).to_bytes(8, "little"))
    o.mmio_write("its", 0, 4, 1)
    bench.map_one()
    bench.run(
        Command(op.MAPD, device=0xFFFF, size=4, itt=streams.itt_of(0xFFFF, 0), valid=1),
        Command(op.MAPTI, device=0xFFFF, event=31, intid=8200, icid=3),
        Command(op.MAPD, device=0x2000, size=4, itt=streams.itt_of(0x2000, 0), valid=1),  # no second level
    )
    o.migrate()
    bench.run(INT, Command(op.INT, device=0xFFFF, event=31))
    assert bench.pending() == [[], [], [], [8195, 8200]]
    assert 0x2000 not in o.commands.devices  # type: ignore[union-attr]


def test_kvm_forgets_what_lay_in_a_table_that_is_gone() -> None:
    bench = Bench("kvm")
    bench.map_one()
    o = bench.oracle
    for register in (0x108, 0x100):
        o.mmio_write("its", 0, 4, 0)
        saved = o.mmio_read("its", register, 8)
        o.mmio_write("its", register, 8, 0)
        o.mmio_write("its", 0, 4, 1)
        assert not o.mmio_read("its", 0, 4) & 1  # not without its tables
        o.mmio_write("its", register, 8, saved)
        o.mmio_write("its", 0, 4, 1)
        bench.run(Command(op.MAPC, icid=3, rdbase=3, valid=1), INT)
        assert bench.pending() == [[], [], [], []]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_nothing_answers_to(profile: str) -> None:
    """Configuration and pending tables where there is no memory: nothing is enabled, nothing was pending."""
    bench = Bench(profile)
    bench.map_one()
    o = bench.oracle
    o.mmio_write("gicr3", 0, 4, 0)
    o.mmio_write("gicr3", 0x70, 8, streams.NOWHERE | 0xF)
    o.mmio_write("gicr3", PENDBASER, 8, streams.NOWHERE)
    o.mmio_write("gicr3", 0, 4, 1)
    bench.run(INT)
    assert o.pending(3, 8195)
    o.mmio_write("gicr3", 0, 4, 0)
    o.mmio_write("gicr3", 0, 4, 1)
    o.msi(streams.OWN_DEVICE, 3)
    assert o.pending_all(3) == [streams.OWN_LPI + 3]
