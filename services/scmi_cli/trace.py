"""``ringmesh scmi trace``: the trace of the agents in a guest service, by its admin routes
(``services/guest_driver/tracing.py``)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import aiohttp
import msgspec

from common.errors import LinkDownError, RemoteError
from services.scmi_cli.options import say
from services.scmi_cli.output import print_json, print_line

#: Seconds for an answer, and between two questions while following.
ANSWER: Final = aiohttp.ClientTimeout(total=10)
PAUSE: Final = 0.2
#: What the routes answer is of.
_ANSWERS: Final = {"guests": dict[str, list[str]], "lines": list[str]}


class Tracing:
    """The routes of the guest service whose admin endpoint is at ``url``; an async context manager."""

    def __init__(self, url: str, token: str) -> None:
        self._url: Final = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http: Final = aiohttp.ClientSession(headers=headers, timeout=ANSWER)

    async def __aenter__(self) -> Tracing:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.close()

    async def state(self) -> dict[str, Any]:
        return await self._ask("GET", "/tracing", "guests")

    async def switch(self, enable: bool, events: list[str], guest: str) -> dict[str, Any]:
        """Events by name (none: all), of one guest (empty: of all). Raises RemoteError for one that there is not."""
        return await self._ask("POST", "/tracing", "guests", {"enable": enable, "events": events, "guest": guest})

    async def held(self) -> dict[str, Any]:
        """What is held; it stays."""
        return await self._ask("GET", "/tracing/trace", "lines")

    async def pipe(self) -> dict[str, Any]:
        """What came since the last time."""
        return await self._ask("POST", "/tracing/pipe", "lines", {})

    async def _ask(self, method: str, path: str, key: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer, which is of ``key``. Raises LinkDownError where nobody answers, RemoteError for a refusal and for
        what no guest service says."""
        try:
            async with self._http.request(method, self._url + path, json=body) as answer:
                said = await answer.json()
        except aiohttp.ContentTypeError:
            raise self._stranger() from None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise LinkDownError("tracing", self._url, None, str(error) or type(error).__name__) from None
        if not isinstance(said, dict):
            raise self._stranger()
        if answer.status != 200:
            raise RemoteError(path, self._url, None, f"{answer.status}: {said.get('error', said)}")
        try:
            msgspec.convert(said.get(key), _ANSWERS[key])
        except msgspec.ValidationError:
            raise self._stranger() from None
        return said

    def _stranger(self) -> RemoteError:
        return RemoteError("tracing", self._url, None, "no guest service answers there")


async def trace(tracing: Tracing, on: bool | None, events: list[str], guest: str, follow: bool, as_json: bool) -> None:
    """Switch events ``on`` or off (None: leave them) and print the state; or print the lines that are held, or with
    ``follow`` those that come, until cancelled: then what was switched on for it goes off again."""
    if on is not None:
        state = await tracing.switch(on, events, guest)
        if not follow:
            _print_state(state, as_json)
            return
    if not follow:
        answer = await tracing.held()
        _print_lines(answer, as_json)
        if not answer["lines"] and not any((await tracing.state())["guests"].values()):
            say("nothing is traced; --on turns it on")
        return
    try:
        while True:
            _print_lines(await tracing.pipe(), as_json)
            await asyncio.sleep(PAUSE)
    finally:
        if on:
            await tracing.switch(False, events, guest)


def _print_lines(answer: dict[str, Any], as_json: bool) -> None:
    for line in answer["lines"]:
        if as_json:
            print_json({"line": line})
        else:
            print_line(str(line))
    sys.stdout.flush()


def _print_state(state: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(state)
        return
    for name, events in state["guests"].items():
        print_line(f"{name}: {', '.join(events) or 'off'}")
