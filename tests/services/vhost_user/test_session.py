"""A session: negotiation, the device, memory and rings, message by message."""

from __future__ import annotations

import pytest

from common.errors import LocalError, RemoteError
from services.vhost_user.messages import (
    ALL_PROTOCOL_FEATURES,
    CONFIG,
    F_PROTOCOL_FEATURES,
    MEM_REG,
    U64,
    VRING_ADDR,
    VRING_NOFD,
    VRING_STATE,
    Header,
    ProtocolFeature,
    Request,
)
from services.vhost_user.requests import Phase, Refusal
from tests.services.vhost_user.front_end import memory_table
from tests.services.vhost_user.recorder import FEATURES, Bench

USER = 0x7F00_0000_0000
LOW = (0, 0x10000, USER, 0)
HIGH = (0x1_0000_0000, 0x10000, USER + 0x10000, 0x10000)


def owned(**options: object) -> Bench:
    bench = Bench(**options)
    bench.send(Request.SET_PROTOCOL_FEATURES, U64.pack(ALL_PROTOCOL_FEATURES))
    bench.send(Request.SET_OWNER)
    return bench


def ready(**options: object) -> Bench:
    bench = owned(**options)
    bench.send(Request.SET_FEATURES, U64.pack(FEATURES | F_PROTOCOL_FEATURES))
    bench.send(Request.SET_MEM_TABLE, memory_table([LOW, HIGH]), 2)
    return bench


def describe(bench: Bench, index: int = 0, user: int = USER) -> None:
    bench.send(Request.SET_VRING_NUM, VRING_STATE.pack(index, 16))
    bench.send(Request.SET_VRING_ADDR, VRING_ADDR.pack(index, 0, user, user + 0x1000, user + 0x800, 0))


def running(**options: object) -> Bench:
    bench = ready(**options)
    describe(bench)
    bench.send(Request.SET_VRING_KICK, U64.pack(0), 1)
    assert bench.session.vrings[0].started
    bench.target.told.clear()
    return bench


def u64(bench: Bench, request: int) -> int:
    return int(U64.unpack(bench.payload(request))[0])


# --- negotiation -----------------------------------------------------------------------------------------------------


def test_features_are_the_devices_and_bit_30() -> None:
    assert u64(Bench(), Request.GET_FEATURES) == FEATURES | 1 << 30
    assert u64(Bench(offered=ProtocolFeature(0)), Request.GET_FEATURES) == FEATURES


def test_without_protocol_features_there_is_nothing_to_negotiate() -> None:
    bench = Bench(offered=ProtocolFeature(0))
    assert bench.payload(Request.GET_PROTOCOL_FEATURES) == b""
    assert bench.refusal(Request.SET_PROTOCOL_FEATURES, U64.pack(0)) == Refusal.FEATURE
    bench.send(Request.SET_OWNER)
    assert bench.refusal(Request.SET_FEATURES, U64.pack(FEATURES | 1 << 30)) == Refusal.FEATURE
    assert bench.refusal(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1)) == Refusal.FEATURE


def test_features_not_offered_are_refused() -> None:
    bench = owned()
    assert bench.refusal(Request.SET_FEATURES, U64.pack(FEATURES | 2)) == Refusal.FEATURE
    assert (bench.session.phase, bench.session.features) == (Phase.OWNED, 0)
    assert not bench.target.told
    assert bench.refusal(Request.SET_FEATURES, U64.pack(1 | 1 << 30)) is None
    assert bench.target.told == [("features_set", 1)]
    assert bench.ready


def test_protocol_features_not_offered_are_refused() -> None:
    bench = Bench(offered=ProtocolFeature.MQ)
    assert u64(bench, Request.GET_PROTOCOL_FEATURES) == 1
    assert bench.refusal(Request.SET_PROTOCOL_FEATURES, U64.pack(1 | 1 << 3)) == Refusal.FEATURE
    assert bench.session.protocol_features == 0


def test_set_protocol_features_is_acknowledged_by_what_it_sets() -> None:
    bench = Bench()
    ack = U64.pack(ProtocolFeature.REPLY_ACK)
    assert bench.send(Request.SET_PROTOCOL_FEATURES, ack, need_reply=True).endswith(U64.pack(0))
    assert bench.send(Request.SET_PROTOCOL_FEATURES, U64.pack(0), need_reply=True) == b""


def test_rings_begin_enabled_without_bit_30_only() -> None:
    bench = owned()
    bench.send(Request.SET_FEATURES, U64.pack(FEATURES))
    assert [ring.enabled for ring in bench.session.vrings] == [True, True]
    assert bench.told("vring_enable") == [("vring_enable", 0, True), ("vring_enable", 1, True)]
    other = ready()
    assert [ring.enabled for ring in other.session.vrings] == [False, False]


