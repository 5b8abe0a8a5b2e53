"""Ctrl-C, SIGTERM and a terminal that is closed: the first one asks the run to end in order, the second one to end
at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from common.errors import RingmeshError

T = TypeVar("T")

#: Exit code of a run that a signal ended before there was anything to report, as shells have it for SIGINT.
INTERRUPTED: Final = 130


class InterruptedRunError(RingmeshError):
    """A signal came while there was nothing yet, or no time left, to finish in order."""


class Interrupt:
    """Catches SIGINT, SIGTERM and SIGHUP of the running loop. ``forced()`` is called at the second signal.

    A SIGHUP that our starter has us ignore (``nohup``) stays ignored.
    """

    def __init__(self, forced: Callable[[], None]) -> None:
        self.asked: Final = asyncio.Event()
        self.forced: Final = asyncio.Event()
        self._on_forced: Final = forced
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, self._came)

    def _came(self) -> None:
        if self.asked.is_set():
            self.forced.set()
            self._on_forced()
        self.asked.set()


async def unless(event: asyncio.Event, work: Awaitable[T]) -> T:
    """The result of ``work``. Raises InterruptedRunError, with ``work`` cancelled, if ``event`` is set first."""
    task = asyncio.ensure_future(work)
    await first(task, event)
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait([task])
    raise InterruptedRunError("interrupted")


async def first(work: asyncio.Future[Any] | None, *events: asyncio.Event, timeout: float | None = None) -> None:
    """Wait until ``work`` is done, one of ``events`` is set or ``timeout`` seconds have passed."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits if work is None else [work, *waits], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
