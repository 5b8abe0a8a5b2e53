"""Trace lines: their format, where the agent writes them, and the ring that keeps them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import pytest

from common.errors import LinkDownError, LocalError, RingError, ScmiError, XferTimeoutError
from common.scmi import clock, header
from common.scmi.status import ProtocolId, Status
from services.guest_driver.scmi_trace import EVENTS, NOMEM, AgentRing, Tracer, linux_errno
from tests.services.guest_driver.scmi_loop import CMDQ, EVENTQ, Loop, reply, turns

CLOCK, SENSOR = ProtocolId.CLOCK.value, ProtocolId.SENSOR.value
GET = clock.Command.CLOCK_RATE_GET.value
#: As a script reads ftrace's lines.
FTRACE = re.compile(r"^\s*(?P<task>\S+)-(?P<pid>\d+)\s+\[(?P<cpu>\d{3})\] \S{5}\s+(?P<s>\d+\.\d{6}): (?P<event>\w+): ")
#: Header of CLOCK_RATE_GET under token 0: what the first rate_get() sends.
WORD = header.pack(CLOCK, GET)


@pytest.fixture
def ring(loop: Loop) -> AgentRing:
    made = AgentRing()
    loop.agent.tracer = Tracer("guest0", made, lambda: loop.now)
    return made


def spawn(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coro)


def rate_get(loop: Loop, clock_id: int = 0, **kwargs: Any) -> Coroutine[Any, Any, bytes]:
    return loop.agent.do_xfer(CLOCK, GET, clock_id.to_bytes(4, "little"), expect=8, **kwargs)


def short(ring: AgentRing) -> list[str]:
    """The lines without what ftrace puts before them."""
    return [line.split("scmi_", 1)[1] for line in ring.drain()]


async def answer(loop: Loop, *replies: bytes, poll: bool = False) -> asyncio.Task[bytes]:
    """A rate_get under way, whose chain comes back with ``replies`` (the later ones in chains of their own)."""
    loop.core.holding = True
    task = spawn(rate_get(loop, poll=poll))
    others = [spawn(rate_get(loop, timeout=1.0)) for _ in replies[1:]]
    await turns()
    loop.settle()
    for data in replies:
        loop.device.queues[CMDQ].complete(loop.core.held.pop(0)[0], data)
    loop.device.batch_end()
    loop.settle()
    for other in others:
        other.cancel()
    return task


def event(loop: Loop, data: bytes) -> None:
    """The device sends ``data`` by the eventq."""
    head, _ = loop.core.buffers.popleft()
    loop.device.queues[EVENTQ].complete(head, data)
    loop.device.batch_end()
    loop.settle()


# --- a transaction ----------------------------------------------------------------------------------------------------


async def test_a_line_is_ftraces(loop: Loop, ring: AgentRing) -> None:
    loop.now = 5.25
    await loop.run(rate_get(loop))
    line = ring.lines()[1]
    assert line == (
        "          guest0-0       [000] .....     5.250000: scmi_msg_dump: "
        "id=0 ch=10 pt=14 t=CMND msg_id=06 seq=0000 s=0 pyld=00000000"
    )
    assert all(FTRACE.match(one) for one in ring.lines())


async def test_an_interrupt_driven_command(loop: Loop, ring: AgentRing) -> None:
    for _ in range(2):
        await loop.run(rate_get(loop, timeout=1.5))
    assert short(ring)[6:] == [
        "xfer_begin: pt=14 msg_id=06 seq=0001 transfer_id=1 poll=0 inflight=1",
        "msg_dump: id=0 ch=10 pt=14 t=CMND msg_id=06 seq=0001 s=0 pyld=00000000",
        "xfer_response_wait: pt=14 msg_id=06 seq=0001 transfer_id=1 tmo_ms=1500 poll=0",
        "msg_dump: id=0 ch=10 pt=14 t=RESP msg_id=06 seq=0001 s=0 pyld=2c01000000000000",
        "rx_done: pt=14 msg_id=06 seq=0001 transfer_id=1 msg_type=0",
        "xfer_end: pt=14 msg_id=06 seq=0001 transfer_id=1 s=0 inflight=1",
    ]


async def test_a_polled_command(loop: Loop, ring: AgentRing) -> None:
    loop.interrupts = False
    await loop.run(rate_get(loop, poll=True))
    assert short(ring) == [
        "xfer_begin: pt=14 msg_id=06 seq=0000 transfer_id=0 poll=1 inflight=1",
        "msg_dump: id=0 ch=10 pt=14 t=CMND msg_id=06 seq=0000 s=0 pyld=00000000",
        "xfer_response_wait: pt=14 msg_id=06 seq=0000 transfer_id=0 tmo_ms=5000 poll=1",
        "msg_dump: id=0 ch=10 pt=14 t=RESP msg_id=06 seq=0000 s=0 pyld=2c01000000000000",
        "xfer_end: pt=14 msg_id=06 seq=0000 transfer_id=0 s=0 inflight=1",
    ]


async def test_a_polled_response_that_the_interrupt_brings_has_one_line(loop: Loop, ring: AgentRing) -> None:
    task = await answer(loop, reply(header.HEADER.pack(WORD), bytes(8)), poll=True)
    loop.world.stir()
    await task
    assert sum("t=RESP" in line for line in ring.lines()) == 1


async def test_the_number_goes_on_where_the_token_wraps(loop: Loop, ring: AgentRing) -> None:
    loop.agent._next_id = 0x1_0000_07FF
    await loop.run(rate_get(loop, poll=True))
    await loop.run(rate_get(loop, poll=True))
    begins = [line for line in short(ring) if line.startswith("xfer_begin")]
    assert "seq=03FF transfer_id=7FF " in begins[0]
    assert "seq=0000 transfer_id=800 " in begins[1]


async def test_in_flight_counts_those_that_wait(loop: Loop, ring: AgentRing) -> None:
    with pytest.raises(XferTimeoutError):
        await rate_get(loop, timeout=0.0)
    tasks = [spawn(rate_get(loop)) for _ in range(3)]
    await turns()
    loop.settle()
    await asyncio.gather(*tasks)
    lines = short(ring)
    assert [line[-1] for line in lines if line.startswith("xfer_begin")] == ["1", "1", "2", "3"]
    assert [line[-1] for line in lines if line.startswith("xfer_end")] == ["1", "3", "2", "1"]


async def test_a_delayed_response(loop: Loop, ring: AgentRing) -> None:
    task = spawn(loop.agent.sensor.reading_get_async(0))
    await turns()
    loop.settle()
    await turns()
    await loop.ticks(1.0)
    await task
    lines = short(ring)
    assert [re.split("[: ]", line)[0] for line in lines] == [
        "xfer_begin", "msg_dump", "xfer_response_wait", "msg_dump", "rx_done", "xfer_end", "msg_dump", "rx_done",
    ]  # fmt: skip
    assert re.fullmatch(r"msg_dump: id=0 ch=10 pt=15 t=DLYD msg_id=06 seq=0000 s=0 pyld=00000000[0-9a-f]+", lines[6])
    assert lines[7] == "rx_done: pt=15 msg_id=06 seq=0000 transfer_id=0 msg_type=2"


async def test_a_notification(loop: Loop, ring: AgentRing) -> None:
    event(loop, header.HEADER.pack(header.pack(SENSOR, 1, 5, header.NOTIFICATION)) + bytes(8) + b"\xab")
    assert short(ring) == [
        "msg_dump: id=0 ch=10 pt=15 t=NOTI msg_id=01 seq=0005 s=0 pyld=0000000000000000ab",
        "rx_done: pt=15 msg_id=01 seq=0005 transfer_id=0 msg_type=3",
    ]


# --- how it ends ------------------------------------------------------------------------------------------------------


async def test_the_end_says_what_linux_returns(loop: Loop, ring: AgentRing) -> None:
    with pytest.raises(ScmiError):
        await loop.run(rate_get(loop, 99))
    lines = short(ring)
    assert "t=RESP msg_id=06 seq=0000 s=-4 pyld=" in lines[3]
    assert lines[3].endswith("pyld=")
    assert lines[5].endswith(" s=-2 inflight=1")
    with pytest.raises(XferTimeoutError):
        await rate_get(loop, timeout=0.0)
    assert short(ring)[-1].endswith(" s=-110 inflight=1")
    task = spawn(rate_get(loop))
    await turns()
    loop.agent.detach()
    with pytest.raises(LinkDownError):
        await task
    assert short(ring)[-1].endswith(" s=-5 inflight=1")


async def test_the_end_where_the_ring_breaks_under_a_poller(loop: Loop, ring: AgentRing) -> None:
    loop.interrupts = False
    task = spawn(rate_get(loop, poll=True))
    await turns()
    loop.memory.write(loop.layouts[CMDQ].device + 2, (200).to_bytes(2, "little"))
    loop.world.stir()
    with pytest.raises(RingError):
        await task
    assert short(ring)[-1].endswith(" s=-5 inflight=1")


@pytest.mark.parametrize(
    ("status", "errno"),
    [(0, 0), (-1, -95), (-2, -22), (-3, -13), (-4, -2), (-5, -34), (-6, -16), (-7, -70), (-8, -5), (-9, -121),
     (-10, -71), (-11, -5), (-128, -5), (1, -5)],
)  # fmt: skip
def test_errno(status: int, errno: int) -> None:
    assert linux_errno(status) == errno


# --- what is thrown away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (header.HEADER.pack(header.pack(CLOCK, GET, 7)) + bytes(12), "pt=14 t=!RESP msg_id=06 seq=0007 s=-1 pyld="),
        (header.HEADER.pack(header.pack(CLOCK, 7)) + bytes(12), "pt=14 t=!RESP msg_id=07 seq=0000 s=-2 pyld="),
        (header.HEADER.pack(header.pack(CLOCK, GET, 0, 1)) + bytes(12), "pt=14 t=!UNKN msg_id=06 seq=0000 s=-3 pyld="),
        (header.HEADER.pack(header.as_delayed(WORD)) + bytes(12), "pt=14 t=!DLYD msg_id=06 seq=0000 s=-2 pyld="),
        (b"\1\2", "pt=14 t=!RESP msg_id=06 seq=0000 s=-2 pyld="),
        (header.HEADER.pack(WORD), "pt=14 t=!RESP msg_id=06 seq=0000 s=-2 pyld="),
    ],
    ids=["token", "message", "type", "delayed", "short", "no status"],
)
async def test_a_bad_response(loop: Loop, ring: AgentRing, data: bytes, line: str) -> None:
    task = await answer(loop, data)
    await turns()
    lines = [one for one in short(ring) if "t=!" in one]
    assert lines == ["msg_dump: id=0 ch=10 " + line]
    if not task.done():
        loop.agent.detach()
    with pytest.raises((ScmiError, LinkDownError)):
        await task


async def test_a_late_response(loop: Loop, ring: AgentRing) -> None:
    with pytest.raises(XferTimeoutError):
        await rate_get(loop, timeout=0.0)
    ring.drain()
    loop.settle()
    assert short(ring) == ["msg_dump: id=0 ch=10 pt=14 t=!RESP msg_id=06 seq=0000 s=-1 pyld="]


async def test_a_polled_reply_under_another_header(loop: Loop, ring: AgentRing) -> None:
    loop.interrupts = False
    task = await answer(loop, header.HEADER.pack(header.pack(CLOCK, GET, 9)) + bytes(12), poll=True)
    loop.world.stir()
    with pytest.raises(ScmiError) as raised:
        await task
    assert raised.value.status == Status.PROTOCOL_ERROR
    lines = short(ring)
    assert [line for line in lines if " t=" in line and "CMND" not in line] == [
        "msg_dump: id=0 ch=10 pt=14 t=!RESP msg_id=06 seq=0009 s=-2 pyld="
    ]
    assert lines[-1].endswith(" s=-71 inflight=1")


async def test_bad_events(loop: Loop, ring: AgentRing) -> None:
    event(loop, b"")
    event(loop, header.HEADER.pack(header.pack(SENSOR, 0, 0, header.NOTIFICATION)) + bytes(128))
    event(loop, header.HEADER.pack(header.pack(SENSOR, 9, 0, header.NOTIFICATION)) + bytes(8))
    assert [line for line in short(ring) if "t=!" in line] == [
        "msg_dump: id=0 ch=10 pt=00 t=!UNKN msg_id=00 seq=0000 s=-2 pyld=",
        "msg_dump: id=0 ch=10 pt=15 t=!NOTI msg_id=00 seq=0000 s=-2 pyld=",
        "msg_dump: id=0 ch=10 pt=15 t=!NOTI msg_id=09 seq=0000 s=-1 pyld=",
    ]


def test_no_room() -> None:
    ring = AgentRing()
    Tracer("g", ring, lambda: 0.0).bad_message(header.pack(SENSOR, 1, 2, header.NOTIFICATION), NOMEM)
    assert short(ring) == ["msg_dump: id=0 ch=10 pt=15 t=!NOTI msg_id=01 seq=0002 s=-4 pyld="]


# --- on and off -------------------------------------------------------------------------------------------------------


async def test_only_what_is_enabled(loop: Loop, ring: AgentRing) -> None:
    assert loop.agent.tracer is not None
    for name in EVENTS:
        loop.agent.tracer.events = frozenset({name})
        await loop.run(rate_get(loop))
        found = [match["event"] for line in ring.drain() if (match := FTRACE.match(line))]
        assert set(found) == {name}
    loop.agent.tracer = None
    await loop.run(rate_get(loop))
    assert not len(ring)


# --- the ring ---------------------------------------------------------------------------------------------------------


def test_the_ring_forgets_the_oldest_and_counts_them() -> None:
    ring = AgentRing(3)
    tracer = Tracer("g", ring, lambda: 0.0)
    for token in range(5):
        tracer.rx_done(header.pack(CLOCK, GET, token), token)
    assert [line.split("seq=")[1][:4] for line in ring.lines()] == ["0002", "0003", "0004"]
    assert (ring.stats.recorded, ring.stats.overwritten, len(ring)) == (5, 2, 3)
    assert ring.lines() == ring.drain()
    assert ring.drain() == []
    tracer.rx_done(WORD)
    assert (ring.stats.recorded, ring.stats.overwritten, len(ring)) == (6, 2, 1)


def test_a_ring_without_room() -> None:
    with pytest.raises(LocalError):
        AgentRing(0)
