"""common.runtime.link: handshake, refusals, limits, reconnecting."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from common.errors import ConfigError, HandshakeError, LocalError
from common.runtime.link import LinkClient, LinkServer
from common.runtime.metrics import Metrics
from common.wire.codec import encode
from common.wire.messages import VERSION, Call, Hello, Msi, Refuse, Return, Welcome

TOKEN = "s3cret"
GUARD = 10.0
REFUSED = "ringmesh_frames_refused_total"


async def until(condition: Callable[[], object]) -> None:
    """Look every few milliseconds, for what no event tells. The caller guards it with a time-out."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.fixture
async def client_to(metrics: Metrics) -> AsyncIterator[Callable[..., LinkClient]]:
    """``client_to(port, handler, **changes)``: a guest's client that is closed at the end."""
    clients: list[LinkClient] = []

    def make(port: int, handler: Any, **changes: Any) -> LinkClient:
        settings: dict[str, Any] = {
            "role": "guest", "peer": "scmi", "host": "127.0.0.1", "port": port, "token": TOKEN, "epoch": 9,
            "handler": handler, "metrics": metrics, "guest": "vm0", "rng": random.Random(1),
        }  # fmt: skip
        clients.append(LinkClient(**(settings | changes)))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def test_hello_and_welcome(server: LinkServer, handler: Any, dial: Any) -> None:
    peer = await dial(server.port)
    assert await peer.greet(guest="vm1", epoch=7) == Welcome(VERSION, "scmi", 42)
    await handler.until(lambda: handler.link is not None)
    link = handler.link
    assert (link.name, link.peer_role, link.guest, link.peer_epoch, link.is_up) == (
        "guest/vm1",
        "guest",
        "vm1",
        7,
        True,
    )
    assert server.links == [link]


@pytest.mark.parametrize(
    ("hello", "field", "reason"),
    [
        (Hello(VERSION, "guest", "wrong", 1), "token", "token"),
        (Hello(VERSION, "guest", "", 1), "token", "token"),
        (Hello(VERSION + 1, "guest", TOKEN, 1), "version", "version"),
        (Hello(VERSION, "its", TOKEN, 1), "role", "role"),
        (Hello(VERSION, "scmi", TOKEN, 1), "role", "role"),
        (Hello(VERSION, "", TOKEN, 1), "role", "role"),
        (Hello(VERSION, "guest", TOKEN, 1, "vm 0"), "guest", "guest"),
        (Hello(VERSION, "guest", TOKEN, 1, "v" * 33), "guest", "guest"),
        (Call(1, "op", []), "frame.tag", "tag"),
        (b"\x05\x00\x00\x00\xc1\xc1\xc1\xc1\xc1", "frame.body", "body"),
        (b"\xff\xff\xff\xff", "frame.length", "length"),
        (b"\x01\x10\x00\x00", "frame.length", "length"),
        (b"\x00\x00\x00\x00", "frame.length", "length"),
        (b"GET / HTTP/1.1\r\n\r\n", "frame.length", "length"),
    ],
)
async def test_a_bad_first_frame_is_refused_named_and_counted(
    server: LinkServer, handler: Any, metrics: Metrics, dial: Any, hello: Any, field: str, reason: str
) -> None:
    peer = await dial(server.port)
    peer.write(hello)
    messages = await peer.read_all()
    assert [m.field for m in messages if isinstance(m, Refuse)] == [field]
    assert len(messages) == 1
    assert metrics.value(REFUSED, link="unknown", reason=reason) == 1
    assert handler.events == []
    # and the service goes on
    await (await dial(server.port)).greet()


