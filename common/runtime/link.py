"""Links between services over TCP: the two ends of :mod:`common.runtime.session`.

A device service listens with a :class:`LinkServer`; whoever connects keeps a :class:`LinkClient`, which comes back by
itself after the server restarted. Both ends check version, role and token before anything else is read.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import re
import socket
from collections.abc import Callable, Iterable
from typing import Final

from common.errors import ConfigError, FrameError, HandshakeError, LocalError
from common.runtime.capture import CaptureHub
from common.runtime.metrics import Metrics
from common.runtime.refusals import LinkBook
from common.runtime.session import Link, LinkContext, LinkHandler
from common.wire.codec import decode
from common.wire.limits import HELLO_TIMEOUT, MAX_GUEST_NAME, MAX_HELLO, MAX_UNAUTHENTICATED
from common.wire.messages import CONNECTS, VERSION, Hello, Refuse, Welcome

__all__ = ["Link", "LinkClient", "LinkHandler", "LinkServer"]

#: Seconds before the first retry, and the most that repeated failures stretch it to.
RETRY_FIRST: Final = 0.02
RETRY_CAP: Final = 0.5
#: Seconds for one attempt to connect.
CONNECT_TIMEOUT: Final = 2.0

#: What a guest may be called; empty where there is none.
GUEST_NAME: Final = re.compile(rf"[a-zA-Z0-9_.-]{{0,{MAX_GUEST_NAME}}}")


class LinkServer:
    """Listens and welcomes peers.

    ``accept(hello)`` returns the handler of a new link, or raises a RemoteError to refuse it. ``roles`` narrows the
    roles that CONNECTS lets connect to ``role``. A peer that connects again under the same role and guest replaces its
    older link, which a crash may have left half open. An empty ``token`` lets everybody in.
    """

    def __init__(
        self,
        *,
        role: str,
        token: str,
        epoch: int,
        accept: Callable[[Hello], LinkHandler],
        metrics: Metrics,
        roles: Iterable[str] | None = None,
        capture: CaptureHub | None = None,
        stir: Callable[[], None] | None = None,
        hello_timeout: float = HELLO_TIMEOUT,
        max_unauthenticated: int = MAX_UNAUTHENTICATED,
    ) -> None:
        self.role: Final = role
        self.epoch: Final = epoch
        self.accept: Final = accept
        self.hello_timeout: Final = hello_timeout
        self.max_unauthenticated: Final = max_unauthenticated
        legal = frozenset(client for client, listener in CONNECTS if listener == role)
        self.roles: Final = legal if roles is None else frozenset(roles)
        if not self.roles <= legal:
            raise LocalError(f"{sorted(self.roles - legal)} do not connect to {role}")
        self._token: Final = token.encode()
        book = LinkBook(metrics)
        book.expect(sorted(self.roles))
        self._context: Final = LinkContext(role, book, capture or CaptureHub(), stir)
        self._server: asyncio.Server | None = None
        self.connections: Final[set[_ServerLink]] = set()
        self.waiting = 0

    @property
    def links(self) -> list[Link]:
        """The links that are up."""
        return [link for link in self.connections if link.is_up]

    @property
    def port(self) -> int:
        """The port that is listened on (useful after ``start(host, 0)``). Raises LocalError before start."""
        if self._server is None:
            raise LocalError("the link server has not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises ConfigError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _ServerLink(self, self._context), host, port)
        except OSError as error:
            raise ConfigError("listen", "listen.port", f"cannot listen on {host}:{port}: {error}") from error

    async def close(self, reason: str = "service stopping") -> None:
        """Stop listening and close every link."""
        if self._server is not None:
            self._server.close()
        gone = [link.gone for link in self.connections]
        for link in tuple(self.connections):
            link.close(reason)
        for event in gone:
            await event.wait()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def check(self, hello: Hello) -> None:
        """Raise HandshakeError unless ``hello`` may come in. The token goes before the role, so that a stranger
        learns nothing about who may connect."""
        if hello.version != VERSION:
            raise HandshakeError("version", hello.version, VERSION)
        if self._token and not hmac.compare_digest(self._token, hello.token.encode()):
            raise HandshakeError("token", None, None, "wrong token")
        if hello.role not in self.roles:
            raise HandshakeError("role", hello.role[:32], sorted(self.roles))
        if not GUEST_NAME.fullmatch(hello.guest):
            raise HandshakeError("guest", hello.guest[:MAX_GUEST_NAME], GUEST_NAME.pattern)

    def replace(self, newcomer: _ServerLink) -> None:
        """Close the older link of the same peer, if there is one."""
        for link in tuple(self.connections):
            if link is not newcomer and link.is_up and link.name == newcomer.name:
                link.close("replaced by a newer link of the same peer")


class _ServerLink(Link):
    """The listening end: first frame in is ``hello``, first frame out ``welcome`` or ``refuse``."""

    __slots__ = ("_counted", "_server", "gone")

    def __init__(self, server: LinkServer, context: LinkContext) -> None:
        super().__init__(context, "", "", MAX_HELLO)
        self._server = server
        self._counted = False
        self.gone = asyncio.Event()

    def _hello_timeout(self) -> float:
        return self._server.hello_timeout

    def _connected(self) -> None:
        server = self._server
        server.connections.add(self)
        server.waiting += 1
        self._counted = True
        _keep_alive(self._transport)
        if server.waiting > server.max_unauthenticated:
            self._refuse(HandshakeError("too_many", server.waiting, server.max_unauthenticated, "not yet welcomed"))
            if self._transport is not None:
                self._transport.close()  # a flood is not worth lingering for

    def _first_frame(self, body: bytes) -> None:
        self._arrived()
        try:
            hello = decode(body)
        except FrameError:
            # Without the value: the first bytes of a malformed hello may be those of a token.
            raise FrameError("frame.body", None, None, "not a well-formed hello") from None
        if not isinstance(hello, Hello):
            raise FrameError("frame.tag", type(hello).__struct_config__.tag, None, "the first frame must be a hello")
        self._server.check(hello)
        self._identify(hello.role, hello.guest)
        handler = self._server.accept(hello)
        self._server.replace(self)
        self.send(Welcome(VERSION, self._server.role, self._server.epoch))
        self._established(handler, hello.epoch)

    def _arrived(self) -> None:
        if self._counted:
            self._counted = False
            self._server.waiting -= 1

    def _gone(self) -> None:
        self._arrived()
        self._server.connections.discard(self)
        self.gone.set()


class LinkClient:
    """Keeps one link to a server up: connects, and after each loss connects again until :meth:`close`.

    The first retry comes after RETRY_FIRST seconds; failures in a row double that up to RETRY_CAP, with jitter from
    ``rng`` so that the peers of a restarted server do not come back in step.
    """

    def __init__(
        self,
        *,
        role: str,
        peer: str,
        host: str,
        port: int,
        token: str,
        epoch: int,
        handler: LinkHandler,
        metrics: Metrics,
        guest: str = "",
        capture: CaptureHub | None = None,
        stir: Callable[[], None] | None = None,
        hello_timeout: float = HELLO_TIMEOUT,
        rng: random.Random | None = None,
        patient: bool = False,
    ) -> None:
        if (role, peer) not in CONNECTS:
            raise LocalError(f"{role} does not connect to {peer}")
        self.host: Final = host
        self.port: Final = port
        self.peer: Final = peer
        self.guest: Final = guest
        self.handler: Final = handler
        self.hello_timeout: Final = hello_timeout
        self.hello: Final = Hello(VERSION, role, token, epoch, guest)
        self._book: Final = LinkBook(metrics)
        self._context: Final = LinkContext(role, self._book, capture or CaptureHub(), stir, patient)
        self._rng: Final = rng or random.Random()
        self._task: asyncio.Task[None] | None = None
        self._up: Final = asyncio.Event()
        self._reconnects: Final = self._book.reconnects(peer)
        self._current: _ClientLink | None = None
        self._ups = 0
        #: why the last attempt to connect failed; empty while the link is up
        self.failure = ""
        #: what the peer refused last, in the handshake; None while the link is up
        self.refused: Refuse | None = None

    @property
    def link(self) -> Link | None:
        """The link while it is up."""
        current = self._current
        return current if current is not None and current.is_up else None

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"link to {self.peer}")

    async def wait_up(self) -> Link:
        """Wait until the link is up."""
        while (link := self.link) is None:
            self._up.clear()
            await self._up.wait()
        return link

    async def close(self, reason: str = "service stopping") -> None:
        """Close the link and connect no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        current = self._current
        if current is not None:
            current.close(reason)
            await current.gone.wait()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        delay = RETRY_FIRST
        failures = 0
        while True:
            link = _ClientLink(self, self._context)
            reason = ""
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await loop.create_connection(lambda link=link: link, self.host, self.port)  # type: ignore[misc]
            except (OSError, TimeoutError) as error:
                reason = str(error) or "connect timed out"
            else:
                await link.gone.wait()
                reason = link.close_reason
            self._current = None
            if link.was_up:
                delay = RETRY_FIRST
                failures = 0
            else:
                self.failure = reason
                failures += 1
                if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th … in a row
                    log = self._book.log
                    log.warning(
                        "cannot connect",
                        role=self.hello.role,  # a guest process connects as guest and as vmm
                        link=self.peer,
                        peer=self.address,
                        reason=reason,
                        failures=failures,
                    )
            await asyncio.sleep(delay * self._rng.uniform(0.75, 1.25))
            delay = min(delay * 2, RETRY_CAP)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    # --- for the connection ---------------------------------------------------------------------------------------

    def connected(self, link: _ClientLink) -> None:
        self._current = link

    def came_up(self) -> None:
        self._up.set()
        self.failure = ""
        self.refused = None
        if self._ups:
            self._reconnects.value += 1
        self._ups += 1


