"""The shadow of the ITS against a model of its registers: what is restored is what was there, whatever was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.gic.registers import (
    BASER_PAGE_SIZE,
    BASER_VALID,
    CBASER_VALID,
    GICD_CTLR,
    GICR_CTLR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GICR_WAKER,
    GITS_BASER,
    GITS_CBASER,
    GITS_CREADR,
    GITS_CTLR,
    GITS_CWRITER,
    GITS_IIDR,
    GITS_TYPER,
    PENDBASER_PTZ,
    QUEUE_OFFSET,
    TYPER_CIL,
)
from common.gic.saved import ITS_REGISTERS, SavedIts
from common.gic.vmm_ops import (
    CTRL_RESET,
    RESTORE_TABLES,
    RUN_VCPUS,
    SET_DIST_REG,
    SET_ITS_REG,
    SET_REDIST_REG,
    STOP_VCPUS,
)
from services.guest_driver.its_shadow import ItsShadow

BASER1 = GITS_BASER + 8
WIDE = {GITS_CBASER, GITS_CWRITER, GITS_BASER, BASER1, GICR_PROPBASER, GICR_PENDBASER}


class Machine:
    """The registers of a distributor, redistributors and an ITS, as KVM or QEMU treats writes to them."""

    def __init__(self, kvm: bool) -> None:
        self.kvm = kvm
        self.regs: dict[tuple[str, int], int] = {("its", GITS_CREADR): 0, ("its", GITS_CWRITER): 0}

    def get(self, frame: str, offset: int) -> int:
        return self.regs.get((frame, offset), 0)

    @property
    def usable(self) -> bool:
        its = [self.get("its", offset) for offset in (GITS_CBASER, GITS_BASER, BASER1)]
        return all(value >> 63 for value in its)

    @property
    def queue(self) -> int:
        return ((self.get("its", GITS_CBASER) & 0xFF) + 1) * 4096

    def write(self, frame: str, at: int, value: int, size: int = 8) -> None:
        """As a vCPU, or with KVM's device attributes: the same to all that stands here."""
        offset = at & ~7 if at & ~7 in WIDE else at
        value <<= (at - offset) * 8
        if offset in WIDE and size == 4:
            other = 0xFFFFFFFF if at != offset else 0xFFFFFFFF << 32
            value |= self.get(frame, offset) & other
        if frame == "its":
            self.its(offset, value)
        elif not self.kvm or offset not in (GICR_PROPBASER, GICR_PENDBASER) or not self.get(frame, GICR_CTLR) & 1:
            self.regs[frame, offset] = value

    def its(self, offset: int, value: int) -> None:
        if offset == GITS_CTLR:
            value &= ~1 if self.kvm and not self.usable else ~0
        elif offset == GITS_CWRITER and self.kvm:
            value &= QUEUE_OFFSET
            if value >= self.queue:
                return
        elif offset == GITS_CREADR:
            pass
        elif offset != GITS_CWRITER and self.get("its", GITS_CTLR) & 1:
            return
        self.regs["its", offset] = value
        if offset == GITS_CBASER:
            self.regs["its", GITS_CREADR] = 0
            if self.kvm:
                self.regs["its", GITS_CWRITER] = 0

    def run(self, commands: int) -> int:
        """Run up to so many commands; CREADR."""
        creadr, cwriter = self.get("its", GITS_CREADR), self.get("its", GITS_CWRITER) & QUEUE_OFFSET
        if self.get("its", GITS_CTLR) & 1 and cwriter < self.queue:
            todo = (cwriter - creadr) % self.queue // 32
            creadr = (creadr + min(todo, commands) * 32) % self.queue
            self.regs["its", GITS_CREADR] = creadr
        return creadr

    def carry_out(self, calls: list[tuple[str, tuple[int, ...]]]) -> list[str]:
        """What a VMM says to a fresh one; the names of the operations that set no register."""
        others = []
        for op, args in calls:
            if op == SET_DIST_REG:
                self.write("gicd", *args)
            elif op == SET_REDIST_REG:
                self.write(f"gicr{args[0]}", *args[1:])
            elif op == SET_ITS_REG:
                self.write("its", *args)
            else:
                others.append(op)
        return others


