"""Hostile peers against the running mesh: each is refused or bounded, said once, counted, and the run goes on."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import pytest

from common.wire.limits import MAX_BACKLOG, MAX_FRAME, MAX_HELLO
from common.wire.messages import VERSION
from tests.mesh.harness import GUARD, TOKEN, Run, link_port, scrape

pytestmark = pytest.mark.mesh

DEVICES = ("scmi", "nic", "its")
REFUSED = "ringmesh_frames_refused_total"


def frame(*fields: Any) -> bytes:
    """One frame, written by hand: u32 little-endian length, msgpack array."""
    body: bytes = msgpack.packb(list(fields))
    return struct.pack("<I", len(body)) + body


def hello(*, version: int = VERSION, role: str = "guest", token: str = TOKEN, guest: str = "stranger") -> bytes:
    return frame("hello", version, role, token, 1, guest)


async def _connect(run: Run, role: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", link_port(run, role))


async def _answer(reader: asyncio.StreamReader) -> list[Any]:
    """The next frame."""
    (length,) = struct.unpack("<I", await reader.readexactly(4))
    message: list[Any] = msgpack.unpackb(await reader.readexactly(length))
    return message


async def _count(run: Run, role: str, reason: str) -> float:
    return (await scrape(run.services()[role][1])).total(REFUSED, reason=reason)


def _lines(run: Run, role: str, reason: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in list(run.log) if line.startswith("{")]
    return [e for e in entries if e["service"] == role and e.get("reason") == reason]


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll: what a peer is told, what is logged and what is counted come on ways of their own."""
    try:
        async with asyncio.timeout(GUARD):
            while True:
                if await condition():
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{what}: not within {GUARD} s")


async def _counted(run: Run, role: str, reason: str, count: float) -> None:
    """Wait until ``count`` refusals for ``reason`` are counted; more are an error."""

    async def enough() -> bool:
        return await _count(run, role, reason) >= count

    await _until(enough, f"{role} counts {count} refusals: {reason}")
    assert await _count(run, role, reason) == count


async def _logged(run: Run, role: str, reason: str, said: int) -> list[dict[str, Any]]:
    """The lines about ``reason`` after the first ``said``, once there is one."""

    async def more() -> bool:
        return len(_lines(run, role, reason)) > said

    await _until(more, f"{role} logs {reason}")
    return _lines(run, role, reason)[said:]


async def _moves_on(run: Run) -> None:
    """Frames still complete."""
    admin = run.services()["guest"][1]
    name = "ringmesh_net_rx_total"
    first = (await scrape(admin)).total(name)

    async def risen() -> bool:
        return (await scrape(admin)).total(name) > first

    await _until(risen, f"{name} rises")


GARBAGE = random.Random(7).randbytes(1500)
#: name → (what the peer sends, reason in the metric and the log, field in the refusal)
ATTACKS = {
    "wrong token": (hello(token="guessed"), "token", "token"),
    "wrong version": (hello(version=VERSION + 1), "version", "version"),
    "wrong role": (hello(role="its"), "role", "role"),
    "oversize frame": (struct.pack("<I", 0xFFFF_FFFF), "length", "frame.length"),
    "garbage in a frame": (struct.pack("<I", len(GARBAGE)) + GARBAGE, "body", "frame.body"),
}


@pytest.mark.parametrize("role", DEVICES)
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_hostile_first_frame_is_refused(live: Run, role: str, attack: str) -> None:
    sent, reason, field = ATTACKS[attack]
    before, said = await _count(live, role, reason), len(_lines(live, role, reason))
    reader, writer = await _connect(live, role)
    writer.write(sent)
    async with asyncio.timeout(GUARD):
        answer = await _answer(reader)
        assert await reader.read() == b"", "the connection is closed"
    writer.close()
    assert answer[:2] == ["refuse", field]
    assert TOKEN not in json.dumps(answer)
    await _counted(live, role, reason, before + 1)
    fresh = await _logged(live, role, reason, said)
    assert [line["event"] for line in fresh] == ["peer refused"]
    assert TOKEN not in json.dumps(fresh)
    await _moves_on(live)


@pytest.mark.parametrize("role", DEVICES)
async def test_a_welcome_peer_may_not_send_an_oversize_frame(live: Run, role: str) -> None:
    before = await _count(live, role, "length")
    reader, writer = await _connect(live, role)
    writer.write(hello())
    async with asyncio.timeout(GUARD):
        assert (await _answer(reader))[0] == "welcome"
        writer.write(struct.pack("<I", MAX_FRAME + 1))
        answer = await _answer(reader)
    writer.close()
    assert answer[:2] == ["refuse", "frame.length"]
    assert str(MAX_FRAME) in answer[2]
    await _counted(live, role, "length", before + 1)
    await _moves_on(live)


@pytest.mark.parametrize("role", DEVICES)
async def test_a_hello_has_a_smaller_limit(live: Run, role: str) -> None:
    reader, writer = await _connect(live, role)
    writer.write(struct.pack("<I", MAX_HELLO + 1))
    async with asyncio.timeout(GUARD):
        assert (await _answer(reader))[:2] == ["refuse", "frame.length"]
    writer.close()


async def test_half_a_hello_is_waited_for_and_no_longer(live: Run) -> None:
    before = [await _count(live, role, "hello_timeout") for role in DEVICES]
    peers = [await _connect(live, role) for role in DEVICES]
    for _, writer in peers:
        writer.write(hello()[:9])
    async with asyncio.timeout(GUARD):
        answers = [await _answer(reader) for reader, _ in peers]
    for _, writer in peers:
        writer.close()
    assert [answer[:2] for answer in answers] == [["refuse", "hello_timeout"]] * 3
    for role, count in zip(DEVICES, before, strict=True):
        await _counted(live, role, "hello_timeout", count + 1)
    await _moves_on(live)


async def test_a_peer_that_stops_reading_is_cut_off_at_the_backlog_limit(live: Run) -> None:
    """It asks and asks and never reads an answer: memory in the device is bounded, and the others do not wait."""
    role = "nic"
    before = await _count(live, role, "backlog")
    _, writer = await _connect(live, role)
    writer.write(hello(guest="deaf"))
    # each refusal of an unknown operation is longer than 60 bytes
    questions = b"".join(frame("call", seq, "x" * 40, []) for seq in range(1000))
    asked = 0
    try:
        async with asyncio.timeout(GUARD):
            while await _count(live, role, "backlog") == before:
                for _ in range(10):
                    writer.write(questions)
                    await writer.drain()
                    asked += 1000
    except ConnectionError:
        pass  # cut off: that it is counted is seen below
    await _counted(live, role, "backlog", before + 1)
    writer.transport.abort()
    assert asked * 60 > MAX_BACKLOG // 2
    (line,) = await _logged(live, role, "backlog", 0)
    assert str(MAX_BACKLOG) in line["error"]
    sample = await scrape(live.services()[role][1])
    assert sample.total("process_resident_memory_bytes") < 200e6
    await _moves_on(live)
