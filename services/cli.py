"""The ``ringmesh`` command. Each subcommand imports what it needs when it runs: ``serve`` starts in a moment."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from typer.core import TyperGroup

from common.errors import ConfigError, RingmeshError

USAGE: Final = 2
FAILURE: Final = 1


class _Commands(TyperGroup):
    """The commands. The lab, scmi, its and guest bring much along, so they are imported only when asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] == "lab":
            from services.lab.command import app as lab

            return "lab", typer.main.get_group(lab), args[1:]
        if args and args[0] == "guest":
            from services.linux_guest.command import app as guest

            return "guest", typer.main.get_group(guest), args[1:]
        if args and args[0] == "scmi":
            from services.scmi_cli.command import app as scmi

            return "scmi", typer.main.get_group(scmi), args[1:]
        if args and args[0] == "its":
            from services.its_cli.command import app as its

            return "its", typer.main.get_group(its), args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="ringmesh",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
capture_app = typer.Typer(help="Frames of a service's links: record, show.", no_args_is_help=True)
app.add_typer(capture_app, name="capture")
# what --help lists; _Commands puts the real ones in their places
app.add_typer(typer.Typer(help="Races on the shipped code: list, run, replay."), name="lab")
app.add_typer(typer.Typer(help="A real Linux guest on our platform: boot, tree, ladder."), name="guest")
app.add_typer(typer.Typer(help="The firmware: protocols, describe, get, set, watch, trace."), name="scmi")
app.add_typer(typer.Typer(help="An ITS: dump what it has mapped, save it, restore it."), name="its")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"ringmesh {version('ringmesh')}")
        except PackageNotFoundError:
            raise _fail(ConfigError("--version", "", "ringmesh is not installed; `make run` does that")) from None
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A virtualised Arm platform as a mesh of asyncio services: guest driver, SCMI firmware, vDPA NIC, GIC ITS."""


class Role(StrEnum):
    """The services."""

    GUEST = "guest"
    SCMI = "scmi"
    NIC = "nic"
    ITS = "its"


class Direction(StrEnum):
    """Of a frame, as the recording service saw it."""

    IN = "in"
    OUT = "out"


def _fail(error: Exception) -> typer.Exit:
    typer.echo(f"ringmesh: {error}", err=True)
    return typer.Exit(USAGE if isinstance(error, ConfigError) else FAILURE)


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is not a length of time; `ringmesh up` runs until Ctrl-C")
    return seconds


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of the port
        good = False
    if not good:
        raise typer.BadParameter(f"{text!r} is not a URL of the form http://HOST:PORT")
    return text


Seconds = typer.Option(min=0.1, callback=_finite, help="How long.")
Board = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Board file of the SCMI platform (TOML).")
]
Guests = Annotated[int, typer.Option(min=1, max=64, help="Guests in the guest service, each with its own memory.")]
Report = Annotated[Path | None, typer.Option(help="Write the report to FILE as JSON.", metavar="FILE.json")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the services that know it: LOG__LEVEL=info, repeatable."
    ),
]
Link = Annotated[str, typer.Option(help="Only this link: a role, or role/guest.")]
Dir = Annotated[Direction | None, typer.Option(help="Only this direction, as the service saw it.")]


@app.command()
def run(
    seconds: Annotated[float, Seconds] = 30.0,
    guests: Guests = 1,
    board: Board = None,
    report: Report = None,
    setting: Settings = None,
) -> None:
    """Start the four services on loopback, drive the default workload, show it live, stop, report.

    Exit 0 only if nothing was lost, doubled or corrupted. Ctrl-C ends the run in order, a second one at once.
    """
    _run_mesh(seconds, guests, board, report, setting)


@app.command()
def up(guests: Guests = 1, board: Board = None, report: Report = None, setting: Settings = None) -> None:
    """The mesh under its workload until Ctrl-C; then as `run`."""
    _run_mesh(math.inf, guests, board, report, setting)


def _run_mesh(seconds: float, guests: int, board: Path | None, report: Path | None, pairs: list[str] | None) -> None:
    from common.runtime.config import variables
    from services.mesh.run import RunOptions
    from services.mesh.run import run as run_mesh

    try:
        code = asyncio.run(run_mesh(RunOptions(seconds, guests, board, report, variables(pairs), os.environ)))
    except RingmeshError as error:
        raise _fail(error) from None
    raise typer.Exit(code)


@app.command()
def serve(
    role: Role,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Settings (TOML); RINGMESH_… variables overlay them."),
    ] = None,
    raw: Annotated[
        str, typer.Option(help="scmi: answer bare SCMI messages here.", metavar="tcp:HOST:PORT|unix:/PATH")
    ] = "",
    profile: Annotated[str, typer.Option(help="scmi: the release of SCMI to show.", metavar="scmi-2.0|scmi-3.2")] = "",
    state: Annotated[
        Path | None, typer.Option(help="scmi: keep in FILE what agents set, over a restart.", metavar="FILE")
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            help="scmi: instead of a mesh, serve the vhost-user front end (QEMU) that connects here. Repeatable.",
            metavar="vhost-user:PATH[,agent=NAME]",
        ),
    ] = None,
    board: Board = None,
) -> None:
    """Run one service in the foreground: what a container runs."""
    from services.mesh.lifeline import follow

    follow(os.environ)
    try:
        flags = {"raw": raw, "profile": profile, "board": str(board or ""), "state": str(state or "")}
        for name, value in flags.items():
            if value and role is not Role.SCMI:
                raise ConfigError(f"--{name}", value, "is for scmi")
        flags["raw__listen"] = flags.pop("raw")
        environ = os.environ | {f"RINGMESH_{name.upper()}": value for name, value in flags.items() if value}
        code = _serve_vhost_user(role, config, environ, listen) if listen else _serve(role)(config, environ)
    except ConfigError as error:
        raise _fail(error) from None
    raise typer.Exit(code)


def _serve_vhost_user(role: Role, path: Path | None, environ: Mapping[str, str], listen: list[str]) -> int:
    import msgspec

    from common.runtime.config import load
    from common.runtime.service import run_service
    from services.vhost_user.config import SCHEME, VhostUserConfig
    from services.vhost_user.server import VhostUserScmi

    for text in listen:
        if role is not Role.SCMI or not text.startswith(SCHEME):
            raise ConfigError("--listen", text, f"serve scmi --listen {SCHEME}PATH is wanted")
    config = load(VhostUserConfig, path, environ)
    return run_service(VhostUserScmi, msgspec.structs.replace(config, sockets=(*config.sockets, *listen)))


def _serve(role: Role) -> Callable[[Path | None, Mapping[str, str]], int]:
    """What loads the settings of ``role``, overlaid from an environment, and runs it."""
    from common.runtime.config import load
    from common.runtime.service import run_service

    if role is Role.GUEST:
        from services.guest_driver.config import GuestConfig
        from services.guest_driver.shell import GuestService

        return lambda path, environ: run_service(GuestService, load(GuestConfig, path, environ))
    if role is Role.SCMI:
        from services.scmi_platform.config import ScmiConfig
        from services.scmi_platform.shell import ScmiService

        return lambda path, environ: run_service(ScmiService, load(ScmiConfig, path, environ))
    if role is Role.NIC:
        from services.vdpa_nic.config import NicConfig
        from services.vdpa_nic.shell import NicService

        return lambda path, environ: run_service(NicService, load(NicConfig, path, environ))
    from services.gic_its.config import ItsConfig
    from services.gic_its.shell import ItsService

    return lambda path, environ: run_service(ItsService, load(ItsConfig, path, environ))


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option(help="Write the figures to FILE as JSON.", metavar="FILE")] = None,
    only: Annotated[str | None, typer.Option(help="Run the benchmarks whose name contains this.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Print also where the time of the mesh goes.")] = False,
) -> None:
    """Run the benchmarks of tests/bench, each beside its baseline in the same minute."""
    script = Path(__file__).resolve().parents[1] / "tests" / "bench" / "run.py"
    if not script.is_file():
        raise _fail(ConfigError("bench", "", f"{script} is not part of this installation"))
    command = [sys.executable, str(script)]
    command += ["--json", str(json)] if json else []
    command += ["--only", only] if only else []
    command += ["--profile"] if profile else []
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@capture_app.command("record")
def capture_record(
    admin: Annotated[str, typer.Argument(callback=_url, help="Admin URL of a service, as `ringmesh run` prints it.")],
    out: Annotated[Path, typer.Argument(help="File to write: a msgpack stream of [time, link, direction, frame].")],
    link: Link = "",
    direction: Dir = None,
    seconds: Annotated[float, Seconds] = 5.0,
    token: Annotated[str, typer.Option(envvar="RINGMESH_TOKEN", help="The mesh's token, where one is set.")] = "",
) -> None:
    """Record the frames of a service's links to a file."""
    from common.runtime.recording import record

    try:
        size = asyncio.run(record(admin, out, link=link, direction=direction or "", seconds=seconds, token=token))
    except (RingmeshError, OSError, ValueError) as error:
        raise _fail(error) from None
    typer.echo(f"{size} bytes in {out}")


@capture_app.command("show")
def capture_show(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that `capture record` wrote.")],
    link: Link = "",
    direction: Dir = None,
    tag: Annotated[str, typer.Option(help="Only messages with this tag (avail, used, msi …).")] = "",
    queue: Annotated[int | None, typer.Option(help="Only messages about this queue.")] = None,
) -> None:
    """Print a capture, one line a frame. A reader that has seen enough (``| head``) ends it."""
    from common.runtime.recording import Filter, show

    try:
        for line in show(path, Filter(link=link, direction=direction or "", tag=tag, queue=queue)):
            typer.echo(line)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left in the buffer must not fail again at exit
        os.close(nowhere)
    except (RingmeshError, OSError) as error:
        raise _fail(error) from None


def main() -> None:
    """Entry point of the ``ringmesh`` command."""
    app()


if __name__ == "__main__":
    main()
