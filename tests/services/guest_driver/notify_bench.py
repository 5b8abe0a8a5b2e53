"""A protocol of a vendor whose platform does what the test says, for tests of the registry.

Imported as ``tests.services.guest_driver.notify_bench``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from common.errors import ScmiError
from common.runtime.world import AsyncWorld
from common.scmi import header
from common.scmi.fields import U32, unpack
from common.scmi.status import Status
from services.guest_driver.notify_events import Event, Notification, ProtocolEvents
from services.guest_driver.scmi_notify import Notifications

VENDOR = 0x80
#: events of the protocol; the first has a payload of a source and up to 12 bytes more
SOME, OTHER = 3, 4


def parse(payload: bytes) -> int:
    """The report: the source."""
    return int(unpack(U32, payload, "VENDOR_EVENT")[0])


def payload(source: int, more: bytes = b"") -> bytes:
    return U32.pack(source) + more


class Bench:
    """``commands`` are what the platform was told; ``trouble(event, source, on)`` may raise, or await."""

    def __init__(self, sources: int = 4) -> None:
        self.world = AsyncWorld()
        self.logged: list[tuple[str, dict[str, object]]] = []
        self.now = 0
        self.notifications = self.world.new(Notifications, self.world, self.log, lambda: self.now)
        self.commands: list[tuple[int, int, bool]] = []
        #: what is on at the platform
        self.on: set[tuple[int, int]] = set()
        self.refused: dict[tuple[int, int], Callable[[], Exception]] = {}
        self.gate: asyncio.Event | None = None
        self.sources = sources
        self.asked = 0

    def log(self, event: str, **fields: object) -> None:
        self.logged.append((event, fields))

    def enable_of(self, event: int) -> Callable[[int, bool], Any]:
        async def enable(source: int, on: bool) -> None:
            self.commands.append((event, source, on))
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
            if (event, source) in self.refused:
                raise self.refused[event, source]()
            (self.on.add if on else self.on.discard)((event, source))

        return enable

    async def count(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        return self.sources

    def events(self, protocol: int = VENDOR, size: int = 4096) -> ProtocolEvents:
        events = tuple(Event(one, 16, parse, lambda report: report, self.enable_of(one)) for one in (SOME, OTHER))
        return ProtocolEvents(protocol, events, self.count, size)

    def refuse(self, event: int, source: int) -> None:
        self.refused[event, source] = lambda: ScmiError("VENDOR_NOTIFY", Status.DENIED)

    def come(self, event: int, data: bytes, protocol: int = VENDOR) -> int:
        """A notification comes; returns what notify() makes of it."""
        message = header.notification(protocol, event, data)
        return self.notifications.notify(int.from_bytes(message[:4], "little"), message)

    def work(self) -> None:
        """The worker takes what is there."""
        for protocol in self.notifications.queues:
            queue = self.notifications.queues[protocol]
            queue.notify_work.pending.store(0)
            queue.dispatch()


class Ears:
    """Handlers by name that write down what they hear."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def named(self, name: str) -> Callable[[Notification], None]:
        return lambda notification: self.heard.append((name, notification.source))

    def take(self) -> list[tuple[str, int]]:
        heard, self.heard = self.heard, []
        return heard
