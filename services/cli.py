"""The ``ringmesh`` command. Each subcommand imports what it needs when it runs: ``serve`` starts in a moment."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError, RingmeshError

app = typer.Typer(
    name="ringmesh",
    help="A virtualised Arm platform as a mesh of asyncio services: guest driver, SCMI firmware, vDPA NIC, GIC ITS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
capture_app = typer.Typer(help="Record what a service's links carry, and read it.", no_args_is_help=True)
app.add_typer(capture_app, name="capture")

USAGE = 2


class Role(StrEnum):
    """The services."""

    GUEST = "guest"
    SCMI = "scmi"
    NIC = "nic"
    ITS = "its"


def _fail(error: Exception) -> typer.Exit:
    typer.echo(f"ringmesh: {error}", err=True)
    return typer.Exit(USAGE)


Board = Annotated[Path | None, typer.Option(help="Board file of the SCMI platform (TOML).")]
Guests = Annotated[int, typer.Option(min=1, max=64, help="Guests in the guest service, each with its own memory.")]
Report = Annotated[Path | None, typer.Option(help="Write the report to FILE as JSON.", metavar="FILE.json")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting for all services, as RINGMESH_… variables have it: LOG__LEVEL=debug."),
]


def _settings(pairs: list[str] | None) -> dict[str, str]:
    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError("--set", pair, "NAME=VALUE is wanted")
        settings[f"RINGMESH_{name.upper().removeprefix('RINGMESH_')}"] = value
    return settings


@app.command()
def run(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long the workload runs.")] = 30.0,
    guests: Guests = 1,
    board: Board = None,
    report: Report = None,
    setting: Settings = None,
) -> None:
    """Start the four services on loopback, drive the default workload, show it live, stop, report.

    Exit 0 only if nothing was lost, doubled or corrupted.
    """
    from services.mesh.run import RunOptions
    from services.mesh.run import run as run_mesh

    try:
        options = RunOptions(seconds, guests, board, report, _settings(setting))
        code = asyncio.run(run_mesh(options))
    except RingmeshError as error:
        raise _fail(error) from None
    raise typer.Exit(code)


@app.command()
def up(guests: Guests = 1, board: Board = None, report: Report = None, setting: Settings = None) -> None:
    """The mesh under its workload until Ctrl-C."""
    from services.mesh.run import RunOptions
    from services.mesh.run import up as mesh_up

    try:
        code = asyncio.run(mesh_up(RunOptions(guests=guests, board=board, report=report, settings=_settings(setting))))
    except RingmeshError as error:
        raise _fail(error) from None
    raise typer.Exit(code)


@app.command()
def serve(
    role: Role,
    config: Annotated[Path | None, typer.Option(help="Settings (TOML); RINGMESH_… variables overlay them.")] = None,
) -> None:
    """Run one service in the foreground: what a container runs."""
    try:
        code = _serve(role)(config)
    except ConfigError as error:
        raise _fail(error) from None
    raise typer.Exit(code)


def _serve(role: Role) -> Callable[[Path | None], int]:
    """What loads the settings of ``role`` and runs it."""
    from common.runtime.config import load
    from common.runtime.service import run_service

    if role is Role.GUEST:
        from services.guest_driver.config import GuestConfig
        from services.guest_driver.shell import GuestService

        return lambda path: run_service(GuestService, load(GuestConfig, path))
    if role is Role.SCMI:
        from services.scmi_platform.config import ScmiConfig
        from services.scmi_platform.shell import ScmiService

        return lambda path: run_service(ScmiService, load(ScmiConfig, path))
    if role is Role.NIC:
        from services.vdpa_nic.config import NicConfig
        from services.vdpa_nic.shell import NicService

        return lambda path: run_service(NicService, load(NicConfig, path))
    from services.gic_its.config import ItsConfig
    from services.gic_its.shell import ItsService

    return lambda path: run_service(ItsService, load(ItsConfig, path))


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option(help="Write the figures to FILE as JSON.", metavar="FILE")] = None,
    only: Annotated[str | None, typer.Option(help="Run the benchmarks whose name contains this.")] = None,
) -> None:
    """Run the benchmarks of tests/bench, each beside its baseline in the same minute."""
    script = Path(__file__).resolve().parents[1] / "tests" / "bench" / "run.py"
    if not script.is_file():
        raise _fail(ConfigError("bench", "", f"{script} is not part of this installation"))
    command = [sys.executable, str(script)]
    command += ["--json", str(json)] if json else []
    command += ["--only", only] if only else []
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@capture_app.command("record")
def capture_record(
    admin: Annotated[str, typer.Argument(help="Admin URL of a service, as `ringmesh run` prints it.")],
    out: Annotated[Path, typer.Argument(help="File to write: a msgpack stream of [time, link, direction, frame].")],
    link: Annotated[str | None, typer.Option(help="Only this link (guest/NAME, nic, its …).")] = None,
    direction: Annotated[str | None, typer.Option(help="Only 'in' or only 'out'.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = 5.0,
    token: Annotated[str, typer.Option(envvar="RINGMESH_TOKEN", help="The mesh's token, where one is set.")] = "",
) -> None:
    """Record the frames of a service's links to a file."""
    from common.runtime.capture import record

    try:
        result = asyncio.run(record(admin, out, link=link, direction=direction, seconds=seconds, token=token))
    except (RingmeshError, OSError) as error:
        raise _fail(error) from None
    typer.echo(f"{result} records in {out}")


@capture_app.command("show")
def capture_show(
    path: Annotated[Path, typer.Argument(help="A file that `capture record` wrote.")],
    link: Annotated[str | None, typer.Option(help="Only this link.")] = None,
    direction: Annotated[str | None, typer.Option(help="Only 'in' or only 'out'.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only messages with this tag (avail, used, msi …).")] = None,
    queue: Annotated[int | None, typer.Option(help="Only messages about this queue.")] = None,
) -> None:
    """Print a capture, one line a frame."""
    from common.runtime.capture import Filter, show

    try:
        for line in show(path, Filter(link=link, direction=direction, tag=tag, queue=queue)):
            typer.echo(line)
    except (RingmeshError, OSError) as error:
        raise _fail(error) from None


def main() -> None:
    """Entry point of the ``ringmesh`` command."""
    if len(sys.argv) > 1 and sys.argv[1] == "lab":
        # the lab brings its own interpreter of schedules along: only when asked for
        from services.lab.command import app as lab_app

        app.add_typer(lab_app, name="lab")
    else:
        app.add_typer(typer.Typer(help="Races: list, run, replay scenarios on the code that ships."), name="lab")
    app()


if __name__ == "__main__":
    main()
