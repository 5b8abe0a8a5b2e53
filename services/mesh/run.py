"""``ringmesh run`` and ``ringmesh up``: start the mesh, drive the workload, show it, stop it, report."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from common.errors import ConfigError, LocalError, RingmeshError
from services.mesh.children import Mesh
from services.mesh.interrupt import INTERRUPTED, Interrupt, InterruptedRunError, first, unless
from services.mesh.report import closing, compose, summary, verdict
from services.mesh.scrape import Scraper
from services.mesh.settings import faults_on_purpose, inherit
from services.mesh.table import Totals, head, queue_table, render

#: Seconds between two rounds of the live table, and between two plain lines where stdout is no terminal.
REFRESH: Final = 1.0
PLAIN_EVERY: Final = 5.0


@dataclass(slots=True)
class RunOptions:
    """What the command line says. ``seconds`` may be infinite; ``environ`` is the environment it was said in."""

    seconds: float = 30.0
    guests: int = 1
    board: Path | None = None
    report: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)


class _Screen(Console):
    """Standard output. A reader that leaves (``| head``) does not end the run: what follows is dropped."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left in the buffer must not fail again at exit
        os.close(nowhere)


async def run(options: RunOptions) -> int:
    """The main job. Returns the exit code: 0 only if nothing was lost, doubled or corrupted, and no SCMI command timed
    out that a platform without faults on purpose had to answer.

    An old report is removed first; a new one is written only if the guest's books could be closed. Raises ConfigError
    for options and variables that cannot work, before anything is started.
    """
    if options.report is not None:
        _clear(options.report)
    # What services say goes through our console where a person reads it: their lines must not tear the live table.
    console = _Screen(highlight=False, soft_wrap=True, markup=False, emoji=False)
    readable = console.is_terminal and sys.stderr.isatty()
    inherited, ignored = inherit(options.environ)
    inherited = ({"RINGMESH_LOG__FORMAT": "console"} if readable else {}) | inherited
    mesh = Mesh(
        guests=options.guests,
        board=options.board,
        settings=options.settings,
        inherited=inherited,
        say=console.print,
        line=console.print if readable else None,
    )
    if ignored:
        console.print(f"{', '.join(ignored)}: not used, a mesh chooses its own addresses")
    interrupt = Interrupt(mesh.kill)
    books: dict[str, Any] | None = None
    began = ended = 0.0
    try:
        await unless(interrupt.asked, mesh.start())
        if mesh.made_token:
            console.print(f"token {mesh.token} (capture record and scmi read it from RINGMESH_TOKEN)")
        scmi = mesh.children["scmi"].env
        at = f"{scmi['RINGMESH_LISTEN__HOST']}:{scmi['RINGMESH_LISTEN__PORT']}"
        console.print(f"firmware at {at} (ringmesh scmi protocols --connect {at})")
        scraper = Scraper(mesh)
        await scraper.scrape()
        await mesh.post("guest", "/workload/start")
        began = time.monotonic()
        await _watch(mesh, scraper, options.seconds, began, interrupt, console)
        if not mesh.failed.is_set():
            console.print("stopping the workload and waiting for what is in flight …")
            books = await unless(interrupt.forced, mesh.post("guest", "/workload/stop"))
            ended = time.monotonic()
            await scraper.scrape()
    except InterruptedRunError as error:
        console.print(str(error))
    except RingmeshError as error:
        console.print(f"error: {error}")
    finally:
        await mesh.stop()
    if books is None:
        if options.report is not None:
            console.print(f"no report: the run ended before its books were closed; {options.report} is not written")
        return INTERRUPTED if interrupt.asked.is_set() and not mesh.failed.is_set() else 1
    report = compose(ended - began, books, mesh.children.values())
    console.print(summary(report))
    wrong = verdict(report, expected=faults_on_purpose(mesh.children["scmi"].env))
    if options.report is not None:
        try:
            options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            wrong.append(f"no report: {error}")
    console.print(closing(report, wrong))
    return 1 if wrong else 0


def _clear(path: Path) -> None:
    """Remove the report of an earlier run: after a failure it would pass for this run's.

    Raises ConfigError now rather than lose the report at the end of the run.
    """
    at = path if path.exists() else path.absolute().parent
    if path.is_dir():
        raise ConfigError("--report", "", f"{path} is a directory")
    if not at.exists() or not os.access(at, os.W_OK):
        raise ConfigError("--report", "", f"cannot write {path}")
    old = path.resolve()
    if path.absolute().parts[1:2] not in (("dev",), ("proc",)) and old.is_file():
        try:
            old.unlink()
        except OSError as error:
            raise ConfigError("--report", "", f"cannot replace {path}: {error.strerror}") from None


async def _watch(
    mesh: Mesh, scraper: Scraper, seconds: float, began: float, interrupt: Interrupt, console: Console
) -> None:
    """Show the mesh until the time is over, a signal came or the mesh failed."""
    before, last = Totals(0, 0, 0, 0), began
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    step = PLAIN_EVERY if live is None else REFRESH
    if live is not None:
        live.start()
    try:
        while not (interrupt.asked.is_set() or mesh.failed.is_set()):
            left = began + seconds - time.monotonic()
            if left <= 0:
                break
            # the last interval is no mere rest: the table after the end speaks of it
            wait = left if left < 1.5 * step else step
            await first(None, interrupt.asked, mesh.failed, timeout=wait)
            await scraper.scrape()
            try:
                books = await mesh.get("guest", "/report")
            except LocalError:
                continue  # a guest that has died says so by mesh.failed
            now = time.monotonic()
            line = head(now - began, seconds, books, before, now - last)
            before, last = Totals.of(books), now
            if live is not None:
                restarts = {role: child.restarts for role, child in mesh.children.items()}
                live.update(render(line, scraper, restarts, console.width), refresh=True)
            else:
                console.print(line)
    finally:
        if live is not None:
            live.stop()
        console.print(queue_table(scraper))
