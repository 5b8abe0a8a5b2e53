"""The raw port over real sockets: whose agent a connection is, what it may send, and a client that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, LocalError
from common.runtime.metrics import Metrics
from common.scmi import base, clock, header, sensor
from services.scmi_platform import agents as agents_module
from services.scmi_platform import raw_port as module
from services.scmi_platform.agents import Agents
from services.scmi_platform.board import Board
from services.scmi_platform.config import RawConfig
from services.scmi_platform.raw import OUTBOX, TURN
from services.scmi_platform.raw_port import HIGH_WATER, RawPort
from tests.services.scmi_platform.scmi_rig import SMALL, words

WHO = header.command(base.PROTOCOL, base.Command.BASE_DISCOVER_AGENT, 9, words(0xFFFF_FFFF))
RATE = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_GET, 0, words(0))
NOTIFY = header.command(sensor.PROTOCOL, sensor.Command.SENSOR_TRIP_POINT_NOTIFY, 0, words(0, 1))


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(message)) + message for message in messages)


class Client:
    """A connection of the raw port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def receive(self) -> bytes:
        async with asyncio.timeout(20):
            size = int.from_bytes(await self.reader.readexactly(4), "little")
            return await self.reader.readexactly(size)

    async def ask(self, message: bytes) -> bytes:
        self.writer.write(framed(message))
        return await self.receive()

    async def who(self) -> tuple[int, str]:
        reply = await self.ask(WHO)
        assert reply[:8] == WHO[:4] + words(0)
        return reply[8], reply[12:].rstrip(b"\0").decode()

    async def at_end(self) -> bool:
        async with asyncio.timeout(20):
            return await self.reader.read(1) == b""

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Bench:
    def __init__(self, **config: Any) -> None:
        self.agents = Agents(Board.load(SMALL), lambda: 1.0)
        self.metrics = Metrics("scmi")
        self.clients: list[Client] = []
        self.port = RawPort(RawConfig(**({"listen": "tcp:127.0.0.1:0"} | config)), self.agents, self.metrics)

    async def client(self) -> Client:
        at = self.port.address
        if at.path:
            client = Client(*await asyncio.open_unix_connection(at.path))
        else:
            client = Client(*await asyncio.open_connection(at.host, at.port))
        self.clients.append(client)
        return client

    async def narrow(self) -> Client:
        """The only client, and the kernel keeps little of what it does not read."""
        client = await self.client()
        await client.who()
        (connection,) = self.port.connections
        assert connection._transport is not None
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        return client

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.value(f"ringmesh_scmi_raw_{name}", **labels)


@asynccontextmanager
async def started(**config: Any) -> AsyncIterator[Bench]:
    bench = Bench(**config)
    await bench.port.start()
    try:
        yield bench
    finally:
        await bench.port.close()
        for client in bench.clients:
            client.writer.transport.abort()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  (other tasks move what it looks at)
            await asyncio.sleep(0.005)


# --- who is who -------------------------------------------------------------------------------------------------------


async def test_each_connection_is_an_agent_of_its_own() -> None:
    async with started() as bench:
        first, second = await bench.client(), await bench.client()
        assert await first.who() == (1, "OSPM")
        assert await second.who() == (3, "raw:1"), "agent 2 is trusted: nobody gets it by chance"
        assert bench.value("connections") == 2
        await first.close()
        await until(lambda: bench.value("connections") == 1)
        third = await bench.client()
        assert await third.who() == (1, "OSPM"), "it was given back"
        await second.close()
        await until(lambda: bench.value("connections") == 1)
        fourth = await bench.client()
        assert await fourth.who() == (3, "raw:1"), "ids are not used up"
        assert bench.agents.allot("guest0") == 4
        assert bench.value("connections_total") == 4


async def test_an_agent_by_name_for_whoever_comes_first() -> None:
    async with started(agent="BOSS") as bench:
        first, second = await bench.client(), await bench.client()
        assert await first.who() == (2, "BOSS")
        assert await second.who() == (1, "OSPM")
        assert bench.agents.allot("BOSS") == 3, "a guest of that name is another"