_base = st.sampled_from([0, 0x4000_0000, CBASER_VALID | 0x4000_0000, BASER_VALID | 0x4200_0001])
_write = st.one_of(
    st.tuples(st.just("its"), st.sampled_from([GITS_CBASER, GITS_BASER, BASER1]), st.just(8), _base),
    st.tuples(st.just("its"), st.just(GITS_CTLR), st.just(4), st.integers(0, 1)),
    st.tuples(st.just("its"), st.just(GITS_CBASER + 4), st.just(4), st.sampled_from([0, 1 << 31])),
    st.tuples(st.just("its"), st.just(GITS_CBASER), st.just(4), st.sampled_from([0x4000_0000, 0x4000_0003])),
    st.tuples(st.just("its"), st.just(GITS_CWRITER), st.sampled_from([4, 8]), st.sampled_from([0, 32, 96, 4064, 8192])),
    st.tuples(st.sampled_from(["gicr0", "gicr11"]), st.just(GICR_CTLR), st.just(4), st.integers(0, 1)),
    st.tuples(st.just("gicr0"), st.sampled_from([GICR_PROPBASER, GICR_PENDBASER]), st.just(8), st.integers(0, 1 << 63)),
    st.tuples(st.just("gicr0"), st.just(GICR_WAKER), st.just(4), st.sampled_from([0, 2])),
    st.tuples(st.just("gicr11"), st.just(GICR_PROPBASER + 4), st.just(4), st.integers(0, 255)),
    st.tuples(st.just("gicd"), st.just(GICD_CTLR), st.just(4), st.integers(0, 0x13)),
)
_step = st.one_of(_write, st.integers(0, 4))

ENABLE: list[Any] = [
    ("its", GITS_CBASER, 8, CBASER_VALID), ("its", GITS_BASER, 8, BASER_VALID), ("its", BASER1, 8, BASER_VALID),
    ("its", GITS_CTLR, 4, 1),
]  # fmt: skip
#: Commands, half of them run; then off, and a queue elsewhere.
MOVED: list[Any] = [*ENABLE, ("its", GITS_CWRITER, 8, 96), 1, ("its", GITS_CTLR, 4, 0), ("its", GITS_CBASER, 8, 0)]


@pytest.mark.parametrize("kvm", [True, False], ids=["kvm", "qemu"])
@given(steps=st.lists(_step, max_size=24))
@example(steps=[*ENABLE, ("its", GITS_CWRITER, 8, 96), 1])
@example(steps=[*ENABLE, ("its", GITS_CWRITER, 8, 96), 3, ("its", GITS_CWRITER, 8, 8192), ("its", GITS_BASER, 8, 0)])
@example(steps=MOVED)
@example(steps=[*MOVED[:-1], ("its", GITS_CBASER, 8, CBASER_VALID), ("its", GITS_CTLR, 4, 1), 1])
@example(steps=[("its", GITS_CTLR, 4, 1), *ENABLE[:3]])
@example(steps=[("its", GITS_CTLR, 4, 1), ("its", GITS_CWRITER, 4, 32), 1])
@example(steps=[("gicr0", GICR_CTLR, 4, 1), ("gicr0", GICR_PROPBASER, 8, 5)])
def test_what_is_restored_is_what_was_there(kvm: bool, steps: list[Any]) -> None:
    machine, shadow = Machine(kvm), ItsShadow()
    shadow.read("its", GITS_TYPER, 8, 0 if kvm else TYPER_CIL)
    for step in steps:
        if isinstance(step, int):
            shadow.committed(machine.run(step))
        else:
            frame, offset, size, value = step
            machine.write(frame, offset, value, size)
            shadow.written(frame, offset, size, value)
            shadow.done(frame, offset)
    restored = Machine(kvm)
    others = restored.carry_out(shadow.restore_calls())
    assert [*others[:2], others[-1]] == [STOP_VCPUS, CTRL_RESET, RUN_VCPUS]
    for key in machine.regs | restored.regs:
        got, want = restored.regs.get(key, 0), machine.regs.get(key, 0)
        if key[1] == GICR_PENDBASER and kvm:
            got, want = got & ~PENDBASER_PTZ, want & ~PENDBASER_PTZ
        assert got == want, key
    on = bool(machine.get("its", GITS_CTLR) & 1) and (kvm or machine.usable)
    assert on <= (RESTORE_TABLES in others[2:-1]), "an ITS that is on has tables"


