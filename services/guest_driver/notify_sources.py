"""Which notifications are on at the platform: reference counts of (event, source) (Linux: ``r_evt->sources``).

A handler of one source and a handler of all sources share the count of what they overlap in: the command that turns a
notification on is sent for the first of them, the one that turns it off for the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from common.errors import LocalError, RingmeshError, ScmiError
from common.scmi.header import NOTIFICATION
from common.scmi.names import message_name
from common.world import Table, World
from services.guest_driver.notify_events import Event, source_key


@dataclass(slots=True)
class SourceStats:
    """Commands that enable or disable a notification, and failed."""

    enable_failed: int = 0
    disable_failed: int = 0
    #: after a reset of the platform; such a source stays off until the next reset or the next who wants it
    restore_failed: int = 0


class Reference(NamedTuple):
    """``users`` handlers want it; ``on``: the platform was told, and has not forgotten since."""

    event: Event
    source: int
    users: int
    on: bool


class Sources:
    """``world.new(Sources, world, log)``. Callers take turns: they hold a mutex across these calls."""

    __slots__ = ("_log", "_references", "stats")

    _log: Final[Callable[..., None]]
    _references: Final[Table[Reference]]
    stats: Final[SourceStats]

    def __init__(self, world: World, log: Callable[..., None]) -> None:
        self._log = log
        #: source_key → reference
        self._references = world.table()
        self.stats = world.new(SourceStats)

    async def get(self, protocol: int, event: Event, sources: Iterable[int]) -> tuple[int, ...]:
        """Take a reference of every source that can be had, and return which those are.

        A source that the platform refuses is left out, unless it refuses all: then its ScmiError is raised. Any other
        error is no answer of the platform: it is raised at once, and no reference is taken. Raises LocalError where
        there is no source.
        """
        taken: list[int] = []
        refused: list[int] = []
        last: ScmiError | None = None
        try:
            for source in sources:
                try:
                    await self._get(protocol, event, source)
                except ScmiError as error:
                    self.stats.enable_failed += 1
                    refused.append(source)
                    last = error
                else:
                    taken.append(source)
        except BaseException as error:
            told = isinstance(error, RingmeshError)
            self.stats.enable_failed += told
            off = self._drop(protocol, event, taken)
            if told:  # else the actor is being ended: it must not wait any more
                await self._disable(protocol, event, off)
            raise
        if not taken:
            raise last or LocalError(f"{_name(protocol, event)}: the platform has no source of it")
        if last is not None:
            self._log(
                "notification not enabled for all sources",
                notification=_name(protocol, event), refused=refused, error=str(last),
            )  # fmt: skip
        return tuple(taken)

    async def put(self, protocol: int, event: Event, sources: Iterable[int]) -> None:
        """Give references back. A platform that does not take the command goes on sending what nobody wants: that is
        logged and counted, and no error."""
        await self._disable(protocol, event, self._drop(protocol, event, sources))

    async def restore(self) -> None:
        """The platform was reset and has forgotten everything: tell it again. Failures are logged and counted."""
        keys = list(self._references)
        for key in keys:
            self._references[key] = self._references[key]._replace(on=False)
        for at, key in enumerate(keys):
            reference = self._references[key]
            try:
                await reference.event.enable(reference.source, True)
            except RingmeshError as error:
                refused = isinstance(error, ScmiError)
                left = 1 if refused else len(keys) - at
                self.stats.restore_failed += left
                self._log("notifications not restored", sources=left, error=str(error))
                if not refused:
                    return
            else:
                self._references[key] = reference._replace(on=True)

    async def _get(self, protocol: int, event: Event, source: int) -> None:
        key = source_key(protocol, event.event, source)
        held = self._references.get(key) or Reference(event, source, 0, False)
        if not held.on:
            await event.enable(source, True)
        self._references[key] = Reference(event, source, held.users + 1, True)

    def _drop(self, protocol: int, event: Event, sources: Iterable[int]) -> list[int]:
        """Take references back. Returns the sources that nobody wants any more."""
        off = []
        for source in sources:
            key = source_key(protocol, event.event, source)
            held = self._references[key]
            if held.users > 1:
                self._references[key] = held._replace(users=held.users - 1)
            else:
                self._references.pop(key)
                if held.on:
                    off.append(source)
        return off

    async def _disable(self, protocol: int, event: Event, sources: list[int]) -> None:
        for at, source in enumerate(sources):
            try:
                await event.enable(source, False)
            except RingmeshError as error:
                refused = isinstance(error, ScmiError)
                left = 1 if refused else len(sources) - at
                self.stats.disable_failed += left
                self._log(
                    "notifications not disabled",
                    notification=_name(protocol, event), sources=left, error=str(error),
                )  # fmt: skip
                if not refused:
                    return


def _name(protocol: int, event: Event) -> str:
    return message_name(protocol, event.event, NOTIFICATION)
