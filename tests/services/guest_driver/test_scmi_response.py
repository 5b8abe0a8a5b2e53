"""Which transaction a message belongs to: the table's side of it. End to end: test_scmi_agent.py."""

from __future__ import annotations

import pytest

from common.runtime.world import AsyncWorld
from common.scmi import header
from common.scmi.status import Status
from services.guest_driver.scmi_notify import NO_EVENT, NO_ROOM, QUEUED, TOO_LONG
from services.guest_driver.scmi_response import Responses
from services.guest_driver.scmi_xfer import DRESP_OK, EXPIRED, RESP_OK, SENT_OK, AgentStats, Xfer

WORD = header.pack(0x14, 6, 3)
LATER = header.as_delayed(WORD)


class Bench:
    def __init__(self) -> None:
        self.world = AsyncWorld()
        self.in_flight = self.world.table()
        self.stats = AgentStats()
        self.responses = Responses(self.in_flight, self.world.spinlock(), self.stats)

    def xfer(self, *, delayed: bool = False, expect: int = 8) -> Xfer:
        async_done = self.world.event() if delayed else None
        made = Xfer(WORD, 0x403, b"", expect, False, self.world.event(), async_done)
        self.in_flight[made.token] = made
        return made


def data(word: int, status: int = 0, payload: bytes = bytes(8)) -> bytes:
    return header.HEADER.pack(word) + status.to_bytes(4, "little", signed=True) + payload


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_response(bench: Bench) -> None:
    xfer = bench.xfer(expect=2)
    assert xfer.token == 3
    bench.responses.response(WORD, data(WORD, 0, b"\1\2\3"))
    assert (xfer.state, xfer.status, xfer.rx, xfer.replied) == (RESP_OK, 0, b"\1\2", True)
    assert bench.stats == AgentStats(response_ok=1)
    bench.responses.response(WORD, data(WORD, -1))
    assert (xfer.status, bench.stats.err_msg_invalid, bench.stats.err_msg_overtaken) == (0, 1, 0)


def test_an_empty_response_is_a_protocol_error(bench: Bench) -> None:
    xfer = bench.xfer()
    bench.responses.response(WORD, b"")
    assert (xfer.state, xfer.status) == (RESP_OK, Status.PROTOCOL_ERROR)
    assert bench.stats == AgentStats(err_msg_invalid=1)


@pytest.mark.parametrize(
    "word", [WORD + 1, WORD | 1 << header.PROTOCOL_SHIFT, WORD | 1 << 28], ids=["message", "protocol", "reserved"]
)
def test_a_response_must_repeat_the_header(bench: Bench, word: int) -> None:
    xfer = bench.xfer()
    bench.responses.response(word, data(word))
    assert xfer.state == SENT_OK
    assert not xfer.replied
    assert bench.stats == AgentStats(err_msg_invalid=1)


def test_nobody_waits(bench: Bench) -> None:
    bench.responses.response(WORD, data(WORD))
    bench.responses.delayed_response(LATER, data(LATER))
    assert bench.stats == AgentStats(err_msg_unexpected=2)


def test_a_late_one_frees_the_token(bench: Bench) -> None:
    bench.xfer().state = EXPIRED
    bench.responses.response(WORD, data(WORD))
    assert not bench.in_flight
    assert bench.stats == AgentStats(err_msg_unexpected=1, err_msg_late=1)


def test_a_delayed_response(bench: Bench) -> None:
    xfer = bench.xfer(delayed=True, expect=0)
    bench.responses.response(WORD, data(WORD))
    bench.responses.delayed_response(LATER, data(LATER, -9, b"abc"))
    assert (xfer.state, xfer.async_status, xfer.async_rx) == (DRESP_OK, -9, b"abc")
    bench.responses.delayed_response(LATER, data(LATER))
    assert xfer.async_status == -9
    assert bench.stats == AgentStats(response_ok=1, delayed_response_ok=1, err_msg_invalid=1)


def test_a_delayed_response_overtakes(bench: Bench) -> None:
    xfer = bench.xfer(delayed=True)
    bench.responses.delayed_response(LATER, data(LATER))
    assert (xfer.state, xfer.replied) == (DRESP_OK, False)
    bench.responses.response(WORD, data(WORD))
    assert (xfer.state, xfer.replied) == (DRESP_OK, True)
    assert bench.stats == AgentStats(delayed_response_ok=1, err_msg_invalid=1, err_msg_overtaken=1)


@pytest.mark.parametrize(
    ("delayed", "message"),
    [(False, data(LATER)), (True, data(LATER + 1)), (True, data(LATER)[:7])],
    ids=["not asked for", "header", "no status"],
)
def test_a_delayed_response_that_does_not_fit(bench: Bench, delayed: bool, message: bytes) -> None:
    xfer = bench.xfer(delayed=delayed)
    bench.responses.delayed_response(int.from_bytes(message[:4], "little"), message)
    assert xfer.state == SENT_OK
    assert bench.stats == AgentStats(err_msg_invalid=1)


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (QUEUED, AgentStats(notification_ok=1)),
        (NO_EVENT, AgentStats(err_msg_unexpected=1)),
        (NO_ROOM, AgentStats(err_msg_nomem=1)),
        (TOO_LONG, AgentStats(err_msg_invalid=1)),
    ],
)
def test_a_notification_is_counted_once(bench: Bench, outcome: int, counted: AgentStats) -> None:
    word = header.pack(0x15, 1, 0, header.NOTIFICATION)
    heard: list[tuple[int, bytes]] = []

    def notify(word: int, data: bytes) -> int:
        heard.append((word, data))
        return outcome

    bench.responses.notification(word, b"whole", notify)
    assert heard == [(word, b"whole")]
    assert bench.stats == counted