def program(shadow: ItsShadow, *writes: tuple[str, int, int, int]) -> None:
    for frame, offset, size, value in writes:
        shadow.written(frame, offset, size, value)
        shadow.done(frame, offset)


def test_the_order_is_kvms() -> None:
    assert not ItsShadow().programmed
    shadow = ItsShadow()
    program(
        shadow, *ENABLE, ("its", GITS_CWRITER, 8, 64), ("gicr10", GICR_CTLR, 4, 0), ("gicr2", GICR_CTLR, 4, 1),
        ("gicr2", GICR_PENDBASER, 8, 1), ("gicd", GICD_CTLR, 4, 0x13), ("gicr10", GICR_PENDBASER, 8, PENDBASER_PTZ | 7),
        ("gicr10", GICR_PROPBASER, 8, 9), ("gicr10", GICR_WAKER, 4, 2),
    )  # fmt: skip
    shadow.committed(32)
    assert shadow.programmed
    assert shadow.restore_calls() == [
        (STOP_VCPUS, ()),
        (CTRL_RESET, ()),
        (SET_DIST_REG, (GICD_CTLR, 0x13)),
        (SET_REDIST_REG, (2, GICR_CTLR, 1)),
        (SET_REDIST_REG, (10, GICR_WAKER, 2)),
        (SET_REDIST_REG, (10, GICR_PROPBASER, 9)),
        (SET_REDIST_REG, (10, GICR_PENDBASER, PENDBASER_PTZ | 7)),
        (SET_REDIST_REG, (10, GICR_CTLR, 0)),
        (SET_ITS_REG, (GITS_CBASER, CBASER_VALID)),
        (SET_ITS_REG, (GITS_CWRITER, 64)),
        (SET_ITS_REG, (GITS_CREADR, 32)),
        (SET_ITS_REG, (GITS_BASER, BASER_VALID)),
        (SET_ITS_REG, (BASER1, BASER_VALID)),
        (RESTORE_TABLES, ()),
        (SET_ITS_REG, (GITS_CTLR, 1)),
        (RUN_VCPUS, ()),
    ]
    shadow.clear()
    assert shadow.restore_calls() == [(STOP_VCPUS, ()), (CTRL_RESET, ()), (RUN_VCPUS, ())]
    assert not shadow.programmed


def pendbaser(shadow: ItsShadow) -> int:
    return next(args[2] for op, args in shadow.restore_calls() if op == SET_REDIST_REG and args[1] == GICR_PENDBASER)


def test_a_pending_table_that_was_in_use_is_read() -> None:
    shadow = ItsShadow()
    program(shadow, ("gicr0", GICR_PENDBASER, 8, PENDBASER_PTZ | 0x10000))
    assert pendbaser(shadow) == PENDBASER_PTZ | 0x10000
    program(shadow, ("gicr0", GICR_CTLR, 4, 1))
    assert pendbaser(shadow) == 0x10000
    program(shadow, ("gicr0", GICR_CTLR, 4, 0))
    assert pendbaser(shadow) == 0x10000
    program(shadow, ("gicr0", GICR_PENDBASER, 8, PENDBASER_PTZ | 0x20000))
    assert pendbaser(shadow) == PENDBASER_PTZ | 0x20000, "a new table"


def tables(shadow: ItsShadow) -> bool:
    return (RESTORE_TABLES, ()) in shadow.restore_calls()


def test_tables_are_restored_once_they_were_in_use() -> None:
    shadow = ItsShadow()
    program(shadow, *ENABLE[:3])
    assert not tables(shadow)
    program(shadow, ENABLE[3])
    assert tables(shadow)
    program(shadow, ("its", GITS_CTLR, 4, 0))
    assert tables(shadow), "a disabled ITS keeps them"
    program(shadow, ENABLE[1], ENABLE[2])
    assert tables(shadow), "the same again, as Linux does when it resumes"
    program(shadow, ("its", GITS_CBASER, 8, 0))
    assert not tables(shadow)
    program(shadow, ENABLE[0], ("its", BASER1, 8, BASER_VALID | 0x1_0000))
    assert not tables(shadow), "others"
    program(shadow, ENABLE[2])
    assert not tables(shadow)


