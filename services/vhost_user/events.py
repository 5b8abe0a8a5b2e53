"""Event descriptors (eventfd) on the asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class LoopEvents:
    """What :class:`services.vhost_user.device.Events` promises, on the running loop. Descriptors are non-blocking."""

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        asyncio.get_running_loop().add_reader(fd, self._signalled, fd, ready)

    def unwatch(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)

    @staticmethod
    def _signalled(fd: int, ready: Callable[[], None]) -> None:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:  # another holder of the descriptor took the count
            return
        ready()

    @staticmethod
    def signal(fd: int) -> None:
        try:
            os.eventfd_write(fd, 1)
        except BlockingIOError:  # the count is full: its reader has a signal already
            pass

    @staticmethod
    def soon(work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(work)
