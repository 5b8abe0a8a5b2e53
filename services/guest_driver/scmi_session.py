"""An SCMI agent for a script: a guest that is nothing but memory, two rings and a link to the platform.

::

    async with connect("127.0.0.1:7101") as agent:
        print(await agent.base.vendor())
        await agent.clock.rate_set(3, 600_000_000)

To the platform it is one more guest. Which agent of the board that makes it is the platform's to say
(``services/scmi_platform/agents.py``): the one that bears the guest's name, else the first that is neither trusted nor
taken, else a new untrusted one. What the agent sets stays when the session has ended. The platform
refuses the name of a guest that is connected from another process.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog

from common.errors import ConfigError, HandshakeError, LinkDownError, LocalError, RingError
from common.memory import GuestMemory
from common.runtime.clock import monotonic
from common.runtime.link import GUEST_NAME, Link, LinkClient
from common.runtime.metrics import Metrics
from common.runtime.world import AsyncWorld
from common.wire.messages import Irq, Message
from services.guest_driver.layout import Layout
from services.guest_driver.port import Port
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_driver import CMDQ, ScmiDriver, key_of
from services.guest_driver.virtio_bus import VirtioBus

#: Seconds that a session waits for the platform to be there, and that a command waits for its response.
CONNECT_TIMEOUT: Final = 3.0
COMMAND_TIMEOUT: Final = 30.0
#: Name of the guest that a session is, unless it says otherwise; a second one at the same time is ``cli2``.
GUEST: Final = "cli"

_MEMORY: Final = 1 << 20
_CMDQ_SIZE: Final = 64
_EVENTQ_SIZE: Final = 64
#: Seconds between two looks at a link that is coming up.
_STEP: Final = 0.01
#: A refusal that may pass: too many peers have not said hello yet.
_PASSING: Final = "too_many"


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, an IPv6 host in brackets. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError("address", "", f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_name(guest: str, token: str) -> None:
    """What no platform would take is not sent to one. Raises ConfigError."""
    if not GUEST_NAME.fullmatch(guest):
        raise ConfigError("guest", "", f"{guest[:64]!r} is not a name of at most 32 of a-z A-Z 0-9 _ . -")
    try:
        token.encode()
    except UnicodeEncodeError:
        raise ConfigError("token", "", "it is not UTF-8 text") from None


class ScmiSession:
    """One connection of a script: :meth:`start`, use ``agent``, :meth:`close`. :func:`connect` does all three.

    ``restarts`` counts how often the platform came back without its memory: rates and trip points are its defaults
    then; notifications that handlers are registered for are enabled again. Raises ConfigError for an address,
    a name or a token that is none, LocalError where another session is the same guest.
    """

    def __init__(self, address: str, *, guest: str = "", token: str = "", timeout: float = COMMAND_TIMEOUT) -> None:
        log_to_logging()
        host, port = parse_address(address)
        _check_name(guest, token)
        self.address: Final = address
        self._name: Final = _Name(guest, address)
        self.guest: Final = self._name.text
        self.log: Final = structlog.get_logger("scmi").bind(guest=self.guest)
        self.world: Final = AsyncWorld()
        memory = GuestMemory(_MEMORY)
        soon = asyncio.get_running_loop().call_soon
        self.port: Final = Port(
            self.world,
            memory,
            queues=2,
            send=self._send,
            key_of=key_of,
            clock=monotonic,
            # as a guest's port: pollers that the used ring wakes look at it first
            defer=lambda: soon(soon, self.port.signal),  # type: ignore[arg-type]
        )
        self.driver: Final = self.world.new(
            ScmiDriver, self.world, memory, Layout(0, _MEMORY), self.port.doorbell, self.log.warning,
            cmdq_size=_CMDQ_SIZE, eventq_size=_EVENTQ_SIZE, timeout=timeout,
        )  # fmt: skip
        self.bus: Final = VirtioBus(
            "scmi", self.port, spawn=self.world.spawn, log=self.log, on_restart=self.driver.restarted,
            on_replaced=lambda: self.world.spawn("replaced", self._end_replaced()),
        )  # fmt: skip
        #: done when no command will ever be answered again: why
        self.over: Final[asyncio.Future[str]] = asyncio.get_running_loop().create_future()
        self._link: Link | None = None
        self._up = False
        self._client: Final = LinkClient(
            role="guest", peer="scmi", host=host, port=port, token=token, epoch=secrets.randbits(53), handler=self,
            metrics=Metrics("scmi"), guest=self.guest, stir=self.world.stir, patient=True,
        )  # fmt: skip

    @property
    def agent(self) -> ScmiAgent:
        return self.driver.agent

    @property
    def restarts(self) -> int:
        return self.bus.restarts

    @property
    def connected(self) -> bool:
        """Is there a link to the platform just now?"""
        return self._link is not None

    def end(self, why: str) -> None:
        """Say that this session is :attr:`over`; the first reason counts."""
        if not self.over.done():
            self.over.set_result(why)

    async def start(self, seconds: float = CONNECT_TIMEOUT) -> None:
        """Connect and bring the device up. Raises LinkDownError where nobody answers within ``seconds``,
        HandshakeError where the platform refuses (its token, mostly), RemoteError for a device that is not as it
        should be; then nothing is left running."""
        try:
            await self._client.start()
            await self._start(monotonic() + seconds, seconds)
        except BaseException:
            await self.close()
            raise

    async def _start(self, deadline: float, seconds: float) -> None:
        client = self._client
        while True:
            while client.link is None:
                refused = client.refused
                if refused is not None and refused.field != _PASSING:
                    why = refused.reason[:256].removeprefix(f"{refused.field}: ")
                    raise HandshakeError(refused.field[:64], None, None, f"refused by {self.address}: {why}")
                if monotonic() >= deadline:
                    reason = f"no SCMI platform there within {seconds:g} s: {client.failure or 'no answer'}"
                    raise LinkDownError("connect", self.address, None, reason)
                await asyncio.sleep(_STEP)
            try:
                async with asyncio.timeout(max(seconds, 1.0)):
                    await self.bus.probe(self.driver.plan())
            except LinkDownError:
                continue  # the platform went away in the middle: from the beginning, while there is time
            except TimeoutError:
                raise LinkDownError("connect", self.address, None, "the device does not answer") from None
            break
        self._up = True
        self.driver.start(self.guest)

    async def close(self) -> None:
        """Let nobody in any more, close the link: the platform keeps the device, without a guest."""
        self._up = False
        await self.driver.stop()
        await self._client.close("session closed")
        await self.world.close()
        self._name.release()

    # --- the port -----------------------------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        """To the platform. An interrupt is not sent on: port and driver are one process here, and a guest without
        vCPUs has nothing that an ITS could steer an LPI to. So the queue's callback is called at once, and the
        platform raises no MSI for this guest and needs no ITS to serve it."""
        if type(message) is Irq:
            with suppress(RingError):  # on_broken has heard of it
                if message.queue == CMDQ:
                    self.driver.cmdq_irq()
                else:
                    self.driver.eventq_irq()
        elif self._link is not None:
            self._link.send(message)

    # --- the link (a LinkHandler) -------------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._link = link
        self.bus.link_up(link)

    def link_frame(self, link: Link, message: Any) -> None:
        self.bus.link_frame(link, message)

    def link_batch(self, link: Link) -> None:
        self.bus.link_batch(link)

    def link_down(self, link: Link, reason: str) -> None:
        if self._link is link:
            self._link = None
        self.bus.link_down(link, reason)

    async def _end_replaced(self) -> None:
        """The same platform is back, and our device was another session's meanwhile. That one may have changed what
        this script relies on: it ends, and every command answers LinkDownError."""
        self.log.warning("another session was this guest: closing", address=self.address)
        self.end(f"another session was guest {self.guest!r} of {self.address} meanwhile")
        await self._client.close("another session was this guest")
        await self.driver.stop()


@asynccontextmanager
async def connect(
    address: str,
    *,
    guest: str = "",
    token: str = "",
    timeout: float = COMMAND_TIMEOUT,
    connect_timeout: float = CONNECT_TIMEOUT,
) -> AsyncIterator[ScmiAgent]:
    """The SCMI agent of a guest of our own at the platform that listens at ``address`` (HOST:PORT).

    ``timeout`` is what commands wait for their responses, seconds. A platform that restarts meanwhile is connected to
    again; what was under way then may end with ScmiError COMMS_ERROR. Raises what :meth:`ScmiSession.start` raises.
    """
    session = ScmiSession(address, guest=guest, token=token, timeout=timeout)
    await session.start(connect_timeout)
    try:
        yield session.agent
    finally:
        await session.close()


class _Name:
    """The guest's name, held against other sessions of this machine at the same platform: by a socket in Linux's
    abstract namespace, which the kernel lets go of when the process ends. The platform is told by what its address
    resolves to: localhost is 127.0.0.1. Who chose no name is the first of cli, cli2 …
    that nobody holds. Raises LocalError for a chosen one that somebody does."""

    def __init__(self, wanted: str, address: str) -> None:
        self._where: Final = _where(address)
        self._held: Final = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.text = wanted or GUEST
        number = 1
        while not self._hold():
            if wanted:
                self._held.close()
                raise LocalError(f"another session is guest {wanted!r} of {address}")
            number += 1
            self.text = f"{GUEST}{number}"

    def _hold(self) -> bool:
        name = hashlib.sha256(f"{self._where} {self.text}".encode()).hexdigest()
        try:
            self._held.bind(f"\0ringmesh-scmi-{name}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True

    def release(self) -> None:
        self._held.close()


def _where(address: str) -> str:
    """The host's first address and the port; the text itself where the host is not known."""
    host, port = parse_address(address)
    # IPv4 first, as services listen: a name may stand for addresses of both kinds, in any order
    for family in (socket.AF_INET, socket.AF_UNSPEC):
        with suppress(OSError, ValueError):  # ValueError: no host can have such a name
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            return f"{min(at[4][0] for at in found)}:{port}"
    return address


def log_to_logging() -> None:
    """Unless the program has set structlog up: log through :mod:`logging`, which is silent below WARNING and writes
    to standard error. Otherwise structlog would print to standard output, in between what the script prints."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )
