"""Rings: what describes them, when they run, and that every descriptor has one owner."""

from __future__ import annotations

import pytest

from common.errors import RemoteError
from services.vhost_user.memory import SharedMemory, SharedRegion
from services.vhost_user.requests import Refusal, RefusedError
from services.vhost_user.vrings import Vrings
from tests.services.vhost_user.recorder import Descriptors, Recorder

USER = 0x7000_0000


class Rig:
    def __init__(self, described: bool = True) -> None:
        self.target = Recorder()
        self.files = Descriptors()
        self.vrings = Vrings(self.target, self.files.close)
        region = SharedRegion(0, 1 << 16, USER, 0)
        memory = SharedMemory().with_region(region, 0, lambda _f, _o, size: memoryview(bytearray(size)), 1)
        self.target.memory_set(memory)
        if described:
            self.vrings.size_set(0, 16)
            self.vrings.addresses_set(0, 0, USER, USER + 0x1000, USER + 0x800, 0)
        self.target.told.clear()

    def fd(self) -> int:
        return self.files.new()[0]


def refused(kind: Refusal, field: str) -> pytest.RaisesExc[RefusedError]:
    return pytest.RaisesExc(RefusedError, check=lambda e: (e.kind, e.field) == (kind, field))


@pytest.mark.parametrize("size", [0, 3, 96, 512, 1 << 31])
def test_sizes_refused(size: int) -> None:
    with refused(Refusal.VALUE, "vring.num"):
        Rig().vrings.size_set(0, size)


def test_each_ring_has_its_own_largest_size() -> None:
    vrings = Rig().vrings
    vrings.size_set(0, 256)
    vrings.size_set(1, 64)
    with refused(Refusal.VALUE, "vring.num"):
        vrings.size_set(1, 128)
    assert [ring.size for ring in vrings.rings] == [256, 64]


def test_no_ring_is_larger_than_virtio_allows() -> None:
    vrings = Vrings(Recorder([1 << 20]), lambda _fd: None)
    vrings.size_set(0, 1 << 15)
    with refused(Refusal.VALUE, "vring.num"):
        vrings.size_set(0, 1 << 16)


@pytest.mark.parametrize(
    ("desc", "used", "avail", "field"),
    [(8, 0, 0, "vring.desc"), (0, 2, 0, "vring.used"), (0, 0, 1, "vring.avail")],
)
def test_misaligned_areas(desc: int, used: int, avail: int, field: str) -> None:
    rig = Rig(described=False)
    with refused(Refusal.VALUE, field):
        rig.vrings.addresses_set(0, 0, desc, used, avail, 0)
    assert rig.vrings.rings[0].desc is None


def test_areas_need_no_more_than_their_alignment() -> None:
    vrings = Rig().vrings
    vrings.addresses_set(1, 0, 16, 4, 2, 99)
    ring = vrings.rings[1]
    assert (ring.desc, ring.used, ring.avail, ring.log_addr) == (16, 4, 2, 99)


def test_logging_is_refused() -> None:
    with refused(Refusal.FEATURE, "vring.flags"):
        Rig().vrings.addresses_set(0, 1, 0, 0, 0, 0)


def test_base_is_16_bits() -> None:
    vrings = Rig().vrings
    vrings.base_set(0, 0xFFFF)
    with refused(Refusal.VALUE, "vring.base"):
        vrings.base_set(0, 0x1_0000)
    assert vrings.rings[0].base == 0xFFFF


def test_a_ring_without_size_or_addresses_does_not_start() -> None:
    rig = Rig(described=False)
    with refused(Refusal.RING, "vring"):
        rig.vrings.start(0, None)
    rig.vrings.size_set(0, 16)
    with refused(Refusal.RING, "vring"):
        rig.vrings.start(0, None)
    rig.vrings.addresses_set(1, 0, USER, USER, USER, 0)
    with refused(Refusal.RING, "vring"):
        rig.vrings.start(1, None)
    assert not rig.target.told
    assert not rig.vrings.any_started


def test_start_and_stop() -> None:
    rig = Rig()
    kick = rig.fd()
    rig.vrings.base_set(0, 0xFFFE)
    assert rig.vrings.stop(0) == 0xFFFE  # never started: what it was told
    rig.vrings.start(0, kick)
    ring = rig.vrings.rings[0]
    assert (ring.started, ring.polling, ring.kick) == (True, False, kick)
    assert rig.vrings.any_started
    assert rig.vrings.stop(0) == 3
    assert rig.vrings.stop(0) == 3
    assert (ring.started, ring.kick, ring.base) == (False, None, 3)
    assert rig.target.told == [("vring_start", 0, kick), ("vring_stop", 0)]
    assert not rig.files.open


