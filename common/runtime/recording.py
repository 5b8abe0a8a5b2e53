"""Captures as files: record one from a running service, read it, print it.

The reader uses the ``msgpack`` package, a decoder that shares nothing with the one that the services run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import aiohttp
import msgpack

from common.errors import FrameError, LinkDownError, RemoteError
from common.runtime.capture import DIRECTIONS, IN, link_matches
from common.wire.limits import MAX_FRAME
from common.wire.messages import AnyMessage

#: Field names of each message by its tag, in the order of the array.
FIELDS: Final[dict[str, tuple[str, ...]]] = {
    str(cls.__struct_config__.tag): cls.__struct_fields__ for cls in AnyMessage.__args__
}
#: Bytes of a payload that a printed line shows.
SHOWN: Final = 16


@dataclass(slots=True, frozen=True)
class Record:
    """One frame of a capture: ``time`` in seconds since 1970, ``direction`` as the recording service saw it."""

    time: float
    link: str
    direction: str
    frame: bytes

    def message(self) -> list[Any]:
        """The frame as a plain list, tag first. Raises FrameError if it is not a msgpack array."""
        try:
            value = msgpack.unpackb(self.frame, strict_map_key=False)
        except (ValueError, msgpack.UnpackException) as error:
            raise FrameError("frame.body", self.frame[:16].hex(), None, str(error)) from None
        if not isinstance(value, list) or not value or not isinstance(value[0], str):
            raise FrameError("frame.body", self.frame[:16].hex(), None, "not a tagged array")
        return value


@dataclass(slots=True, frozen=True)
class Filter:
    """Which records to keep; an empty or None member keeps all. ``link`` matches as in /capture."""

    link: str = ""
    direction: str = ""
    tag: str = ""
    queue: int | None = None

    def keeps(self, record: Record) -> bool:
        if (self.direction and record.direction != self.direction) or not link_matches(record.link, self.link):
            return False
        if not self.tag and self.queue is None:
            return True
        message = record.message()
        if self.tag and message[0] != self.tag:
            return False
        return self.queue is None or _named(message).get("queue") == self.queue


def read(path: str | os.PathLike[str], filters: Filter | None = None) -> Iterator[Record]:
    """The records of the capture file ``path``, one at a time, in the order of recording.

    Raises FrameError naming the record's number where the file is not a capture or ends within a record.
    """
    filters = filters or Filter()
    with Path(path).open("rb") as file:
        unpacker = msgpack.Unpacker(file, max_buffer_size=4 * MAX_FRAME, max_bin_len=MAX_FRAME)
        number = 0
        end = 0
        try:
            for value in unpacker:
                record = _record(value, number)
                number += 1
                end = unpacker.tell()
                if filters.keeps(record):
                    yield record
        except (ValueError, msgpack.UnpackException) as error:
            raise FrameError("record", number, None, str(error) or type(error).__name__) from None
        size = os.fstat(file.fileno()).st_size
        if end != size:
            raise FrameError("record", number, None, f"the file ends within it ({size - end} bytes)")


def show(path: str | os.PathLike[str], filters: Filter | None = None) -> Iterator[str]:
    """The capture as text, one line a frame: time, link, arrow, tag, named fields. Raises what :func:`read` does."""
    for record in read(path, filters):
        yield line(record)


def line(record: Record) -> str:
    """One record as a line of text; payloads as short hex."""
    clock = time.strftime("%H:%M:%S", time.localtime(record.time)) + f"{record.time % 1:.6f}"[1:]
    arrow = "<-" if record.direction == IN else "->"
    message = record.message()
    fields = " ".join(f"{name}={_text(value)}" for name, value in _named(message).items())
    return f"{clock} {record.link:<12} {arrow} {message[0]:<10} {fields}".rstrip()


async def record(
    admin_url: str,
    out_path: str | os.PathLike[str],
    *,
    link: str = "",
    direction: str = "",
    seconds: float = 10.0,
    token: str = "",
) -> int:
    """Record from the admin endpoint at ``admin_url`` into the file ``out_path``; returns the number of bytes.

    Raises LinkDownError if the service cannot be reached or goes away, RemoteError if it refuses.
    """
    params = (
        {"seconds": str(seconds)} | ({"link": link} if link else {}) | ({"direction": direction} if direction else {})
    )
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
    written = 0
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(admin_url.rstrip("/") + "/capture", params=params, headers=headers) as response,
        ):
            if response.status != 200:
                raise RemoteError("capture", response.status, None, (await response.text())[:300])
            with _create(out_path) as file:
                async for chunk in response.content.iter_any():
                    file.write(chunk)
                    written += len(chunk)
    except aiohttp.ClientError as error:
        raise LinkDownError("capture", admin_url, None, str(error)) from error
    return written


def _create(path: str | os.PathLike[str]) -> BinaryIO:
    return Path(path).open("wb")


def _record(value: Any, number: int) -> Record:
    if isinstance(value, list) and len(value) == 4:
        at, link, direction, frame = value
        if isinstance(at, float) and isinstance(link, str) and direction in DIRECTIONS and isinstance(frame, bytes):
            return Record(at, link, direction, frame)
    raise FrameError("record", number, None, "not [time, link, direction, frame]")


def _named(message: list[Any]) -> dict[str, Any]:
    """Fields of a message by name; by position where the tag is unknown or has fewer."""
    names = FIELDS.get(message[0], ())
    return {names[i] if i < len(names) else str(i): value for i, value in enumerate(message[1:])}


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        more = f"…({len(value)})" if len(value) > SHOWN else ""
        return value[:SHOWN].hex() + more if value else "-"
    if isinstance(value, list):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return repr(value) if isinstance(value, str) else str(value)