async def test_a_refusal_never_repeats_the_token(
    server: LinkServer, dial: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for secret in (Hello(VERSION, "guest", "hunter22", 1), b"\x12\x00\x00\x00\x96\xa5hello\x01\xa0\xa8hunter22"):
        peer = await dial(server.port)
        peer.write(secret)
        assert "hunter" not in repr(await peer.read_all())
    out = capsys.readouterr()
    assert "hunter" not in out.out + out.err
    assert b"hunter22".hex()[:4] not in out.out + out.err


async def test_a_silent_client_is_cut_at_the_hello_time_out(server: LinkServer, metrics: Metrics, dial: Any) -> None:
    peer = await dial(server.port)
    (refuse,) = await peer.read_all()
    assert isinstance(refuse, Refuse)
    assert refuse.field == "hello_timeout"
    assert metrics.value(REFUSED, link="unknown", reason="hello_timeout") == 1
    peer.writer.close()
    await peer.writer.wait_closed()
    async with asyncio.timeout(GUARD):
        await until(lambda: not server.waiting)


async def test_a_client_that_drips_its_hello_is_cut_too(server: LinkServer, dial: Any) -> None:
    peer = await dial(server.port)
    peer.write(b"\x40\x00\x00\x00\x96")
    assert [m.field for m in await peer.read_all()] == ["hello_timeout"]


async def test_connections_without_hello_are_limited(metrics: Metrics, dial: Any, serve: Any) -> None:
    server = await serve(epoch=1, max_unauthenticated=2)
    first, _second, third = [await dial(server.port) for _ in range(3)]
    assert [m.field for m in await third.read_all()] == ["too_many"]
    assert metrics.value(REFUSED, link="unknown", reason="too_many") == 1
    await first.greet()  # one that said hello makes room
    await (await dial(server.port)).greet(guest="other")


async def test_accept_may_refuse(dial: Any, serve: Any) -> None:
    def accept(hello: Hello) -> Any:
        raise HandshakeError("guest", hello.guest, None, "no such guest here")

    server = await serve(token="", epoch=1, accept=accept)
    peer = await dial(server.port)
    peer.write(Hello(VERSION, "guest", "whatever: no token is set", 1, "vm9"))
    assert [m.field for m in await peer.read_all()] == ["guest"]


async def test_roles_can_be_narrowed(metrics: Metrics, handler: Any, dial: Any, serve: Any) -> None:
    server = await serve(role="nic", epoch=1, roles=["guest", "vmm"])
    peer = await dial(server.port)
    peer.write(Hello(VERSION, "its", TOKEN, 1))
    assert [m.field for m in await peer.read_all()] == ["role"]
    await (await dial(server.port)).greet("vmm")
    with pytest.raises(LocalError, match="scmi"):
        LinkServer(role="nic", token="", epoch=1, accept=lambda h: handler, metrics=metrics, roles=["scmi"])


async def test_a_newer_link_of_the_same_peer_replaces_the_older(server: LinkServer, handler: Any, dial: Any) -> None:
    old, other = await dial(server.port), await dial(server.port)
    await old.greet(guest="vm0", epoch=1)
    await other.greet(guest="vm1", epoch=1)
    new = await dial(server.port)
    await new.greet(guest="vm0", epoch=2)
    assert await old.read() is None
    await handler.until(lambda: bool(handler.downs))
    assert handler.downs == ["replaced by a newer link of the same peer"]
    assert sorted((link.name, link.peer_epoch) for link in server.links) == [("guest/vm0", 2), ("guest/vm1", 1)]


async def test_an_address_in_use_is_a_config_error(server: LinkServer, metrics: Metrics, handler: Any) -> None:
    second = LinkServer(role="its", token="", epoch=1, accept=lambda h: handler, metrics=metrics)
    with pytest.raises(LocalError, match="not started"):
        _ = second.port
    with pytest.raises(ConfigError, match="cannot listen"):
        await second.start("127.0.0.1", server.port)
    await second.close()


# --- the client ---------------------------------------------------------------------------------------------------


async def test_client_and_server_talk(
    server: LinkServer, handler: Any, metrics: Metrics, noting: Any, client_to: Any
) -> None:
    handler.on_frame = lambda link, message: link.send(Return(message.seq, 0, message.op))
    mine = noting()
    client = client_to(server.port, mine)
    assert client.link is None
    await client.start()
    await client.start()
    async with asyncio.timeout(GUARD):
        link = await client.wait_up()
    assert (link.name, link.peer_role, link.guest, link.peer_epoch) == ("scmi/vm0", "scmi", "vm0", 42)
    assert link.send(Call(1, "get_status", []))
    await mine.until(lambda: bool(mine.frames))
    assert mine.frames == [Return(1, 0, "get_status")]
    await client.close()
    assert mine.downs == ["service stopping"]
    await handler.until(lambda: bool(handler.downs))
    assert handler.downs == ["connection lost"]
    assert link.send(Call(2, "get_status", [])) is False
    assert metrics.value("ringmesh_link_dropped_total", link="scmi") == 1


async def test_client_comes_back_after_the_server_restarted(
    metrics: Metrics, noting: Any, serve: Any, client_to: Any
) -> None:
    mine = noting()

    server = await serve(epoch=1)
    port = server.port
    client = client_to(port, mine)
    await client.start()
    await mine.until(lambda: mine.link is not None)
    for epoch in (2, 3):
        await server.close()
        await mine.until(lambda epoch=epoch: len(mine.downs) == epoch - 1)
        assert client.link is None
        server = await serve(port, epoch=epoch)
        await mine.until(lambda: mine.link.is_up)
        assert mine.link.peer_epoch == epoch
    assert (client.failure, client.refused) == ("", None)
    assert metrics.value("ringmesh_link_reconnects_total", link="scmi") == 2
    assert metrics.value("ringmesh_links_up", link="scmi") == 1
    await client.close()
    assert metrics.value("ringmesh_links_up", link="scmi") == 0


async def test_client_that_is_refused_keeps_trying_and_backs_off(
    server: LinkServer, metrics: Metrics, noting: Any, client_to: Any
) -> None:
    mine = noting()
    client = client_to(server.port, mine, token="wrong")
    await client.start()
    async with asyncio.timeout(GUARD):
        await until(lambda: metrics.value(REFUSED, link="unknown", reason="token") >= 4)
    assert client.link is None
    assert mine.events == []
    await client.close()
    assert client.refused == Refuse("token", "token: wrong token")
    assert client.failure == "refused by peer: token: token: wrong token"


async def test_client_without_a_server_keeps_trying_until_closed(noting: Any, client_to: Any) -> None:
    mine = noting()
    placeholder = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = placeholder.sockets[0].getsockname()[1]
    placeholder.close()
    await placeholder.wait_closed()
    client = client_to(port, mine)
    await client.start()
    await asyncio.sleep(0.1)
    await client.close()
    await client.close()
    assert mine.events == []
    assert client.refused is None
    assert "Connect call failed" in client.failure or "refused" in client.failure


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Welcome(VERSION + 1, "scmi", 1), "version"),
        (Welcome(VERSION, "nic", 1), "role"),
        (Return(1, 0), "tag"),
        (b"\x01\x00\x00\x00\xc1", "body"),
    ],
)
async def test_client_checks_the_welcome(
    metrics: Metrics, noting: Any, answer: Any, reason: str, client_to: Any
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer if isinstance(answer, bytes) else encode(answer))
        await reader.read()
        writer.close()

    fake = await asyncio.start_server(talk, "127.0.0.1", 0)
    mine = noting()
    client = client_to(fake.sockets[0].getsockname()[1], mine)
    await client.start()
    async with asyncio.timeout(GUARD):
        await until(lambda: metrics.value(REFUSED, link="scmi", reason=reason))
    await client.close()
    assert mine.events == []
    fake.close()


async def test_client_cuts_a_server_that_never_answers(metrics: Metrics, noting: Any, client_to: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    fake = await asyncio.start_server(silent, "127.0.0.1", 0)
    client = client_to(fake.sockets[0].getsockname()[1], noting(), hello_timeout=0.05)
    await client.start()
    async with asyncio.timeout(GUARD):
        await until(lambda: metrics.value(REFUSED, link="scmi", reason="hello_timeout"))
    await client.close()
    fake.close()


async def test_a_pair_of_roles_without_messages_is_a_local_error(noting: Any, client_to: Any) -> None:
    with pytest.raises(LocalError, match="vmm does not connect to its"):
        client_to(1, noting(), role="vmm", peer="its")


async def test_devices_may_talk_to_the_its(handler: Any, noting: Any, serve: Any, client_to: Any) -> None:
    server = await serve(role="its", epoch=1)
    client = client_to(server.port, noting(), role="nic", peer="its", guest="")
    await client.start()
    async with asyncio.timeout(GUARD):
        link = await client.wait_up()
    link.send(Msi("vm0", 1, 2, 3))
    await handler.until(lambda: bool(handler.frames))
    assert handler.frames == [Msi("vm0", 1, 2, 3)]
