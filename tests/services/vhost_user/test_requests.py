"""The table: complete, and each column honoured for every request that is in it."""

from __future__ import annotations

import itertools

import pytest

from services.vhost_user.messages import ALL_PROTOCOL_FEATURES, U64, ProtocolFeature, Request, request_name
from services.vhost_user.requests import TABLE, Phase, Refusal, RefusedError, Rings, Rule
from tests.services.vhost_user.recorder import FEATURES, Bench

_PHASES = (Phase.FRESH, Phase.OWNED, Phase.READY)
ROWS = [pytest.param(request, rule, id=request_name(request)) for request, rule in TABLE.items()]


def bench_in(phase: Phase, protocol: ProtocolFeature = ALL_PROTOCOL_FEATURES) -> Bench:
    bench = Bench()
    bench.send(Request.SET_PROTOCOL_FEATURES, U64.pack(protocol))
    if phase != Phase.FRESH:
        bench.send(Request.SET_OWNER)
    if phase == Phase.READY:
        bench.send(Request.SET_FEATURES, U64.pack(FEATURES))
    assert bench.session.phase == phase
    return bench


def test_requests_that_are_not_supported() -> None:
    assert {r.name for r in Request if r not in TABLE} == {
        "SET_LOG_BASE", "SET_LOG_FD", "SEND_RARP", "NET_SET_MTU", "SET_BACKEND_REQ_FD", "IOTLB_MSG",
        "SET_VRING_ENDIAN", "CREATE_CRYPTO_SESSION", "CLOSE_CRYPTO_SESSION", "POSTCOPY_ADVISE", "POSTCOPY_LISTEN",
        "POSTCOPY_END", "GET_INFLIGHT_FD", "SET_INFLIGHT_FD", "GPU_SET_SOCKET", "VRING_KICK", "GET_SHARED_OBJECT",
        "SET_DEVICE_STATE_FD", "CHECK_DEVICE_STATE",
    }  # fmt: skip


@pytest.mark.parametrize(("request_id", "rule"), ROWS)
def test_phase(request_id: int, rule: Rule) -> None:
    for phase in _PHASES:
        kind = bench_in(phase).refusal(request_id, bytes(rule.size[0]), rule.fds.start)
        assert (kind == Refusal.PHASE) == (not phase & rule.phase), phase


@pytest.mark.parametrize(("request_id", "rule"), ROWS)
def test_size(request_id: int, rule: Rule) -> None:
    phase = next(p for p in _PHASES if p & rule.phase)
    for size in (0, rule.size[0] - 1, rule.size[1] + 1, 4096):
        if size >= 0 and not rule.size[0] <= size <= rule.size[1]:
            assert bench_in(phase).refusal(request_id, bytes(size), rule.fds.start) == Refusal.SIZE


@pytest.mark.parametrize(("request_id", "rule"), ROWS)
def test_descriptors(request_id: int, rule: Rule) -> None:
    phase = next(p for p in _PHASES if p & rule.phase)
    for count in range(10):
        bench = bench_in(phase)
        kind = bench.refusal(request_id, bytes(rule.size[0]), count)
        if count not in rule.fds:
            assert kind == Refusal.FDS
            assert not bench.files.open
        bench.session.close()
        assert not bench.files.open


@pytest.mark.parametrize(("request_id", "rule"), [row for row in ROWS if row.values[1].feature])  # type: ignore[union-attr]
def test_feature(request_id: int, rule: Rule) -> None:
    phase = next(p for p in _PHASES if p & rule.phase)
    without = bench_in(phase, ALL_PROTOCOL_FEATURES & ~rule.feature)
    kind = without.refusal(request_id, bytes(rule.size[0]), rule.fds.start)
    assert (kind == Refusal.FEATURE) == (not rule.offered)
    never = Bench(offered=ALL_PROTOCOL_FEATURES & ~rule.feature)
    assert never.refusal(request_id, bytes(rule.size[0]), rule.fds.start) == Refusal.FEATURE


@pytest.mark.parametrize(("request_id", "rule"), [row for row in ROWS if row.values[1].index_bits])  # type: ignore[union-attr]
def test_index(request_id: int, rule: Rule) -> None:
    for index in (2, 0xFF, *([1 << 31] if rule.index_bits == 32 else [])):
        payload = index.to_bytes(4, "little") + bytes(rule.size[0] - 4)
        assert bench_in(Phase.READY).refusal(request_id, payload, rule.fds.stop - 1) == Refusal.VALUE


@pytest.mark.parametrize(("request_id", "rule"), ROWS)
def test_answers(request_id: int, rule: Rule) -> None:
    """A refused request with a reply has an empty one; the others are answered only if asked for and agreed on."""
    for ack, need in itertools.product((False, True), repeat=2):
        protocol = ALL_PROTOCOL_FEATURES if ack else ALL_PROTOCOL_FEATURES & ~ProtocolFeature.REPLY_ACK
        bench = bench_in(Phase.READY, protocol)
        answer = bench.send(request_id, bytes(4096), 0, need_reply=need)
        if rule.replies:
            assert answer == request_id.to_bytes(4, "little") + bytes.fromhex("0500000000000000")
        elif ack and need:
            assert answer == request_id.to_bytes(4, "little") + bytes.fromhex("05000000080000000100000000000000")
        else:
            assert answer == b""


def test_rings_column_names_what_a_live_ring_forbids() -> None:
    assert {request_name(r) for r, rule in TABLE.items() if rule.rings == Rings.STOPPED} == {
        "SET_VRING_NUM", "SET_VRING_ADDR", "SET_VRING_BASE",
    }  # fmt: skip


def test_refused_error_names_kind_field_and_limit() -> None:
    error = RefusedError(Refusal.VALUE, "vring.index", 7, 1)
    assert (error.kind, str(error)) == (Refusal.VALUE, "vring.index = 7 (limit 1)")
