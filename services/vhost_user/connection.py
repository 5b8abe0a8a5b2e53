"""The socket of a back end: AF_UNIX stream with descriptors (SCM_RIGHTS), one front end at a time.

A message is read in two steps, header then payload, and never a byte more than belongs to it: descriptors arrive with
the bytes that they were sent with, so those that come while a message is read are that message's.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.errors import FrameError, LocalError
from services.vhost_user.messages import HEADER, MAX_FDS, Header
from services.vhost_user.requests import Refusal
from services.vhost_user.session import Session

_ANCILLARY: Final = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
#: Connections that may wait for the present one to end.
_BACKLOG: Final = 4


def close_fd(fd: int) -> None:
    """Close a descriptor that a peer sent; its file may be any, and may complain at close."""
    with contextlib.suppress(OSError):
        os.close(fd)


class Connection:
    """One front end: bytes and descriptors in and out of its session. ``closed`` is done when it is over."""

    def __init__(self, sock: socket.socket, session: Session, log: Callable[..., None]) -> None:
        self.session: Final = session
        self._sock: Final = sock
        self._log: Final = log
        self._loop: Final = asyncio.get_running_loop()
        self.closed: Final[asyncio.Future[None]] = self._loop.create_future()
        #: the message that is being read
        self._header: Header | None = None
        self._data = bytearray()
        self._fds: list[int] = []
        self._truncated = False
        #: replies that the peer has not taken yet; nothing is read before it has
        self._out = b""
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """End the session and close the socket. Nothing of the front end is used afterwards."""
        if self.closed.done():
            return
        self.closed.set_result(None)
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for fd in self._fds:
            close_fd(fd)
        try:
            self.session.close()
        except Exception as error:  # the device's fault; the listener goes on
            self._log("session_end_failed", error=repr(error))

    def _readable(self) -> None:
        """Read as far as the end of a message at most: then kicks have their turn."""
        try:
            while self._step():
                pass
        except (FrameError, OSError) as error:
            if isinstance(error, FrameError):
                self.session.stats.refused[Refusal.FRAME.value] += 1
            self._log("connection_ended", error=str(error))
            self.close()
        except Exception as error:
            self._log("connection_failed", error=repr(error))
            self.close()

    def _step(self) -> bool:
        """Read what the message still lacks; carry it out if it is whole. Is there more of it to read?"""
        want = (HEADER.size if self._header is None else self._header.size) - len(self._data)
        if want and not self._receive(want):
            return False
        if self._header is None and len(self._data) == HEADER.size:
            self._header = Header.parse(bytes(self._data))
            self._data.clear()
        if self._header is not None and len(self._data) == self._header.size:
            self._carry_out(self._header)
            return False
        return True

    def _receive(self, want: int) -> bool:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(want, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
                self._fds.extend(fds)
        # more came than fit, in one piece or in many, or this process has no descriptors left
        self._truncated |= bool(flags & socket.MSG_CTRUNC) or len(self._fds) > MAX_FDS
        while len(self._fds) > MAX_FDS:
            close_fd(self._fds.pop())
        if not data:
            if self._header is not None or self._data:
                self._log("connection_ended", error="in the middle of a message")
            self.close()
            return False
        self._data += data
        return True

    def _carry_out(self, header: Header) -> None:
        payload, fds, truncated = bytes(self._data), self._fds, self._truncated
        self._header, self._fds, self._truncated = None, [], False
        self._data.clear()
        self._out = self.session.handle(header, payload, fds, truncated=truncated)
        if self._out and not self.closed.done():
            self._write()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._out = self._out[self._sock.send(self._out) :]
        if self._out:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            self._write()
        except OSError as error:
            self._log("connection_ended", error=str(error))
            self.close()
            return
        if not self._out:
            self._loop.remove_writer(self._sock.fileno())
            self._loop.add_reader(self._sock.fileno(), self._readable)


class Listener:
    """Listens at ``path`` and serves one front end after another; further ones wait.

    ``new_session()`` is called for each. ``log(event, **fields)`` writes a warning.
    """

    def __init__(self, path: Path, new_session: Callable[[], Session], log: Callable[..., None]) -> None:
        self.path: Final = path
        self._new_session: Final = new_session
        self._log: Final = log
        self._sock: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self.connection: Connection | None = None
        #: front ends that came, over the listener's life
        self.accepted = 0

    async def start(self) -> None:
        """Listen. A socket that nobody listens at any more is replaced.

        Raises LocalError if the path is in use, is no socket or cannot be made.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _remove_stale(self.path)
            sock.bind(str(self.path))
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise LocalError(f"vhost-user socket {self.path}: {error}") from error
        except LocalError:
            sock.close()
            raise
        self._sock = sock
        self._task = asyncio.create_task(self._serve(sock))

    async def stop(self) -> None:
        """End the present connection, stop listening and remove the socket."""
        if self._sock is None or self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.drop()
        self._sock.close()
        self._sock = self._task = None
        with contextlib.suppress(OSError):
            self.path.unlink()

    def drop(self) -> None:
        """End the present connection, if there is one; the next front end may come. Not from inside a call that the
        session makes."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    async def _serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                # no descriptors left, most likely: try again later rather than at once
                self._log("front_end_not_accepted", error=str(error))
                await asyncio.sleep(1)
                continue
            self.accepted += 1
            try:
                session = self._new_session()
            except Exception as error:  # a fault of the device's; the next front end may have more luck
                self._log("front_end_not_accepted", error=repr(error))
                sock.close()
                continue
            self.connection = Connection(sock, session, self._log)
            await asyncio.shield(self.connection.closed)
            self.connection = None


def _remove_stale(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise LocalError(f"vhost-user socket {path}: there is something else")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except OSError:
                pass
        raise LocalError(f"vhost-user socket {path}: another process listens there")