def test_live_rings_keep_their_features() -> None:
    bench = running()
    assert bench.refusal(Request.SET_FEATURES, U64.pack(1)) == Refusal.RING
    assert bench.refusal(Request.SET_PROTOCOL_FEATURES, U64.pack(1)) == Refusal.RING
    # QEMU says the same again for each pair of queues
    assert bench.refusal(Request.SET_FEATURES, U64.pack(FEATURES | 1 << 30)) is None
    assert bench.refusal(Request.SET_PROTOCOL_FEATURES, U64.pack(ALL_PROTOCOL_FEATURES)) is None
    assert not bench.target.told


def test_bit_30_alone_allows_enable() -> None:
    bench = Bench()
    bench.send(Request.SET_OWNER)
    assert bench.refusal(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1)) == Refusal.FEATURE
    bench.send(Request.SET_FEATURES, U64.pack(1 << 30))
    assert bench.refusal(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1)) is None


def test_queues_and_slots() -> None:
    bench = owned(slots=17)
    assert (u64(bench, Request.GET_QUEUE_NUM), u64(bench, Request.GET_MAX_MEM_SLOTS)) == (2, 17)


def test_owner() -> None:
    bench = Bench()
    assert bench.refusal(Request.SET_OWNER) is None
    assert bench.refusal(Request.SET_OWNER) == Refusal.PHASE
    bench = running()
    bench.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    assert bench.refusal(Request.RESET_OWNER) is None
    assert bench.target.told == [("vring_enable", 0, True), ("vring_enable", 0, False)]
    assert bench.session.vrings[0].started
    assert bench.ready


# --- the device ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_id", "payload"), [(Request.RESET_DEVICE, b""), (Request.SET_STATUS, bytes(8))])
def test_reset(request_id: int, payload: bytes) -> None:
    bench = running()
    bench.send(Request.SET_STATUS, U64.pack(7))
    bench.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    bench.target.told.clear()
    assert bench.refusal(request_id, payload) is None
    assert bench.target.told == [("vring_stop", 0), ("vring_enable", 0, False), ("reset",)]
    session = bench.session
    assert (session.phase, session.features, session.status) == (Phase.OWNED, 0, 0)
    assert len(session.memory.regions) == 2
    # QEMU stops its rings behind a reset
    assert bench.refusal(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 0)) is None
    assert bench.payload(Request.GET_VRING_BASE, VRING_STATE.pack(0, 0)) == VRING_STATE.pack(0, 0)
    assert bench.refusal(Request.SET_VRING_KICK, U64.pack(0), 1) == Refusal.PHASE


def test_status() -> None:
    bench = owned()
    assert bench.refusal(Request.SET_STATUS, U64.pack(256)) == Refusal.VALUE
    assert bench.refusal(Request.SET_STATUS, U64.pack(255)) is None
    assert u64(bench, Request.GET_STATUS) == 255
    bench.target.refuse["status_set"] = RemoteError("status")
    assert bench.refusal(Request.SET_STATUS, U64.pack(3)) == Refusal.DEVICE
    assert u64(bench, Request.GET_STATUS) == 255


def test_config_read() -> None:
    bench = owned()
    asked = CONFIG.pack(4, 3, 1)
    assert bench.payload(Request.GET_CONFIG, asked + bytes(3)) == asked + b"\x04\x05\x06"
    assert bench.payload(Request.GET_CONFIG, CONFIG.pack(62, 3, 0) + bytes(3)) == b""
    assert bench.stats.refused == {"device": 1}


@pytest.mark.parametrize("request_id", [Request.GET_CONFIG, Request.SET_CONFIG])
def test_config_ranges(request_id: int) -> None:
    bench = owned()
    assert bench.refusal(request_id, CONFIG.pack(0, 4, 0) + bytes(3)) == Refusal.SIZE
    assert bench.refusal(request_id, CONFIG.pack(0, 4, 0) + bytes(5)) == Refusal.SIZE
    assert bench.refusal(request_id, CONFIG.pack(253, 4, 0) + bytes(4)) == Refusal.VALUE
    assert bench.refusal(request_id, CONFIG.pack(0xFFFF_FFFF, 4, 0) + bytes(4)) == Refusal.VALUE
    assert bench.refusal(request_id, CONFIG.pack(0, 4, 2) + bytes(4)) == Refusal.VALUE


def test_config_write() -> None:
    bench = owned()
    assert bench.refusal(Request.SET_CONFIG, CONFIG.pack(252, 4, 0) + b"abcd") is None
    assert bench.target.told == [("config_set", 252, b"abcd")]
    assert bench.refusal(Request.SET_CONFIG, CONFIG.pack(0, 1, 1) + b"x") == Refusal.VALUE  # live migration


