"""The services of one mesh as child processes on loopback: start, wait until ready, restart, stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from common.errors import LocalError
from services.mesh.ports import LOOPBACK, port_of, release, reserve
from services.mesh.process import Process
from services.mesh.settings import DEVICES, ROLES, environments

#: What is started together: a stage begins when all of the one before are ready, so nobody connects to nobody.
STAGES: Final = (("its",), ("scmi", "nic"), ("guest",))
#: Seconds for all services to become ready, and for one to stop on SIGTERM.
READY_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 10.0
#: Seconds between two looks at a service that is not ready.
READY_STEP: Final = 0.02
#: Seconds for one scrape: a service that is stopped must not hold up the others.
METRICS_TIMEOUT: Final = aiohttp.ClientTimeout(total=1.0)
#: A device that lived this many seconds is started again at once when it dies; deaths in quick succession are
#: answered after a pause that doubles from BACKOFF_FIRST to BACKOFF_CAP seconds.
STEADY: Final = 10.0
BACKOFF_FIRST: Final = 0.25
BACKOFF_CAP: Final = 5.0
#: Exit code of a service whose settings are wrong: starting it again would not help.
BAD_SETTINGS: Final = 2


@dataclass(slots=True)
class Child:
    """One service and what outlives its restarts."""

    role: str
    env: dict[str, str]
    admin: str
    process: Process | None = None
    restarts: int = 0
    #: CPU seconds of the processes that have ended, from the kernel
    cpu_seconds: float = 0.0
    #: most resident bytes that a scrape saw
    rss_bytes: int = 0
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)


def backoff(quick_deaths: int) -> float:
    """Seconds before a device is started again after ``quick_deaths`` deaths in quick succession (at least 1)."""
    return 0.0 if quick_deaths <= 1 else min(BACKOFF_FIRST * 2.0 ** (quick_deaths - 2), BACKOFF_CAP)


class Mesh:
    """The four services. ``say`` is told, in a sentence each, what a person would want to know; ``line`` gets what
    the services log, or they write to our own standard error.

    ``settings`` and ``inherited`` are those of :func:`services.mesh.settings.environments`; RINGMESH_TOKEN among them
    is the token of the mesh, without one it draws its own. A device service that dies is started again; the guest
    holds the platform's memory, so its death ends the mesh.
    Raises ConfigError for settings or a board that the services would refuse.
    """

    def __init__(
        self,
        *,
        guests: int,
        board: Path | None,
        settings: Mapping[str, str],
        inherited: Mapping[str, str] | None = None,
        say: Callable[[str], None],
        line: Callable[[str], None] | None = None,
    ) -> None:
        self._say: Final = say
        self._line: Final = line
        given = settings.get("RINGMESH_TOKEN") or (inherited or {}).get("RINGMESH_TOKEN")
        self.made_token: Final = not given
        self.token: Final = given or secrets.token_hex(16)
        self.failed: Final = asyncio.Event()
        self.up = False
        self._stopping: Final = asyncio.Event()
        self.http: aiohttp.ClientSession | None = None
        self._ports: Final = reserve(len(DEVICES) + len(ROLES))
        numbers = [port_of(sock) for sock in self._ports]
        link_ports = dict(zip(DEVICES, numbers, strict=False))
        admin_ports = dict(zip(ROLES, numbers[len(DEVICES) :], strict=True))
        #: what the firmware was told outlives its process, not the mesh
        self._kept: Final = tempfile.TemporaryDirectory(prefix="ringmesh-")
        try:
            envs = environments(
                token=self.token,
                link_ports=link_ports,
                admin_ports=admin_ports,
                guests=guests,
                board=board,
                state=Path(self._kept.name) / "scmi-state",
                settings=settings,
                inherited=inherited,
            )
        except LocalError:
            release(self._ports)
            self._kept.cleanup()
            raise
        self.children: Final = {
            role: Child(role, envs[role], f"http://{LOOPBACK}:{admin_ports[role]}") for role in ROLES
        }

    async def start(self) -> None:
        """Start all services and wait until each says that it is ready. Raises LocalError if one does not."""
        headers = {"Authorization": f"Bearer {self.token}"}
        self.http = aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=90))
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                for stage in STAGES:
                    for role in stage:
                        self._spawn(self.children[role])
                    await asyncio.gather(*(self._wait_ready(self.children[role]) for role in stage))
        except TimeoutError:
            raise LocalError(f"the services were not ready after {READY_TIMEOUT:.0f} s") from None
        self.up = True
        for child in self.children.values():
            pid = child.process.pid if child.process else 0
            self._say(f"{child.role:5} ready: pid {pid}, admin {child.admin}")

    def _spawn(self, child: Child) -> None:
        process = child.process = Process.start(child.role, child.env, self._line)
        if child.watcher is None:
            child.watcher = asyncio.get_running_loop().create_task(self._watch(child, process))

    async def _watch(self, child: Child, process: Process) -> None:
        """Start ``child`` again whenever it dies, until the mesh stops or cannot go on."""
        clock = asyncio.get_running_loop().time
        quick = 0
        while True:
            began = clock()
            code = await process.wait()
            child.cpu_seconds += process.cpu_seconds
            if self._stopping.is_set():
                return
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            if not self.up or child.role == "guest" or code == BAD_SETTINGS:
                self._say(f"{child.role} {why}: the mesh cannot go on")
                self.failed.set()
                return
            child.restarts += 1
            quick = 1 if clock() - began >= STEADY else quick + 1
            pause = backoff(quick)
            when = f"in {pause:.2f} s, {quick} deaths in quick succession" if pause else "now"
            self._say(f"{child.role} {why}: starting it again {when}")
            if await self._stops_within(pause):
                return
            process = child.process = Process.start(child.role, child.env, self._line)

    async def _stops_within(self, seconds: float) -> bool:
        """Wait ``seconds``, but no longer than until the mesh stops. True if it does."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
        return self._stopping.is_set()

    async def _wait_ready(self, child: Child) -> None:
        assert self.http is not None
        while True:
            if self.failed.is_set():
                raise LocalError("the mesh did not start")
            try:
                async with self.http.get(f"{child.admin}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(READY_STEP)

    async def get(self, role: str, path: str) -> dict[str, Any]:
        """GET from a service's admin endpoint; its JSON answer. Raises LocalError for a refusal or no answer."""
        return await self._ask("GET", role, path)

    async def post(self, role: str, path: str) -> dict[str, Any]:
        """POST to a service's admin endpoint; its JSON answer. Raises LocalError for a refusal or no answer."""
        return await self._ask("POST", role, path)

    async def _ask(self, method: str, role: str, path: str) -> dict[str, Any]:
        assert self.http is not None
        try:
            async with self.http.request(method, self.children[role].admin + path) as answer:
                body: dict[str, Any] = await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise LocalError(f"{role} {path}: {error or type(error).__name__}") from None
        if answer.status != 200:
            raise LocalError(f"{role} {path}: {body.get('error', answer.status)}")
        return body

    async def metrics(self, role: str) -> str | None:
        """The text of a service's /metrics, or None while it does not answer."""
        assert self.http is not None
        try:
            async with self.http.get(self.children[role].admin + "/metrics", timeout=METRICS_TIMEOUT) as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    def kill(self) -> None:
        """SIGKILL to all, at once; :meth:`stop` still has to be awaited."""
        self._stopping.set()
        for child in self.children.values():
            if child.process is not None:
                child.process.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop the services in the opposite order; one that does not end on SIGTERM is killed."""
        self._stopping.set()
        for role in reversed(ROLES):
            process = self.children[role].process
            if process is not None and not await process.stop(STOP_TIMEOUT):
                self._say(f"{role} did not stop on SIGTERM: killed")
        watchers = [child.watcher for child in self.children.values() if child.watcher is not None]
        if watchers:
            await asyncio.wait(watchers)
        if self.http is not None:
            await self.http.close()
        release(self._ports)
        self._kept.cleanup()
