"""Clients of the raw port that mean it harm, or are merely clumsy."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from common.errors import ConfigError
from services.scmi_platform import raw
from services.scmi_platform import raw_port as module
from services.scmi_platform.raw import TURN
from services.scmi_platform.raw_port import MAX_CONNECTIONS
from tests.services.scmi_platform.scmi_rig import words
from tests.services.scmi_platform.test_raw_port import NOTIFY, RATE, Bench, Client, framed, started, until


async def finish(client: Client) -> bytes:
    """All that comes until the end."""
    async with asyncio.timeout(20):
        return await client.reader.read()


async def test_who_stops_sending_is_answered_to_the_end() -> None:
    """As ``printf … | nc -N`` does it: more commands than one turn, then nothing more."""
    async with started() as bench:
        client = await bench.client()
        client.writer.write(framed(*[RATE] * (5 * TURN)))
        client.writer.write_eof()
        answers = await finish(client)
        assert answers == framed(RATE[:4] + words(0, 300, 0)) * (5 * TURN)
        await until(lambda: not bench.port.connections)


async def test_who_stops_sending_and_does_not_read_yet() -> None:
    async with started() as bench:
        client = await bench.narrow()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        many = 40 * TURN
        client.writer.write(framed(*[RATE] * many))
        client.writer.write_eof()
        await until(lambda: bench.port.stats.paused)
        client.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await finish(client)) == many * len(framed(RATE[:4] + words(0, 300, 0)))


@pytest.mark.parametrize("last", [b"", b"\0\0\0\0"])
async def test_a_last_turn_that_fills_the_buffers_is_not_cut_off(last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where nothing more is sent, nor before what may not be sent."""
    monkeypatch.setattr(module, "HIGH_WATER", 0)
    async with started() as bench:
        client = await bench.narrow()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        # one turn, and more than the kernel keeps
        monkeypatch.setattr(raw, "TURN", 1 << 20)
        many = 40 * TURN
        client.writer.write(framed(*[RATE] * many) + last)
        client.writer.write_eof()
        await until(lambda: bench.port.stats.commands == many + 1 and bench.port.stats.paused)
        client.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await finish(client)) == many * len(framed(RATE[:4] + words(0, 300, 0)))
        await until(lambda: not bench.port.connections)
        assert bench.metrics.value("ringmesh_frames_refused_total", link="raw", reason="length") == bool(last)


async def test_half_a_message_and_the_end() -> None:
    async with started() as bench:
        client = await bench.client()
        client.writer.write(framed(RATE) + framed(RATE)[:-1])
        client.writer.write_eof()
        assert await finish(client) == framed(RATE[:4] + words(0, 300, 0))


async def test_the_end_of_the_port_does_not_wait_for_a_client_that_reads_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waits for it is less than would pause it."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    bench = Bench()
    await bench.port.start()
    client = await bench.narrow()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    (connection,) = bench.port.connections
    transport = connection._transport
    assert transport is not None
    while not transport.get_write_buffer_size():
        client.writer.write(framed(*[RATE] * TURN))
        await asyncio.sleep(0.001)
    assert not connection._full
    async with asyncio.timeout(20):
        await bench.port.close()
    client.writer.transport.abort()


async def test_a_thousand_connections() -> None:
    async with started() as bench:
        first = await bench.client()
        await first.ask(NOTIFY)
        at = bench.port.address
        crowd = []
        for _ in range(1000):
            sock = socket.create_connection((at.host, at.port))
            crowd.append(sock)
            if len(crowd) % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: bench.port.stats.connections + bench.port.stats.connections_refused == 1001)
        assert bench.port.stats.connections == MAX_CONNECTIONS
        assert len(bench.agents.platform.agents) <= MAX_CONNECTIONS + len(bench.agents.platform.board.agents)
        assert await first.ask(RATE) == RATE[:4] + words(0, 300, 0)
        for sock in crowd:
            sock.close()
        await until(lambda: len(bench.port.connections) == 1)
        later = await bench.client()
        assert await later.ask(RATE) == RATE[:4] + words(0, 300, 0)
        assert bench.port.stats.connections == MAX_CONNECTIONS + 1


async def test_a_socket_of_a_process_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """It listens, and takes nobody: a connection to it would wait."""
    path = tmp_path / "raw.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen(0)
        waiting = []
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            waiting.append(sock)
            try:
                sock.connect(str(path))
            except BlockingIOError:
                break
        bench = Bench(listen=f"unix:{path}")
        with pytest.raises(ConfigError, match=r"raw\.listen"):
            await asyncio.wait_for(bench.port.start(), 20)
        for sock in waiting:
            sock.close()