def test_a_config_of_another_size_is_a_fault_of_the_target() -> None:
    bench = owned()
    bench.target.config_get = lambda _offset, _size: b"too much"  # type: ignore[method-assign, assignment]
    with pytest.raises(LocalError):
        bench.send(Request.GET_CONFIG, CONFIG.pack(0, 4, 0) + bytes(4))


# --- memory ----------------------------------------------------------------------------------------------------------


def test_table_reaches_the_target_and_its_files_are_closed() -> None:
    bench = ready()
    ((_, regions),) = bench.told("memory_set")
    assert regions == bench.session.memory.regions
    assert [r.guest for r in bench.session.memory.regions] == [0, 0x1_0000_0000]
    assert not bench.files.open


def test_table_and_descriptors_must_agree() -> None:
    bench = ready()
    assert bench.refusal(Request.SET_MEM_TABLE, memory_table([LOW]), 2) == Refusal.FDS
    assert bench.refusal(Request.SET_MEM_TABLE, memory_table([LOW, HIGH]), 1) == Refusal.FDS
    assert bench.refusal(Request.SET_MEM_TABLE, memory_table([LOW])[:-1], 1) == Refusal.SIZE
    assert bench.refusal(Request.SET_MEM_TABLE, b"\xff" + memory_table([LOW])[1:], 1) == Refusal.SIZE
    assert bench.refusal(Request.SET_MEM_TABLE, memory_table([LOW, LOW]), 2) == Refusal.MEMORY
    assert len(bench.session.memory.regions) == 2
    assert len(bench.told("memory_set")) == 1
    assert not bench.files.open


def test_a_file_that_is_too_short_leaves_the_table_as_it_was() -> None:
    bench = ready()
    fds = bench.files.new(2)
    bench.files.short.add(fds[1])
    before = bench.session.memory
    assert bench.refusal(Request.SET_MEM_TABLE, memory_table([LOW, HIGH]), fds) == Refusal.MEMORY
    assert bench.session.memory is before
    assert not bench.files.open


def test_a_table_without_the_live_rings_is_refused() -> None:
    bench = running()
    before = bench.session.memory
    assert bench.refusal(Request.SET_MEM_TABLE, memory_table([HIGH]), 1) == Refusal.MEMORY
    assert bench.refusal(Request.SET_MEM_TABLE, memory_table([])) == Refusal.MEMORY
    assert bench.refusal(Request.REM_MEM_REG, MEM_REG.pack(0, *LOW)) == Refusal.MEMORY
    assert bench.session.memory is bench.target.memory is before
    assert bench.refusal(Request.REM_MEM_REG, MEM_REG.pack(0, *HIGH), 1) is None
    assert not bench.files.open - {bench.session.vrings[0].kick}


def test_regions_one_by_one() -> None:
    bench = owned(slots=2)
    more = (0x2_0000_0000, 0x1000, USER + 0x20000, 0)
    assert bench.refusal(Request.ADD_MEM_REG, MEM_REG.pack(0, *LOW), 1) is None
    assert bench.refusal(Request.ADD_MEM_REG, MEM_REG.pack(0, *LOW), 1) == Refusal.MEMORY
    assert bench.refusal(Request.ADD_MEM_REG, MEM_REG.pack(0, *HIGH), 1) is None
    assert bench.refusal(Request.ADD_MEM_REG, MEM_REG.pack(0, *more), 1) == Refusal.MEMORY
    assert bench.refusal(Request.REM_MEM_REG, MEM_REG.pack(0, *more)) == Refusal.MEMORY
    assert bench.refusal(Request.REM_MEM_REG, MEM_REG.pack(0, *LOW)) is None
    assert bench.refusal(Request.ADD_MEM_REG, MEM_REG.pack(0, *more), 1) is None
    assert [r.guest for r in bench.target.memory.regions] == [HIGH[0], more[0]]
    assert not bench.files.open


# --- rings -----------------------------------------------------------------------------------------------------------


def test_ring_from_start_to_stop() -> None:
    bench = ready()
    describe(bench)
    bench.send(Request.SET_VRING_BASE, VRING_STATE.pack(0, 0xFFFD))
    kick, call, err = bench.files.new(3)
    for request_id, fd in (
        (Request.SET_VRING_CALL, call), (Request.SET_VRING_ERR, err), (Request.SET_VRING_KICK, kick),
    ):  # fmt: skip
        assert bench.refusal(request_id, U64.pack(0), [fd]) is None
    assert bench.refusal(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1)) is None
    assert bench.target.told[2:] == [("call_set", 0, call), ("vring_start", 0, kick), ("vring_enable", 0, True)]
    assert bench.session.vrings[0].err == err
    assert bench.payload(Request.GET_VRING_BASE, VRING_STATE.pack(0, 9)) == VRING_STATE.pack(0, 2)
    assert bench.files.open == {call, err}