class _ClientLink(Link):
    """The connecting end: first frame out is ``hello``, first frame in ``welcome`` or ``refuse``."""

    __slots__ = ("_client", "gone", "was_up")

    def __init__(self, client: LinkClient, context: LinkContext) -> None:
        super().__init__(context, client.peer, client.guest)
        self._client = client
        self.was_up = False
        self.gone = asyncio.Event()

    def _hello_timeout(self) -> float:
        return self._client.hello_timeout

    def _connected(self) -> None:
        _keep_alive(self._transport)
        self._client.connected(self)
        self.send(self._client.hello)
        self.flush()

    def _first_frame(self, body: bytes) -> None:
        message = decode(body)
        if isinstance(message, Refuse):
            self._client.refused = message
            self._refused_by_peer(message)
            return
        if not isinstance(message, Welcome):
            raise FrameError(
                "frame.tag", type(message).__struct_config__.tag, None, "the first frame must be a welcome"
            )
        if message.version != VERSION:
            raise HandshakeError("version", message.version, VERSION)
        if message.role != self.peer_role:
            raise HandshakeError("role", message.role[:32], self.peer_role)
        self.was_up = True
        self._client.came_up()
        self._established(self._client.handler, message.epoch)

    def _gone(self) -> None:
        self.gone.set()


def _keep_alive(transport: asyncio.Transport | None) -> None:
    """Let the kernel find a peer whose machine is gone: silent for 5 s, then 3 probes 2 s apart."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