def test_what_moves_a_table() -> None:
    """Attributes do not; in KVM, where pages are of 64 KiB, neither does Page_Size. A half is a write of its own."""
    low, high = GITS_BASER, GITS_BASER + 4
    for write, cil, same in (
        ((low, 8, BASER_VALID | 7 << 59 | 1 << 10), 0, True),
        ((high, 4, 1 << 31 | 7 << 27), 0, True),
        ((low, 4, BASER_PAGE_SIZE.put(1)), 0, True),
        ((low, 4, BASER_PAGE_SIZE.put(1)), TYPER_CIL, False),
        ((low, 4, 1), 0, True),
        ((high, 4, 1 << 31 | 1), 0, False),
        ((high, 4, 7 << 27), 0, False),
    ):
        shadow = ItsShadow()
        shadow.read("its", GITS_TYPER, 8, cil)
        program(shadow, *ENABLE, ("its", GITS_CTLR, 4, 0), ("its", *write))
        program(shadow, ("its", high, 4, 1 << 31))
        assert tables(shadow) == same, write


def test_qemu_is_told_by_what_the_guest_read() -> None:
    """It takes table bases while LPIs are enabled, and PTZ reads back; what enables it needs no tables."""
    lpis = [("gicr0", GICR_CTLR, 4, 1), ("gicr0", GICR_PENDBASER, 8, PENDBASER_PTZ | 0x1_0000)]
    found = []
    for typer in (None, 0, TYPER_CIL):
        shadow = ItsShadow()
        if typer is not None:
            shadow.read("its", GITS_TYPER, 8, typer)
        program(shadow, *lpis, ENABLE[3], *ENABLE[:3])
        found.append((shadow.loose, shadow.restore_calls()[2:-1]))
    assert found[0] == found[1]
    assert found[0][0] is False
    assert found[0][1][0] == (SET_REDIST_REG, (0, GICR_CTLR, 1)), "KVM's drops the base"
    assert found[0][1][-1] == (SET_ITS_REG, (GITS_CTLR, 0))
    assert found[2] == (True, [
        (SET_REDIST_REG, (0, GICR_PENDBASER, PENDBASER_PTZ | 0x1_0000)),
        (SET_REDIST_REG, (0, GICR_CTLR, 1)),
        (SET_ITS_REG, (GITS_CTLR, 1)),
    ])  # fmt: skip


def creadr(shadow: ItsShadow) -> int:
    return next(args[1] for op, args in shadow.restore_calls() if op == SET_ITS_REG and args[0] == GITS_CREADR)


def test_a_commit_of_the_old_queue_does_not_move_the_new_one() -> None:
    shadow = ItsShadow()
    program(shadow, ("its", GITS_CBASER, 8, CBASER_VALID))
    shadow.committed(64 | 1)
    assert creadr(shadow) == 64 | 1, "Stalled is a part of it"
    shadow.written("its", GITS_CBASER, 4, 3)
    shadow.written("its", GITS_CBASER + 4, 4, 1 << 31)
    assert creadr(shadow) == 0
    shadow.committed(96)
    shadow.done("its", GITS_CBASER)
    shadow.done("gicr0", GITS_CBASER)
    shadow.committed(96)
    assert creadr(shadow) == 0, "the second write is not answered yet"
    shadow.done("its", GITS_CBASER + 4)
    shadow.done("its", GITS_CBASER)
    shadow.committed(32)
    assert creadr(shadow) == 32
    shadow.written("its", GITS_CBASER, 8, CBASER_VALID)
    shadow.lost()
    shadow.restored()
    shadow.committed(128)
    assert creadr(shadow) == 128, "no answer comes after the link has gone"


def test_an_its_that_is_not_restored_yet_has_creadr_elsewhere() -> None:
    shadow = ItsShadow()
    program(shadow, *ENABLE)
    shadow.committed(64)
    for begins in (shadow.lost, shadow.restoring):
        begins()
        shadow.committed(0)
        assert creadr(shadow) == 64
    shadow.restored()
    shadow.committed(96)
    assert creadr(shadow) == 96
    shadow.restoring()
    shadow.clear()
    shadow.lost()
    program(shadow, *ENABLE)
    shadow.committed(32)
    assert creadr(shadow) == 32, "there was nothing to be restored"


