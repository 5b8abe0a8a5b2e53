"""``ringmesh scmi watch``: notifications as they come."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple

from common.errors import ConfigError, RingmeshError, ScmiError
from common.scmi.status import status_name
from services.guest_driver.notify_events import Handler, Notification
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_session import ScmiSession
from services.scmi_cli.options import say
from services.scmi_cli.output import print_json, print_line, values
from services.scmi_cli.view import Domain, Event, View, find

#: Notifications that wait to be printed; the oldest give way, and how many did is said.
WAITING: Final = 10_000
#: Seconds to disable all of it at the end.
DISABLING: Final = 10.0
#: Seconds between two looks whether the platform is there.
LOOK: Final = 0.2


class Source(NamedTuple):
    """One event of one domain."""

    view: View
    event: Event
    domain: Domain


async def sources(agent: ScmiAgent, views: Sequence[View], domain: str, poll: bool) -> list[Source]:
    """Every event that the views' domains send, or one ``domain`` (number or name; empty: all).

    Raises ConfigError where there is none.
    """
    found = []
    for view in views:
        if view.events:
            domains = [await find(view, agent, domain, poll)] if domain else await view.domains(agent, poll)
            found += [Source(view, event, one) for one in domains for event in view.events if event.offered(one)]
    if not found:
        raise ConfigError("watch", "", f"no notifications: {', '.join(view.name for view in views)} {domain}".rstrip())
    return found


async def watch(
    session: ScmiSession, wanted: Sequence[Source], seconds: float | None, count: int | None, as_json: bool
) -> None:
    """Enable ``wanted`` and print what comes, until ``seconds`` have passed, ``count`` were printed, or cancelled; then
    disable it. What the platform does not enable is said and left out; raises ScmiError where it enables nothing."""
    notifications = session.agent.notifications
    waiting: asyncio.Queue[tuple[Source, Notification, datetime]] = asyncio.Queue(WAITING)
    lost = 0
    enabled = []
    looking: asyncio.Future[None] | None = None

    def handler_of(source: Source) -> Handler:
        def handler(notification: Notification) -> None:
            nonlocal lost
            if waiting.full():
                waiting.get_nowait()
                lost += 1
            waiting.put_nowait((source, notification, datetime.now(UTC)))

        return handler

    try:
        refused: ScmiError | None = None
        for source in wanted:
            handler = handler_of(source)
            try:
                await notifications.register(source.view.protocol, source.event.number, handler, source.domain.id)
            except ScmiError as error:
                refused = error
                say(f"{_name(source)}: not enabled: {status_name(error.status)} ({int(error.status)})")
            else:
                enabled.append((source, handler))
        if refused is not None and not enabled:
            raise refused
        say(f"watching {len(enabled)} notification{'s' * (len(enabled) != 1)}; Ctrl-C ends it")
        looking = asyncio.ensure_future(_look(session))
        printed = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while count is None or printed < count:
                    _print(*await waiting.get(), as_json)
                    printed += 1
    finally:
        if looking is not None:
            looking.cancel()
        if lost:
            say(f"{lost} notifications came faster than they could be printed, and are lost")
        # a platform that is gone sends nothing either, and each question to it would wait for its time-out
        with suppress(RingmeshError, TimeoutError):
            async with asyncio.timeout(DISABLING):
                for source, handler in enabled:
                    if not session.connected:
                        break
                    await notifications.unregister(source.view.protocol, source.event.number, handler, source.domain.id)


async def _look(session: ScmiSession) -> None:
    """Say when the platform goes away, and when it is back: nothing comes in between."""
    there = True
    while True:
        await asyncio.sleep(LOOK)
        if session.connected != there:
            there = not there
            say("the platform is back" if there else "the platform is away; waiting for it to come back")


def _name(source: Source) -> str:
    return f"{source.view.name} {source.domain.id} {source.domain.name} {source.event.name}"


def _print(source: Source, notification: Notification, when: datetime, as_json: bool) -> None:
    record = source.event.show(notification.report, source.domain)
    if as_json:
        head = {
            "time": when.isoformat(timespec="microseconds"),
            "protocol": source.view.name,
            "id": source.domain.id,
            "name": source.domain.name,
            "event": source.event.name,
        }
        print_json(head | values(record))
        return
    local = when.astimezone().strftime("%H:%M:%S.%f")[:-3]
    print_line(f"{local}  {_name(source)}  {'  '.join(cell.text for cell in record.values())}")
    sys.stdout.flush()