def test_an_agent_that_the_board_has_not() -> None:
    with pytest.raises(ConfigError, match=r"raw\.agent.*NOBODY"):
        Bench(agent="NOBODY")


async def test_a_connection_that_ends_leaves_its_settings_and_nothing_else() -> None:
    async with started() as bench:
        client = await bench.client()
        rate_set = header.command(clock.PROTOCOL, clock.Command.CLOCK_RATE_SET, 0, words(0, 0, 400, 0))
        assert (await client.ask(rate_set))[4:] == words(0)
        assert (await client.ask(NOTIFY))[4:] == words(0)
        assert bench.agents.platform.subscribed(sensor.PROTOCOL, 0, 0) == {1}
        await client.close()
        await until(lambda: not bench.port.connections)
        assert not bench.agents.platform.subscribed(sensor.PROTOCOL, 0, 0)
        assert not bench.agents.platform.p2a(1)
        client = await bench.client()
        assert (await client.ask(RATE))[8:12] == words(400)


async def test_when_all_agents_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_module, "MAX_AGENTS", 2)
    async with started() as bench:
        first = await bench.client()
        await first.who()
        second = await bench.client()
        assert await second.at_end()
        assert bench.value("connections_refused_total") == 1
        assert bench.metrics.value("ringmesh_frames_refused_total", link="raw", reason="handler") == 1
        assert await first.who() == (1, "OSPM")


async def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    async with started() as bench:
        first = await bench.client()
        await first.who()
        second = await bench.client()
        assert await second.at_end()
        assert bench.value("connections_refused_total") == 1
        assert bench.metrics.value("ringmesh_frames_refused_total", link="raw", reason="too_many") == 1


# --- what is said -----------------------------------------------------------------------------------------------------


async def test_replies_come_in_order_and_notifications_by_themselves() -> None:
    async with started() as bench:
        client = await bench.client()
        commands = [header.command(clock.PROTOCOL, 7 - 1, token, words(0)) for token in range(1000)]
        client.writer.write(framed(*commands))
        for command in commands:
            assert (await client.receive())[:8] == command[:4] + words(0)
        await client.ask(NOTIFY)
        bench.agents.platform.notify(sensor.PROTOCOL, 0, 0, words(1, 2, 3))
        assert await client.receive() == header.notification(sensor.PROTOCOL, 0, words(1, 2, 3))
        assert bench.value("events_total") == 1
        assert bench.value("commands_total") == bench.value("replies_total") == 1001


@pytest.mark.parametrize("length", [0, 3, 4097])
async def test_a_length_that_cannot_be_closes_its_own_connection(
    length: int, capfd: pytest.CaptureFixture[str]
) -> None:
    async with started() as bench:
        good, bad = await bench.client(), await bench.client()
        bad.writer.write(framed(*[RATE] * (2 * TURN + 1)) + struct.pack("<I", length) + b"x" * 100)
        for _ in range(2 * TURN + 1):
            assert (await bad.receive())[:4] == RATE[:4], "what came before it is answered"
        assert await bad.at_end()
        assert await good.who() == (1, "OSPM")
        assert bench.metrics.value("ringmesh_frames_refused_total", link="raw", reason="length") == 1
        again = await bench.client()
        again.writer.write(struct.pack("<I", length))
        assert await again.at_end()
        assert bench.metrics.value("ringmesh_frames_refused_total", link="raw", reason="length") == 2
    assert capfd.readouterr().out.count(f"frame.length = {length}") == 1, "said once"