@pytest.mark.parametrize(
    ("frame", "offset", "size"),
    [
        ("trans", 0x40, 4), ("its", GITS_TYPER, 8), ("its", GITS_CREADR, 8), ("its", GITS_CTLR, 8), ("gicr0", 4, 4),
        ("its", GITS_CBASER + 4, 8), ("its", GITS_CBASER + 2, 4), ("gicr0", GICR_CTLR, 8), ("its", GITS_CBASER, 2),
        ("gicd", 0x100, 4), ("its", GITS_CTLR, 2), ("its", 0x84 + 0x40, 4),
    ],
)  # fmt: skip
def test_what_is_no_register_to_be_kept(frame: str, offset: int, size: int) -> None:
    shadow = ItsShadow()
    shadow.written(frame, offset, size, 0xFF)
    assert not shadow.programmed


def test_what_the_guest_read_of_typer() -> None:
    shadow = ItsShadow()
    for frame, offset, size in (("its", GITS_TYPER, 4), ("its", GITS_CTLR, 8), ("gicr0", GITS_TYPER, 8)):
        shadow.read(frame, offset, size, 7)
    known = [shadow.typer]
    shadow.read("its", GITS_TYPER, 8, 7)
    known.append(shadow.typer)
    shadow.clear()
    known.append(shadow.typer)
    shadow.load(saved(GITS_TYPER=9))
    assert [*known, shadow.typer] == [None, 7, None, 9]


def test_whose_writes_are_here() -> None:
    assert all(ItsShadow.holds(frame) for frame in ("its", "gicd", "gicr0", "gicr31"))
    assert not ItsShadow.holds("trans")


def saved(**its: int) -> SavedIts:
    registers = dict.fromkeys(ITS_REGISTERS, 0) | {
        "GITS_CTLR": 1, "GITS_IIDR": 0x43B, "GITS_CBASER": CBASER_VALID | 1, "GITS_CWRITER": 96, "GITS_CREADR": 32,
        "GITS_BASER0": BASER_VALID, "GITS_BASER1": BASER_VALID | 1,
    }  # fmt: skip
    redist = {"GICR_CTLR": 1, "GICR_WAKER": 6, "GICR_PROPBASER": 0x10F, "GICR_PENDBASER": PENDBASER_PTZ | 0x1_0000}
    return SavedIts(
        profile="kvm", cpus=2, dist={"GICD_CTLR": 0x13}, redists=[redist, redist], its=registers | its, memory=[]
    )


def test_a_saved_its() -> None:
    shadow = ItsShadow()
    program(shadow, *ENABLE, ("gicr5", GICR_CTLR, 4, 1), ("its", GITS_CBASER, 8, 0))
    shadow.load(saved())
    calls = shadow.restore_calls()
    assert calls[2:7] == [
        (SET_DIST_REG, (GICD_CTLR, 0x13)),
        (SET_REDIST_REG, (0, GICR_WAKER, 6)),
        (SET_REDIST_REG, (0, GICR_PROPBASER, 0x10F)),
        (SET_REDIST_REG, (0, GICR_PENDBASER, 0x1_0000)),
        (SET_REDIST_REG, (0, GICR_CTLR, 1)),
    ]
    machine = Machine(kvm=False)
    assert machine.carry_out(calls) == [STOP_VCPUS, CTRL_RESET, RESTORE_TABLES, RUN_VCPUS]
    assert {key[0] for key in machine.regs} == {"gicd", "gicr0", "gicr1", "its"}
    assert calls[11] == (SET_ITS_REG, (GITS_IIDR, 0x43B)), "the first: it says whose tables they are"
    for name, offset in ITS_REGISTERS.items():
        assert machine.get("its", offset) == saved().its[name]
    shadow.committed(64)
    assert creadr(shadow) == 64, "nothing is on its way"


def test_a_saved_its_that_is_off_has_tables_if_they_are_valid() -> None:
    shadow = ItsShadow()
    shadow.load(saved(GITS_CTLR=0))
    assert tables(shadow)
    shadow.load(saved(GITS_BASER1=0, GITS_CTLR=0))
    assert not tables(shadow)
