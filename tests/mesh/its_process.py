"""A ``ringmesh serve its`` as a process of its own, which a test may kill and start again at the same addresses.

Imported as ``tests.mesh.its_process``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from typing import Final

import psutil

from services.mesh.scrape import Sample
from tests.mesh.harness import GUARD, RINGMESH, ROOT, TOKEN, scrape
from tests.services.guest_driver.mesh_rig import port_to_keep


class ItsProcess:
    """One ITS service at a time. ``settings`` are variables without their prefix: ``GIC_PROFILE="qemu"``."""

    def __init__(self, **settings: str) -> None:
        self.settings: Final = settings
        self.port: Final = port_to_keep()
        self.admin: Final = f"http://127.0.0.1:{(admin_port := port_to_keep())}"
        self._admin_port: Final = admin_port
        self._log: Final = tempfile.TemporaryFile()  # noqa: SIM115  (open until close())
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        """Begin to start; ``settings`` go over what they were."""
        self.settings.update(settings)
        env = {key: value for key, value in os.environ.items() if not key.startswith("RINGMESH_")}
        env |= {f"RINGMESH_{key}": value for key, value in self.settings.items()}
        env |= {
            "RINGMESH_TOKEN": TOKEN, "RINGMESH_LISTEN__PORT": str(self.port),
            "RINGMESH_ADMIN__PORT": str(self._admin_port), "RINGMESH_LOG__LEVEL": "warning",
        }  # fmt: skip
        self._popen = subprocess.Popen(
            [*RINGMESH, "serve", "its"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def rss(self) -> int:
        """Bytes of memory."""
        size: int = psutil.Process(self.pid).memory_info().rss
        return size

    def kill(self) -> None:
        """kill -9, and it is gone."""
        assert self._popen is not None
        assert self._popen.poll() is None, self.log
        self._popen.kill()
        self._popen.wait()

    def close(self) -> None:
        if self.alive:
            self.kill()
        self._log.close()

    @property
    def log(self) -> str:
        """What it said, all of its lives together."""
        at = self._log.tell()
        self._log.seek(0)
        text = self._log.read().decode()
        self._log.seek(at)
        return text

    async def scrape(self) -> Sample:
        """Its metrics, once it answers."""
        async with asyncio.timeout(GUARD):
            while True:
                try:
                    return await scrape(self.admin)
                except OSError:
                    assert self.alive, self.log
                    await asyncio.sleep(0.02)
