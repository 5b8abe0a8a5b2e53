"""A platform of one's own: ``ringmesh serve scmi`` as a child process on loopback, for as long as a session lasts.

::

    async with private("deploy/boards/juno-r2.toml") as agent:
        print(await agent.base.vendor())
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from common.errors import LocalError
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_session import COMMAND_TIMEOUT, ScmiSession
from services.mesh.ports import LOOPBACK, port_of, release, reserve
from services.mesh.process import Process
from services.scmi_platform.board import Board
from services.scmi_platform.config import DEFAULT_BOARD

#: Seconds for the platform to start, and to stop on SIGTERM.
START_TIMEOUT: Final = 60.0
_STEP: Final = 0.02
STOP_TIMEOUT: Final = 10.0
#: Lines of its log that an error quotes.
_LINES: Final = 5


class PrivatePlatform:
    """Make it in a running event loop, :meth:`start`, :meth:`stop`. Raises ConfigError for a board that cannot be used.

    The ports are kept while it lives; at the one that it is given for an ITS nobody listens, and none is needed: a
    session raises no MSI (see ``services/guest_driver/scmi_session.py``).
    """

    def __init__(self, board: Path | str | None = None) -> None:
        self.board: Final = Path(board or DEFAULT_BOARD).resolve()
        Board.load(str(self.board))
        self.token: Final = secrets.token_hex(16)
        self._ports: Final = reserve(3)
        self._links, self._admin, self._its = (port_of(sock) for sock in self._ports)
        self.address: Final = f"{LOOPBACK}:{self._links}"
        self._log: Final[deque[str]] = deque(maxlen=_LINES)
        self._process: Process | None = None

    def start(self) -> None:
        """Start the process; :meth:`listening` waits until it can be connected to."""
        env = {
            "RINGMESH_TOKEN": self.token,
            "RINGMESH_BOARD": str(self.board),
            "RINGMESH_LOG__LEVEL": "error",
            "RINGMESH_LOG__FORMAT": "console",
            "RINGMESH_ITS__PORT": str(self._its),
        }
        for name, port in (("LISTEN", self._links), ("ADMIN", self._admin)):
            env[f"RINGMESH_{name}__HOST"] = LOOPBACK
            env[f"RINGMESH_{name}__PORT"] = str(port)
        self._process = Process.start("scmi", env, self._log.append)

    async def listening(self) -> None:
        """Wait for it, START_TIMEOUT at most. A session would, too, but would log that nobody is there yet.

        Raises LocalError, with what the platform said last, for one that does not come up.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._answers():  # noqa: ASYNC110  (a port tells nobody)
                    await asyncio.sleep(_STEP)
        except TimeoutError:
            said = "; ".join(self._log) or "it said nothing"
            raise LocalError(f"the platform does not listen after {START_TIMEOUT:g} s: {said}") from None

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, self._links)
        except OSError:
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True

    async def unless_it_ends(self, work: Awaitable[None]) -> None:
        """Await ``work``. Raises LocalError, with what the platform said last, if its process ends before."""
        working = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self.ended())
        try:
            await asyncio.wait((working, ended), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise LocalError(ended.result())
        finally:
            for task in (working, ended):
                task.cancel()
            await asyncio.wait((working, ended))

    async def ended(self) -> str:
        """Wait until its process has ended, by itself or not: what there is to say of it."""
        assert self._process is not None
        code = await self._process.wait()
        return f"the platform ended with code {code}: {'; '.join(self._log) or 'no reason given'}"

    async def stop(self) -> None:
        """End the process, give the ports back."""
        if self._process is not None:
            await self._process.stop(STOP_TIMEOUT)
        release(self._ports)


@asynccontextmanager
async def private_session(
    board: Path | str | None = None, *, guest: str = "", timeout: float = COMMAND_TIMEOUT
) -> AsyncIterator[ScmiSession]:
    """A session with a platform of its own. Raises ConfigError for the board, LocalError where it does not start."""
    platform = PrivatePlatform(board)
    try:
        platform.start()
        await platform.unless_it_ends(platform.listening())
        session = ScmiSession(platform.address, guest=guest, token=platform.token, timeout=timeout)
        await platform.unless_it_ends(session.start(START_TIMEOUT))
        watcher = asyncio.ensure_future(platform.ended())
        watcher.add_done_callback(lambda done: None if done.cancelled() else session.end(done.result()))
        try:
            yield session
        finally:
            watcher.cancel()
            await session.close()
    finally:
        await platform.stop()


@asynccontextmanager
async def private(
    board: Path | str | None = None, *, guest: str = "", timeout: float = COMMAND_TIMEOUT
) -> AsyncIterator[ScmiAgent]:
    """As :func:`~services.guest_driver.scmi_session.connect`, to a platform of one's own with ``board`` (None: the one
    that ships)."""
    async with private_session(board, guest=guest, timeout=timeout) as session:
        yield session.agent
