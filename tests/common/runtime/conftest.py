"""What the tests of the runtime share: uvloop, raw TCP peers, handlers that note what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from common.runtime.link import Link, LinkServer
from common.runtime.metrics import Metrics
from common.wire.codec import decode, encode
from common.wire.framing import Splitter
from common.wire.messages import VERSION, Hello, Message, Welcome

TOKEN = "s3cret"
GUARD = 10.0  # seconds after which a test that hangs fails


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The services run on uvloop, so do their tests."""
    return {"uvloop": uvloop.new_event_loop}


class NotingHandler:
    """A LinkHandler that notes events and lets the test await them; ``on_frame`` may misbehave."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.frames: list[Message] = []
        self.batches = 0
        self.link: Link | None = None
        self.on_frame: Callable[[Link, Message], None] | None = None
        self.changed = asyncio.Event()

    def link_up(self, link: Link) -> None:
        self.link = link
        self._note("up", link.name)

    def link_frame(self, link: Link, message: Message) -> None:
        self.frames.append(message)
        if self.on_frame is not None:
            self.on_frame(link, message)

    def link_batch(self, link: Link) -> None:
        self.batches += 1
        self.changed.set()

    def link_down(self, link: Link, reason: str) -> None:
        assert not link.is_up
        self._note("down", reason)

    def _note(self, what: str, value: Any) -> None:
        self.events.append((what, value))
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(GUARD):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def downs(self) -> list[str]:
        return [value for what, value in self.events if what == "down"]


class RawPeer:
    """A peer that speaks whatever bytes the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._splitter = Splitter()
        self._bodies: list[bytes] = []

    def write(self, *messages: Message | bytes) -> None:
        self.writer.write(b"".join(m if isinstance(m, bytes) else encode(m) for m in messages))

    async def read(self) -> Message | None:
        """The next message, None at the end of the stream."""
        async with asyncio.timeout(GUARD):
            while not self._bodies:
                data = await self.reader.read(65536)
                if not data:
                    return None
                self._splitter.feed(data, self._bodies)
        return decode(self._bodies.pop(0))

    async def read_all(self) -> list[Message]:
        """Everything up to the end of the stream."""
        messages: list[Message] = []
        while (message := await self.read()) is not None:
            messages.append(message)
        return messages

    async def greet(self, role: str = "guest", guest: str = "", epoch: int = 7) -> Welcome:
        self.write(Hello(VERSION, role, TOKEN, epoch, guest))
        welcome = await self.read()
        assert isinstance(welcome, Welcome)
        return welcome


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("scmi", version="1.0")


@pytest.fixture
def noting() -> type[NotingHandler]:
    return NotingHandler


@pytest.fixture
async def handler() -> NotingHandler:
    return NotingHandler()


@pytest.fixture
async def serve(handler: NotingHandler, metrics: Metrics) -> AsyncIterator[Callable[..., Awaitable[LinkServer]]]:
    """``await serve(**changes)`` starts an scmi server on loopback; unless changed its links all go to ``handler``."""
    servers: list[LinkServer] = []

    async def start(port: int = 0, **changes: Any) -> LinkServer:
        settings: dict[str, Any] = {
            "role": "scmi", "token": TOKEN, "epoch": 42, "accept": lambda hello: handler, "metrics": metrics,
        }  # fmt: skip
        servers.append(LinkServer(**(settings | changes)))
        await servers[-1].start("127.0.0.1", port)
        return servers[-1]

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def server(serve: Callable[..., Awaitable[LinkServer]]) -> LinkServer:
    return await serve(hello_timeout=0.3)


@pytest.fixture
async def dial(serve: Any) -> AsyncIterator[Callable[[int], Awaitable[RawPeer]]]:
    """``await dial(port)`` gives a raw peer; all are closed at the end, before the servers."""
    peers: list[RawPeer] = []

    async def connect(port: int) -> RawPeer:
        peers.append(RawPeer(*await asyncio.open_connection("127.0.0.1", port)))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.writer.close()
        try:
            await peer.writer.wait_closed()
        except ConnectionError:
            pass
