"""``ringmesh its dump | save | restore``: a typer app that the main command mounts.

Exit codes: 0 done, 1 the ITS refused or the mesh could not be reached, 2 usage, a bad file among it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer

from common.errors import RemoteError, RingmeshError
from common.gic.saved import MAX_FILE, SavedIts, decode
from common.gic.walk import Walk, walk
from services.its_cli.picture import svg
from services.its_cli.restore import restored
from services.its_cli.routes import ItsOfMesh
from services.its_cli.view import about, counted, events, tables
from services.scmi_cli.output import print_json, print_line, print_record, print_table, printable

T = TypeVar("T")

USAGE: Final = 2
FAILURE: Final = 1

app: Final = typer.Typer(
    help="An ITS: what it has mapped, as tables and as a picture; save it, restore it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _fail(error: object, code: int) -> typer.Exit:
    typer.echo(f"ringmesh its: {printable(str(error), sys.stderr.encoding)}", err=True)
    return typer.Exit(code)


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = not text or (parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:  # of the port
        good = False
    if not good:
        raise typer.BadParameter(f"{text!r} is not a URL of the form http://HOST:PORT")
    return text


Admin = Annotated[
    str,
    typer.Option(
        "--admin", callback=_url, metavar="URL", help="Admin URL of the guest service, as `ringmesh up` has it."
    ),
]
Guest = Annotated[str, typer.Option(metavar="NAME", help="This guest of the service; where there is one, that one.")]
Token = Annotated[str, typer.Option(envvar="RINGMESH_TOKEN", help="The mesh's token, where one is set.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A saved ITS.")]


@app.command()
def dump(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A file that `its save` wrote.")] = None,
    admin: Admin = "",
    guest: Guest = "",
    token: Token = "",
    picture: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Write the mappings as a picture, too.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="kvm: also entries of the tables that a restore does not come by.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What is mapped and pending: of a saved ITS, or with --admin of a mesh's."""
    if (file is None) == (not admin):
        raise _fail("either FILE or --admin URL is wanted", USAGE)
    if file is not None:
        _, saved = _read(file)
    else:
        saved = _decoded(_mesh(admin, token, guest, lambda its: its.save()))
    found = walk(saved, everything=everything)
    if picture is not None:
        _write(picture, svg(found, printable(f"ITS of {file or guest or admin}", "utf-8")).encode())
    _print(found, as_json)


@app.command()
def save(file: File, admin: Admin, guest: Guest = "", token: Token = "") -> None:
    """Save the ITS of a mesh's guest.

    Registers, and the guest memory that its tables are in; the guest's vCPUs stand still meanwhile.
    """
    data = _mesh(admin, token, guest, lambda its: its.save())
    found = walk(_decoded(data))
    _write(file, data)
    print_line(f"{len(data)} bytes in {file}: {_count(found)}")


@app.command()
def restore(file: File, admin: Admin = "", guest: Guest = "", token: Token = "", as_json: Json = False) -> None:
    """Restore a saved ITS, as a VMM does.

    Into a fresh one in this process, or with --admin into that of a mesh's guest. Prints what is mapped then, or the
    error that the VMM is told.
    """
    data, saved = _read(file)
    if admin:
        answer = _mesh(admin, token, guest, lambda its: its.restore(data))
        document = {"guest": answer.guest, "events": answer.events}
        print_json(document) if as_json else print_line(f"{answer.guest}: {counted(answer.events, 'event')} restored")
        return
    try:
        found = asyncio.run(restored(saved))
    except RemoteError as error:
        raise _fail(error, FAILURE) from None
    _print(found, as_json)


def _count(found: Walk) -> str:
    return f"{counted(len(found.devices), 'device')}, {counted(len(events(found)), 'event')}"


def _print(found: Walk, as_json: bool) -> None:
    try:
        if as_json:
            print_json(msgspec.to_builtins(found))
        else:
            print_record(about(found))
            for title, rows in tables(found):
                typer.echo()
                if not sys.stdout.isatty():  # where it is one, the table has its title
                    print_line(title)
                print_table(title, rows)
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left in the buffer must not fail again at exit
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):  # that is a reader who has seen enough
            raise _fail(error, FAILURE) from None


def _read(file: Path) -> tuple[bytes, SavedIts]:
    """A file and what it holds; the end of the command, with exit code 2, where that is no saved ITS."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
        return data, decode(data)
    except OSError as error:
        raise _fail(f"{file}: {error.strerror}", USAGE) from None
    except RemoteError as error:
        raise _fail(f"{file}: {error}", USAGE) from None


def _decoded(data: bytes) -> SavedIts:
    try:
        return decode(data)
    except RemoteError as error:
        raise _fail(f"what the mesh saved: {error}", FAILURE) from None


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise _fail(f"{file}: {error.strerror}", USAGE) from None


def _mesh(admin: str, token: str, guest: str, ask: Callable[[ItsOfMesh], Any]) -> Any:
    """What the mesh answers; the end of the command, with exit code 1, where it refuses or nobody is there."""

    async def main() -> Any:
        async with ItsOfMesh(admin, token, guest) as its:
            return await ask(its)

    try:
        return asyncio.run(main())
    except RingmeshError as error:
        raise _fail(error, FAILURE) from None
