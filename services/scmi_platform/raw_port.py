"""The raw port's sockets: one :class:`services.scmi_platform.raw.RawSession` a connection.

What a client may not send, and who may not come in, is counted and logged as for links (``ringmesh_frames_refused``
with ``link="raw"``). There is no hello and no token: whoever reaches the address is an agent, so it belongs on
loopback or in a directory of one's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from functools import partial
from typing import Final, cast

import structlog

from common.errors import ConfigError, LocalError, RemoteError
from common.runtime.metrics import Metrics
from common.runtime.refusals import LinkBook
from services.scmi_platform.agents import CONNECTION, Agents
from services.scmi_platform.config import RawConfig
from services.scmi_platform.raw import RawSession, RawStats
from services.scmi_platform.raw_address import RawAddress, parse

#: Connections at a time.
MAX_CONNECTIONS: Final = 64
#: Bytes that wait for a client that does not read, before it is not read from.
HIGH_WATER: Final = 64 * 1024
#: Seconds that clients have to read what was sent to them when the port closes.
CLOSE_SECONDS: Final = 2.0
_LINK: Final = "raw"


class RawPort:
    """Listens at ``config.listen`` for agents of ``agents``. Raises ConfigError for an address that is none, or for an
    ``agent`` that the board has not."""

    def __init__(self, config: RawConfig, agents: Agents, metrics: Metrics) -> None:
        self.config: Final = config
        self.agents: Final = agents
        self.stats: Final = RawStats()
        self.book: Final = LinkBook(metrics)
        self.connections: Final[set[RawConnection]] = set()
        self._at: Final = parse(config.listen)
        self._log = structlog.get_logger("raw")
        self._server: asyncio.Server | None = None
        #: device and inode of the unix socket that this port made
        self._inode: tuple[int, int] | None = None
        if config.agent and all(one.name != config.agent for one in agents.platform.board.agents):
            raise ConfigError("raw", "raw.agent", f"the board has no agent {config.agent!r}")
        self.book.expect([_LINK])
        metrics.counters_of("scmi_raw", "SCMI raw port", self.stats)
        metrics.gauge("ringmesh_scmi_raw_connections", "Connections of the raw port.", fn=lambda: len(self.connections))

    @property
    def address(self) -> RawAddress:
        """Where it listens, with the port that the kernel chose. Raises LocalError before start."""
        if self._server is None:
            raise LocalError("the raw port has not started")
        if self._at.path:
            return self._at
        return self._at._replace(port=self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises ConfigError where the address cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            if self._at.path:
                self._server = await loop.create_unix_server(self._connection, sock=self._bind(self._at.path))
            else:
                self._server = await loop.create_server(self._connection, self._at.host, self._at.port)
        except OSError as error:
            raise ConfigError("raw", "raw.listen", f"cannot listen on {self._at}: {error}") from error
        self._log.info("raw port", address=str(self.address))

    def _connection(self) -> RawConnection:
        return RawConnection(self)

    def _bind(self, path: str) -> socket.socket:
        """A socket at ``path`` for this user alone. One that a process left behind is replaced, one in use is not."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise FileExistsError("there is a file that is no socket")
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)  # who listens may take nobody for ever
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
                else:
                    raise FileExistsError("another process listens there")
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(path)
            os.chmod(path, 0o600)  # nobody can connect before listen()
            found = os.stat(path)
        except OSError:
            sock.close()
            raise
        self._inode = found.st_dev, found.st_ino
        return sock

    async def close(self) -> None:
        """Stop listening and close every connection; nothing happens where it has not started."""
        if self._server is None:
            return
        self._server.close()
        gone = [connection.gone for connection in self.connections]
        for connection in tuple(self.connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for event in gone:
                    await event.wait()
        for connection in tuple(self.connections):
            connection.abort()
        for event in gone:
            await event.wait()
        await self._server.wait_closed()
        self._server = None
        if self._inode is not None:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(self._at.path)
                if (found.st_dev, found.st_ino) == self._inode:
                    os.unlink(self._at.path)

    def failed(self, peer: str) -> None:
        """Our own code failed on what ``peer`` sent: that costs it its connection, and nobody else."""
        self.stats.failures += 1
        self._log.exception("raw port failed", peer=peer)

    def free_name(self) -> str:
        """The name of a connection whose agent the board does not name."""
        names = {connection.name for connection in self.connections}
        # no guest's name has a colon
        return next(name for number in range(MAX_CONNECTIONS + 1) if (name := f"{CONNECTION}{number}") not in names)


class RawConnection(asyncio.Protocol):
    """One client."""

    def __init__(self, port: RawPort) -> None:
        self._port: Final = port
        self._loop: Final = asyncio.get_running_loop()
        self._session: RawSession | None = None
        self._transport: asyncio.Transport | None = None
        self._scheduled = False
        self._full = False
        self._reading = True
        self.name = ""
        self.peer = ""
        self.gone: Final = asyncio.Event()

    # --- its life -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        port = self._port
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is none of its subclasses
        transport.set_write_buffer_limits(HIGH_WATER)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "local"
        try:
            if len(port.connections) >= MAX_CONNECTIONS:
                raise RemoteError("frame.too_many", len(port.connections) + 1, MAX_CONNECTIONS, "raw connections")
            self.name = port.free_name()
            agent = port.agents.allot(self.name, port.config.agent)
        except RemoteError as error:
            port.stats.connections_refused += 1
            self._refuse(error)
            return
        finally:
            port.connections.add(self)
        port.stats.connections += 1
        port.book.up(_LINK, 1)
        self._session = RawSession(
            partial(port.agents.platform.handle, agent),
            max_message=port.config.max_message,
            stats=port.stats,
            wake=self._schedule,
        )
        port.agents.attach(agent, self._session)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._port.connections.discard(self)
        self._leave()
        self.gone.set()

    def _leave(self) -> None:
        """The agent is given back: nothing more is executed for it or sent to it."""
        session, self._session = self._session, None
        if session is not None:
            session.open = False
            self._port.book.up(_LINK, -1)
            self._port.agents.release(self.name)

    def close(self) -> None:
        """Send what was written and close; a client that does not read is cut off."""
        self._leave()
        if self._transport is not None:
            if self._full:
                self._transport.abort()
            else:
                self._transport.close()

    def abort(self) -> None:
        """Close at once; what was not sent yet is lost."""
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, error: RemoteError) -> None:
        self._port.book.refused(_LINK, f"{_LINK} {self.peer.rpartition(':')[0] or self.peer}", error)
        self.close()

    # --- bytes --------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            self._session.receive(data)
            self._turn()

    def pause_writing(self) -> None:
        self._full = True
        self._port.stats.paused += 1

    def resume_writing(self) -> None:
        self._full = False
        self._schedule()

    def _schedule(self) -> None:
        """Turn once at the end of this turn of the loop, whatever there is to do."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._woken)

    def _woken(self) -> None:
        self._scheduled = False
        self._turn()

    def _turn(self) -> None:
        """Execute and send; one write. Nothing is executed for a client that does not read, and it is not read from."""
        session, transport = self._session, self._transport
        if session is None or transport is None or transport.is_closing():
            return
        if not self._full:
            try:
                data = session.turn()
            except Exception:
                self._port.failed(self.peer)
                self.close()
                return
            if data:
                self._port.agents.platform.commit()  # what was set is kept before anybody hears of it
                transport.write(data)
            if session.more:
                self._schedule()
            elif not self._full and session.error is not None:
                self._refuse(session.error)
                return
        wanted = not self._full and not session.more
        if wanted and not self._reading:
            transport.resume_reading()
        elif self._reading and not wanted:
            transport.pause_reading()
        self._reading = wanted
