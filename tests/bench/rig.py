"""The mesh for a benchmark: device services as pinned processes, the guest in this one.

The clients of baseline and mesh run on the first processor, the servers of both on the last, so that a ratio compares
like with like.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.runtime.config import PeerConfig, load
from services.guest_driver.config import GuestConfig
from services.guest_driver.shell import GuestService
from services.mesh.ports import free_ports
from tests.bench.echo import Client

ROOT = Path(__file__).resolve().parents[2]
PROCESSORS = sorted(os.sched_getaffinity(0))


def pin_client() -> None:
    """This process on the first processor."""
    os.sched_setaffinity(0, {PROCESSORS[0]})


def spawn(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A server's process, on the last processor."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    os.sched_setaffinity(process.pid, {PROCESSORS[-1]})
    return process


@contextlib.contextmanager
def _stopped(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextlib.asynccontextmanager
async def server(module: str) -> AsyncIterator[int]:
    """The port that a process serves which runs ``module`` of this package; it prints a line once it does."""
    (port,) = free_ports(1)
    process = spawn([sys.executable, "-m", f"tests.bench.{module}", str(port)], {})
    with _stopped([process]):
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        yield port


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[Client]:
    """A client of the bare echo."""
    async with server("echo") as port:
        transport, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
        yield client
        transport.close()


@contextlib.asynccontextmanager
async def mesh(platform: Sequence[str] = (), /, **settings: Any) -> AsyncIterator[GuestService]:
    """A guest service in this process, up, its devices in others. ``settings`` are fields of its configuration or
    of the workload section. ``platform``: a module of this package, with arguments, in the place of the SCMI service.
    """
    scmi, nic, its = free_ports(3)
    log = {"RINGMESH_LOG__LEVEL": "error", "RINGMESH_ADMIN__PORT": "0", "RINGMESH_ITS__PORT": str(its)}
    processes = []
    for role, port in (("its", its), ("scmi", scmi), ("nic", nic)):
        env = {key: value for key, value in log.items() if role != "its" or key != "RINGMESH_ITS__PORT"}
        command = [sys.executable, "-m", "services.cli", "serve", role]
        if role == "scmi" and platform:
            command = [sys.executable, "-m", f"tests.bench.{platform[0]}", *platform[1:]]
        processes.append(spawn(command, env | {"RINGMESH_LISTEN__PORT": str(port)}))
    with _stopped(processes):
        config = load(GuestConfig, None, {})
        config.scmi, config.nic, config.its = (PeerConfig(port=port) for port in (scmi, nic, its))
        config.admin.port = 0
        for key, value in settings.items():
            setattr(config.workload if hasattr(config.workload, key) else config, key, value)
        service = GuestService(config)
        task = asyncio.get_running_loop().create_task(service.run())
        while service.not_ready():
            if task.done():
                raise RuntimeError(f"the guest service ended: {task.result()}")
            await asyncio.sleep(0.02)
        try:
            yield service
        finally:
            service.shut_down()
            await task