def test_a_ring_that_never_ran_says_what_it_was_told() -> None:
    bench = ready()
    bench.send(Request.SET_VRING_BASE, VRING_STATE.pack(1, 77))
    assert bench.payload(Request.GET_VRING_BASE, VRING_STATE.pack(1, 0)) == VRING_STATE.pack(1, 77)


def test_a_live_ring_is_not_described_again() -> None:
    bench = running()
    for request_id in (Request.SET_VRING_NUM, Request.SET_VRING_BASE):
        assert bench.refusal(request_id, VRING_STATE.pack(0, 16)) == Refusal.RING
        assert bench.refusal(request_id, VRING_STATE.pack(1, 16)) is None
    assert bench.refusal(Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, 0, 0, 0, 0)) == Refusal.RING


def test_a_ring_outside_memory_does_not_start() -> None:
    bench = ready()
    describe(bench, user=USER + 0x1F800)  # the used ring is behind the last byte
    assert bench.refusal(Request.SET_VRING_KICK, U64.pack(0), 1) == Refusal.MEMORY
    assert not bench.session.vrings[0].started
    assert not bench.files.open


def test_the_no_descriptor_flag() -> None:
    bench = ready()
    describe(bench)
    for request_id in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR):
        assert bench.refusal(request_id, U64.pack(VRING_NOFD), 1) == Refusal.FDS
        assert bench.refusal(request_id, U64.pack(0), 0) == Refusal.FDS
        assert bench.refusal(request_id, U64.pack(0x200), 1) == Refusal.VALUE
        assert bench.refusal(request_id, U64.pack(VRING_NOFD), 0) is None
    assert bench.session.vrings[0].polling
    assert not bench.files.open


def test_only_events_kick_and_call() -> None:
    bench = running()
    (bad,) = bench.files.new()
    bench.files.bad.add(bad)
    kick = bench.session.vrings[0].kick
    assert bench.refusal(Request.SET_VRING_KICK, U64.pack(0), [bad]) == Refusal.FDS
    assert bench.session.vrings[0].kick == kick
    assert bench.files.open == {kick}


def test_enable_is_0_or_1() -> None:
    assert ready().refusal(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 2)) == Refusal.VALUE


# --- refusals and the end --------------------------------------------------------------------------------------------


def test_what_is_refused_is_counted_each_time_and_logged_once() -> None:
    bench = ready()
    for _ in range(3):
        bench.send(Request.SET_LOG_FD, b"", 1)
        bench.send(99)
        bench.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(9, 1))
    assert bench.stats.refused == {"unknown": 6, "value": 3}
    assert bench.stats.requests["unknown"] == 3
    assert [(line["request"], line["kind"]) for line in bench.logged] == [
        ("SET_LOG_FD", "unknown"), ("unknown", "unknown"), ("SET_VRING_ENABLE", "value"),
    ]  # fmt: skip
    assert bench.logged[2]["error"] == "vring.index = 9 (limit 1)"
    assert not bench.files.open


def test_lost_descriptors_refuse_the_request() -> None:
    bench = owned()
    fds = bench.files.new(8)
    regions = [(n * 0x1000, 0x1000, n * 0x1000, 0) for n in range(8)]
    payload = memory_table(regions)
    bench.session.handle(Header(Request.SET_MEM_TABLE, 1, len(payload)), payload, fds, truncated=True)
    assert bench.stats.refused == {"fds": 1}
    assert not bench.files.open


def test_a_fault_of_the_target_is_raised_and_closes_what_came() -> None:
    bench = running()
    bench.target.refuse["call_set"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        bench.send(Request.SET_VRING_CALL, U64.pack(0), 1)
    assert bench.files.open == {bench.session.vrings[0].kick}


def test_close() -> None:
    bench = running()
    bench.send(Request.SET_VRING_CALL, U64.pack(1), 1)
    bench.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    bench.target.told.clear()
    bench.session.close()
    assert bench.target.told == [("vring_stop", 0), ("vring_enable", 0, False), ("reset",), ("memory_set", ())]
    assert not bench.files.open
    assert not bench.session.memory.regions
    bench.session.close()
    assert len(bench.target.told) == 4
    with pytest.raises(LocalError):
        bench.send(Request.SET_VRING_CALL, U64.pack(1), 1)
    assert not bench.files.open


def test_close_lets_go_even_if_the_target_fails() -> None:
    bench = running()
    bench.target.refuse["reset"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        bench.session.close()
    assert not bench.files.open
    assert not bench.session.memory.regions


def test_a_payload_of_another_size_is_our_fault() -> None:
    bench = owned()
    with pytest.raises(LocalError):
        bench.session.handle(Header(Request.SET_FEATURES, 1, 8), bytes(7), [])
