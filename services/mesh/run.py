"""``ringmesh run`` and ``ringmesh up``: start the mesh, drive the workload, show it, stop it, report."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from common.errors import ConfigError, LocalError, RingmeshError
from services.mesh.children import Mesh
from services.mesh.interrupt import INTERRUPTED, Interrupt, InterruptedRunError, first, unless
from services.mesh.report import compose, summary, verdict
from services.mesh.scrape import Scraper
from services.mesh.table import Totals, head, queue_rows, render

#: Seconds between two rounds of the live table, and between two plain lines where stdout is no terminal.
REFRESH: Final = 1.0
PLAIN_EVERY: Final = 5.0


@dataclass(slots=True)
class RunOptions:
    """What the command line says. ``seconds`` may be infinite."""

    seconds: float = 30.0
    guests: int = 1
    board: Path | None = None
    report: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)


async def run(options: RunOptions) -> int:
    """The main job. Returns the exit code: 0 only if nothing was lost, doubled or corrupted.

    Raises ConfigError for options that cannot work, before anything is started.
    """
    if options.report is not None:
        _check_writable(options.report)
    # What services say goes through our console where a person reads it: their lines must not tear the live table.
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    readable = console.is_terminal and sys.stderr.isatty()
    settings = ({"RINGMESH_LOG__FORMAT": "console"} if readable else {}) | options.settings
    mesh = Mesh(
        guests=options.guests,
        board=options.board,
        settings=settings,
        say=console.print,
        line=console.print if readable else None,
    )
    interrupt = Interrupt(mesh.kill)
    books: dict[str, Any] | None = None
    began = ended = 0.0
    try:
        await unless(interrupt.asked, mesh.start())
        if mesh.made_token:
            console.print(f"token {mesh.token} (capture record reads it from RINGMESH_TOKEN)")
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
        return INTERRUPTED if interrupt.asked.is_set() and not mesh.failed.is_set() else 1
    report = compose(ended - began, books, mesh.children.values())
    if options.report is not None:
        options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(summary(report))
    faults = verdict(report)
    console.print("nothing lost, nothing doubled, nothing corrupted" if not faults else "FAILED: " + "; ".join(faults))
    return 1 if faults else 0


def _check_writable(path: Path) -> None:
    """Raise ConfigError now rather than lose the report at the end of the run."""
    at = path if path.exists() else path.absolute().parent
    if path.is_dir():
        raise ConfigError("--report", "", f"{path} is a directory")
    if not at.exists() or not os.access(at, os.W_OK):
        raise ConfigError("--report", "", f"cannot write {path}")


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
            await first(None, interrupt.asked, mesh.failed, timeout=min(left, step))
            await scraper.scrape()
            try:
                books = await mesh.get("guest", "/report")
            except LocalError:
                continue  # a guest that has died says so by mesh.failed
            now = time.monotonic()
            line = head(now - began, seconds, books, before, now - last)
            before, last = Totals.of(books), now
            if live is not None:
                live.update(render(line, scraper, {r: c.restarts for r, c in mesh.children.items()}), refresh=True)
            else:
                console.print(line)
    finally:
        if live is not None:
            live.stop()
        for row in queue_rows(scraper):
            console.print("  ".join(row))
