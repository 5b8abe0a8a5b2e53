"""``ringmesh scmi protocols | describe | get | set | watch | trace``: a typer app that the main command mounts.

Exit codes: 0 done, 1 the platform refused or could not be reached, 2 usage.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from common.scmi.fields import U32, unpack
from common.scmi.status import Common
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_session import ScmiSession
from services.scmi_cli import trace as tracing
from services.scmi_cli import watch as watching
from services.scmi_cli.base_view import platform
from services.scmi_cli.options import (
    USAGE,
    Board,
    Connect,
    Guest,
    Json,
    Options,
    Poll,
    Timeout,
    Token,
    fail,
    run,
    run_async,
    usage,
)
from services.scmi_cli.output import print_json, print_line, print_record, print_table, values
from services.scmi_cli.view import Cell, Record, View, find, plain, protocol_name, told
from services.scmi_cli.views import VIEWS, view_of

app: Final = typer.Typer(
    help="The firmware: what it serves, read and set it, watch its notifications.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Protocol = Annotated[str, typer.Argument(metavar="PROTOCOL", help="Name or number: clock, sensor, 0x14 …")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Number or name.")]
MaybeProtocol = Annotated[str, typer.Argument(metavar="PROTOCOL", help="Name or number; all without.")]
MaybeId = Annotated[str, typer.Argument(metavar="ID", help="Number or name; all without.")]


class _WithNumbers(TyperCommand):
    """A command to which a negative number is a word, a value or a wrong id, and not an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.ignore_unknown_options = any(_NEGATIVE.match(word) for word in args)
        return super().parse_args(ctx, args)


_NEGATIVE: Final = re.compile(r"-[.0-9]")


def _no_options(*words: str) -> None:
    """What passes for a word beside a negative number; ends the command, with exit code 2."""
    for word in words:
        if word.startswith("--"):
            raise fail(f"no option {word}", USAGE)