def test_polling_ends_with_the_ring() -> None:
    rig = Rig()
    rig.vrings.start(0, None)
    assert rig.vrings.rings[0].polling
    rig.vrings.stop(0)
    assert not rig.vrings.rings[0].polling


def test_another_kick_restarts_a_ring_where_it_was() -> None:
    rig = Rig()
    first, second = rig.fd(), rig.fd()
    rig.vrings.start(0, first)
    rig.vrings.start(0, second)
    assert rig.target.told == [("vring_start", 0, first), ("vring_stop", 0), ("vring_start", 0, second)]
    assert rig.vrings.rings[0].base == 5
    assert rig.files.open == {second}


def test_a_start_that_the_target_refuses_takes_no_descriptor() -> None:
    rig = Rig()
    rig.vrings.addresses_set(0, 0, USER, USER + 0x10000, USER, 0)
    fd = rig.fd()
    with pytest.raises(RemoteError):
        rig.vrings.start(0, fd)
    ring = rig.vrings.rings[0]
    assert (ring.started, ring.kick, ring.polling) == (False, None, False)
    assert rig.files.open == {fd}


def test_enable_reaches_the_target_once() -> None:
    rig = Rig()
    for on in (False, True, True, False):
        rig.vrings.enable(0, on)
    assert rig.target.told == [("vring_enable", 0, True), ("vring_enable", 0, False)]
    rig.vrings.enable_all(True)
    assert rig.target.told[2:] == [("vring_enable", 0, True), ("vring_enable", 1, True)]


def test_a_refused_enable_changes_nothing() -> None:
    rig = Rig()
    rig.target.refuse["vring_enable"] = RemoteError("no")
    with pytest.raises(RemoteError):
        rig.vrings.enable(0, True)
    assert not rig.vrings.rings[0].enabled


def test_call_is_replaced_after_the_target_knows() -> None:
    rig = Rig()
    first, second = rig.fd(), rig.fd()
    rig.vrings.call_set(1, first)
    rig.vrings.call_set(1, second)
    assert rig.files.open == {second}
    rig.target.refuse["call_set"] = RemoteError("no")
    third = rig.fd()
    with pytest.raises(RemoteError):
        rig.vrings.call_set(1, third)
    assert rig.vrings.rings[1].call == second
    assert rig.files.open == {second, third}
    del rig.target.refuse["call_set"]
    rig.vrings.call_set(1, None)
    assert rig.files.open == {third}
    assert rig.target.told == [("call_set", 1, first), ("call_set", 1, second), ("call_set", 1, None)]


def test_err_is_replaced() -> None:
    rig = Rig()
    first, second = rig.fd(), rig.fd()
    rig.vrings.err_set(0, first)
    rig.vrings.err_set(0, second)
    assert rig.vrings.rings[0].err == second
    assert rig.files.open == {second}


def test_reset_forgets_the_rings_but_keeps_call_and_err() -> None:
    rig = Rig()
    kick, call, err = rig.fd(), rig.fd(), rig.fd()
    rig.vrings.call_set(0, call)
    rig.vrings.err_set(0, err)
    rig.vrings.start(0, kick)
    rig.vrings.enable(0, True)
    rig.vrings.reset()
    ring = rig.vrings.rings[0]
    assert (ring.size, ring.base, ring.desc, ring.avail, ring.used) == (0, 0, None, None, None)
    assert (ring.started, ring.enabled, ring.call, ring.err) == (False, False, call, err)
    assert rig.files.open == {call, err}
    assert rig.target.told[-2:] == [("vring_stop", 0), ("vring_enable", 0, False)]


def test_release_closes_whatever_is_left_once() -> None:
    rig = Rig()
    rig.vrings.start(0, rig.fd())
    rig.vrings.call_set(0, rig.fd())
    rig.vrings.err_set(1, rig.fd())
    rig.vrings.release()
    rig.vrings.release()
    assert not rig.files.open
    assert set(rig.files.closings.values()) == {1}


def test_a_stop_that_fails_closes_the_kick_all_the_same() -> None:
    rig = Rig()
    rig.vrings.start(0, rig.fd())
    rig.target.refuse["vring_stop"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        rig.vrings.stop(0)
    assert not rig.files.open
    assert not rig.vrings.any_started
