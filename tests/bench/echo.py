"""The baseline of the mesh's benchmarks: a bare uvloop Protocol with msgpack, and its client.

``python -m tests.bench.echo PORT`` serves: every frame (u32 length + msgpack) is decoded, encoded and sent back.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, cast

import msgpack
import uvloop


class _Frames(asyncio.Protocol):
    """Length-prefixed msgpack, one write for what arrived together."""

    def __init__(self) -> None:
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def take(self, data: bytes) -> list[Any]:
        data = self.buffer + data
        messages, at = [], 0
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "little")
            if end > len(data):
                break
            messages.append(msgpack.unpackb(data[at + 4 : end]))
            at = end
        self.buffer = data[at:]
        return messages


def frame(message: Any) -> bytes:
    body: bytes = msgpack.packb(message)
    return len(body).to_bytes(4, "little") + body


class Server(_Frames):
    """Echo."""

    def data_received(self, data: bytes) -> None:
        messages = self.take(data)
        if messages:
            self.transport.write(b"".join([frame(message) for message in messages]))


class Client(_Frames):
    """One request at a time, or a window of them."""

    def __init__(self) -> None:
        super().__init__()
        self.waiter: asyncio.Future[Any] | None = None
        self.came = 0
        #: sent again for every message that comes, None: nothing is
        self.refill: Any = None

    def data_received(self, data: bytes) -> None:
        messages = self.take(data)
        self.came += len(messages)
        if self.refill is not None:
            self.transport.write(b"".join([frame(self.refill) for _ in messages]))
        if messages and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(messages[-1])

    async def ask(self, message: Any) -> Any:
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(frame(message))
        return await self.waiter

    async def rate(self, message: Any, window: int, seconds: float) -> float:
        """Messages a second with ``window`` of them in flight."""
        before, began = self.came, time.perf_counter()
        self.refill = message
        self.transport.write(frame(message) * window)
        while True:
            await asyncio.sleep(seconds)
            if self.came > before:  # else the machine has other things to do
                break
        rate = (self.came - before) / (time.perf_counter() - began)
        self.refill, last = None, self.came + window
        while self.came < last:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return rate


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
