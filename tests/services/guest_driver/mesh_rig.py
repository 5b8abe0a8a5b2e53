"""The four services in one event loop, on loopback, each of which may be stopped and started again at its port.

Imported as ``tests.services.guest_driver.mesh_rig``.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from common.runtime.config import AdminConfig, ListenConfig, LogConfig, PeerConfig
from common.runtime.service import Service
from services.gic_its.config import ItsConfig
from services.gic_its.shell import ItsService
from services.guest_driver.config import GuestConfig, WorkloadConfig
from services.guest_driver.shell import GuestService
from services.scmi_platform.config import DEFAULT_BOARD, ScmiConfig
from services.scmi_platform.shell import ScmiService
from services.vdpa_nic.config import BackendConfig, NicConfig
from services.vdpa_nic.shell import NicService

T = TypeVar("T")
TOKEN: Final = "a token"
#: every mesh that a test made, until stop_all()
MADE: Final[list[Mesh]] = []
GUARD: Final = 20.0


async def within(work: Awaitable[T], seconds: float = GUARD) -> T:
    async with asyncio.timeout(seconds):
        return await work


async def stop_all() -> None:
    """For the end of a test that failed half-way: no service may be left to hang the event loop."""
    while MADE:
        await MADE.pop().stop()


async def until(holds: Callable[[], Any], seconds: float = GUARD) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  (other tasks move what it looks at)
            await asyncio.sleep(0.005)


def port_to_keep() -> int:
    """A free port below those that the kernel hands out: while a service is down nobody gets its port by chance."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Quiet:
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))


class Mesh:
    """``services[name]`` is what runs now; :meth:`kill` drops its links without a drain."""

    def __init__(self, **workload: Any) -> None:
        self.workload = {
            "map_seconds": 0.05, "inv_seconds": 0.05, "affinity_seconds": 0.05, "scmi_workers": 2, "net_window": 32,
        } | workload  # fmt: skip
        self.backend = BackendConfig()
        self.guests = 1
        self.pairs = 1
        self.board = str(DEFAULT_BOARD)
        self.services: dict[str, Any] = {}
        self.tasks: dict[str, asyncio.Task[int]] = {}
        MADE.append(self)
        self.ports = {name: port_to_keep() for name in ("its", "scmi", "nic")}

    def _make(self, name: str) -> Service[Any]:
        base: dict[str, Any] = {
            "token": TOKEN, "admin": AdminConfig(port=0), "log": LogConfig(level="error"), "drain_seconds": 8.0,
        }  # fmt: skip
        its = PeerConfig(port=self.ports["its"])
        if name == "guest":
            return GuestService(
                GuestConfig(
                    scmi=PeerConfig(port=self.ports["scmi"]), nic=PeerConfig(port=self.ports["nic"]), its=its,
                    guests=self.guests, net_pairs=self.pairs, net_queue_size=64, memory_mib=8,
                    workload=WorkloadConfig(**self.workload), **base,
                )
            )  # fmt: skip
        base["listen"] = ListenConfig(port=self.ports[name])
        if name == "its":
            return ItsService(ItsConfig(**base))
        if name == "scmi":
            return ScmiService(ScmiConfig(its=its, board=self.board, **base))
        return NicService(NicConfig(its=its, queue_size=64, backend=self.backend, **base))

    async def start(self, *names: str) -> None:
        for name in names or ("its", "scmi", "nic", "guest"):
            service = self.services[name] = self._make(name)
            task = self.tasks[name] = asyncio.get_running_loop().create_task(service.run(), name=name)
            await until(lambda task=task, service=service: task.done() or service._phase == "")  # type: ignore[misc]
            if task.done():
                task.result()
                raise AssertionError(f"{name} ended")
        if "guest" in (names or ("guest",)):
            await until(lambda: self.tasks["guest"].done() or not self.services["guest"].not_ready())
            assert not self.tasks["guest"].done()

    async def stop(self, *names: str) -> list[int]:
        codes = []
        for name in names or tuple(reversed(self.tasks)):
            self.services[name].shut_down()
            codes.append(await within(self.tasks.pop(name), 30.0))
        return codes

    async def restart(self, name: str) -> None:
        assert await self.stop(name) == [0]
        await self.start(name)

    def cut(self, name: str, role: str = "guest") -> None:
        """Break the links that ``role`` has to a service; both ends live."""
        for server in self.services[name]._servers:
            for link in server.links:
                if link.peer_role == role:
                    link.close("test")

    @property
    def guest(self) -> Any:
        return self.services["guest"].guests[0]

    @property
    def load(self) -> Any:
        return self.services["guest"].loads[0]
