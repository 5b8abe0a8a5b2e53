"""The options that every command has, and the session that they ask for."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from common.errors import ConfigError, LocalError, RingmeshError, ScmiError
from common.runtime.logging import configure
from common.scmi.status import status_name
from services.guest_driver.scmi_session import ScmiSession
from services.scmi_cli.output import printable
from services.scmi_cli.private import private_session

T = TypeVar("T")

USAGE: Final = 2
FAILURE: Final = 1

Connect = Annotated[
    str,
    typer.Option(
        envvar="RINGMESH_SCMI", metavar="HOST:PORT",
        help="Where an SCMI service listens for links; without it a private platform is started.",
    ),
]  # fmt: skip
Token = Annotated[str, typer.Option(envvar="RINGMESH_TOKEN", help="The mesh's token, where one is set.")]
Guest = Annotated[
    str, typer.Option(metavar="NAME", help="Connect as this guest, which may be an agent of the board; else as cli.")
]
Board = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Board file of the private platform (TOML).")
]
Poll = Annotated[bool, typer.Option("--poll", help="Poll for responses instead of waiting for the interrupt.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for a response.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class Options:
    """Where to, as whom, and how."""

    connect: str
    token: str
    guest: str
    board: Path | None
    poll: bool = False
    timeout: float = 5.0
    json: bool = False


@asynccontextmanager
async def session(options: Options) -> AsyncIterator[ScmiSession]:
    """The session that the options ask for. Raises what connecting raises."""
    if not options.connect:
        board = "the board that ships" if options.board is None else options.board
        say(f"no --connect: starting a private platform with {board} …")
        async with private_session(options.board, guest=options.guest, timeout=options.timeout) as made:
            yield made
        return
    if options.board is not None:
        raise ConfigError("--board", "", "is for a private platform; the one that --connect names has its own")
    made = ScmiSession(options.connect, guest=options.guest, token=options.token, timeout=options.timeout)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def run(options: Options, work: Callable[[ScmiSession], Awaitable[None]]) -> None:
    """Do ``work`` in a session; ends as :func:`run_async`."""

    async def main() -> None:
        async with session(options) as made:
            await unless_over(made, work(made))

    run_async(main())


async def unless_over(session: ScmiSession, work: Awaitable[None]) -> None:
    """Await ``work``. Raises LocalError, with the reason, where the session is over before: nothing more would come."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, session.over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
    failed = working.cancelled() or working.exception() is not None
    if failed and session.over.done():
        raise LocalError(session.over.result())
    working.result()


def run_async(main: Coroutine[Any, Any, None]) -> None:
    """Run a command; exit 1 for what the platform or the link says, 2 for usage."""
    configure("scmi", format="console", level="error")
    try:
        asyncio.run(main)
    except ScmiError as error:
        name = status_name(error.status)
        detail = f": {error.detail}" if error.detail != name else ""
        raise fail(f"{error.field}: {name} ({int(error.status)}){detail}", FAILURE) from None
    except RingmeshError as error:
        raise fail(error, USAGE if isinstance(error, ConfigError) else FAILURE) from None
    except BrokenPipeError:  # a reader that has seen enough
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left in the buffer must not fail again at exit
        os.close(nowhere)
    except OSError as error:  # a full disk behind standard output
        raise fail(error, FAILURE) from None


def usage(choose: Callable[[], T]) -> T:
    """What ``choose`` returns; the end of the command, with exit code 2, if it raises ConfigError."""
    try:
        return choose()
    except ConfigError as error:
        raise fail(error, USAGE) from None


def say(text: str) -> None:
    """Something that is not the answer."""
    typer.echo(printable(text, sys.stderr.encoding), err=True)


def fail(error: object, code: int) -> typer.Exit:
    say(f"ringmesh scmi: {error}")
    return typer.Exit(code)
