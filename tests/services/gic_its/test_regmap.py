"""Every register frame of both profiles: what it holds, what a write can change, what is RAZ/WI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LocalError
from common.registers import Access, Register, RegisterFile, RegisterMap
from common.runtime.world import AsyncWorld
from services.gic_its.profile import KVM, PROFILES, QEMU, Profile
from services.gic_its.regmap import (
    TRANSLATION_FRAME,
    distributor_frame,
    distributor_resets,
    gic,
    its_frame,
    redistributor_frame,
    redistributor_resets,
    resets,
)

ONES = (1 << 64) - 1
CPUS = 4
HOOKS = {
    "its": {"read_ctlr", "write_ctlr", "write_cbaser", "write_cwriter", "write_baser0", "write_baser1"},
    "gicr": {"write_ctlr"},
    "gicd": {"write_ctlr"},
}


class Owner:
    """Takes every write as the table lets it through, and shows what is stored."""

    def __init__(self, frame: RegisterMap, values: Mapping[str, int]) -> None:
        for row in frame:
            if row.read:
                setattr(self, row.read, lambda name=row.name: self.registers.get(name))
            if row.write:
                setattr(self, row.write, lambda old, new: new)
        self.registers: RegisterFile = RegisterFile(AsyncWorld(), frame, self, values)


def frame_of(profile: Profile, name: str) -> RegisterFile:
    """``its``, ``trans``, ``gicd``, ``gicr0`` … ``gicr3`` out of reset."""
    if name.startswith("gicr"):
        values = redistributor_resets(profile, int(name[4:]), CPUS)
        return Owner(redistributor_frame(profile), values).registers
    frame, start = {
        "its": (its_frame(profile), resets(profile)),
        "gicd": (distributor_frame(profile), distributor_resets(profile)),
        "trans": (TRANSLATION_FRAME, {}),
    }[name]
    return Owner(frame, start).registers


def stored(registers: RegisterFile) -> dict[str, int]:
    return {row.name: registers.get(row.name) for row in registers.map}


ROWS = [
    (profile, name, row)
    for profile in PROFILES.values()
    for name in ("its", "trans", "gicr1", "gicd")
    for row in frame_of(profile, name).map
]


def label(value: object) -> str:
    return getattr(value, "name", str(value))


# --- any row -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "name", "row"), ROWS, ids=label)
def test_ones_and_zeros_change_the_writable_bits_only(profile: Profile, name: str, row: Register) -> None:
    registers = frame_of(profile, name)
    size = row.allowed[-1]
    before = registers.get(row.name)
    registers.write(row.offset, size, ONES)
    assert registers.get(row.name) == before | row.writable
    registers.write(row.offset, size, 0)
    assert registers.get(row.name) == before & ~row.writable
    readable = row.access not in (Access.WO, Access.RAZ_WI)
    assert registers.read(row.offset, size) == (registers.get(row.name) if readable else 0)


@given(case=st.sampled_from([case for case in ROWS if case[2].width == 64]), value=st.integers(0, ONES), data=st.data())
def test_halves_merge_into_the_whole(case: tuple[Profile, str, Register], value: int, data: st.DataObject) -> None:
    profile, name, row = case
    whole, halves = frame_of(profile, name), frame_of(profile, name)
    whole.write(row.offset, 8, value)
    for at in data.draw(st.permutations((0, 4))):
        halves.write(row.offset + at, 4, value >> at * 8)
    assert stored(halves) == stored(whole)
    assert halves.read(row.offset, 4) | halves.read(row.offset + 4, 4) << 32 == whole.read(row.offset, 8)


@given(
    profile=st.sampled_from(list(PROFILES.values())),
    name=st.sampled_from(["its", "trans", "gicr1", "gicd"]),
    offset=st.integers(0, 0x200) | st.integers(0xFFC0, 0xFFFF) | st.integers(0, 0xFFFF),
    size=st.sampled_from([1, 2, 4, 8]),
    value=st.integers(0, ONES),
)
def test_any_other_access_is_raz_wi(profile: Profile, name: str, offset: int, size: int, value: int) -> None:
    registers = frame_of(profile, name)
    if registers.map.find(offset, size) is None:
        before = stored(registers)
        assert registers.read(offset, size) == 0
        assert registers.write(offset, size, value) is None
        assert stored(registers) == before


def test_translater_takes_words_and_its_low_half() -> None:
    """The upper half alone is nothing, seen on QEMU 10.0.2."""
    events: list[int] = []

    class Translation:
        def write_translater(self, old: int, new: int) -> None:
            events.append(new)

    registers = RegisterFile(AsyncWorld(), TRANSLATION_FRAME, Translation())
    for offset, size, value in ((0x40, 4, 0x12345), (0x40, 2, 0x12345), (0x42, 2, 7), (0x40, 1, 7), (0x44, 4, 7)):
        registers.write(offset, size, value)
    assert events == [0x12345, 0x2345]
    assert registers.read(0x40, 4) == 0


@pytest.mark.parametrize(("profile", "name", "row"), ROWS, ids=label)
def test_sizes_are_the_architectures(profile: Profile, name: str, row: Register) -> None:
    if row.name == "GITS_TRANSLATER":
        assert row.allowed == (2, 4)
    else:
        assert row.allowed == ((4,) if row.width == 32 else (4, 8))
    assert row.section
    assert row.doc


# --- the qemu profile against QEMU -------------------------------------------------------------------------------

#: Every word that is not 0 out of reset, read over qtest from QEMU 10.0.2: -M virt,gic-version=3,virtualization=off
#: -smp 4. Of the distributor the registers of SPIs are left out (they are 0 out of reset).
_IDS = {0xFFD0: 0x44, 0xFFE4: 0xB4, 0xFFE8: 0x3B, 0xFFF0: 0xD, 0xFFF4: 0xF0, 0xFFF8: 0x5, 0xFFFC: 0xB1}
_GICR = {0x0: 0x2, 0x4: 0x43B, 0x14: 0x6, 0xFFE0: 0x93, **_IDS}
SEEN = {
    "gicd": {0x0: 0x50, 0x4: 0x37A0008, 0x8: 0x43B, 0xFFE0: 0x92, **_IDS},
    "its": {
        0x0: 0x80000000, 0x4: 0x43B, 0x8: 0x1EFB1, 0xC: 0x1F, 0x100: 0x200, 0x104: 0x1070000, 0x108: 0x200,
        0x10C: 0x4070000, 0xFFE0: 0x94, **_IDS,
    },
    "trans": {},
    "gicr0": {0x8: 0x1000001, **_GICR},
    "gicr1": {0x8: 0x1000101, 0xC: 0x1, **_GICR},
    "gicr2": {0x8: 0x1000201, 0xC: 0x2, **_GICR},
    "gicr3": {0x8: 0x1000311, 0xC: 0x3, **_GICR},
}  # fmt: skip

#: What reads back after a write of 0xffffffff, and then of 0, where that is not what was there; of the same machine.
#: GICR_WAKER's ChildrenAsleep follows by a hook.
SEEN_WRITTEN = {
    "gicd": {0x0: (0x53, 0x50)},
    "its": {
        0x0: (0x80000001, 0x80000000), 0x80: (0xFFFFFFFF, 0), 0x84: (0xFFFFFFFF, 0), 0x88: (0xFFFFFFFE, 0),
        0x8C: (0xFFFFFFFF, 0), 0x90: (0xFFFFFFFE, 0), 0x94: (0xFFFFFFFF, 0), 0x100: (0xFFFFFFFF, 0),
        0x104: (0xF9E7FFFF, 0x1070000), 0x108: (0xFFFFFFFF, 0), 0x10C: (0xFCE7FFFF, 0x4070000),
    },
    "trans": {},
    "gicr0": {
        0x0: (0x3, 0x2), 0x14: (0x6, 0x4), 0x70: (0xFFFFFFFF, 0), 0x74: (0xFFFFFFFF, 0), 0x78: (0xFFFFFFFF, 0),
        0x7C: (0xFFFFFFFF, 0),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_qemu_holds_what_qemu_showed(name: str) -> None:
    registers = frame_of(QEMU, name)
    found = {at: value for at in range(0, 0x10000, 4) if (value := registers.read(at, 4))}
    assert found == SEEN[name]


@pytest.mark.parametrize("name", SEEN_WRITTEN)
def test_qemu_stores_what_qemu_stored(name: str) -> None:
    registers = frame_of(QEMU, name)
    found = {}
    for at in range(0, 0x10000, 4):
        before = registers.read(at, 4)
        registers.write(at, 4, 0xFFFFFFFF)
        ones = registers.read(at, 4)
        registers.write(at, 4, 0)
        zeros = registers.read(at, 4)
        if (ones, zeros) != (before, before):
            found[at] = (ones, zeros)
    assert found == SEEN_WRITTEN[name]


def test_wide_access_to_a_word_reads_zero() -> None:
    """Seen on QEMU 10.0.2: a double word at CTLR, IIDR, PIDR2; bytes and half words anywhere."""
    for name, offsets in (("its", (0x0, 0xFFE8)), ("gicr0", (0x0, 0x10, 0xFFE8)), ("gicd", (0x0, 0x8, 0xFFE0))):
        registers = frame_of(QEMU, name)
        assert [registers.read(at, 8) for at in offsets] == [0] * len(offsets)
        assert [registers.read(at, size) for at in (0, 4, 8, 0xFFE8) for size in (1, 2)] == [0] * 8


def test_affinity_of_more_than_sixteen_pes() -> None:
    """GICR_TYPER of five of 34 PEs, seen on QEMU 10.0.2."""
    seen = {0: 0x1000001, 15: 0xF01000F01, 16: 0x10001001001, 17: 0x10101001101, 33: 0x20101002111}
    assert {n: redistributor_resets(QEMU, n, 34)["GICR_TYPER"] for n in seen} == seen
    common = 1 << 24
    assert {n: redistributor_resets(KVM, n, 34)["GICR_TYPER"] | common for n in seen} == seen


# --- the kvm profile ---------------------------------------------------------------------------------------------


def test_kvm_out_of_reset() -> None:
    def words(name: str) -> dict[int, int]:
        registers = frame_of(KVM, name)
        return {at: value for at in range(0, 0x10000, 4) if (value := registers.read(at, 4))}

    assert words("its") == {
        0x0: 0x80000000, 0x4: 0x4B00043B, 0x8: 0x1EF71, 0x100: 0x200, 0x104: 0x1070000, 0x108: 0x200, 0x10C: 0x4070000,
        0xFFD0: 0x40, 0xFFE0: 0x92, 0xFFE4: 0xB4, 0xFFE8: 0x3B, 0xFFF0: 0xD, 0xFFF4: 0xF0, 0xFFF8: 0x5, 0xFFFC: 0xB1,
    }  # fmt: skip
    assert words("gicr0") == {0x4: 0x4B00043B, 0x8: 0x1, 0xFFE8: 0x3B}
    assert words("gicr3") == {0x4: 0x4B00043B, 0x8: 0x311, 0xC: 0x3, 0xFFE8: 0x3B}
    assert words("gicd") == {0x0: 0x50, 0x4: 0x7A0007, 0x8: 0x4B00243B, 0x10: 0xFFFFFFFF, 0xFFE8: 0x3B}


@pytest.mark.parametrize(
    ("name", "offset", "stored"),
    [
        ("its", 0x80, 0xB8EFFFFFFFFF0CFF),  # CBASER: at 64 KiB, RES0 bits 0
        ("its", 0x88, 0xFFFE0),  # CWRITER
        ("its", 0x90, 0),  # CREADR
        ("its", 0x100, 0xF9E7FFFFFFFFFEFF),  # BASER0: 64 KiB pages for good
        ("its", 0x108, 0xBCE7FFFFFFFFFEFF),  # BASER1: and not indirect
        ("its", 0x110, 0),
        ("gicr0", 0x70, 0x070FFFFFFFFFFF9F),
        ("gicr0", 0x78, 0x470FFFFFFFFF0F80),
    ],
)
def test_all_ones_in_kvm(name: str, offset: int, stored: int) -> None:
    registers = frame_of(KVM, name)
    registers.write(offset, 8, ONES)
    assert registers.read(offset, 8) == stored


@pytest.mark.parametrize(("offset", "stored"), [(0x0, 0x52), (0x4, 0x7A0007), (0x8, 0x4B00243B), (0x10, 0xFFFFFFFF)])
def test_all_ones_in_kvms_distributor(offset: int, stored: int) -> None:
    registers = frame_of(KVM, "gicd")
    registers.write(offset, 4, 0xFFFFFFFF)
    assert registers.read(offset, 4) == stored


# --- hooks, waiting, policies ------------------------------------------------------------------------------------


def hooks(frame: RegisterMap) -> set[str]:
    return {hook for row in frame for hook in (row.read, row.write) if hook}


def test_hooks_are_those_that_owners_have() -> None:
    assert hooks(its_frame(KVM)) == HOOKS["its"]
    assert hooks(its_frame(QEMU)) == HOOKS["its"] | {"write_creadr"}
    assert hooks(redistributor_frame(KVM)) == HOOKS["gicr"] | {"write_table_base", "read_pendbaser"}
    assert hooks(redistributor_frame(QEMU)) == HOOKS["gicr"] | {"write_waker"}
    assert hooks(distributor_frame(KVM)) == hooks(distributor_frame(QEMU)) == HOOKS["gicd"]
    assert hooks(TRANSLATION_FRAME) == {"write_translater"}


def test_writes_that_wait() -> None:
    def waits(frame: RegisterMap) -> set[str]:
        return {row.name for row in frame if row.waits}

    its = {"GITS_CTLR", "GITS_CBASER", "GITS_CWRITER", "GITS_BASER0", "GITS_BASER1"}
    assert waits(its_frame(KVM)) == its
    assert waits(its_frame(QEMU)) == its | {"GITS_CREADR"}
    assert waits(redistributor_frame(KVM)) == waits(redistributor_frame(QEMU)) == {"GICR_CTLR"}
    assert waits(distributor_frame(KVM)) == waits(TRANSLATION_FRAME) == set()


@pytest.mark.parametrize(
    ("frame", "policy", "names"),
    [
        (its_frame, {"any_page_size": True}, {"GITS_CBASER", "GITS_BASER0", "GITS_BASER1"}),
        (its_frame, {"drops_cwriter_past_queue": False}, {"GITS_CWRITER"}),
        (its_frame, {"cbaser_clears_cwriter": False}, {"GITS_CBASER"}),
        (its_frame, {"creadr_writable": True}, {"GITS_CREADR"}),
        (redistributor_frame, {"loose_redistributor": True}, {"GICR_PROPBASER", "GICR_PENDBASER"}),
        (its_frame, {"stalls": True}, set()),
    ],
)
def test_each_policy_of_a_profile_has_its_rows(
    frame: Callable[[Profile], RegisterMap], policy: dict[str, bool], names: set[str]
) -> None:
    other = frame(replace(KVM, **policy))  # type: ignore[arg-type]
    assert {row.name for row in frame(KVM) if other.row(row.name) != row} == names


def test_a_frame_is_made_once() -> None:
    assert its_frame(KVM) is its_frame(replace(KVM, name="other"))
    assert redistributor_frame(QEMU) is redistributor_frame(QEMU)
    assert distributor_frame(QEMU) is distributor_frame(QEMU)


def test_a_profile_without_a_distributor_is_refused() -> None:
    with pytest.raises(LocalError, match="profile 'other' is none of kvm, qemu"):
        gic(replace(KVM, name="other"))
