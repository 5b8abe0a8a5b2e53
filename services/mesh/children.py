"""The services of one mesh as child processes on loopback: start, wait until ready, restart, stop."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from common.errors import ConfigError, LocalError

#: Start order: who listens before who connects.
ROLES: Final = ("its", "scmi", "nic", "guest")
LOOPBACK: Final = "127.0.0.1"
#: Seconds for all services to become ready, and for one to stop on SIGTERM.
READY_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 10.0
PROJECT: Final = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Child:
    """One service process and what outlives its restarts."""

    role: str
    env: dict[str, str]
    admin: str
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    #: CPU seconds of incarnations that ended, the newest sample of the living one, its resident bytes
    cpu_before: float = 0.0
    cpu_now: float = 0.0
    rss_bytes: int = 0
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def cpu_seconds(self) -> float:
        return self.cpu_before + self.cpu_now


def free_ports(count: int) -> list[int]:
    """``count`` TCP ports of loopback that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind((LOOPBACK, 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


class Mesh:
    """The four services. ``say`` is told, in a sentence each, what a person would want to know.

    A device service that dies is started again; the guest holds the platform's memory, so its death ends the mesh.
    """

    def __init__(
        self, *, guests: int, board: Path | None, settings: dict[str, str], say: Callable[[str], None]
    ) -> None:
        if board is not None and not board.is_file():
            raise ConfigError("--board", "", f"{board}: no such file")
        self._say: Final = say
        self.token: Final = secrets.token_hex(16)
        self.failed: Final = asyncio.Event()
        self.stopping = False
        self.http: aiohttp.ClientSession | None = None
        ports = free_ports(7)
        link = dict(zip(("scmi", "nic", "its"), ports, strict=False))
        admin = dict(zip(ROLES, ports[3:], strict=True))
        common = {
            "RINGMESH_TOKEN": self.token,
            "RINGMESH_ADMIN__HOST": LOOPBACK,
            "RINGMESH_LOG__LEVEL": "warning",
        } | settings
        peers = {f"RINGMESH_{role.upper()}__PORT": str(port) for role, port in link.items()}
        peers |= {f"RINGMESH_{role.upper()}__HOST": LOOPBACK for role in link}
        own: dict[str, dict[str, str]] = {
            "its": {},
            "scmi": {key: peers[key] for key in ("RINGMESH_ITS__PORT", "RINGMESH_ITS__HOST")},
            "nic": {key: peers[key] for key in ("RINGMESH_ITS__PORT", "RINGMESH_ITS__HOST")},
            "guest": peers | {"RINGMESH_GUESTS": str(guests)},
        }
        if board is not None:
            own["scmi"]["RINGMESH_BOARD"] = str(board.resolve())
        self.children: Final[dict[str, Child]] = {}
        for role in ROLES:
            env = common | own[role] | {"RINGMESH_ADMIN__PORT": str(admin[role])}
            if role in link:
                env |= {"RINGMESH_LISTEN__HOST": LOOPBACK, "RINGMESH_LISTEN__PORT": str(link[role])}
            self.children[role] = Child(role, env, f"http://{LOOPBACK}:{admin[role]}")

    async def start(self) -> None:
        """Start all services and wait until each says that it is ready. Raises LocalError if one does not."""
        headers = {"Authorization": f"Bearer {self.token}"}
        self.http = aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=90))
        for child in self.children.values():
            await self._spawn(child)
        waits = [self._wait_ready(child) for child in self.children.values()]
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await asyncio.gather(*waits)
        except TimeoutError:
            raise LocalError(f"the services were not ready after {READY_TIMEOUT:.0f} s") from None
        for child in self.children.values():
            pid = child.process.pid if child.process else 0
            self._say(f"{child.role:5} ready: pid {pid}, admin {child.admin}")

    async def _spawn(self, child: Child) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("RINGMESH_")} | child.env
        child.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.cli", "serve", child.role,
            env=env, cwd=PROJECT, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        child.watcher = asyncio.get_running_loop().create_task(self._watch(child, child.process))

    async def _watch(self, child: Child, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if self.stopping:
            return
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        child.cpu_before += child.cpu_now
        child.cpu_now = 0.0
        if child.role == "guest" or code == 2:
            self._say(f"{child.role} {why}: the mesh cannot go on")
            self.failed.set()
            return
        child.restarts += 1
        self._say(f"{child.role} {why}: starting it again")
        await self._spawn(child)

    async def _wait_ready(self, child: Child) -> None:
        assert self.http is not None
        while True:
            if self.failed.is_set():
                raise LocalError(f"{child.role} did not start")
            try:
                async with self.http.get(f"{child.admin}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)

    async def post(self, role: str, path: str) -> dict[str, object]:
        """POST to a service's admin endpoint; its JSON answer. Raises LocalError for a refusal."""
        assert self.http is not None
        async with self.http.post(self.children[role].admin + path) as answer:
            body: dict[str, object] = await answer.json()
            if answer.status != 200:
                raise LocalError(f"{role} {path}: {body}")
            return body

    async def metrics(self, role: str) -> str | None:
        """The text of a service's /metrics, or None while it does not answer."""
        assert self.http is not None
        try:
            async with self.http.get(self.children[role].admin + "/metrics") as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def stop(self) -> None:
        """Stop the services in the opposite order; one that does not end on SIGTERM is killed."""
        self.stopping = True
        for role in reversed(ROLES):
            process = self.children[role].process
            if process is None or process.returncode is not None:
                continue
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                self._say(f"{role} did not stop on SIGTERM: killed")
                process.kill()
                await process.wait()
        for child in self.children.values():
            if child.watcher is not None:
                await asyncio.wait([child.watcher])
        if self.http is not None:
            await self.http.close()
