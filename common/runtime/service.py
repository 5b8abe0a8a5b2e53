"""The skeleton of a service: ordered start, readiness, ordered drain, exit code.

::

    admin up → start() → links up → ready … SIGTERM → drain() within a deadline → stop() → links, actors, admin down

A service derives from :class:`Service`, says its role and fills in the hooks. A second signal ends the process at
once. A spawned actor that fails takes the service down with exit code 1 and its name in the log: a mesh with a dead
actor only looks alive.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import signal
from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, TypeVar

import structlog
import uvloop

from common.errors import ConfigError
from common.runtime.admin import Admin
from common.runtime.capture import CaptureHub
from common.runtime.config import BaseConfig, PeerConfig
from common.runtime.link import LinkClient, LinkHandler, LinkServer
from common.runtime.logging import configure
from common.runtime.metrics import Metrics
from common.runtime.world import AsyncWorld
from common.wire.messages import Hello

C = TypeVar("C", bound=BaseConfig)


class Service(Generic[C]):
    """One process of the mesh. ``epoch`` is drawn anew at each start: peers tell a restart by it."""

    role: ClassVar[str] = ""
    #: links let what received frames wake run before they write the answers: for a service full of waiting tasks
    patient_links: ClassVar[bool] = False

    def __init__(self, config: C) -> None:
        self.config = config
        self.epoch = secrets.randbits(53)
        self.log = structlog.get_logger(self.role)
        self.metrics = Metrics(self.role)
        self.world = AsyncWorld(on_failure=self.fail)
        self.capture = CaptureHub(
            self.metrics, buffer_limit=config.capture.buffer_bytes, max_recorders=config.capture.recorders
        )
        self.admin = Admin(metrics=self.metrics, ready=self.not_ready, token=config.token, capture=self.capture)
        self._phase = "starting"
        self._conditions: dict[str, Callable[[], bool]] = {}
        self._servers: list[LinkServer] = []
        self._clients: list[LinkClient] = []
        self._stopping = asyncio.Event()
        self._failed = False

    # --- hooks --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Build the service: routes, metrics, :meth:`listen`, :meth:`connect`, actors. Links come up after it."""

    async def drain(self) -> None:
        """Finish what is in flight; links are still up. Cancelled at the drain deadline."""

    async def stop(self) -> None:
        """Release what start() took. Always called once start() was."""

    # --- for the hooks ------------------------------------------------------------------------------------------

    def listen(self, accept: Callable[[Hello], LinkHandler], roles: Iterable[str] | None = None) -> LinkServer:
        """Welcome peers at the configured address once start() is done."""
        server = LinkServer(
            role=self.role,
            token=self.config.token,
            epoch=self.epoch,
            accept=accept,
            metrics=self.metrics,
            roles=roles,
            capture=self.capture,
            stir=self.world.stir,
        )
        self._servers.append(server)
        return server

    def connect(
        self, peer: str, at: PeerConfig, handler: LinkHandler, *, role: str | None = None, guest: str = ""
    ) -> LinkClient:
        """Keep a link to ``peer`` (a role) up once start() is done. The service is not ready while it is down."""
        client = LinkClient(
            role=role or self.role,
            peer=peer,
            guest=guest,
            host=at.host,
            port=at.port,
            token=self.config.token,
            epoch=self.epoch,
            handler=handler,
            metrics=self.metrics,
            capture=self.capture,
            stir=self.world.stir,
            patient=self.patient_links,
        )
        self._clients.append(client)
        self.ready_when(f"link {role or self.role} to {peer} is down", lambda: client.link is not None)
        return client

    def ready_when(self, reason: str, condition: Callable[[], bool]) -> None:
        """Not ready, for ``reason``, while ``condition()`` is false."""
        self._conditions[reason] = condition

    def not_ready(self) -> list[str]:
        """Why the service is not ready; empty if it is."""
        phase = [self._phase] if self._phase else []
        return phase + [reason for reason, holds in self._conditions.items() if not holds()]

    def fail(self, name: str, error: BaseException) -> None:
        """Something that the service cannot live without has failed: stop, and exit with 1."""
        self._failed = True
        self.log.error("service failed", actor=name, error=repr(error))
        self._stopping.set()

    def shut_down(self) -> None:
        """Begin the ordered stop, as SIGTERM does."""
        self._stopping.set()

    # --- the life of a service ----------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until a signal or a failure; returns the exit code. Raises ConfigError if an address cannot be had."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._signalled, number)
        config = self.config
        started = False
        try:
            await self.admin.start(config.admin.host, config.admin.port)
            started = True
            await self.start()
            self._warn_if_open()
            for server in self._servers:
                await server.start(config.listen.host, config.listen.port)
            for client in self._clients:
                await client.start()
            self._phase = ""
            ports = [server.port for server in self._servers]
            self.log.info("started", admin_port=self.admin.port, link_ports=ports, epoch=self.epoch, pid=os.getpid())
            await self._stopping.wait()
            self._phase = "draining"
            await self._drain()
        finally:
            self._phase = "stopped"
            if started:
                await self.stop()
            for client in self._clients:
                await client.close()
            for server in self._servers:
                await server.close()
            await self.world.close()
            await self.admin.close()
        self.log.info("stopped", failed=self._failed)
        return 1 if self._failed else 0

    async def _drain(self) -> None:
        if self._failed:
            return
        try:
            async with asyncio.timeout(self.config.drain_seconds):
                await self.drain()
        except TimeoutError:
            self.log.warning("drain deadline passed", seconds=self.config.drain_seconds)

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stopping.is_set():
            self.log.warning("second signal: leaving at once", signal=name)
            os._exit(128 + number)
        self.log.info("stopping", signal=name)
        self._stopping.set()

    def _warn_if_open(self) -> None:
        """A service that strangers can reach should ask for a token."""
        if self.config.token:
            return
        for section, host in (("listen", self.config.listen.host), ("admin", self.config.admin.host)):
            if not _is_loopback(host) and (section == "admin" or self._servers):
                self.log.warning("no token is set and the address is not loopback", section=section, host=host)


def run_service(cls: type[Service[C]], config: C) -> int:
    """Run a service on uvloop with its logging set up; returns the exit code of the process."""
    configure(cls.role, config.log.format, config.log.level)

    async def main() -> int:
        return await cls(config).run()

    try:
        return uvloop.run(main())
    except ConfigError as error:
        structlog.get_logger(cls.role).error("cannot start", error=str(error))
        return 2
    except Exception:
        structlog.get_logger(cls.role).exception("service failed")
        return 1


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
