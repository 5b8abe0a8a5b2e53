"""Calls to a device over a link: one future a call, failed when the link goes down."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar, overload

import msgspec

from common.errors import CallError, LinkDownError, RemoteError
from common.runtime.link import Link
from common.wire.messages import Call, Return

T = TypeVar("T")


class Calls:
    """The calling end of a link. Attach it at link_up, feed it every Return, detach it at link_down."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self._link: Link | None = None
        self._seq = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[Any]]] = {}

    def attach(self, link: Link) -> None:
        self._link = link

    def detach(self, reason: str) -> None:
        """The link is down: calls under way fail with LinkDownError."""
        self._link = None
        waiting, self._waiting = self._waiting, {}
        for op, future in waiting.values():
            if not future.done():
                future.set_exception(LinkDownError(self.name, op, None, reason))

    @overload
    async def call(self, op: str, *args: Any) -> Any: ...
    @overload
    async def call(self, op: str, *args: Any, kind: type[T]) -> T: ...
    async def call(self, op: str, *args: Any, kind: Any = Any) -> Any:
        """The value that the device answers, which must be a ``kind``.

        Raises CallError for an errno, RemoteError (``return.value``) for a value of another type, LinkDownError
        without a link.
        """
        link = self._link
        if link is None:
            raise LinkDownError(self.name, op, None, "the link is down")
        self._seq = seq = self._seq + 1
        link.send(Call(seq, op, list(args)))  # what is too long for a frame raises before anything waits
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[seq] = (op, future)
        value = await future
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise RemoteError("return.value", value, None, f"{self.name} {op}: {error}") from None

    def returned(self, message: Return) -> None:
        """The answer to a call; one to no call is ignored (it was given up)."""
        entry = self._waiting.pop(message.seq, None)
        if entry is None:
            return
        op, future = entry
        if future.done():
            return
        if message.errno:
            future.set_exception(CallError(op, message.errno, str(message.value)))
        else:
            future.set_result(message.value)
