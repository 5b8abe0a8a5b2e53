"""GICD_CTLR lets LPIs through, or holds them; nothing else of the distributor does anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.runtime.world import AsyncWorld
from services.gic_its.distributor import Distributor
from services.gic_its.profile import KVM, PROFILES, QEMU, Profile

CTLR = 0x0

profiles = st.sampled_from(list(PROFILES.values()))


class Gicd:
    """A distributor, and what ``forwards`` was at each call of ``changed``."""

    def __init__(self, profile: Profile) -> None:
        self.seen: list[bool] = []
        self.gicd = Distributor(AsyncWorld(), profile, lambda: self.seen.append(self.gicd.forwards))

    def write(self, value: int, size: int = 4, offset: int = CTLR) -> None:
        self.gicd.registers.write(offset, size, value)

    @property
    def ctlr(self) -> int:
        return self.gicd.registers.read(CTLR, 4)

    @property
    def stored(self) -> dict[str, int]:
        registers = self.gicd.registers
        return {row.name: registers.get(row.name) for row in registers.map}


def test_nothing_is_forwarded_out_of_reset() -> None:
    gicd = Gicd(KVM)
    assert not gicd.gicd.forwards
    assert gicd.ctlr == 0x50


def test_what_guests_write_enables_both_groups() -> None:
    for profile, reads in ((KVM, 0x52), (QEMU, 0x53)):
        gicd = Gicd(profile)
        gicd.write(0x13)
        assert gicd.gicd.forwards
        assert gicd.ctlr == reads


def test_group_0_alone_forwards_no_lpi() -> None:
    gicd = Gicd(QEMU)
    gicd.write(0x1)
    assert not gicd.gicd.forwards
    assert gicd.seen == []
    assert gicd.ctlr == 0x51  # seen on QEMU 10.0.2, as are the values of the next test


def test_values_seen_on_qemu() -> None:
    gicd = Gicd(QEMU)
    for value, reads in ((0x13, 0x53), (0x1, 0x51), (0x2, 0x52), (0x0, 0x50), (0xFFFFFFFF, 0x53)):
        gicd.write(value)
        assert gicd.ctlr == reads


@given(profile=profiles, values=st.lists(st.integers(0, 0xFFFFFFFF), max_size=8))
def test_changed_is_called_when_forwards_flips(profile: Profile, values: list[int]) -> None:
    gicd = Gicd(profile)
    expected, now = [], False
    for value in values:
        gicd.write(value)
        if bool(value & 2) != now:
            now = not now
            expected.append(now)
        assert gicd.gicd.forwards == now
        assert gicd.ctlr & ~0x3 == 0x50
    assert gicd.seen == expected


@given(profile=profiles, offset=st.integers(0, 0xFFFF), size=st.sampled_from([1, 2, 4, 8]))
def test_no_other_write_does_anything(profile: Profile, offset: int, size: int) -> None:
    gicd = Gicd(profile)
    if (offset, size) != (CTLR, 4):
        before = gicd.stored
        gicd.write((1 << 8 * size) - 1, size, offset)
        assert gicd.stored == before
        assert gicd.seen == []


def test_reset_holds_lpis_again_without_a_word() -> None:
    gicd = Gicd(QEMU)
    gicd.write(0x3)
    gicd.gicd.reset()
    assert not gicd.gicd.forwards
    assert gicd.ctlr == 0x50
    assert gicd.seen == [True]
    gicd.write(0x2)
    assert gicd.seen == [True, True]