async def test_a_platform_that_fails_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started() as bench:
        good = await bench.client()
        await good.who()

        def fail(*_args: object) -> bytes:
            raise RuntimeError("on purpose")

        with monkeypatch.context() as patch:
            patch.setattr(bench.agents.platform, "handle", fail)
            bad = await bench.client()
            bad.writer.write(framed(RATE))
            assert await bad.at_end()
        assert bench.value("failures_total") == 1
        assert await good.who() == (1, "OSPM")


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async with started() as bench:
        client = await bench.narrow()
        await client.ask(NOTIFY)
        sent, piece = 20_000, framed(*[RATE] * 1000)
        for _ in range(sent // 1000):
            client.writer.write(piece)
        (connection,) = bench.port.connections
        assert connection._transport is not None
        while not connection._full:
            client.writer.write(piece)
            sent += 1000
            await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() < HIGH_WATER + TURN * 32
        assert bench.value("paused_total") > 0
        assert bench.value("commands_total") < sent, "what it does not want to hear about is not executed"
        for _ in range(OUTBOX + 5):
            bench.agents.platform.notify(sensor.PROTOCOL, 0, 0, words(1, 2, 3))
        assert bench.value("notifications_dropped_total") == 5
        other = await bench.client()
        assert (await other.who())[0] == 3, "others do not wait"
        async with asyncio.timeout(60):
            data = await client.reader.readexactly(20 * (sent + OUTBOX))
        messages = Counter(data[at + 4 : at + 8] for at in range(0, len(data), 20))
        assert messages == {RATE[:4]: sent, header.notification(sensor.PROTOCOL, 0, b""): OUTBOX}
        assert (await client.ask(RATE))[:4] == RATE[:4]


async def test_the_end_of_the_port_ends_a_client_that_does_not_read() -> None:
    async with started() as bench:
        client = await bench.narrow()
        client.writer.write(framed(*[RATE] * 100_000))
        await until(lambda: bench.value("paused_total"))
    assert not bench.port.connections


async def test_a_client_that_resets_its_connection() -> None:
    async with started() as bench:
        client = await bench.client()
        client.writer.write(framed(*[RATE] * 10_000))
        await client.receive()
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await until(lambda: not bench.port.connections)
        assert await (await bench.client()).who() == (1, "OSPM")


# --- where it is ------------------------------------------------------------------------------------------------------


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "raw.sock"
    async with started(listen=f"unix:{path}") as bench:
        assert str(bench.port.address) == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        assert await (await bench.client()).who() == (1, "OSPM")
        second = Bench(listen=f"unix:{path}")
        with pytest.raises(ConfigError, match="another process"):
            await second.port.start()
        await second.port.close()
        await until(lambda: bench.value("connections_total") == 2 and bench.value("connections") == 1)  # it had looked
        assert await (await bench.client()).who() == (3, "raw:1")
    assert not path.exists()


async def test_a_unix_socket_that_was_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "raw.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    async with started(listen=f"unix:{path}") as bench:
        assert await (await bench.client()).who() == (1, "OSPM")
        path.unlink()
        path.write_text("somebody else's by now")
    assert path.exists()


async def test_addresses_that_cannot_be_had(tmp_path: Path) -> None:
    plain = tmp_path / "file"
    plain.touch()
    for path, why in ((plain, "no socket"), (tmp_path / "no" / "dir", "No such file")):
        with pytest.raises(ConfigError, match=why):
            await Bench(listen=f"unix:{path}").port.start()
    async with started() as bench:
        with pytest.raises(ConfigError, match=r"raw\.listen.*cannot listen"):
            await Bench(listen=str(bench.port.address)).port.start()
    with pytest.raises(ConfigError, match=r"raw\.listen"):
        Bench(listen="here")
    with pytest.raises(LocalError):
        assert Bench().port.address


async def test_the_limit_is_a_setting() -> None:
    async with started(max_message=132) as bench:
        client = await bench.client()
        long = header.command(clock.PROTOCOL, 6, 0, b"x" * 128)
        assert (await client.ask(long))[4:] == words(-10), "as long as may be, and no such command"
        client.writer.write(framed(long + b"x"))
        assert await client.at_end()
