"""``ringmesh guest boot | tree | ladder``: a typer app that the main command mounts.

Exit codes of ``boot``: 0 the guest was ready, 1 it was not, 2 something that it needs is missing, 130 interrupted
before. Of ``ladder``: 0, or 1 where guest and platform do not agree.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from common.errors import ConfigError, RingmeshError
from services.linux_guest import files
from services.linux_guest.device_tree import ATOMIC_THRESHOLD_US
from services.linux_guest.qemu import LEAST_MEMORY, MAX_CPUS, MOST_MEMORY, Machine, Qemu

USAGE: Final = 2
FAILURE: Final = 1

app: Final = typer.Typer(
    help="A real Linux guest on our platform: boot it, its device tree, its trace as a ladder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Board = Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Board file of the platform (TOML).")]
Cpus = Annotated[int, typer.Option(min=1, max=MAX_CPUS, help="The guest's processors.")]
Memory = Annotated[int, typer.Option(min=LEAST_MEMORY, max=MOST_MEMORY, metavar="MIB", help="The guest's memory.")]
Mmio = Annotated[bool, typer.Option("--mmio", help="The SCMI device on virtio-mmio in place of PCI.")]
Threshold = Annotated[
    int, typer.Option(min=0, metavar="US", help="Clocks that are enabled in so many µs are polled for.")
]


def _fail(error: Exception) -> typer.Exit:
    typer.echo(f"ringmesh: {error}", err=True)
    return typer.Exit(USAGE if isinstance(error, ConfigError) else FAILURE)


@app.command()
def boot(
    board: Board = files.BOARD,
    kernel: Annotated[Path | None, typer.Option(help="arm64 Image; what `make linux-guest` made without.")] = None,
    initrd: Annotated[Path | None, typer.Option(help="First file system; ours without.")] = None,
    append: Annotated[str, typer.Option(help="More kernel parameters.")] = "",
    seconds: Annotated[float, typer.Option(min=0, help="End after so long; 0: when the guest ends.")] = 0.0,
    cpus: Cpus = 2,
    memory: Memory = 256,
    mmio: Mmio = False,
    threshold: Threshold = ATOMIC_THRESHOLD_US,
    script: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Shell script that the guest runs before it is ready."),
    ] = None,
    power_off_after: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="So long after GUEST-READY the platform asks for shutdown."),
    ] = None,
    trace: Annotated[bool, typer.Option(help="Record the guest's scmi events; printed at the end.")] = False,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the platform, repeatable.")
    ] = None,
) -> None:
    """Boot Linux under QEMU on our platform, its console and the SCMI trace side by side. Exit 0 if it got ready."""
    from common.runtime.config import variables
    from services.linux_guest.boot import run
    from services.linux_guest.guest import Boot
    from services.scmi_platform.board import Board as BoardFile

    try:
        Qemu.find()
        if power_off_after is not None and BoardFile.load(board).system_power is None:
            raise ConfigError("--power-off-after", "", f"{board} has no [system_power], nothing asks for shutdown")
        plan = Boot(
            board=board,
            kernel=files.kernel(kernel),
            initrd=files.initrd(initrd),
            machine=Machine(cpus, memory, mmio),
            append=append,
            traced=trace,
            script=script.read_bytes() if script is not None else b"",
            atomic_threshold_us=threshold,
            settings=variables(setting),
        )
        code = asyncio.run(run(plan, seconds=seconds or float("inf"), power_off_after=power_off_after))
    except RingmeshError as error:
        raise _fail(error) from None
    raise typer.Exit(code)


@app.command()
def tree(
    board: Board = files.BOARD,
    out: Annotated[Path | None, typer.Option(help="Write the flattened tree to FILE.", metavar="FILE")] = None,
    cpus: Cpus = 2,
    memory: Memory = 256,
    threshold: Threshold = ATOMIC_THRESHOLD_US,
) -> None:
    """The device tree that a guest with this board gets: as source on standard output, or flattened to a file."""
    from services.linux_guest.device_tree import build, text
    from services.scmi_platform.board import Board as BoardFile

    try:
        machine = Machine(cpus, memory)
        flat = build(Qemu.find().device_tree(machine), BoardFile.load(board), atomic_threshold_us=threshold)
        if out is None:
            typer.echo(text(flat))
        else:
            out.write_bytes(flat)
    except (RingmeshError, OSError) as error:
        raise _fail(error) from None


@app.command()
def ladder(
    trace: Annotated[
        Path,
        typer.Argument(help="What `guest boot --trace` printed, a console, or ftrace text; -: standard input."),
    ],
    platform: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The platform's trace of the same run (GET /trace, or its lines)."
        ),
    ] = None,
) -> None:
    """Draw a guest's scmi events as a ladder, a column a CPU, and beside them what the platform saw."""
    from services.linux_guest import ftrace
    from services.linux_guest.screen import source_of
    from services.linux_guest.trace_compare import compare
    from services.linux_guest.trace_ladder import ladder as draw

    try:
        text = sys.stdin.read() if trace == Path("-") else trace.read_text(errors="replace")
        said = source_of(text, "scmi") if platform is None else _lines(platform)
        guest = ftrace.parse(_traced(source_of(text, "console") or text))
        theirs = ftrace.parse(said)
    except OSError as error:
        raise _fail(ConfigError(error.filename, "", error.strerror or str(error))) from None
    if not guest.events:
        raise _fail(
            ConfigError(str(trace), "", "no scmi events in it (trace_event=scmi:* on the kernel's command line)")
        )
    if platform is not None and not theirs.messages:
        raise _fail(ConfigError("--platform", "", f"no scmi_msg_dump lines in {platform}"))
    typer.echo(draw(guest.events, theirs.messages), nl=False)
    for name, count in (("could not be read", guest.unread), ("were lost by ftrace", guest.lost)):
        if count:
            typer.echo(f"{count} events {name}", err=True)
    if said and not compare(guest.messages, theirs.messages).equal:
        raise typer.Exit(FAILURE)


def _traced(text: str) -> str:
    """The last trace that a console shows: our init prints it when it is ready and again at power-off."""
    from services.linux_guest.console import Console

    console = Console()
    console.feed(text.encode())
    section = console.section("trace")
    return section.text if section is not None else text


def _lines(path: Path) -> str:
    """The lines of a trace, also where they stand in the JSON of the admin endpoint."""
    import json

    content = path.read_text(errors="replace")
    try:
        said = json.loads(content)
    except ValueError:
        return content
    return "\n".join(said.get("lines", [])) if isinstance(said, dict) else content
