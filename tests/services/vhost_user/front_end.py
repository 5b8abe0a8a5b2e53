"""A small vhost-user front end: what stands on the other side of the socket in the tests.

:class:`FrontEnd` speaks the protocol as QEMU does (memory in a memfd, rings by its own addresses, kick and call as
eventfds), and, by :meth:`FrontEnd.send_raw` and :meth:`FrontEnd.send`, as no decent front end would. It blocks;
run it in a thread (``asyncio.to_thread``) beside a back end on the same loop.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from services.vhost_user.messages import (
    ALL_PROTOCOL_FEATURES,
    F_PROTOCOL_FEATURES,
    FLAG_NEED_REPLY,
    HEADER,
    MEM_REG,
    MEM_TABLE,
    REGION,
    U64,
    VERSION,
    VRING_ADDR,
    VRING_NOFD,
    VRING_STATE,
    Request,
)

#: Seconds after which a silent back end fails a test.
GUARD = 60.0

RegionFields = tuple[int, int, int, int]
"""Guest address, bytes, user address, offset in the file."""


def message(request: int, payload: bytes = b"", *, need_reply: bool = False) -> bytes:
    """Header and payload of a request."""
    return HEADER.pack(request, VERSION | (FLAG_NEED_REPLY if need_reply else 0), len(payload)) + payload


def memory_table(regions: Sequence[RegionFields]) -> bytes:
    """The payload of SET_MEM_TABLE."""
    return MEM_TABLE.pack(len(regions), 0) + b"".join(REGION.pack(*region) for region in regions)


class GuestRam:
    """``size`` bytes in a memfd, at ``guest`` for the guest and at ``user`` for the front end."""

    def __init__(self, size: int = 1 << 20, guest: int = 0x4000_0000, user: int = 0x7F00_0000_0000) -> None:
        self.size, self.guest, self.user = size, guest, user
        self.fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        self.bytes = mmap.mmap(self.fd, size)

    @property
    def region(self) -> RegionFields:
        return self.guest, self.size, self.user, 0

    def close(self) -> None:
        self.bytes.close()
        os.close(self.fd)


class FrontEnd:
    """Connected to ``path`` from the start; raises ConnectionError when the back end hangs up on a read."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(GUARD)
        self.sock.connect(str(path))
        #: kick and call of each ring that was started
        self.kicks: dict[int, int] = {}
        self.calls: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()
        for fd in (*self.kicks.values(), *self.calls.values()):
            os.close(fd)
        self.kicks.clear()
        self.calls.clear()

    # --- messages ----------------------------------------------------------------------------------------------------

    def send_raw(self, data: bytes, fds: Iterable[int] = ()) -> None:
        """Any bytes, with any descriptors beside the first of them."""
        listed = list(fds)
        sent = socket.send_fds(self.sock, [data], listed) if listed else 0
        self.sock.sendall(data[sent:])

    def send(self, request: int, payload: bytes = b"", fds: Iterable[int] = (), *, need_reply: bool = False) -> None:
        self.send_raw(message(request, payload, need_reply=need_reply), fds)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise ConnectionResetError("the back end hung up")
            data += more
        return data

    def receive(self) -> tuple[int, int, bytes]:
        """Request, flags and payload of the next reply."""
        request, flags, size = HEADER.unpack(self._exactly(HEADER.size))
        return request, flags, self._exactly(size)

    def ask(self, request: int, payload: bytes = b"") -> bytes:
        """A request with a reply of its own; returns its payload."""
        self.send(request, payload)
        answered, flags, data = self.receive()
        assert (answered, flags) == (request, VERSION | 4)
        return data

    def ask_u64(self, request: int) -> int:
        return int(U64.unpack(self.ask(request))[0])

    def do(self, request: int, payload: bytes = b"", fds: Iterable[int] = ()) -> int:
        """A request without one, with NEED_REPLY (REPLY_ACK must be negotiated): 0, or not 0 if it was refused."""
        self.send(request, payload, fds, need_reply=True)
        answered, flags, data = self.receive()
        assert (answered, flags) == (request, VERSION | 4)
        return int(U64.unpack(data)[0])

    def hung_up(self) -> bool:
        """Wait for what comes next: is it the end of the connection?"""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            return self.sock.recv(1) == b""
        return True

    # --- the usual course --------------------------------------------------------------------------------------------

    def negotiate(self, wanted: int = ALL_PROTOCOL_FEATURES) -> int:
        """Protocol features as far as offered and ``wanted``, then the owner. Returns the device's features."""
        features = self.ask_u64(Request.GET_FEATURES)
        if features & F_PROTOCOL_FEATURES:
            offered = self.ask_u64(Request.GET_PROTOCOL_FEATURES)
            self.send(Request.SET_PROTOCOL_FEATURES, U64.pack(offered & wanted))
        self.send(Request.SET_OWNER)
        return features

    def features(self, features: int) -> int:
        return self.do(Request.SET_FEATURES, U64.pack(features))

    def share(self, *rams: GuestRam) -> int:
        return self.do(Request.SET_MEM_TABLE, memory_table([ram.region for ram in rams]), [ram.fd for ram in rams])

    def add(self, ram: GuestRam) -> int:
        return self.do(Request.ADD_MEM_REG, MEM_REG.pack(0, *ram.region), [ram.fd])

    def remove(self, ram: GuestRam) -> int:
        return self.do(Request.REM_MEM_REG, MEM_REG.pack(0, *ram.region))

    def start_ring(self, index: int, size: int, desc: int, avail: int, used: int, base: int = 0) -> int:
        """NUM, BASE, ADDR (user addresses), CALL, KICK, ENABLE. Returns how many were refused."""
        self.calls[index] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.kicks[index] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        answers = [
            self.do(Request.SET_VRING_NUM, VRING_STATE.pack(index, size)),
            self.do(Request.SET_VRING_BASE, VRING_STATE.pack(index, base)),
            self.do(Request.SET_VRING_ADDR, VRING_ADDR.pack(index, 0, desc, used, avail, 0)),
            self.do(Request.SET_VRING_CALL, U64.pack(index), [self.calls[index]]),
            self.do(Request.SET_VRING_KICK, U64.pack(index), [self.kicks[index]]),
            self.do(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, 1)),
        ]
        return sum(map(bool, answers))

    def stop_ring(self, index: int) -> int:
        """ENABLE 0, GET_VRING_BASE. Returns the next avail index."""
        assert self.do(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, 0)) == 0
        answered, base = VRING_STATE.unpack(self.ask(Request.GET_VRING_BASE, VRING_STATE.pack(index, 0)))
        assert answered == index
        return int(base)

    def poll_ring(self, index: int) -> int:
        """Start a described ring without a kick descriptor."""
        return self.do(Request.SET_VRING_KICK, U64.pack(index | VRING_NOFD))

    def kick(self, index: int) -> None:
        os.eventfd_write(self.kicks[index], 1)
