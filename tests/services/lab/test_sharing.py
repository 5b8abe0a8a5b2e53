"""Which locations become preemption points, and which never need to."""

from __future__ import annotations

from services.lab.sharing import Sharing

NONE: frozenset[str] = frozenset()
LOCK = frozenset({"lock"})
X = ("cell", "x")


def test_one_actor_alone_stays_quiet() -> None:
    sharing = Sharing()
    assert not sharing.touch(X, "a", True, NONE)
    assert not sharing.touch(X, "a", False, NONE)
    assert not sharing.grew


def test_reads_by_many_stay_quiet_until_one_writes() -> None:
    sharing = Sharing()
    for actor in ("a", "b", "a"):
        assert not sharing.touch(X, actor, False, NONE)
    assert sharing.touch(X, "c", True, NONE)
    assert sharing.shared == {X}
    assert sharing.grew


def test_write_then_read_by_another() -> None:
    sharing = Sharing()
    sharing.touch(X, "a", False, NONE)
    sharing.touch(X, "a", True, NONE)
    assert sharing.touch(X, "b", False, NONE)


def test_a_common_lock_keeps_it_quiet() -> None:
    sharing = Sharing()
    assert not sharing.touch(X, "a", True, LOCK | {"other"})
    assert not sharing.touch(X, "b", True, LOCK)
    assert sharing.touch(X, "b", False, frozenset({"other"}))


def test_the_owner_dropping_the_lock_counts() -> None:
    sharing = Sharing()
    sharing.touch(X, "a", True, LOCK)
    assert not sharing.touch(X, "a", True, NONE)
    assert sharing.touch(X, "b", True, LOCK)


def test_cells_in_a_bulk_copy_are_shared() -> None:
    sharing = Sharing()
    inside, before, other = ("mem", 0x10), ("mem", 0x4), ("mem2", 0x10)
    for loc in (inside, before, other):
        sharing.touch(loc, "a", True, NONE)
    sharing.touch_range("mem", 0x10, 0x20)
    sharing.touch_range("mem", 0x10, 0x20)
    assert sharing.shared == {inside}
    # a cell touched first after the copy, and one that reaches into it
    assert sharing.touch(("mem", 0x1F), "a", False, NONE)
    assert sharing.touch(("mem", 0xC), "a", False, NONE)
    assert not sharing.touch(("mem", 0x20), "a", False, NONE)
    assert not sharing.touch(("mem", "field"), "a", False, NONE)