@app.command()
def protocols(
    connect: Connect = "", token: Token = "", guest: Guest = "", board: Board = None,
    poll: Poll = False, timeout: Timeout = 5.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Who the platform is, and the protocols that it serves us."""

    async def work(session: ScmiSession) -> None:
        agent = session.agent
        about = await platform(agent, poll)
        served = [0x10, *await agent.base.protocols(poll=poll)]
        rows = [await _protocol(agent, number, poll) for number in served]
        if as_json:
            print_json({"platform": values(about), "protocols": [values(row) for row in rows]})
            return
        print_record(about)
        typer.echo()
        print_table("protocols", rows)

    run(Options(connect, token, guest, board, poll, timeout, as_json), work)


async def _protocol(agent: ScmiAgent, number: int, poll: bool) -> Record:
    version = U32.unpack(await agent.do_xfer(number, Common.PROTOCOL_VERSION, expect=4, poll=poll))[0]
    row = {
        "id": Cell(number, f"{number:#x}"),
        "name": plain(protocol_name(number)),
        "version": Cell(version, f"{version >> 16}.{version & 0xFFFF}"),
    }
    for view in VIEWS:
        if view.protocol == number:
            return row | await view.summary(agent, poll)
    reply = await agent.do_xfer(number, Common.PROTOCOL_ATTRIBUTES, poll=poll)
    (word,) = unpack(U32, reply, "PROTOCOL_ATTRIBUTES")
    return row | {"attributes": Cell(word, f"{word:#010x}")}


@app.command(cls=_WithNumbers)
def describe(
    protocol: MaybeProtocol = "", domain: MaybeId = "",
    connect: Connect = "", token: Token = "", guest: Guest = "", board: Board = None,
    poll: Poll = False, timeout: Timeout = 5.0, as_json: Json = False,
) -> None:  # fmt: skip
    """What there is: clocks with their rates, sensors with their ranges; of all protocols, of one, or one thing."""

    _no_options(protocol, domain)
    one = usage(lambda: view_of(protocol)) if protocol else None

    async def work(session: ScmiSession) -> None:
        agent = session.agent
        if one is not None and domain:
            record = await one.describe(agent, await find(one, agent, domain, poll), poll)
            print_json(values(record)) if as_json else print_record(record)
            return
        views = [one] if one is not None else await _served(agent, poll)
        document: dict[str, Any] = {}
        for at, view in enumerate(views):
            rows = [await view.describe(agent, each, poll) for each in await view.domains(agent, poll)]
            document[view.name] = [values(row) for row in rows]
            if not as_json:
                typer.echo("\n" * (at > 0) + f"{view.name}\n" * (one is None), nl=False)
                print_record(rows[0]) if len(rows) == 1 else print_table(view.name, rows)
        if as_json:
            print_json(document)

    run(Options(connect, token, guest, board, poll, timeout, as_json), work)


async def _served(agent: ScmiAgent, poll: bool) -> list[View]:
    """The protocols that the platform serves us and that we know."""
    served = {0x10, *await agent.base.protocols(poll=poll)}
    return [view for view in VIEWS if view.protocol in served]


@app.command(cls=_WithNumbers)
def get(
    protocol: Protocol, domain: Id,
    attribute: Annotated[str, typer.Argument(metavar="ATTRIBUTE", help="rate, reading …; all without.")] = "",
    connect: Connect = "", token: Token = "", guest: Guest = "", board: Board = None,
    poll: Poll = False, timeout: Timeout = 5.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Read something: `get clock 3 rate`, `get sensor TEMP_PMIC reading`."""

    _no_options(protocol, domain, attribute)
    view = usage(lambda: view_of(protocol))
    wanted = usage(lambda: view.attribute(attribute)) if attribute else None
    readable = usage(view.readable)

    async def work(session: ScmiSession) -> None:
        agent = session.agent
        found = await find(view, agent, domain, poll)
        if wanted is None:
            record = {name: await told(read(agent, found, poll)) for name, read in readable.items()}
            print_json({"id": found.id, "name": found.name} | values(record)) if as_json else print_record(record)
            return
        assert wanted.get is not None
        cell = await wanted.get(agent, found, poll)
        if as_json:
            print_json({"id": found.id, "name": found.name, wanted.name: cell.value})
        else:
            print_line(cell.text)

    run(Options(connect, token, guest, board, poll, timeout, as_json), work)


@app.command("set", cls=_WithNumbers)
def set_attribute(
    protocol: Protocol, domain: Id,
    attribute: Annotated[str, typer.Argument(metavar="ATTRIBUTE", help="rate, enabled, trip …")],
    value: Annotated[list[str], typer.Argument(metavar="VALUE", help="600000000 or 600M; on or off; 0 above 45000 …")],
    connect: Connect = "", token: Token = "", guest: Guest = "", board: Board = None,
    poll: Poll = False, timeout: Timeout = 5.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Set something, and print what it is then: `set clock 3 rate 74.25MHz`, `set sensor 0 trip 0 above 45000`."""

    _no_options(protocol, domain, attribute, *value)
    view = usage(lambda: view_of(protocol))
    wanted = usage(lambda: view.attribute(attribute, settable=True))

    async def work(session: ScmiSession) -> None:
        agent = session.agent
        assert wanted.set is not None
        found = await find(view, agent, domain, poll)
        cell = await wanted.set(agent, found, list(value), poll)
        if as_json:
            print_json({"id": found.id, "name": found.name, wanted.name: cell.value})
        else:
            print_line(f"{view.name} {found.id} {found.name}: {wanted.name} {cell.text}")

    run(Options(connect, token, guest, board, poll, timeout, as_json), work)


@app.command(cls=_WithNumbers)
def watch(
    protocol: MaybeProtocol = "", domain: MaybeId = "",
    seconds: Annotated[float, typer.Option(min=0.0, help="End after so long; 0: at Ctrl-C.")] = 0.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many; 0: at Ctrl-C.")] = 0,
    connect: Connect = "", token: Token = "", guest: Guest = "", board: Board = None,
    poll: Poll = False, timeout: Timeout = 5.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Have the platform's notifications sent and print each as it comes. They are off again afterwards."""

    _no_options(protocol, domain)
    one = usage(lambda: view_of(protocol)) if protocol else None

    async def work(session: ScmiSession) -> None:
        agent = session.agent
        views = [one] if one is not None else await _served(agent, poll)
        sources = await watching.sources(agent, views, domain, poll)
        await watching.watch(session, sources, seconds or None, count or None, as_json)

    with suppress(KeyboardInterrupt):
        run(Options(connect, token, guest, board, poll, timeout, as_json), work)


@app.command()
def trace(
    url: Annotated[str, typer.Argument(metavar="URL", help="Admin URL of the guest service, as `ringmesh up` has it.")],
    on: Annotated[bool | None, typer.Option("--on/--off", help="Turn events on or off; they stay so.")] = None,
    events: Annotated[str, typer.Option(metavar="NAME,…", help="Only these: scmi_xfer_begin, scmi_msg_dump …")] = "",
    guest: Annotated[str, typer.Option(metavar="NAME", help="Only this guest of the service.")] = "",
    follow: Annotated[
        bool, typer.Option("--follow", help="Print lines as they come, until Ctrl-C; with --on only so long is it on.")
    ] = False,
    token: Token = "", as_json: Json = False,
) -> None:  # fmt: skip
    """The messages and transactions of a mesh's agents, in the format of Linux's scmi trace events: what is held."""
    if not url.startswith(("http://", "https://")):
        raise fail(f"{url!r} is not a URL of the form http://HOST:PORT", USAGE)
    names = [name for name in events.split(",") if name]

    async def work() -> None:
        async with tracing.Tracing(url, token) as service:
            await tracing.trace(service, on, names, guest, follow, as_json)

    with suppress(KeyboardInterrupt):
        run_async(work())
